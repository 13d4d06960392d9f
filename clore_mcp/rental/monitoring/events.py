"""What happens without being asked for: which steps of the ledger are events, and each in a sentence with its cure.

And what has changed of the orders since the last look: by the ledger, whoever wrote it, and by what this process saw.
Nothing is asked of Clore for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from clore_mcp.clore import OrderRow
from clore_mcp.store import ledger
from clore_mcp.store.database import CLOCK_SLACK_SECONDS, Tx
from clore_mcp.store.ledger import Entry
from clore_mcp.text import clean

if TYPE_CHECKING:
    from clore_mcp.rental.context import Context

_WORTH: Final = 80  # characters of a figure
NOTES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "never_deployed": "Not up after {minutes} minutes, and billing: ask whether to end it (cancel_order).",
        "outbid": "Another renter has its server; nothing is billed. set_spot_price raises it, cancel_order ends it.",
        "host_offline": "Clore shows its host as offline, and it may still bill: cancel_order unless it comes back.",
        "wallet_short": "{coin} lasts {hours_left} h, less than what runs: top up on clore.ai, or cancel_order.",
        "costs_more": "{price_per_day} {coin} a day, {ceiling_per_day} approved: set_spot_price or cancel_order.",
        "unleased": "Made elsewhere, and nothing here ends it: extend_order gives it an end.",
        "late_order_adopted": "A create that seemed to have failed had made it; it has its end.",
        "uncertain": "An order may run without being listed: list_orders looks for it.",
        "cancel_unverified": "Not proven gone, so it may still bill: cancel_order again.",
        "ended": "It is proven gone.",
        "ended_unseen": "No list shows it any more, so it counts as gone.",
        "order_seen_again": "It counted as gone and is listed as running: it has its end back, and is cancelled if that"
        " is over.",
        "account_doubtful": "Made here under another key, and not listed for this one: it may run and nothing here ends"
        " it. Ask the person to look on clore.ai.",
        "account_recognized": "Orders made here under another key or account are listed for this key: they are its"
        " own, and have their ends.",
        "price_unknown": "Clore does not tell its price: list_orders, and cancel_order if it is dearer.",
        "above_ceiling": "Dearer than approved, so it ends at once.",
        "lease_over": "Its hours are over and it goes on, as agreed: cancel_order or extend_order.",
        "lease_ended": "Its hours are over; it was cancelled.",
        "still_billing": "Its hours are over and it is not proven gone: cancel_order, or end it on clore.ai.",
        "state_restored": "The state is an older copy of itself, so every question and yes in it has lapsed.",
        "key_refused": "Clore refused the API key: nothing can be ended until it is replaced.",
        "never_won_nothing_billed": "A spot bid that has ended without winning once.",
        "watch_fired": "Watch {watch_id} rented it; it has its end.",
        "watch_held_up": "Watch {watch_id} could rent now, but: {why}",
        "watch_met": "Watch {watch_id}: it costs {usd_per_hour} USD per hour with fees. Nothing was rented.",
        "watch_expired": "Watch {watch_id} ran out before it had rented, or told of, all that it might have.",
        "orphaned": "",
        "frozen": "",
        "lifted": "",
    }
)
"""Each event with what it means, figures of its own in braces."""


def note_of(entry: Entry) -> str | None:
    """That sentence; None where the step says enough, or its figures are missing."""
    figures = {name: clean(str(value), _WORTH) for name, value in (entry.data or {}).items()}
    try:
        return NOTES.get(entry.step, "").format_map(figures) or None
    except KeyError:  # written by another version
        return None


def told(entry: Entry) -> dict[str, Any]:
    """An event for whoever is told of it: `what` as one word, the figures as they are, every text cleaned."""
    figures = {
        name: clean(value, _WORTH) if isinstance(value, str) else value
        for name, value in (entry.data or {}).items()
        if isinstance(value, str | int | float | list)
    }
    row = {"what": entry.step, "order_id": entry.order_id, "server_id": entry.server_id, "note": note_of(entry)}
    return {name: value for name, value in row.items() if value is not None} | {"figures": figures}


_MOST: Final = 500  # rows of the ledger in one look


@dataclass(frozen=True, slots=True)
class Changed:
    """The orders that changed, whether what is told of all orders and the account did, and whether the ledger grew."""

    order_ids: frozenset[int] = frozenset()
    account: bool = False
    ledger: bool = False


class Changes:
    """Looks from `since` on (this machine's clock), each time from where it was."""

    def __init__(self, context: Context, since: float) -> None:
        self._context = context
        self._since = since
        self._seq: int | None = None
        self._rows: dict[int, tuple[Any, ...]] | None = None

    async def look(self) -> Changed:
        """What is new. Raises StateUnavailable."""
        seen = self._seen()
        steps = await self._context.state.read(self._steps) if self._context.state.exists else []
        told = {one.order_id for one in steps if one.order_id is not None}
        return Changed(
            order_ids=frozenset(seen | told),
            account=bool(seen or told) or any(one.step in NOTES for one in steps),
            ledger=bool(steps),
        )

    def _steps(self, tx: Tx) -> list[ledger.Entry]:
        newest = ledger.newest(tx)
        if self._seq is None:
            self._seq = ledger.newest_before(tx, self._since - CLOCK_SLACK_SECONDS, _MOST)
        elif newest < self._seq:  # another state was begun
            self._seq = 0
        found = ledger.after(tx, self._seq, _MOST)
        self._seq = max([self._seq, *(one.seq or 0 for one in found)])
        return found

    def _seen(self) -> set[int]:
        """The orders that look different from the list before."""
        current = self._context.readings.latest
        if current is None:
            return set()
        before, self._rows = self._rows, {row.id: _look_of(row) for row in current.rows}
        if before is None:
            return set()
        return {number for number in before.keys() | self._rows.keys() if before.get(number) != self._rows.get(number)}


def _look_of(row: OrderRow) -> tuple[Any, ...]:
    """What is told of an order, but for what it has cost: that changes each minute."""
    ports = (*(row.hosts or ()), *(row.tcp_ports or ()), row.http_host)
    return row.server_id, row.image, row.price, row.currency, row.expired, row.online, row.container, ports

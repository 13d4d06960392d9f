"""Events, which happen without a tool call: the ledger steps that are events, each with its meaning and what to do.

This module also finds which orders have changed since the last look, from the ledger and from the lists that this
process has read. It sends nothing to Clore.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from clore_mcp.clore import OrderRow
from clore_mcp.rental.account.reading import Readings
from clore_mcp.store import CLOCK_SLACK_SECONDS, Database, Entry, Tx, ledger
from clore_mcp.text import clean

FIGURE_SHOWN: Final = 80  # characters
_MOST: Final = 500  # ledger rows read in one look
NOTES: Final[Mapping[str, str]] = {
    "never_deployed": "Not up after {minutes} minutes, and billed. Ask whether to end it with cancel_order.",
    "outbid": "Outbid: nothing is billed. To raise the bid, use set_spot_price. To end the order, use cancel_order.",
    "host_offline": "Clore shows its host as offline, and it may still be billed. Use cancel_order unless it"
    " comes back.",
    "wallet_short": "{coin} lasts {hours_left} h, less than the running orders need. Top up on clore.ai, or"
    " use cancel_order.",
    "costs_more": "It costs {price_per_day} {coin} per day, but {ceiling_per_day} was approved. Use"
    " set_spot_price or cancel_order.",
    "unleased": "Made elsewhere, and nothing here ends it. To give it an end, use extend_order.",
    "late_order_adopted": "A create that seemed to have failed had made it. It has its end.",
    "uncertain": "An order may run without being listed. list_orders checks for it again.",
    "cancel_unverified": "Not proven gone, so it may still be billed. Call cancel_order again.",
    "ended": "It is proven gone.",
    "ended_unseen": "No list shows it any more, so it counts as gone.",
    "order_seen_again": "It counted as gone but is listed as running. It has its end again, and is cancelled"
    " if that has passed.",
    "account_doubtful": "Made here under another key and not listed for this one. It may run, and nothing here ends"
    " it. Ask the person to check clore.ai.",
    "account_recognized": "Orders made here under another key or account are listed for this key. They belong to it"
    " and have their ends.",
    "price_unknown": "Clore does not report its price. Check list_orders, and use cancel_order if it costs"
    " more than approved.",
    "above_ceiling": "It costs more than approved, so it is cancelled at once.",
    "lease_over": "Its hours are over, and it keeps running as agreed. Use cancel_order or extend_order.",
    "lease_ended": "Its hours were over, so it was cancelled.",
    "still_billing": "Its hours are over, and it is not proven gone. Use cancel_order, or end it on clore.ai.",
    "state_restored": "The state is an older copy of itself, so every question and approval in it has lapsed.",
    "key_refused": "Clore refused the API key, so no order can be ended until it is replaced.",
    "never_won_nothing_billed": "A spot bid that ended without ever winning.",
    "watch_fired": "Watch {watch_id} rented it. It has its end.",
    "watch_held_up": "Watch {watch_id} could rent now, but: {why}",
    "watch_met": "Watch {watch_id}: it costs {usd_per_hour} USD per hour including fees. Nothing was rented.",
    "watch_expired": "Watch {watch_id} expired before it had made all of its orders or notified.",
    "orphaned": "",
    "frozen": "",
    "lifted": "",
}
"""The sentence for each event, with the names of its figures in braces."""


def note_of(entry: Entry) -> str | None:
    """Return the sentence for an event, or None if the step says enough or its figures are missing."""
    figures = {name: clean(str(value), FIGURE_SHOWN) for name, value in (entry.data or {}).items()}
    try:
        return NOTES.get(entry.step, "").format_map(figures) or None
    except KeyError:  # written by another version
        return None


@dataclass(frozen=True, slots=True)
class Changed:
    """The orders that changed, whether the account or its list of orders changed, and whether the ledger grew."""

    order_ids: frozenset[int] = frozenset()
    account: bool = False
    ledger: bool = False


class Changes:
    """Finds changes from `since` on (this machine's clock). Each look continues from the last one."""

    def __init__(self, state: Database, readings: Readings, since: float) -> None:
        self._state = state
        self._readings = readings
        self._since = since
        self._seq: int | None = None
        self._rows: dict[int, tuple[Any, ...]] | None = None

    async def look(self) -> Changed:
        """Return what is new. Raises StateUnavailable."""
        seen = self._seen()
        steps = await self._state.read(self._steps) if self._state.exists else []
        told = {one.order_id for one in steps if one.order_id is not None}
        return Changed(
            order_ids=frozenset(seen | told),
            account=bool(seen or told) or any(one.step in NOTES for one in steps),
            ledger=bool(steps),
        )

    def _steps(self, tx: Tx) -> list[Entry]:
        newest = ledger.newest(tx)
        if self._seq is None:
            self._seq = ledger.newest_before(tx, self._since - CLOCK_SLACK_SECONDS, _MOST)
        elif newest < self._seq:  # a new state was started
            self._seq = 0
        found = ledger.after(tx, self._seq, _MOST)
        self._seq = max([self._seq, *(one.seq or 0 for one in found)])
        return found

    def _seen(self) -> set[int]:
        """Return the orders that differ from the previous list."""
        current = self._readings.latest
        if current is None:
            return set()
        before, self._rows = self._rows, {row.id: _look_of(row) for row in current.rows}
        if before is None:
            return set()
        return {number for number in before.keys() | self._rows.keys() if before.get(number) != self._rows.get(number)}


def _look_of(row: OrderRow) -> tuple[Any, ...]:
    """Return the facts of an order without its cost, which changes every minute."""
    ports = (*(row.hosts or ()), *(row.tcp_ports or ()), row.http_host)
    return row.server_id, row.image, row.price, row.currency, row.expired, row.online, row.container, ports

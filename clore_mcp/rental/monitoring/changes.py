"""What has changed of the orders since the last look: by the ledger, whoever wrote it, and by what this process saw.

Nothing is asked of Clore for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from clore_mcp.clore import OrderRow
from clore_mcp.rental.context import Context
from clore_mcp.rental.monitoring import events
from clore_mcp.store import ledger
from clore_mcp.store.database import CLOCK_SLACK_SECONDS, Tx

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
            account=bool(seen or told) or any(one.step in events.NOTES for one in steps),
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

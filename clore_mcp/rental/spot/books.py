"""Whether spot orders have their servers now, by the servers' books of bids: only those cost anything."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from clore_mcp.clore import OrderRow, SpotBook
from clore_mcp.clore.fresh import Fresh
from clore_mcp.errors import CloreError
from clore_mcp.rental.context import Context

_BOOK_AGE: Final = 30.0


class Books:
    """The books of the servers on which this account bids, each read at most twice a minute."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._held: dict[tuple[int, Decimal | None], Fresh[SpotBook]] = {}

    async def status(self, row: OrderRow) -> str:
        """What an order is now, in the words of list_orders."""
        if row.expired:
            return "ended"
        if row.spot and not await self._wins(row):
            return "outbid" if row.spend else "queued"
        return "running" if row.deployed else "deploying"

    async def waiting(self, rows: Iterable[OrderRow]) -> dict[int, str]:
        """Those orders that have no server now, and so cost nothing: `queued` or `outbid`, by their ids."""
        found = {row.id: await self.status(row) for row in rows if row.spot and not row.expired}
        return {order_id: status for order_id, status in found.items() if status in ("queued", "outbid")}

    async def _wins(self, row: OrderRow) -> bool:
        """Whether our spot bid runs, by the server's book; where that can't be read, by whether it is deployed."""
        if row.server_id is None:
            return row.deployed
        server_id = row.server_id
        held = self._held.setdefault(  # a book from before the present bid says nothing of it
            (server_id, row.price), Fresh(lambda: self._context.readings.spot_book(server_id), self._context.clock)
        )
        try:
            book = await held.get(_BOOK_AGE)
        except CloreError:
            return row.deployed
        mine = [offer for offer in book.offers if offer.mine]
        return any(offer.active for offer in mine) if mine else row.deployed

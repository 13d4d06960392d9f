"""Reads what is known about a spot order's bid: whether it wins now, its history, and what that means for its bill.

Only winning time is billed, at the bid of that time. Clore reports what an order has cost, but not when it had its
server. The record holds the first bid and each change, so the winning time lies between two bounds. The server's list
of bids shows whether the order wins now.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from clore_mcp.clore import OrderRow, SpotBook
from clore_mcp.errors import CloreError
from clore_mcp.money import SECONDS_PER_DAY, ZERO
from clore_mcp.rental.account.reading import CachedValue
from clore_mcp.rental.context import Context
from clore_mcp.store import Entry, Tx, ledger
from clore_mcp.store.database import fits

_MADE: Final = ("created", "late_order_adopted", "settled_by_hand")
_CHANGED: Final = ("bid_set",)
_BOOK_AGE: Final = 30.0


@dataclass(frozen=True, slots=True)
class BidHistory:
    """Bids per day in the order's coin, each from a moment of Clore's clock on, oldest first."""

    bids: tuple[tuple[float, Decimal], ...]
    won_from: float | None = None  # counts as winning since then if Clore reports no cost; None: never seen winning

    def most_spent(self, until: float) -> Decimal:
        """Return the order's cost in its coin if it has won ever since `won_from`, always at the bid of the time."""
        if self.won_from is None:
            return ZERO
        costs = (bid * seconds for bid, seconds in self._stretches(self.won_from, until))
        return sum(costs, ZERO) / SECONDS_PER_DAY

    def winning_seconds(self, spent: Decimal, until: float) -> tuple[Decimal, Decimal]:
        """Return the fewest and the most seconds of winning that cost that much of its coin."""
        began = self.bids[0][0] if self.bids else until
        stretches = sorted(self._stretches(began, until))
        return _seconds_for(spent, reversed(stretches)), _seconds_for(spent, stretches)

    def _stretches(self, since: float, until: float) -> list[tuple[Decimal, Decimal]]:
        """Return each bid with the seconds for which it was in force between the two moments."""
        ends = [*(at for at, _ in self.bids[1:]), until]
        found = []
        for (at, bid), end in zip(self.bids, ends, strict=True):
            begin = max(at, since)
            found.append((bid, max(ZERO, Decimal(str(min(end, until))) - Decimal(str(begin)))))
        return found


def _seconds_for(spent: Decimal, stretches: Iterable[tuple[Decimal, Decimal]]) -> Decimal:
    """Return the seconds that this amount pays for if the periods are used in this order."""
    seconds, left, last = ZERO, spent * SECONDS_PER_DAY, ZERO
    for bid, length in stretches:
        if bid > 0:
            used = min(length, left / bid)
            seconds, left, last = seconds + used, left - used * bid, bid
    return seconds + left / last if last else seconds  # Clore may bill a minute beyond the last period


def of_row(row: OrderRow, began: float) -> BidHistory:
    """Return the history of an order of which only Clore's row is known: one bid, winning all the time."""
    return BidHistory(() if row.price is None else ((began, row.price),), began)


def read(tx: Tx, account: str, row: OrderRow, began: float, *, won_from: float | None) -> BidHistory:
    """Return the history by the record, completed by Clore's row if the bid was changed elsewhere. It is unknown when
    that was, so the present bid counts from the last known change on."""
    entries = ledger.of_order(tx, account, row.id, (*_MADE, *_CHANGED), since=0) if fits(row.id) else []
    bids = _bids(reversed(entries), began)
    if row.price is not None and (not bids or bids[-1][1] != row.price):
        bids.append((bids[-1][0] if bids else began, row.price))
    return BidHistory(tuple(bids), won_from)


def _bids(entries: Iterable[Entry], began: float) -> list[tuple[float, Decimal]]:
    bids: list[tuple[float, Decimal]] = []
    for entry in entries:
        told = entry.data or {}
        made_at = _number(told.get("price_per_day"))
        if entry.step in _MADE and made_at is not None and not bids:
            bids.append((began, made_at))
        elif entry.step in _CHANGED:
            at = max(float(told.get("api_at", entry.at)), bids[-1][0] if bids else began)
            before = _number(told.get("was_per_day"))
            if not bids and before is not None:
                bids.append((began, before))
            bids.append((at, Decimal(told["bid_per_day"])))
    return bids


def _number(text: str | None) -> Decimal | None:
    return Decimal(text) if text not in (None, "None") else None


class Books:
    """The spot books of the servers on which this account bids, each read at most twice a minute."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._held: dict[tuple[int, Decimal | None], CachedValue[SpotBook]] = {}

    async def status(self, row: OrderRow) -> str:
        """Return the order's present status, in the words of list_orders."""
        if row.expired:
            return "ended"
        if row.spot and not await self._wins(row):
            return "outbid" if row.spend else "queued"
        return "running" if row.deployed else "deploying"

    async def waiting(self, rows: Iterable[OrderRow]) -> dict[int, str]:
        """Return the orders that have no server now, and so cost nothing: `queued` or `outbid`, by id."""
        found = {row.id: await self.status(row) for row in rows if row.spot and not row.expired}
        return {order_id: status for order_id, status in found.items() if status in ("queued", "outbid")}

    async def _wins(self, row: OrderRow) -> bool:
        """Return whether our spot bid wins, by the server's spot book. If the book can't be read or does not show our
        bid, return whether the order is deployed."""
        if row.server_id is None:
            return row.deployed
        server_id = row.server_id
        held = self._held.setdefault(  # a book from before the present bid does not show it
            (server_id, row.price),
            CachedValue(lambda: self._context.readings.spot_book(server_id), self._context.clock),
        )
        try:
            book = await held.get(_BOOK_AGE)
        except CloreError:
            return row.deployed
        mine = [offer for offer in book.offers if offer.mine]
        return any(offer.active for offer in mine) if mine else row.deployed

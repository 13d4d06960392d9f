"""What is left after a cancel, in a sentence: orders that still bill, bids that wait, watches that may rent."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

import anyio

from clore_mcp.clore import OrderRow
from clore_mcp.errors import CloreError, StateUnavailable
from clore_mcp.market.rates import Fees, Rates
from clore_mcp.money import shown
from clore_mcp.rental.context import Context
from clore_mcp.rental.results import BillingOrder, Outcome
from clore_mcp.rental.rules.billing import usd_per_hour
from clore_mcp.rental.spot.books import Books
from clore_mcp.store import watches

_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Remaining:
    """`hourly` is what each order costs an hour, None where nobody knows, and None as a whole where Clore can't be
    asked; `waiting` names those of them that have no server now. `watches` is None where the state can't be read."""

    hourly: Mapping[int, Decimal | None] | None
    waiting: Mapping[int, str]
    watches: int | None

    def told_in(self, outcome: Outcome) -> Outcome:
        """An outcome with what is left; nothing where nobody knows."""
        running = None if self.hourly is None else tuple(self._row(*one) for one in self.hourly.items())
        return replace(outcome, still_running=running, watches_waiting=self.watches)

    def _row(self, order_id: int, usd: Decimal | None) -> BillingOrder:
        return BillingOrder(order_id, self.waiting.get(order_id), None if usd is None else shown(usd))

    def __str__(self) -> str:
        if self.hourly is None:
            return "What else runs can't be seen now: call list_orders."
        bills = [order_id for order_id in self.hourly if order_id not in self.waiting]
        told = []
        if bills:
            told.append(f"Still billing: {_orders(bills)}.")
        if self.waiting:
            told.append(f"Waiting, and billing as soon as a bid wins: {_orders(list(self.waiting))}.")
        if self.watches:
            told.append(f"{self.watches} {'watch' if self.watches == 1 else 'watches'} may still rent (list_watches).")
        return " ".join(told) or "Nothing more to do."


def _orders(ids: list[int]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"order {', '.join(map(str, ids[:_NAMED]))}{more}"


async def remaining(context: Context, books: Books, fees: Fees, rates: Rates, patience_seconds: float) -> Remaining:
    """What is left now; no part is waited for longer than that, and what can't be read stops nothing."""
    rows: list[OrderRow] | None = None
    waiting: Mapping[int, str] = {}
    with anyio.move_on_after(patience_seconds), contextlib.suppress(CloreError):
        rows = [row for row in (await context.readings.orders()).rows if not row.expired]
        waiting = await books.waiting(rows)
    hourly = None if rows is None else {row.id: usd_per_hour(row, fees, rates) for row in rows}
    return Remaining(hourly, waiting, await watches_waiting(context))


async def watches_waiting(context: Context) -> int | None:
    """How many watches may still rent; None where nobody knows."""
    with contextlib.suppress(CloreError, StateUnavailable):
        account = await context.readings.account()
        return len(await context.state.read(lambda tx: watches.standing(tx, account, context.clock())))
    return None

"""Keeps the reservations of orders made elsewhere whose bid was raised here, until the order is proven gone.

These orders have no lease, so no process here ends them, and their cost is what Clore's row says. If one disappears
without a trace, its whole reservation counts for another day, because that is the most that it can have cost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from clore_mcp.clore import OrderRow
from clore_mcp.errors import CloreError
from clore_mcp.rental.account.reading import BROWSING_AGE, Orders
from clore_mcp.rental.context import Context
from clore_mcp.rental.rules.billing import Bill
from clore_mcp.store import reservations
from clore_mcp.store.database import Tx
from clore_mcp.store.intents import Reservation


async def reconcile(
    context: Context,
    account: str,
    current: Orders,
    completed: Orders | None,
    bill: Callable[[OrderRow, None], Awaitable[Bill | None]],
) -> None:
    """Compare these reservations with Clore's lists. `bill` returns what an order has cost, None if that is unknown."""
    held = await context.state.read(lambda tx: reservations.elsewhere(tx, account))
    listed = {row.id for row in current.rows if not row.expired}
    await reopen(context, account, current)
    missing = [one for one in held if one.order_id not in listed and one.released_at is None]
    if not missing or current.unreadable:
        return
    try:
        completed = completed or await context.readings.completed(BROWSING_AGE)
    except CloreError:  # the reservations stay; the ends of leases, which come next, must not wait
        return
    for one in missing:
        row = completed.find(one.order_id or 0)
        if row is not None and row.expired:
            final = await bill(row, None)
            if final is not None:
                await _close(context, one, final)
        elif row is None and not completed.unreadable:
            await _missing(context, one, current)


async def reopen(context: Context, account: str, current: Orders) -> None:
    """Restore the reservations of orders that counted as gone or were missing and are listed as running."""

    def write(tx: Tx) -> None:
        for one in _back(tx, context, account, current):
            reservations.seen_again(tx, [one.id])
            if one.released_at is not None:
                context.note(tx, "order_seen_again", "clore-mcp", account, order_id=one.order_id)

    if await context.state.read(lambda tx: _back(tx, context, account, current)):
        await context.state.write(write)


def agrees(tx: Tx, context: Context, account: str, current: Orders) -> bool:
    """Return whether Clore lists every order that has such a reservation, and none that has lost it."""
    listed = {row.id for row in current.rows if not row.expired}
    missing = any(one.order_id not in listed and one.released_at is None for one in reservations.elsewhere(tx, account))
    return not missing and not _back(tx, context, account, current)


def _back(tx: Tx, context: Context, account: str, current: Orders) -> list[Reservation]:
    listed = {row.id for row in current.rows if not row.expired}
    return [
        one
        for one in reservations.listed_elsewhere(tx, account, listed)
        if one.missed_at is not None or came_back(one.released_at, seen_at=current.at, now=context.clock())
    ]


def came_back(ended_at: float | None, *, seen_at: float, now: float) -> bool:
    """Return whether a list that was requested at `seen_at` is later than an end. An end in the future was recorded
    before this machine's clock went back, so an order that is listed then counts as running."""
    return ended_at is not None and (seen_at > ended_at or ended_at > now)


async def _missing(context: Context, one: Reservation, seen: Orders) -> None:
    if one.missed_at is None:
        await context.state.write(lambda tx: reservations.miss(tx, one.id, seen.at))
    elif seen.at - one.missed_at >= context.patience.absence:
        await _close(context, one, None)


async def _close(context: Context, one: Reservation, final: Bill | None) -> None:
    cost, step = (one.worst_usd, "ended_unseen") if final is None else (final.total_usd, "ended")

    def write(tx: Tx) -> None:
        reservations.close_elsewhere(tx, one.account, one.order_id or 0, cost, context.clock())
        receipt = {} if final is None else {"receipt": final.receipt().as_json()}
        context.note(tx, step, "clore-mcp", one.account, order_id=one.order_id, **receipt)

    await context.state.write(write)

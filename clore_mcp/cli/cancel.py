"""`clore-mcp cancel ORDER_ID | --all`: show what will end, ask once, cancel, show the receipt. Warns if it is unproven.

If Clore's lists, its prices or the state can't be read, the named order is still cancelled, because a cancel needs none
of them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from decimal import Decimal

from clore_mcp.cli import orders, terminal
from clore_mcp.cli.context import ENDING_QUEUE_SECONDS, command_prefix, opened, require_spending
from clore_mcp.cli.terminal import loud, receipt, say, to_the_operator, usd
from clore_mcp.errors import CloreError, Failure, InvalidApiKey, NoApiKey, NotFound, StateUnavailable
from clore_mcp.rental.ends.closure import account_for
from clore_mcp.rental.orders.order_view import OrderView
from clore_mcp.rental.results import Status
from clore_mcp.store import Lease
from clore_mcp.store import orders as rows
from clore_mcp.wiring import Services


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("order_id", metavar="ORDER_ID", type=int, nargs="?", help="from `clore-mcp orders`")
    which.add_argument("--all", action="store_true", help="cancel every order that was made here")
    parser.add_argument("--yes", action="store_true", help="don't ask first")


def run(arguments: argparse.Namespace) -> int:
    """Show the orders, ask, then cancel them one by one."""
    prefix = command_prefix(arguments)
    if not arguments.yes and not terminal.at_terminal():
        raise Failure(
            "cancel asks first, but this is not a terminal. Nothing was cancelled.", hint="Add --yes to agree."
        )
    with opened(arguments, queue_seconds=ENDING_QUEUE_SECONDS) as (services, runner):
        require_spending(services.settings)
        seen = runner.run(_look(services, everything=arguments.all))
        chosen = runner.run(_all(services, seen) if arguments.all else _one(services, seen, arguments.order_id))
        if isinstance(chosen, str):
            say(chosen)
            return 0
        if chosen and not _agreed(chosen, asking=not arguments.yes):
            say("Not cancelled. Still billing.")
            return 1
        try:
            proven = [runner.run(_cancel(services, one)) for one in chosen]
        except KeyboardInterrupt:
            loud(f"Interrupted: some orders may not be cancelled. Check with `{prefix} orders`.")
            raise
    if arguments.all and not chosen:
        say("No order made here is running.")
    unclear = arguments.all and (seen is None or bool(seen.unsettled))
    if arguments.all and seen is not None and seen.unsettled:
        orders.warn(seen, prefix)
    return 0 if all(proven) and not unclear else 1


@dataclass(frozen=True, slots=True)
class CancelChoice:
    """An order to cancel. `made_here` is None if that is unknown, `view` if Clore's list has not shown the order."""

    order_id: int
    made_here: bool | None
    view: OrderView | None = None


async def _look(services: Services, *, everything: bool) -> orders.OrdersSeen | None:
    """Return the orders, or None if they can't be read. That stops no cancel."""
    try:
        return await orders.look(services, include_ended=not everything, urgent=True)
    except (NoApiKey, InvalidApiKey):
        raise
    except (CloreError, StateUnavailable) as failure:
        loud(f"The orders can't be read: {failure.message} Cancelling without checking them first.")
        return None


async def _all(services: Services, seen: orders.OrdersSeen | None) -> list[CancelChoice]:
    """Return the orders that were made here, and say how many others run. The state has them if Clore lists none."""
    if seen is None:
        account = await services.context.readings.account()
        leases = await services.context.state.read(lambda tx: rows.active(tx, account))
        return [CancelChoice(lease.order_id, made_here=True) for lease in leases]
    elsewhere = sum(not view.made_here for view in seen.views)
    if elsewhere:
        say(f"{elsewhere} not made here and left running. To end one, name it.")
    return [CancelChoice(view.order_id, True, view) for view in seen.views if view.made_here]


async def _one(services: Services, seen: orders.OrdersSeen | None, order_id: int) -> list[CancelChoice] | str:
    """Return the named order, or a sentence if it has ended. Raises NotFound."""
    view = next((view for view in seen.views if view.order_id == order_id), None) if seen else None
    if view is not None:
        return _ended(order_id, view.spent_usd) if view.over else [CancelChoice(order_id, view.made_here, view)]
    lease = await _lease(services, order_id)
    if seen is not None and lease is None:
        hint = f"`{services.context.program} orders` lists them."
        raise NotFound(f"This account has no order {order_id}.", hint=hint)
    if seen is not None and lease is not None and lease.ended_at is not None:
        return _ended(order_id, lease.receipt.total_usd if lease.receipt else None)
    return [CancelChoice(order_id, made_here=None if lease is None else True)]


async def _lease(services: Services, order_id: int) -> Lease | None:
    account = await account_for(services.context, order_id)
    try:
        return await services.context.state.read(lambda tx: rows.get(tx, account, order_id))
    except StateUnavailable:
        return None


def _ended(order_id: int, spent_usd: float | Decimal | None) -> str:
    cost = "its cost is unknown" if spent_usd is None else f"it cost {usd(spent_usd)}"
    return f"Order {order_id} had already ended; {cost}. Nothing to do."


def _agreed(chosen: list[CancelChoice], *, asking: bool) -> bool:
    for one in chosen:
        whose = "" if one.made_here else " NOT made here: someone else may be using it."
        if one.made_here is None:
            whose = " It is unknown whether it was made here: someone else may be using it."
        shown, view = "not shown, price unknown", one.view
        if view is not None:
            known = view.usd_per_hour is not None
            cost = f"{usd(view.usd_per_hour)} per hour, {usd(view.spent_usd)} spent" if known else "cost unknown"
            shown = f"{view.hardware}, {view.status}, {cost}"
        say(f"Order {one.order_id}: {shown}.{whose}")
    if not asking:
        return True
    whats = "Its container" if len(chosen) == 1 else "Their containers"
    say(f"{whats} and all data inside are deleted, and billing stops.")
    return terminal.answer("Cancel? [y/N]").lower() in ("y", "yes")


async def _cancel(services: Services, one: CancelChoice) -> bool:
    """Cancel one order and return whether it is proven gone. A failure does not stop the other cancels."""
    order_id, by = one.order_id, terminal.who()
    try:
        outcome = await services.closer.cancel(order_id, issue=None, caller=by, why="asked for")
    except Failure as failure:
        loud(f"Order {order_id} is STILL BILLING as far as is known: {failure.message} {to_the_operator(failure.hint)}")
        return False
    if outcome.status is Status.CANCELLED:
        paid = outcome.receipt
        cost = receipt(paid) if paid is not None else "Its cost is unknown."
        if paid is not None and not paid.total_usd and one.view is not None and one.view.order_type == "spot":
            cost = f"{cost} (the bid never won, so nothing was billed)"
        say(f"Order {order_id} cancelled. {cost}", hang=2)
        return True
    loud(
        f"Order {order_id} is STILL BILLING as far as is known: {outcome.said} Run `{services.context.program} cancel"
        f" {order_id}` again in a minute. If it keeps running, cancel it on clore.ai."
    )
    return False

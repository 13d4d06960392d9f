"""`clore-mcp cancel ORDER_ID | --all`: show what will end, ask once, cancel, show the receipt. Warns if it is unproven.

If Clore's lists, its prices or the state can't be read, the named order is still cancelled, because a cancel needs none
of them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from clore_mcp.cli import orders, terminal
from clore_mcp.cli.context import ENDING_QUEUE_SECONDS, OpenServices, command_prefix, opened, require_spending
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
    with opened(arguments, queue_seconds=ENDING_QUEUE_SECONDS) as parts:
        require_spending(parts.services.settings)
        seen = _look(parts, everything=arguments.all)
        chosen = _all(parts, seen) if arguments.all else [_one(parts, seen, arguments.order_id, prefix)]
        if [one.status for one in chosen] == ["ended"]:
            spent = chosen[0].spent_usd
            cost = "its cost is unknown" if spent is None else f"it cost {usd(spent)}"
            say(f"Order {arguments.order_id} had already ended; {cost}. Nothing to do.")
            return 0
        if chosen and not _agreed(chosen, asking=not arguments.yes):
            say("Not cancelled. Still billing.")
            return 1
        try:
            proven = [_cancel(parts, one, prefix) for one in chosen]
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
    """An order to cancel, as far as it is known. `made_here` is None if that is unknown."""

    order_id: int
    made_here: bool | None
    status: str = "not shown"
    hardware: str = ""
    usd_per_hour: float | None = None
    spent_usd: float | None = None
    spot: bool = False

    @classmethod
    def of(cls, view: OrderView) -> CancelChoice:
        return cls(
            view.order_id, view.made_here, view.status, view.hardware, view.usd_per_hour, view.spent_usd,
            spot=view.order_type == "spot",
        )  # fmt: skip


def _look(parts: OpenServices, *, everything: bool) -> orders.OrdersSeen | None:
    """Return the orders, or None if they can't be read. That stops no cancel."""
    try:
        return parts.run(orders.look(parts.services, include_ended=not everything, urgent=True))
    except (NoApiKey, InvalidApiKey):
        raise
    except (CloreError, StateUnavailable) as failure:
        loud(f"The orders can't be read: {failure.message} Cancelling without checking them first.")
        return None


async def _leases(services: Services) -> list[Lease]:
    """Return the orders that were made here and still run, according to the state."""
    account = await services.context.readings.account()
    return await services.context.state.read(lambda tx: rows.active(tx, account))


async def _lease(services: Services, order_id: int) -> Lease | None:
    account = await account_for(services.context, order_id)
    try:
        return await services.context.state.read(lambda tx: rows.get(tx, account, order_id))
    except StateUnavailable:
        return None


def _all(parts: OpenServices, seen: orders.OrdersSeen | None) -> list[CancelChoice]:
    """Return the orders that were made here, and say how many others run."""
    if seen is None:
        return [CancelChoice(lease.order_id, made_here=True) for lease in parts.run(_leases(parts.services))]
    elsewhere = sum(not view.made_here for view in seen.views)
    if elsewhere:
        say(f"{elsewhere} not made here and left running. To end one, name it.")
    return [CancelChoice.of(view) for view in seen.views if view.made_here]


def _one(parts: OpenServices, seen: orders.OrdersSeen | None, order_id: int, prefix: str) -> CancelChoice:
    found = next((view for view in seen.views if view.order_id == order_id), None) if seen else None
    if found is not None:
        return CancelChoice.of(found)
    lease = parts.run(_lease(parts.services, order_id))
    if seen is not None and lease is not None and lease.ended_at is not None:
        spent = lease.receipt.total_usd if lease.receipt else None
        return CancelChoice(order_id, made_here=True, status="ended", spent_usd=spent)
    if seen is not None and lease is None:
        raise NotFound(f"This account has no order {order_id}.", hint=f"`{prefix} orders` lists them.")
    return CancelChoice(order_id, made_here=None if lease is None else True)


def _agreed(chosen: list[CancelChoice], *, asking: bool) -> bool:
    for one in chosen:
        whose = "" if one.made_here else " NOT made here: someone else may be using it."
        if one.made_here is None:
            whose = " It is unknown whether it was made here: someone else may be using it."
        cost = f"{usd(one.usd_per_hour)} per hour, {usd(one.spent_usd)} spent"
        if one.usd_per_hour is None:
            cost = "cost unknown" if one.hardware else "price unknown"
        shown = ", ".join(filter(None, (one.hardware, one.status, cost)))
        say(f"Order {one.order_id}: {shown}.{whose}")
    if not asking:
        return True
    whats = "Its container" if len(chosen) == 1 else "Their containers"
    say(f"{whats} and all data inside are deleted, and billing stops.")
    return terminal.answer("Cancel? [y/N]").lower() in ("y", "yes")


def _cancel(parts: OpenServices, one: CancelChoice, prefix: str) -> bool:
    """Cancel one order and return whether it is proven gone. A failure does not stop the other cancels."""
    order_id, by = one.order_id, terminal.who()
    try:
        outcome = parts.run(parts.services.closer.cancel(order_id, issue=None, caller=by, why="asked for"))
    except Failure as failure:
        loud(f"Order {order_id} is STILL BILLING as far as is known: {failure.message} {to_the_operator(failure.hint)}")
        return False
    if outcome.status is Status.CANCELLED:
        paid = outcome.receipt
        cost = receipt(paid) if paid is not None else "Its cost is unknown."
        if paid is not None and one.spot and not paid.total_usd:
            cost = f"{cost} (the bid never won, so nothing was billed)"
        say(f"Order {order_id} cancelled. {cost}", hang=2)
        return True
    loud(
        f"Order {order_id} is STILL BILLING as far as is known: {outcome.said} Run `{prefix} cancel {order_id}`"
        " again in a minute. If it keeps running, cancel it on clore.ai."
    )
    return False

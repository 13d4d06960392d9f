"""`clore-mcp cancel ORDER_ID | --all`: what is about to end, one question, the receipt; loud when it is not proven."""

from __future__ import annotations

import argparse
from typing import Any

from clore_mcp.cli import orders, person
from clore_mcp.cli.approvals import command_prefix
from clore_mcp.cli.opening import Opened, opened, require_spending
from clore_mcp.cli.screen import loud, receipt, say, usd
from clore_mcp.errors import Failure, NotFound


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which, and whether to ask."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("order_id", metavar="ORDER_ID", type=int, nargs="?", help="from `clore-mcp orders`")
    which.add_argument("--all", action="store_true", help="every order that was made here")
    parser.add_argument("--yes", action="store_true", help="don't ask")


def run(arguments: argparse.Namespace) -> int:
    """Show, ask, cancel one after the other."""
    prefix = command_prefix(arguments)
    if not arguments.yes and not person.at_terminal():
        raise Failure("cancel asks first, and nobody is at a terminal; nothing was cancelled.", hint="--yes answers.")
    with opened(arguments) as parts:
        require_spending(parts.services.settings)
        seen = parts.run(orders.look(parts.services, include_ended=not arguments.all))
        chosen = _made_here(seen) if arguments.all else [_one(seen, arguments.order_id, prefix)]
        if [view["status"] for view in chosen] == ["ended"]:
            say(f"Order {arguments.order_id} had ended already; it cost {usd(chosen[0]['spent_usd'])}. Nothing to do.")
            return 0
        if chosen and not _agreed(chosen, seen, asking=not arguments.yes):
            say("Not cancelled; still billing.")
            return 1
        try:
            proven = [_cancel(parts, view, prefix) for view in chosen]
        except KeyboardInterrupt:
            loud(f"Interrupted: not all is known to be cancelled. Look with `{prefix} orders`.")
            raise
    if arguments.all and not chosen:
        say("No order made here is running.")
    if arguments.all and seen.unsettled:
        orders.warn(seen, prefix)
    return 0 if all(proven) and not (arguments.all and seen.unsettled) else 1


def _made_here(seen: orders.Seen) -> list[dict[str, Any]]:
    elsewhere = sum(not view["made_here"] for view in seen.views)
    if elsewhere:
        say(f"{elsewhere} not made here: left alone. To end one, name it.")
    return [view for view in seen.views if view["made_here"]]


def _one(seen: orders.Seen, order_id: int, prefix: str) -> dict[str, Any]:
    found = next((view for view in seen.views if view["order_id"] == order_id), None)
    if found is None:
        raise NotFound(f"This account has no order {order_id}.", hint=f"`{prefix} orders` lists them.")
    return found


def _agreed(chosen: list[dict[str, Any]], seen: orders.Seen, *, asking: bool) -> bool:
    for view in chosen:
        whose = "" if view["made_here"] else " NOT made here: it may be someone else's work."
        say(
            f"Order {view['order_id']}: {orders.what(view)}, {view['status']},"
            f" {usd(view.get('usd_per_hour'))} per hour, {usd(view['spent_usd'])} spent.{whose}"
        )
    if not asking:
        return True
    whats = "Its container" if len(chosen) == 1 else "Their containers"
    say(f"{whats} and all data inside are deleted; the meter stops.")
    return person.answer("Cancel? [y/N]").lower() in ("y", "yes")


def _cancel(parts: Opened, view: dict[str, Any], prefix: str) -> bool:
    """Cancel one order; whether it is proven gone. A failure leaves the others their turn."""
    order_id, by = view["order_id"], person.whoever()
    try:
        outcome = parts.run(parts.services.closing.cancel(order_id, issue=None, caller=by, why="asked for"))
    except Failure as failure:
        loud(f"Order {order_id} is STILL BILLING as far as is known: {failure.message} {failure.hint}")
        return False
    if outcome["status"] == "cancelled":
        say(f"Order {order_id} cancelled. {receipt(outcome['receipt'])}", hang=2)
        return True
    loud(
        f"Order {order_id} is STILL BILLING as far as is known: the cancel went out, but Clore does not show it as"
        f" ended. Run `{prefix} cancel {order_id}` again in a minute; if it stays, cancel it on clore.ai."
    )
    return False

"""`clore-mcp settle INTENT --order ID | --none`: a person's word where looking could not tell what a create became."""

from __future__ import annotations

import argparse

from clore_mcp.cli import terminal
from clore_mcp.cli.context import command_prefix, opened, require_spending
from clore_mcp.cli.terminal import loud, receipt, say, usd
from clore_mcp.clore import OrderRow
from clore_mcp.errors import ArgumentInvalid
from clore_mcp.money import coin_name, plain
from clore_mcp.rental.account.reading import Orders
from clore_mcp.rental.results import Outcome, Status
from clore_mcp.store import intents, orders
from clore_mcp.store.intents import Intent
from clore_mcp.store.quotes import Quote
from clore_mcp.text import clean
from clore_mcp.wiring import Services


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which intent, and what became of it."""
    parser.add_argument("intent", metavar="INTENT", help="from `clore-mcp orders`")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--order", metavar="ID", type=int, help="it made this order")
    which.add_argument("--none", action="store_true", help="it made no order; frees what was reserved for it")


def run(arguments: argparse.Namespace) -> int:
    """Look once more; only what is still open is a person's to say."""
    terminal.require_terminal("settle", "nothing was changed")
    with opened(arguments) as parts:
        services = parts.services
        require_spending(services.settings)
        parts.run(services.settling.unsettled(arguments.intent))
        seen = parts.run(_look(services))
        found = parts.run(_still_open(services, arguments.intent))
        if isinstance(found, str):
            say(found)
            return 0
        intent, quote = found
        row = parts.run(_order(services, intent, seen, arguments))
        _disclose(intent, quote, row)
        if terminal.answer("Type yes if that is so, anything else to leave it:") != "yes":
            say("Left as it is.")
            return 1
        outcome = parts.run(_settle(services, intent, quote, row, seen))
    _report(intent, row, outcome, command_prefix(arguments))
    return 0


async def _look(services: Services) -> Orders:
    seen = await services.context.readings.look(completed=True)
    await services.settling.settle_open(await services.context.readings.account(), seen)
    return seen


async def _still_open(services: Services, intent_id: str) -> tuple[Intent, Quote] | str:
    """The intent, or in words what the look just now has made of it."""
    intent = await services.context.state.read(lambda tx: intents.get(tx, intent_id))
    if intent is not None and intent.state == "adopted":
        return f"Settled by looking just now: order {intent.order_id} on server {intent.server_id} is it."
    if intent is not None and intent.state == "failed":
        return "Settled by looking just now: Clore lists no such order. Nothing is reserved for it any more."
    return await services.settling.unsettled(intent_id)


async def _order(services: Services, intent: Intent, seen: Orders, arguments: argparse.Namespace) -> OrderRow | None:
    """The order that the person means. Raises ArgumentInvalid when it can't be that one."""
    taken = await services.context.state.read(
        lambda tx: orders.made_here(tx, intent.account, [row.id for row in seen.rows])
    )
    mine = [
        row for row in seen.rows if row.server_id == intent.server_id and row.id not in taken | intent.known_order_ids
    ]
    fits = [row for row in mine if row.spot is None or bool(row.spot) == (intent.order_type == "spot")]
    if arguments.none:
        running = [row.id for row in fits if not row.expired]
        if running:
            raise ArgumentInvalid(
                f"Order {running[0]} runs on server {intent.server_id} and may be the one; nothing was changed.",
                hint=f"`clore-mcp settle {intent.id} --order {running[0]}` adopts it; cancel it if nobody wants it.",
            )
        return None
    row = next((row for row in fits if row.id == arguments.order), None)
    if row is None:
        raise ArgumentInvalid(
            _why_not(arguments.order, intent, seen, taken), hint="Look on clore.ai for the right one."
        )
    return row


def _why_not(order_id: int, intent: Intent, seen: Orders, taken: set[int]) -> str:
    row = seen.find(order_id)
    if row is None:
        return f"Clore lists no order {order_id} for this account; nothing was changed."
    if row.id in taken:
        return f"Order {order_id} belongs to another rental made here; nothing was changed."
    if row.id in intent.known_order_ids:
        return f"Order {order_id} was there before this rental was sent; nothing was changed."
    if row.server_id != intent.server_id:
        return f"Order {order_id} is on another server than {intent.server_id}; nothing was changed."
    return f"Order {order_id} is not {intent.order_type}; nothing was changed."


def _disclose(intent: Intent, quote: Quote, row: OrderRow | None) -> None:
    say(f"{intent.id}: {intent.order_type} on server {intent.server_id}, image {clean(intent.image, 120)},", hang=2)
    say(f"asked by {clean(quote.caller, 60)}, approved as: {clean(quote.question.split(chr(10), 1)[0], 160)}", indent=2)
    if row is None:
        say("You say that no order was made. What is reserved for it becomes free; check clore.ai first.")
        return
    price = "?" if row.price is None else f"{plain(row.price)} {coin_name(row.currency)} per day"
    state = "has ended" if row.expired else "is running"
    say(f"You say that order {row.id} is it: {clean(row.image or '?', 120)}, {price}; it {state}.")
    if not row.expired:
        say("It gets the agreed end, counts against the limits, and is cancelled at once if dearer or in another coin.")


async def _settle(services: Services, intent: Intent, quote: Quote, row: OrderRow | None, seen: Orders) -> Outcome:
    outcome = await services.settling.settle_by_hand(intent, quote, row, by=terminal.who())
    await services.closing.reconcile(intent.account, seen, seen)  # an order that has ended gets its receipt
    return outcome


def _report(intent: Intent, row: OrderRow | None, outcome: Outcome, prefix: str) -> None:
    if row is None:
        say(f"{intent.id} counts as failed: nothing is reserved for it, and server {intent.server_id} is free to try.")
    elif outcome.receipt is not None:
        say(f"Order {row.id} was dearer than approved and has been cancelled. {receipt(outcome.receipt)}")
    elif outcome.status is Status.REFUSED:
        loud(f"Order {row.id} is dearer than approved, and its cancel is not proven. Run: {prefix} cancel {row.id}")
    elif row.expired:
        say(f"Order {row.id} is the one; it has ended. `{prefix} ledger` has its receipt.")
    else:
        say(f"Order {row.id} is the one, {usd(outcome.usd_per_hour)} per hour. `{prefix} orders` shows it.")

"""`clore-mcp settle INTENT --order ID | --none`: a person states the outcome of a create that is still uncertain."""

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
from clore_mcp.store import Intent, Quote, intents, orders
from clore_mcp.text import clean
from clore_mcp.wiring import Services


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("intent", metavar="INTENT", help="from `clore-mcp orders`")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--order", metavar="ID", type=int, help="it made this order")
    which.add_argument("--none", action="store_true", help="it made no order; frees its reservation")


def run(arguments: argparse.Namespace) -> int:
    """Check once more, then let the person settle what is still uncertain."""
    terminal.require_terminal("settle", "nothing was changed")
    with opened(arguments) as (services, runner):
        require_spending(services.settings)
        seen, found = runner.run(_check(services, arguments.intent))
        if isinstance(found, str):
            say(found)
            return 0
        intent, quote = found
        row = runner.run(_order(services, intent, seen, arguments))
        _disclose(intent, quote, row)
        if terminal.answer("Type yes if that is right, anything else to leave it:") != "yes":
            say("Nothing has changed.")
            return 1
        outcome = runner.run(_settle(services, intent, quote, row, seen))
    _report(intent, row, outcome, command_prefix(arguments))
    return 0


async def _check(services: Services, intent_id: str) -> tuple[Orders, tuple[Intent, Quote] | str]:
    """Look at Clore's orders. Return them and the open intent, or a sentence if the look has settled it. Raises
    Failure if there is no such intent or it was settled before."""
    readings, settler = services.context.readings, services.settler
    await settler.unsettled(intent_id)
    seen = await readings.look(completed=True)
    await settler.settle_open(await readings.account(), seen)
    intent = await services.context.state.read(lambda tx: intents.get(tx, intent_id))
    if intent is not None and intent.state == "adopted":
        return seen, f"Settled by a check just now: it made order {intent.order_id} on server {intent.server_id}."
    if intent is not None and intent.state == "failed":
        return seen, "Settled by a check just now: Clore lists no such order. Its reservation is released."
    return seen, await settler.unsettled(intent_id)


async def _order(services: Services, intent: Intent, seen: Orders, arguments: argparse.Namespace) -> OrderRow | None:
    """Return the order that the person named. Raises ArgumentInvalid if it can't be that one."""
    taken = await services.context.state.read(
        lambda tx: orders.made_here(tx, intent.account, [row.id for row in seen.rows])
    )
    if arguments.none:
        running = [row.id for row in seen.rows if not row.expired and not _why_not(row, intent, taken)]
        if running:
            raise ArgumentInvalid(
                f"Order {running[0]} runs on server {intent.server_id} and may be the one. Nothing was changed.",
                hint=f"`clore-mcp settle {intent.id} --order {running[0]}` adopts it. Cancel it if you don't need it.",
            )
        return None
    row, why = seen.find(arguments.order), f"Clore lists no order {arguments.order} for this account."
    if row is not None:
        why = _why_not(row, intent, taken)
    if why:
        raise ArgumentInvalid(f"{why} Nothing was changed.", hint="Find the right one on clore.ai.")
    return row


def _why_not(row: OrderRow, intent: Intent, taken: set[int]) -> str:
    """Return why the intent can't have made that order, or "" if it can."""
    if row.id in taken:
        return f"Order {row.id} belongs to another rental made here."
    if row.id in intent.known_order_ids:
        return f"Order {row.id} existed before this rental was sent."
    if row.server_id != intent.server_id:
        return f"Order {row.id} is not on server {intent.server_id}."
    if row.spot is not None and bool(row.spot) != (intent.order_type == "spot"):
        return f"Order {row.id} is not {intent.order_type}."
    return ""


def _disclose(intent: Intent, quote: Quote, row: OrderRow | None) -> None:
    say(f"{intent.id}: {intent.order_type} on server {intent.server_id}, image {clean(intent.image, 120)},", hang=2)
    say(f"asked by {clean(quote.caller, 60)}, approved as: {clean(quote.question.split(chr(10), 1)[0], 160)}", indent=2)
    if row is None:
        say("You say that no order was made. Its reservation will be released. Check clore.ai first.")
        return
    price = "?" if row.price is None else f"{plain(row.price)} {coin_name(row.currency)} per day"
    state = "has ended" if row.expired else "is running"
    say(f"You say that it made order {row.id}: {clean(row.image or '?', 120)}, {price}; it {state}.")
    if not row.expired:
        say("The order gets the agreed end and counts against the limits. If it costs more than approved or is paid in"
            " another coin, it is cancelled at once.")  # fmt: skip


async def _settle(services: Services, intent: Intent, quote: Quote, row: OrderRow | None, seen: Orders) -> Outcome:
    outcome = await services.settler.settle_by_hand(intent, quote, row, by=terminal.who())
    await services.closer.reconcile(intent.account, seen, seen)  # an order that has ended gets its receipt
    return outcome


def _report(intent: Intent, row: OrderRow | None, outcome: Outcome, prefix: str) -> None:
    if row is None:
        say(f"{intent.id} counts as failed. Its reservation is released, and you can try server {intent.server_id}.")
    elif outcome.receipt is not None:
        say(f"Order {row.id} cost more than approved and has been cancelled. {receipt(outcome.receipt)}")
    elif outcome.status is Status.REFUSED:
        loud(f"Order {row.id} costs more than approved, and its cancel is unproven. Run: {prefix} cancel {row.id}")
    elif row.expired:
        say(f"Order {row.id} is adopted. It has ended. `{prefix} ledger` has its receipt.")
    else:
        say(f"Order {row.id} is adopted, at {usd(outcome.usd_per_hour)} per hour. `{prefix} orders` shows it.")

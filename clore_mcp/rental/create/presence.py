"""Decides whether an order of ours already exists: for a call, for a server, for the account.

A repeated call leads to the order that it has made, never to a second one. If a server is ours already, no fallback is
tried, because that would be a second bill for one request. Clore also says "already rented" if this account rents the
server, and a server with a late order of ours is listed as rented like any other. So if a create of ours for that
server is less than a day old, the next server is tried only after a valid look that shows no order of ours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from clore_mcp.clore import OrderRow
from clore_mcp.errors import CloreError
from clore_mcp.money import ZERO, dollars
from clore_mcp.rental import results
from clore_mcp.rental.account.reading import Orders
from clore_mcp.rental.context import Context
from clore_mcp.rental.results import Attempt, Outcome, Status, Stopped, outcome_of
from clore_mcp.rental.terms import Terms
from clore_mcp.store import Intent, Lease, Quote, Tx, intents, orders, quotes
from clore_mcp.text import iso

if TYPE_CHECKING:
    from clore_mcp.rental.create.settle import Settler
    from clore_mcp.rental.rules.check import Evidence


def running_on(server_id: int | None, rows: Iterable[OrderRow]) -> OrderRow | None:
    """Return the account's order on a server as Clore lists it, or for None an order without a known server."""
    return next((row for row in rows if row.server_id == server_id and not row.expired), None)


def unsettled_on(tx: Tx, account: str, server_ids: Iterable[int]) -> dict[int, Intent]:
    """Return the creates that are on their way or uncertain, by server. A second one could be a second bill."""
    found = (intents.open_on(tx, account, number) for number in server_ids)
    return {intent.server_id: intent for intent in found if intent is not None}


def ours_on(tx: Tx, account: str, server_ids: Collection[int], rows: Iterable[OrderRow]) -> set[int]:
    """Return the servers on which an order of this account runs or may run."""
    running = {row.server_id for row in rows if not row.expired}
    return {number for number in server_ids if number in running} | unsettled_on(tx, account, server_ids).keys()


def made_by_call(tx: Tx, account: str, digest: str, program: str, *, but_of: str | None = None) -> Outcome | None:
    """Return the running order that the same call has made, or its create with an unknown outcome. Its replacement
    counts too. The quote `but_of`, which is being carried out, is left out. Returns None if there is nothing."""
    heir = quotes.replacement_of_call(tx, digest)
    if heir is not None and heir.id != but_of:
        made = made_by_call(tx, account, heir.digest, program, but_of=but_of)
        if made is not None or heir.state in ("approved", "committing"):
            return made or results.being_replaced(heir)
    lease = orders.of_digest(tx, account, digest)
    if lease is None:
        unknown = intents.unsettled_of_call(tx, digest, but_of=but_of)
        return None if unknown is None else results.uncertain(unknown, [], program).again()
    outcome = outcome_of(quote_of(tx, lease))
    if outcome is not None and outcome.status is Status.REFUSED:  # above its ceiling, and its cancel is not proven yet
        return outcome.again()
    running = replace(
        outcome or Outcome(Status.CREATED, ""),
        status=Status.CREATED,
        order_id=lease.order_id,
        ends_at=iso(lease.ends_api_at),
    )
    return running.again(
        "This call made the order already, and it still runs: nothing was ordered again. To stay longer, call"
        " extend_order."
    )


def standing_in_the_way(tx: Tx, quote: Quote, terms: Terms, evidence: Evidence, program: str) -> Outcome | None:
    """Return why nothing may be rented in place of the lost order now. None if that order is proven gone, cost no more
    than approved, and its call has made nothing else. Also None for a quote that replaces no order."""
    order_id, account = terms.replaces_order_id, quote.account
    if order_id is None:
        return None
    lease, row = orders.get(tx, account, order_id), evidence.current.find(order_id)
    if lease is None or lease.ended_at is None or (row is not None and not row.expired):
        return results.being_replaced(quote)
    cost, most = cost_usd(lease), terms.replaced_most_usd or ZERO
    if cost is None or cost > most:
        told = "an unknown amount" if cost is None else dollars(cost)
        return results.failed(f"Order {order_id} has cost {told}, more than the {dollars(most)} that the yes named.")
    first = quotes.get(tx, quote.replaces or "")
    return None if first is None else made_by_call(tx, account, first.digest, program, but_of=quote.id)


def quote_of(tx: Tx, lease: Lease | None) -> Quote | None:
    """Return the quote that made an order, or None if the order is not on record."""
    made_by = intents.get(tx, lease.intent_id) if lease else None
    return quotes.get(tx, made_by.quote_id) if made_by else None


def cost_usd(lease: Lease) -> Decimal | None:
    """Return an order's cost in USD by its receipt, or None without one."""
    return None if lease.receipt is None else Decimal(str(lease.receipt.total_usd))


async def not_offered(
    context: Context, settler: Settler, quote: Quote, evidence: Evidence, attempt: Attempt, *, used: bool
) -> Stopped:
    """Return the result for a server that the market rules out before anything is sent. `used`: the yes is used."""
    account, server_id = quote.account, attempt.server_id
    listing = evidence.snapshot.by_id.get(server_id)
    if listing is not None and not listing.rented:
        return Stopped(attempt=attempt)
    ours = running_on(server_id, evidence.current.rows) is not None
    if not ours and not await _may_be_ours(context, account, server_id):
        return Stopped(attempt=attempt)
    seen: Orders | None = None
    with contextlib.suppress(CloreError):
        seen = await context.readings.look(completed=False)
    if seen is not None:
        await settler.settle_open(account, seen)  # this adopts a late order first
    held = await _held(context, quote, server_id)
    if held is not None:
        return Stopped(outcome=held)
    running = None if seen is None else running_on(server_id, seen.rows)
    if running is not None:
        return Stopped(outcome=results.held_by_you(running, server_id))
    if seen is None or seen.unreadable or running_on(None, seen.rows) is not None:
        return Stopped(attempt, _UNSEEN, final=used)
    return Stopped(attempt=attempt)


async def already_rented(
    context: Context, settler: Settler, quote: Quote, intent: Intent, attempts: Sequence[Attempt], *, ours: bool
) -> Stopped | None:
    """Return the result of a create that Clore answered with "already rented" or, with `ours`, "you already have a spot
    order". Returns None if no order of this account is seen on the server."""
    if not ours and not await _may_be_ours(context, quote.account, intent.server_id, but=intent):
        return None
    sight = await settler.look(intent, completed=False)
    if not sight.valid or sight.matches:
        return Stopped(outcome=await settler.settle(intent, quote, earlier=attempts))
    if sight.other is None:
        return None
    held = await _held(context, quote, intent.server_id)
    return Stopped(outcome=held or results.held_by_you(sight.other, intent.server_id))


async def _may_be_ours(context: Context, account: str, server_id: int, but: Intent | None = None) -> bool:
    """Return whether another create of ours for that server may have made an order within a day."""
    since = context.clock() - intents.ADOPTABLE_SECONDS
    found = await context.state.read(lambda tx: intents.of_server(tx, account, server_id, since))
    return any(but is None or one.id != but.id for one in found)


async def _held(context: Context, quote: Quote, server_id: int) -> Outcome | None:
    """Return what the same call has already made, or an unsettled create for that server."""

    def read(tx: Tx) -> Outcome | None:
        made = made_by_call(tx, quote.account, quote.digest, context.program, but_of=quote.id)
        unsettled = intents.open_on(tx, quote.account, server_id)
        if made is not None or unsettled is None or unsettled.quote_id == quote.id:
            return made
        return results.blocked(unsettled, context.program)

    return await context.state.read(read)


_UNSEEN: Final = results.failed(
    "The server is rented, but this account's orders can't be seen now, so nothing was sent. Look at"
    " list_orders, then call again."
)

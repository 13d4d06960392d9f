"""Replaces an order with an unreachable host by the next server of the same approval: the order is cancelled and proven
gone, then the next server is rented.

The question named the servers, that this may happen once, and the most that may be lost. The next create has its own
quote that shares that yes (`Quote.replaces`, unique), so it runs like every create. If the process is killed before the
cancel, nothing has changed. If it is killed after it, the order's end is on record, a process that ends leases
completes it, and the same call can go on. The transaction that finds the order gone also uses the yes, once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from clore_mcp.errors import Failure
from clore_mcp.money import dollars
from clore_mcp.rental import results
from clore_mcp.rental.account.reading import EXECUTION_AGE
from clore_mcp.rental.approvals import Approvals
from clore_mcp.rental.context import Context
from clore_mcp.rental.create.presence import cost_usd, quote_of
from clore_mcp.rental.create.quote import Pricer
from clore_mcp.rental.create.send import listed_now
from clore_mcp.rental.ends.closure import Closer
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.results import Attempt, LostOrder, Outcome, Settled, Status
from clore_mcp.rental.rules.check import check, position, spend_of
from clore_mcp.rental.ssh import advice
from clore_mcp.rental.ssh.access import ReadyReason, SshLook
from clore_mcp.rental.ssh.advice import Situation
from clore_mcp.rental.ssh.keys import fingerprint, key_line
from clore_mcp.rental.terms import REPLACED_WITHIN_MINUTES, Terms
from clore_mcp.store import Quote, Tx, ledger, orders, quotes

ANEW: Final = "To rent again, call create_order without replaces_order_id: the person is asked."
_END_IT: Final = "To end it, use cancel_order; to rent another server, call create_order, which asks the person."
log = logging.getLogger(__name__)


def offered(tx: Tx, account: str, order_id: int, caller: str, api_now: float) -> tuple[Quote, Terms]:
    """Return the quote of an order that may be replaced according to the record, and the terms for the remaining
    servers. Raises Settled, with what to do next, if nothing may replace it."""
    lease = orders.get(tx, account, order_id)
    quote = quote_of(tx, lease)
    if lease is None or quote is None or quote.caller != caller:
        raise refused(
            f"Order {order_id} was not made by a call of this client, so no yes of it covers another. {_END_IT}"
        )
    if lease.ended_at is not None or lease.ends_api_at <= api_now:
        raise refused(f"Order {order_id} has ended, or its end is under way. {ANEW}")
    if quote.replaces is not None or quotes.replacement_of(tx, quote.id) is not None:
        raise refused(f"The yes for order {order_id} was used for a replacement already; it covers one. {_END_IT}")
    terms = Terms.from_json(quote.terms)
    if not terms.replaceable:
        raise refused(f"The question for order {order_id} did not say that another server may replace it. {_END_IT}")
    if api_now >= lease.started_api_at + REPLACED_WITHIN_MINUTES * 60:
        raise refused(
            f"Order {order_id} is older than the {REPLACED_WITHIN_MINUTES} minutes that the yes named. {_END_IT}"
        )
    used = next(one for one in terms.candidates if one.server_id == lease.server_id)
    left = terms.after(lease.server_id)
    if not left:
        raise refused(f"No fallback is left after the server of order {order_id}. {_END_IT}")
    if ledger.frozen(tx) is not None:
        raise refused(results.FROZEN)
    return quote, replace(
        terms,
        candidates=left,
        to_win_usd=None,
        replaceable=False,
        replaces_order_id=order_id,
        replaced_most_usd=used.lost_usd,
    )


def refused(why: str) -> Settled:
    """Return the answer if nothing is replaced."""
    return Settled(Outcome(Status.REFUSED, f"{why} Nothing was cancelled and nothing was rented."))


def told_of(tx: Tx, account: str, order_id: int, outcome: Outcome) -> Outcome:
    """Return the outcome of a call that replaces an order, with the outcome for that order unless it still runs."""
    lease = orders.get(tx, account, order_id)
    first = quote_of(tx, lease)
    quote = quotes.replacement_of(tx, first.id) if first else None
    if lease is None or quote is None or Terms.from_json(quote.terms).replaces_order_id != order_id:
        return outcome
    if lease.ended_at is None:
        return outcome
    cost = cost_usd(lease)
    lost = (
        f"Order {order_id} is cancelled; {'what' if cost is None else f'the {dollars(cost)} that'} it has cost is lost."
    )
    said = outcome.next
    if outcome.status in (Status.FAILED, Status.REFUSED) and outcome.order_id is None:
        said = said.replace("Nothing was spent.", "Nothing more was spent.")
        cure = "Call again with the same arguments to try once more." if quote.state == "approved" else ANEW
        said = f"No server was rented in its place, so nothing new runs. {said.removesuffix(' Call again.')} {cure}"
    return replace(outcome, replaced=LostOrder(order_id, lease.receipt), next=f"{lost} {said}")


@dataclass(frozen=True, slots=True)
class Replacements:
    """Replaces unreachable orders by the next server that their approval covers."""

    context: Context
    pricer: Pricer
    approvals: Approvals
    closer: Closer
    # Returns the state of the order's SSH at the last wait, and its situation now (orders/readiness.py).
    look_again: Callable[[int], Awaitable[tuple[SshLook | None, Situation]]]

    async def hold(self, request: CreateOrder, order_id: int, account: str, caller: str, digest: str) -> Quote:
        """Return the quote that shares the approval of the replaced order. Raises Settled if there is none, in which
        case nothing was cancelled, and CloreError and NotFound."""
        made = await self.context.state.read(lambda tx: quotes.latest(tx, digest))
        if made is not None and made.state in ("settled", "declined"):
            return made
        api_now = self.context.readings.api_now()
        first, terms = await self.context.state.read(lambda tx: offered(tx, account, order_id, caller, api_now))
        alone = request.model_copy(update={"replaces_order_id": None})
        if await self.approvals.digest(account, caller, alone) != first.digest:
            raise refused(
                f"Order {order_id} was made with other arguments. Repeat all of those exactly, and add"
                " replaces_order_id alone."
            )
        if fingerprint(await key_line(request.ssh_public_key, self.context.ssh_key)) != terms.ssh_key:
            raise refused(f"The SSH key that orders are given is not the one that the question showed. {ANEW}")
        remembered, found = await self.look_again(order_id)
        alive = advice.not_dead(found)
        if alive is not None:
            raise refused(alive)
        if remembered is None or not remembered.online or remembered.reason is ReadyReason.READY:
            raise refused(f"wait_for_order has not found yet that order {order_id} can't be reached. Call it first.")
        await self._require_rentable(terms, order_id, account)
        held = await self.approvals.hold_replacement(first, digest=digest, terms=terms)
        if held is None:
            raise refused(f"The yes for order {order_id} was used for a replacement already.")
        return held

    async def _require_rentable(self, terms: Terms, lost: int, account: str) -> None:
        """Raise Settled if none of these servers could be rented now in place of the order `lost`."""
        evidence = await self.pricer.evidence(EXECUTION_AGE)
        attempts: list[Attempt] = []
        for one in terms.candidates:
            price = listed_now(one, terms, evidence)
            if not isinstance(price, Attempt):
                break
            attempts.append(price)
        else:
            none_left = refused("None of the servers that are left can be rented now.").outcome
            raise Settled(replace(none_left, attempts=tuple(attempts)))
        stands = await self.context.state.read(
            lambda tx: position(tx, self.context, account, evidence, instead_of=lost)
        )
        refusals = check(stands, spend_of(one, terms, instead_of=lost))
        if refusals:
            raise Settled(results.refused(refusals, ends=terms.ends).also("Nothing was cancelled."))

    async def clear(self, quote: Quote, order_id: int, by: str) -> None:
        """Cancel the order that the quote replaces, and prove it gone. Raises Settled if it is not proven, and NotSent
        if no cancel can be sent."""
        context = self.context

        def begin(tx: Tx) -> bool:
            """Return whether the cancel must be sent. If not, the order is already gone."""
            now = quotes.get(tx, quote.id)
            if now is None or now.state != "approved":
                raise Settled(results.in_progress(quote.id))  # another process is already ahead
            lease = orders.get(tx, quote.account, order_id)
            if lease is not None and lease.ended_at is not None:
                return False
            if ledger.frozen(tx) is not None:
                raise refused(results.FROZEN)
            if not now.in_time(context.clock()):
                raise refused(f"The time for replacing order {order_id} is over.")
            context.note(tx, "replacing", quote.caller, quote.account, quote_id=quote.id, order_id=order_id)
            return True

        if not await context.state.write(begin):
            return
        gone = await self.closer.cancel(order_id, issue=None, caller=quote.caller, why=f"it is replaced; {by}")
        if gone.status is not Status.CANCELLED:
            raise Settled(results.being_replaced(quote))

    async def told(self, order_id: int, outcome: Outcome) -> Outcome:
        """Return the outcome of a call, with the receipt of the order that it replaced, if that is gone."""
        try:
            account = await self.context.readings.account()
            return await self.context.state.read(lambda tx: told_of(tx, account, order_id, outcome))
        except Failure as failure:  # the outcome of the call matters more than the cost of the replaced order
            log.warning("the cost of order %s can't be reported: %s", order_id, failure.message)
            return outcome

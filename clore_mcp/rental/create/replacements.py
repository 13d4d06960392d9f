"""Carries out a replacement: a dead order is cancelled and proven gone; then its quote's create goes its usual way.

Killed before the cancel, nothing has changed. Killed after it, the order's end is on record and is seen to by whoever
keeps leases, and the same call goes on. The yes is used, once, in the transaction that also finds the order gone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from clore_mcp.errors import Failure
from clore_mcp.rental import outcomes
from clore_mcp.rental.account.reading import EXECUTION_AGE
from clore_mcp.rental.approvals import Approvals
from clore_mcp.rental.context import Context
from clore_mcp.rental.create import replacement
from clore_mcp.rental.create.quote import Pricer
from clore_mcp.rental.create.replacement import ReplacementOffer, refused
from clore_mcp.rental.create.send import NotOffered, listed_now
from clore_mcp.rental.create.ssh_keys import fingerprint, key_line
from clore_mcp.rental.orders import advice
from clore_mcp.rental.orders.access import ReadyReason
from clore_mcp.rental.orders.closure import Closing
from clore_mcp.rental.orders.readiness import Readiness
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.results import Attempt, Outcome, Settled, Status
from clore_mcp.rental.rules.check import check, position, spend_of
from clore_mcp.rental.rules.terms import Terms
from clore_mcp.store import ledger, orders, quotes
from clore_mcp.store.database import Tx
from clore_mcp.store.quotes import Quote

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Replacements:
    """Moves dead orders to the next server that their yes covers."""

    context: Context
    pricer: Pricer
    approvals: Approvals
    closing: Closing
    readiness: Readiness

    async def hold(self, request: CreateOrder, account: str, caller: str, digest: str) -> Quote | None:
        """The quote that shares the yes of the order that gives way; None where the call replaces nothing. Raises
        Settled where there is none: then nothing was cancelled; CloreError, NotFound."""
        if request.replaces_order_id is None:
            return None
        order_id = request.replaces_order_id
        made = await self.context.state.read(lambda tx: quotes.latest(tx, digest))
        if made is not None and made.state in ("settled", "declined"):
            return made
        offer = await self._offer(request, order_id, account, caller)
        remembered, found = await self.readiness.again(order_id)
        alive = advice.not_dead(found)
        if alive is not None:
            raise refused(alive)
        if remembered is None or not remembered.online or remembered.reason is ReadyReason.READY:
            raise refused(f"wait_for_order has not found yet that order {order_id} can't be reached. Call it first.")
        await self._require_rentable(offer, account)
        held = await self.approvals.hold_replacement(offer.quote, digest=digest, terms=offer.terms)
        if held is None:
            raise refused(f"The yes for order {order_id} was used for a replacement already.")
        return held

    async def _offer(self, request: CreateOrder, order_id: int, account: str, caller: str) -> ReplacementOffer:
        api_now = self.context.readings.api_now()
        offer = await self.context.state.read(lambda tx: replacement.offered(tx, account, order_id, caller, api_now))
        first = await self.approvals.digest(account, caller, request.model_copy(update={"replaces_order_id": None}))
        if first != offer.quote.digest:
            raise refused(
                f"Order {order_id} was made with other arguments. Repeat all of those exactly, and add"
                " replaces_order_id alone."
            )
        if fingerprint(await key_line(request.ssh_public_key, self.context.ssh_key)) != offer.terms.ssh_key:
            raise refused(
                f"The SSH key that orders are given is not the one that the question showed. {replacement.ANEW}"
            )
        return offer

    async def _require_rentable(self, offer: ReplacementOffer, account: str) -> None:
        """Raises Settled where none of the servers that are left could be rented now."""
        evidence = await self.pricer.evidence(EXECUTION_AGE)
        attempts: list[Attempt] = []
        for one in offer.terms.candidates:
            try:
                listed_now(one, offer.terms, evidence)
                break
            except NotOffered as no:
                attempts.append(no.attempt)
        else:
            none_left = refused("None of the servers that are left can be rented now.").outcome
            raise Settled(replace(none_left, attempts=tuple(attempts)))
        lost = offer.lease.order_id
        stands = await self.context.state.read(
            lambda tx: position(tx, self.context, account, evidence, instead_of=lost)
        )
        refusals = check(stands, spend_of(one, offer.terms, instead_of=lost))
        if refusals:
            raise Settled(outcomes.refused(refusals, ends=offer.terms.ends).also("Nothing was cancelled."))

    async def clear(self, quote: Quote, by: str) -> None:
        """End the order that gives way and prove it gone. Raises Settled where that is not so, NotSent where no cancel
        can leave at all."""
        context, order_id = self.context, Terms.from_json(quote.terms).replaces_order_id
        if order_id is None:
            return

        def begin(tx: Tx) -> bool:
            """Whether the cancel is to be sent; else the order is gone already."""
            now = quotes.get(tx, quote.id)
            if now is None or now.state != "approved":
                raise Settled(outcomes.in_progress(quote.id))  # another process is further
            lease = orders.get(tx, quote.account, order_id)
            if lease is not None and lease.ended_at is not None:
                return False
            if ledger.frozen(tx) is not None:
                raise refused(outcomes.FROZEN)
            if not now.in_time(context.clock()):
                raise refused(f"The time for replacing order {order_id} is over.")
            context.note(tx, "replacing", quote.caller, quote.account, quote_id=quote.id, order_id=order_id)
            return True

        if not await context.state.write(begin):
            return
        gone = await self.closing.cancel(order_id, issue=None, caller=quote.caller, why=f"it is replaced; {by}")
        if gone.status is not Status.CANCELLED:
            raise Settled(outcomes.being_replaced(quote))

    async def told(self, request: CreateOrder, outcome: Outcome) -> Outcome:
        """The outcome of a call; where it replaces an order that is gone, with the receipt of that one."""
        if request.replaces_order_id is None:
            return outcome
        order_id = request.replaces_order_id
        try:
            account = await self.context.readings.account()
            return await self.context.state.read(lambda tx: replacement.told(tx, account, order_id, outcome))
        except Failure as failure:  # what became of the call counts more than what it says of the order before
            log.warning("what order %s has cost is not told: %s", order_id, failure.message)
            return outcome

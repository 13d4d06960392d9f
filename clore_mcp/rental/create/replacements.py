"""Carries out a replacement: a dead order is cancelled and proven gone; then its quote's create goes its usual way.

Killed before the cancel, nothing has changed. Killed after it, the order's end is on record and is seen to by whoever
keeps leases, and the same call goes on. The yes is used, once, in the transaction that also finds the order gone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from clore_mcp.errors import Failure
from clore_mcp.rental import outcomes
from clore_mcp.rental.account.reading import EXECUTION_AGE
from clore_mcp.rental.approvals import Approvals
from clore_mcp.rental.context import Desk
from clore_mcp.rental.create import replacement
from clore_mcp.rental.create.quote import Appraiser
from clore_mcp.rental.create.replacement import ReplacementOffer, refused
from clore_mcp.rental.create.send import listed_now
from clore_mcp.rental.create.ssh_keys import fingerprint, key_line
from clore_mcp.rental.orders import advice
from clore_mcp.rental.orders.access import ReadyReason
from clore_mcp.rental.orders.closure import Closing
from clore_mcp.rental.orders.readiness import Readiness
from clore_mcp.rental.requests import Ask, CreateOrder
from clore_mcp.rental.rules.check import stands_against
from clore_mcp.store import brake, orders, quotes
from clore_mcp.store.database import Tx
from clore_mcp.store.quotes import Quote

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Replacements:
    """Moves dead orders to the next server that their yes covers."""

    desk: Desk
    appraiser: Appraiser
    approvals: Approvals
    closing: Closing
    readiness: Readiness

    async def hold(self, ask: Ask, account: str, caller: str, digest: str) -> Quote | dict[str, Any] | None:
        """The quote that shares the yes of the order that gives way, or why there is none: then nothing was cancelled.
        None where the call replaces nothing. Raises CloreError, NotFound."""
        if not isinstance(ask, CreateOrder) or ask.replaces_order_id is None:
            return None
        order_id = ask.replaces_order_id
        made = await self.desk.state.read(lambda tx: quotes.latest(tx, digest))
        if made is not None and made.state in ("settled", "declined"):
            return made
        offer = await self._offer(ask, order_id, account, caller)
        if isinstance(offer, str):
            return refused(offer)
        remembered, found = await self.readiness.again(order_id)
        alive = advice.not_dead(found)
        if alive is not None:
            return refused(alive)
        if remembered is None or not remembered.online or remembered.reason is ReadyReason.READY:
            why = f"wait_for_order has not found yet that order {order_id} can't be reached. Call it first."
            return refused(why)
        no = await self._not_rentable(offer, account)
        if no is not None:
            return no
        held = await self.approvals.hold_replacement(
            offer.quote, digest=digest, terms=offer.terms, order_id=order_id, lost_usd=offer.lost_usd
        )
        return held or refused(f"The yes for order {order_id} was used for a replacement already.")

    async def _offer(self, ask: CreateOrder, order_id: int, account: str, caller: str) -> ReplacementOffer | str:
        api_now = self.desk.readings.api_now()
        offer = await self.desk.state.read(lambda tx: replacement.offered(tx, account, order_id, caller, api_now))
        if isinstance(offer, str):
            return offer
        first = await self.approvals.digest(account, caller, ask.model_copy(update={"replaces_order_id": None}))
        if first != offer.quote.digest:
            return (
                f"Order {order_id} was made with other arguments. Repeat all of those exactly, and add"
                " replaces_order_id alone."
            )
        if fingerprint(await key_line(ask.ssh_public_key, self.desk.ssh_key)) != offer.quote.terms.get("ssh_key"):
            return f"The SSH key that orders are given is not the one that the question showed. {replacement.ANEW}"
        return offer

    async def _not_rentable(self, offer: ReplacementOffer, account: str) -> dict[str, Any] | None:
        """Why none of the servers that are left could be rented now; None where one could."""
        evidence = await self.appraiser.evidence(EXECUTION_AGE)
        prices = [(one, listed_now(one, offer.terms, evidence)) for one in offer.terms.candidates]
        first = next((one for one, price in prices if not isinstance(price, dict)), None)
        if first is None:
            attempts = [price for _, price in prices if isinstance(price, dict)]
            return {**refused("None of the servers that are left can be rented now."), "attempts": attempts}
        refusals = await self.desk.state.read(
            lambda tx: stands_against(
                tx, self.desk, account, evidence, first, offer.terms, instead_of=offer.lease.order_id
            )
        )
        if not refusals:
            return None
        outcome = outcomes.refused(refusals, ends=offer.terms.ends)
        return {**outcome, "next": f"{outcome['next']} Nothing was cancelled."}

    async def clear(self, quote: Quote, by: str) -> dict[str, Any] | None:
        """End the order that gives way and prove it gone; what to answer instead where that is not so. Raises
        NotSent where no cancel can leave at all, SpendingFrozen."""
        desk, order_id = self.desk, replacement.lost_order_of(quote)

        def begin(tx: Tx) -> dict[str, Any] | None:
            """None where the cancel is to be sent, an empty outcome where the order is gone already."""
            now = quotes.get(tx, quote.id)
            if now is None or now.state != "approved":
                return outcomes.in_progress(quote.id)  # another process is further
            lease = orders.get(tx, quote.account, order_id)
            if lease is not None and lease.ended_at is not None:
                return {}
            if brake.frozen(tx) is not None:
                return refused(outcomes.FROZEN)
            if not now.in_time(desk.clock()):
                return refused(f"The time for replacing order {order_id} is over.")
            desk.note(tx, "replacing", quote.caller, quote.account, quote_id=quote.id, order_id=order_id)
            return None

        outcome = await desk.state.write(begin)
        if outcome is not None:
            return outcome or None
        gone = await self.closing.cancel(order_id, issue=None, caller=quote.caller, why=f"it is replaced; {by}")
        return None if gone["status"] == "cancelled" else outcomes.being_replaced(quote)

    async def told(self, ask: Ask, outcome: dict[str, Any]) -> dict[str, Any]:
        """The outcome of a call; where it replaces an order that is gone, with the receipt of that one."""
        if not isinstance(ask, CreateOrder) or ask.replaces_order_id is None:
            return outcome
        order_id = ask.replaces_order_id
        try:
            account = await self.desk.readings.account()
            return await self.desk.state.read(lambda tx: replacement.told(tx, account, order_id, outcome))
        except Failure as failure:  # what became of the call counts more than what it says of the order before
            log.warning("what order %s has cost is not told: %s", order_id, failure.message)
            return outcome

"""The cancel verb: decides who must be asked before an order ends, and ends it.

If prices, lists, wallets or the record can't be read, the answer says so, and the cancel goes on. Only a fresh list
that shows the order as expired, or a lease that was closed here, proves that it has ended.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from clore_mcp.clore import OrderRow
from clore_mcp.errors import CloreError, NotFound, StateUnavailable
from clore_mcp.rental import questions, results
from clore_mcp.rental.approvals import Proposal, Verb, Yes
from clore_mcp.rental.context import Context, settle_quote
from clore_mcp.rental.ends.closure import NEVER_WON, Closer, account_for
from clore_mcp.rental.questions import hardware_of
from clore_mcp.rental.requests import CancelOrder
from clore_mcp.rental.results import Outcome, Settled, Status
from clore_mcp.rental.rules.billing import bill, never_won, usd_per_hour
from clore_mcp.store import Lease, OrderReceipt, Quote, Tx, ledger, orders, quotes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class History:
    """What the state knows about an order. `made_here` is None if it can't be read. `tried`: a cancel is unproven."""

    made_here: bool | None = None
    lease: Lease | None = None
    tried: bool = False


@dataclass(frozen=True, slots=True)
class CancelTerms:
    """The terms of a cancel's question."""

    order_id: int
    made_here: bool | None

    def as_json(self) -> dict[str, Any]:
        """Return JSON for the quote's row."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> CancelTerms:
        """Return the terms that `as_json` wrote."""
        return cls(row["order_id"], row["made_here"])


class CancelVerb(Verb[CancelOrder]):
    """Proposes and carries out cancels that a client requests."""

    def __init__(self, context: Context, closer: Closer) -> None:
        self._context = context
        self._closer = closer

    async def account(self, request: CancelOrder) -> str:
        return await account_for(self._context, request.order_id)

    def declined(self, request: CancelOrder, unasked: str | None = None) -> Outcome:
        return results.cancel_declined(request.order_id, unasked)

    def lapsed(self, request: CancelOrder) -> Outcome:
        return results.cancel_expired(request.order_id)

    def left_to_person(self, request: CancelOrder, quote_id: str, deed: str) -> Outcome:
        until_then = f"Order {request.order_id} keeps running and billing until then."
        return results.approval_required(quote_id, deed, order_id=request.order_id, until_then=until_then)

    async def propose(self, request: CancelOrder, account: str) -> Proposal:
        await self._context.client.open()  # raises if no cancel can be sent, so that no one is asked in vain
        history = await self._history(account, request.order_id)
        lease, made_here = history.lease, history.made_here
        row, looked = await self._look(request.order_id)
        if row is not None and row.expired:
            raise await self._ended(request, row, lease)
        gone = lease if lease is not None and lease.ended_at is not None else None
        if row is None and looked:
            if gone is not None:
                raise await self._already_ended(request, gone.receipt)
            if made_here is False:
                raise NotFound(f"This account has no order {request.order_id}.", hint="list_orders shows the orders.")
        if row is not None and gone is not None:
            await self._reopen(gone)
        hourly, spent = await self._priced(row, lease)
        return Proposal(
            terms=CancelTerms(request.order_id, made_here),
            question=lambda quote_id: questions.cancel_question(
                quote_id, request.order_id, hardware_of(row), hourly, made_here=made_here, spent_usd=spent
            ),
            yes=Yes.NEVER if history.tried else Yes.IF_ASKABLE if made_here else Yes.PERSON,
        )

    async def carry_out(self, quote: Quote, request: CancelOrder, *, from_state: str, by: str) -> Outcome:
        """Cancel the order and prove it. A failing state does not stop a cancel that a person approved."""
        context = self._context

        def use(tx: Tx) -> bool:
            kept = quotes.get(tx, quote.id) is not None  # otherwise it was asked while the state could not be used
            return not kept or quotes.consume(
                tx, quote.id, from_state=from_state, owner=context.owner, by=by, now=context.clock()
            )

        try:
            taken = await context.state.write(use)
        except StateUnavailable as error:
            log.warning("a cancel goes on without its record: %s", error.message)
            taken = True
        if not taken:
            return results.in_progress(quote.id)
        why = f"asked for; {by}"
        outcome = await self._closer.cancel(request.order_id, issue=request.issue, caller=quote.caller, why=why)
        outcome = outcome.also(request.comment_change)
        with contextlib.suppress(StateUnavailable):
            return await settle_quote(context, quote, outcome)
        return outcome

    def unfinished(self, quote: Quote) -> Outcome:
        return results.cancel_unfinished(CancelTerms.from_json(quote.terms).order_id)

    async def _look(self, order_id: int) -> tuple[OrderRow | None, bool]:
        """Return the order as Clore lists it now, and whether its absence is meaningful. It is only if both lists could
        be read whole. An order that either list shows as running is running."""
        looked, ended = True, None
        for completed in (True, False):
            try:
                seen = await self._context.readings.look(completed=completed)
            except CloreError as error:
                log.warning("a cancel goes on without the list of orders: %s", error.message)
                return ended, False
            row = seen.find(order_id)
            if row is not None and not row.expired:
                return row, True
            ended = ended or row
            looked = looked and not seen.unreadable
        return ended, looked

    async def _priced(self, row: OrderRow | None, lease: Lease | None) -> tuple[Decimal | None, Decimal | None]:
        hourly = lease.usd_per_hour if lease else None
        if row is None:
            return hourly, None
        fees, rates = await self._closer.prices()
        told = usd_per_hour(row, fees, rates)
        spent = bill(row, fees, rates, api_now=self._context.readings.api_now(), lease=lease)
        return told if told is not None else hourly, spent.total_usd if spent.priced else None

    async def _ended(self, request: CancelOrder, row: OrderRow, lease: Lease | None) -> Settled:
        final = await self._closer.bill(row, lease)
        if lease is not None and lease.ended_at is None and final is not None:
            await self._closer.close(lease, final, "ended")
        unbilled = f" {NEVER_WON}" if never_won(row) else ""
        return await self._already_ended(request, None if final is None else final.receipt(), unbilled)

    async def _already_ended(self, request: CancelOrder, receipt: OrderReceipt | None, unbilled: str = "") -> Settled:
        left = await self._closer.remaining()
        unsent = " The comment was not sent." if request.issue or request.comment_change else ""
        said = f"It had already ended.{unbilled} {left}{unsent}"
        return Settled(left.told_in(Outcome(Status.ALREADY_ENDED, said, order_id=request.order_id, receipt=receipt)))

    async def _reopen(self, lease: Lease) -> None:
        try:
            await self._closer.reopen(lease)
        except StateUnavailable as error:
            log.warning("order %s runs and could not be taken up again: %s", lease.order_id, error.message)

    async def _history(self, account: str, order_id: int) -> History:
        def read(tx: Tx) -> History:
            lease = orders.get(tx, account, order_id)
            unproven = ledger.last_of_order(tx, account, order_id, ("cancel_unverified",))
            return History(lease is not None, lease, unproven is not None)

        with contextlib.suppress(StateUnavailable):
            return await self._context.state.read(read)
        return History()

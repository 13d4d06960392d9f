"""The cancel verb: who must be asked before an order ends, and the ending itself.

What can't be read is said and not waited for: an order ends though prices, lists, wallets or the record are not to be
had. Only a fresh list that shows the order as expired, or a lease that was closed here, says that it has ended.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from clore_mcp.clore import OrderRow
from clore_mcp.errors import CloreError, NotFound, StateUnavailable
from clore_mcp.market.gpus import of_server
from clore_mcp.rental import outcomes, questions
from clore_mcp.rental.context import Desk, settle_quote
from clore_mcp.rental.orders.closure import NEVER_WON, Closing
from clore_mcp.rental.proposal import Proposal, Yes
from clore_mcp.rental.requests import CancelOrder
from clore_mcp.rental.rules.billing import bill, never_won, usd_per_hour
from clore_mcp.store import ledger, orders, quotes
from clore_mcp.store.database import Tx
from clore_mcp.store.orders import Lease
from clore_mcp.store.quotes import Quote

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class History:
    """What the state knows of an order; `made_here` is None where it can't be read. `tried`: a cancel that a person
    agreed to is still unproven."""

    made_here: bool | None = None
    lease: Lease | None = None
    tried: bool = False


class Cancelling:
    """Proposes and carries out cancels asked for through a client."""

    def __init__(self, desk: Desk, closing: Closing) -> None:
        self._desk = desk
        self._closing = closing

    async def already(self, ask: CancelOrder, account: str, digest: str) -> dict[str, Any] | None:
        """Nothing stands in the way of cancelling again."""
        return None

    async def propose(self, ask: CancelOrder, account: str) -> Proposal | dict[str, Any]:
        """The question, where someone can be asked; the receipt, where the order has ended already."""
        await self._desk.client.open()  # where no cancel can leave at all, nobody is asked about one
        history = await self._history(account, ask.order_id)
        row, looked = await self._look(ask.order_id)
        if row is not None and row.expired:
            return await self._ended(ask, row, history.lease)
        if row is None and looked:
            if history.lease is not None and history.lease.ended_at is not None:
                return await self._already_ended(ask, history.lease.receipt)
            if history.made_here is False:
                raise NotFound(f"This account has no order {ask.order_id}.", hint="list_orders shows the orders.")
        if row is not None and history.lease is not None and history.lease.ended_at is not None:
            await self._reopen(history.lease)
        hourly, spent = await self._priced(row, history.lease)
        made_here = history.made_here
        return Proposal(
            terms={"order_id": ask.order_id, "made_here": made_here},
            question=lambda quote_id: questions.cancel_question(
                quote_id, ask.order_id, what(row), hourly, made_here=made_here, spent_usd=spent
            ),
            yes=Yes.NEVER if history.tried else Yes.IF_ASKABLE if made_here else Yes.PERSON,
        )

    async def carry_out(self, quote: Quote, ask: CancelOrder, *, from_state: str, by: str) -> dict[str, Any]:
        """Cancel and prove it; a state that fails meanwhile stops nothing that a person agreed to."""
        desk = self._desk

        def use(tx: Tx) -> bool:
            kept = quotes.get(tx, quote.id) is not None  # else it was asked while the state could not be used
            return not kept or quotes.consume(
                tx, quote.id, from_state=from_state, owner=desk.owner, by=by, now=desk.clock()
            )

        try:
            taken = await desk.state.write(use)
        except StateUnavailable as error:
            log.warning("a cancel goes on without its record: %s", error.message)
            taken = True
        if not taken:
            return outcomes.in_progress(quote.id)
        outcome = await self._closing.cancel(ask.order_id, issue=ask.issue, caller=quote.caller, why=f"asked for; {by}")
        outcome["next"] = f"{outcome['next']} {ask.comment_change}".rstrip()
        try:
            return await settle_quote(desk, quote, outcome)
        except StateUnavailable:
            return outcome

    def unfinished(self, quote: Quote) -> dict[str, Any]:
        """The cancel is under way and not proven."""
        return {
            "status": "unverified",
            "order_id": quote.terms["order_id"],
            "next": "The cancel is not through yet, so the order may still bill. Call cancel_order again with the same"
            " arguments for what came of it.",
        }

    async def _look(self, order_id: int) -> tuple[OrderRow | None, bool]:
        """The order as Clore lists it now, and whether its absence would mean anything: both lists, read whole. What
        either list shows as running runs."""
        looked, ended = True, None
        for completed in (True, False):
            try:
                seen = await self._desk.readings.look(completed=completed)
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
        """What it costs an hour and has cost, as far as that is known."""
        hourly = lease.usd_per_hour if lease else None
        if row is None:
            return hourly, None
        fees, rates = await self._closing.prices()
        told = usd_per_hour(row, fees, rates)
        spent = bill(row, fees, rates, api_now=self._desk.readings.api_now(), lease=lease)
        return told if told is not None else hourly, spent.total_usd if spent.priced else None

    async def _ended(self, ask: CancelOrder, row: OrderRow, lease: Lease | None) -> dict[str, Any]:
        final = await self._closing.bill(row, lease)
        if lease is not None and lease.ended_at is None and final is not None:
            await self._closing.close(lease, final, "ended")
        unbilled = f" {NEVER_WON}" if never_won(row) else ""
        return await self._already_ended(ask, None if final is None else final.as_dict(), unbilled)

    async def _already_ended(
        self, ask: CancelOrder, receipt: dict[str, Any] | None, unbilled: str = ""
    ) -> dict[str, Any]:
        left = await self._closing.remaining()
        unsent = " The comment was not sent." if ask.issue or ask.comment_change else ""
        return {
            "status": "already_ended",
            "order_id": ask.order_id,
            **({"receipt": receipt} if receipt else {}),
            **left.as_dict(),
            "next": f"It had ended before.{unbilled} {left}{unsent}",
        }

    async def _reopen(self, lease: Lease) -> None:
        try:
            await self._closing.reopen(lease)
        except StateUnavailable as error:
            log.warning("order %s runs and could not be taken up again: %s", lease.order_id, error.message)

    async def _history(self, account: str, order_id: int) -> History:
        def read(tx: Tx) -> History:
            lease = orders.get(tx, account, order_id)
            unproven = ledger.last_of_order(tx, account, order_id, ("cancel_unverified",))
            return History(lease is not None, lease, unproven is not None)

        try:
            return await self._desk.state.read(read)
        except StateUnavailable:
            return History()


def what(row: OrderRow | None) -> str:
    """An order's hardware in short: '1x RTX 4090'; nothing where no row shows it."""
    if row is None:
        return ""
    cards = of_server(row.gpu, tuple(row.gpu_array or ()), None)
    return f"{cards.count}x {cards.model}"

"""The cancel verb: who must be asked before an order ends, and the ending itself."""

from __future__ import annotations

from typing import Any

from clore_mcp.clore import OrderRow
from clore_mcp.errors import NotFound
from clore_mcp.market.gpus import of_server
from clore_mcp.money import ZERO
from clore_mcp.rental import disclosure, outcomes
from clore_mcp.rental.asks import CancelOrder
from clore_mcp.rental.closing import Closing
from clore_mcp.rental.desk import Desk, settle_quote
from clore_mcp.rental.exposure import bill, usd_per_hour
from clore_mcp.rental.proposal import Proposal, Yes
from clore_mcp.rental.readings import BROWSING_AGE, EXECUTION_AGE
from clore_mcp.state import ledger, orders, quotes
from clore_mcp.state.database import Tx
from clore_mcp.state.quotes import Quote


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
        readings = self._desk.readings
        row = (await readings.orders(EXECUTION_AGE)).find(ask.order_id)
        if row is None or row.expired:
            return await self._ended(ask.order_id)
        fees, rates = await readings.fees(), (await readings.snapshot()).rates
        made_here, tried = await self._desk.state.read(lambda tx: self._history(tx, account, ask.order_id))
        spent = bill(row, fees, rates, api_now=readings.api_now())
        hourly = usd_per_hour(row, fees, rates) or ZERO
        return Proposal(
            terms={"order_id": ask.order_id, "made_here": made_here},
            question=lambda quote_id: disclosure.cancel_question(
                quote_id, ask.order_id, what(row), hourly, made_here=made_here, spent_usd=spent.total_usd
            ),
            yes=Yes.NEVER if tried else Yes.IF_ASKABLE if made_here else Yes.ALWAYS,
        )

    async def carry_out(self, quote: Quote, ask: CancelOrder, *, from_state: str, by: str) -> dict[str, Any]:
        """Cancel and prove it."""
        desk = self._desk
        taken = await desk.state.write(
            lambda tx: quotes.consume(tx, quote.id, from_state=from_state, owner=desk.owner, by=by, now=desk.clock())
        )
        if not taken:
            return outcomes.in_progress(quote.id)
        outcome = await self._closing.cancel(ask.order_id, issue=ask.issue, caller=quote.caller, why=f"asked for; {by}")
        return await settle_quote(desk, quote, outcome)

    def unfinished(self, quote: Quote) -> dict[str, Any]:
        """The cancel is under way and not proven."""
        return {
            "status": "unverified",
            "order_id": quote.terms["order_id"],
            "next": "The cancel is being verified. Call cancel_order again with the same arguments for the receipt.",
        }

    async def _ended(self, order_id: int) -> dict[str, Any]:
        readings = self._desk.readings
        row = (await readings.completed(BROWSING_AGE)).find(order_id)
        if row is None:
            raise NotFound(f"This account has no order {order_id}.", hint="list_orders shows the orders.")
        fees, rates = await readings.fees(), (await readings.snapshot()).rates
        receipt = bill(row, fees, rates, api_now=readings.api_now()).as_dict()
        return {
            "status": "already_ended",
            "order_id": order_id,
            "receipt": receipt,
            "still_running": await self._closing.still_running(),
            "next": "It had ended before; nothing more to do.",
        }

    def _history(self, tx: Tx, account: str, order_id: int) -> tuple[bool, bool]:
        """Whether the order was made here, and whether a cancel that a person agreed to is still unproven."""
        made_here = orders.get(tx, account, order_id) is not None
        unproven = ledger.read(tx, account=account, steps=("cancel_unverified",), limit=1000)
        return made_here, any(entry.order_id == order_id for entry in unproven)


def what(row: OrderRow) -> str:
    """An order's hardware in short: '1x RTX 4090'."""
    cards = of_server(row.gpu, tuple(row.gpu_array or ()), None)
    return f"{cards.count}x {cards.model}"

"""When an order whose host can't be reached may give way to the next server of the same yes, and what is said of it.

The question named the servers, that this may happen once, and the most that may be lost. The next create has a quote of
its own that shares that yes (`Quote.replaces`, unique), so it goes from reservation to outcome as every create does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from clore_mcp.money import ZERO, dollars
from clore_mcp.rental import outcomes
from clore_mcp.rental.create.presence import made_by_call
from clore_mcp.rental.results import LostOrder, Outcome, Settled, Status
from clore_mcp.rental.rules.check import Evidence
from clore_mcp.rental.rules.terms import REPLACED_WITHIN_MINUTES, Terms
from clore_mcp.store import intents, ledger, orders, quotes
from clore_mcp.store.database import Tx
from clore_mcp.store.orders import Lease
from clore_mcp.store.quotes import Quote

ANEW: Final = "To rent again, call create_order without replaces_order_id: the person is asked."
_END_IT: Final = "To end it, use cancel_order; to rent another server, call create_order, which asks the person."


@dataclass(frozen=True, slots=True)
class ReplacementOffer:
    """An order that may give way, the quote that it was made under, and the terms for the servers that are left."""

    lease: Lease
    quote: Quote
    terms: Terms


def offered(tx: Tx, account: str, order_id: int, caller: str, api_now: float) -> ReplacementOffer:
    """What may take the place of an order, as far as the record says. Raises Settled, with the cure."""
    lease = orders.get(tx, account, order_id)
    made_by = intents.get(tx, lease.intent_id) if lease else None
    quote = quotes.get(tx, made_by.quote_id) if made_by else None
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
        raise refused(outcomes.FROZEN)
    instead = replace(
        terms.alone(), candidates=left, to_win_usd=None, replaces_order_id=order_id, replaced_most_usd=used.lost_usd
    )
    return ReplacementOffer(lease, quote, instead)


def refused(why: str) -> Settled:
    """Nothing gives way."""
    return Settled(Outcome(Status.REFUSED, f"{why} Nothing was cancelled and nothing was rented."))


def standing_in_the_way(tx: Tx, quote: Quote, terms: Terms, evidence: Evidence, program: str) -> Outcome | None:
    """Why nothing may be rented in place of the lost order now; None where it is proven gone, has cost no more than was
    agreed to, and the call that made it has made nothing else."""
    order_id, account = terms.replaces_order_id, quote.account
    if order_id is None:
        return None
    lease, row = orders.get(tx, account, order_id), evidence.current.find(order_id)
    if lease is None or lease.ended_at is None or (row is not None and not row.expired):
        return outcomes.being_replaced(quote)
    cost, most = _cost_usd(lease), terms.replaced_most_usd or ZERO
    if cost is None or cost > most:
        told = "an unknown amount" if cost is None else dollars(cost)
        return outcomes.failed(f"Order {order_id} has cost {told}, more than the {dollars(most)} that the yes named.")
    first = quotes.get(tx, quote.replaces or "")
    return None if first is None else made_by_call(tx, account, first.digest, program, but_of=quote.id)


def told(tx: Tx, account: str, order_id: int, outcome: Outcome) -> Outcome:
    """The outcome of a call that replaces an order, with what became of that order; as it is while that one runs."""
    lease = orders.get(tx, account, order_id)
    made_by = intents.get(tx, lease.intent_id) if lease else None
    quote = quotes.replacement_of(tx, made_by.quote_id) if made_by else None
    if (
        lease is None
        or quote is None
        or lease.ended_at is None
        or Terms.from_json(quote.terms).replaces_order_id != order_id
    ):
        return outcome
    cost = _cost_usd(lease)
    lost = (
        f"Order {order_id} is cancelled; {'what' if cost is None else f'the {dollars(cost)} that'} it has cost is lost."
    )
    said = outcome.next
    if outcome.status in (Status.FAILED, Status.REFUSED) and outcome.order_id is None:
        said = said.replace("Nothing was spent.", "Nothing more was spent.")
        cure = "Call again with the same arguments to try once more." if quote.state == "approved" else ANEW
        said = f"No server was rented in its place, so nothing new runs. {said.removesuffix(' Call again.')} {cure}"
    return replace(outcome, replaced=LostOrder(order_id, lease.receipt), next=f"{lost} {said}")


def _cost_usd(lease: Lease) -> Decimal | None:
    """What it has cost by its receipt."""
    return None if lease.receipt is None else Decimal(str(lease.receipt.total_usd))

"""Changes a spot bid. Raising it spends and asks the person; lowering it is free, but Clore may refuse it.

The change is sent once. The reply, or a look at the order if there is none, gives its outcome, which is recorded.
bid_terms.py computes what a bid costs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio

from clore_mcp.errors import CloreError, Failure, Refused, Spent
from clore_mcp.money import ZERO, dollars, shown, shown_up
from clore_mcp.rental import results
from clore_mcp.rental.account.reading import EXECUTION_AGE
from clore_mcp.rental.approvals import Consent, Proposal, Verb, Yes
from clore_mcp.rental.context import Context, settle_quote
from clore_mcp.rental.create.quote import Pricer
from clore_mcp.rental.create.send import SendAbandoned
from clore_mcp.rental.ends.closure import Closer
from clore_mcp.rental.requests import SetSpotPrice
from clore_mcp.rental.results import Outcome, Refusal, Settled, Status
from clore_mcp.rental.rules.check import (
    UNENDED,
    AddedUsage,
    Position,
    Spend,
    Undecided,
    UndecidedReason,
    check,
    position,
)
from clore_mcp.rental.spot.bid_terms import Bid, BidTerms, bid_question, priced, refusal_of, reservation_of, to_win_usd
from clore_mcp.store import Quote, Tx, intents, orders, quotes
from clore_mcp.store.intents import Change

_LOOK_PAUSES: Final = (0.3, 1.0, 2.0, 4.0)


class BidVerb(Verb[SetSpotPrice]):
    """Proposes and carries out changes of spot bids."""

    def __init__(self, context: Context, pricer: Pricer, closer: Closer) -> None:
        self._context = context
        self._pricer = pricer
        self._closer = closer

    def declined(self, request: SetSpotPrice, unasked: str | None = None) -> Outcome:
        return results.bid_declined(request.order_id, unasked)

    def lapsed(self, request: SetSpotPrice) -> Outcome:
        why = "The quote expired before it was used. Call again."
        return results.bid_refused(request.order_id, "quote_expired", why)

    def left_to_person(self, request: SetSpotPrice, quote_id: str, deed: str) -> Outcome:
        until_then = f"{results.BID_STAYS.removesuffix('.')} until then."
        return results.approval_required(quote_id, deed, order_id=request.order_id, until_then=until_then)

    def unfinished(self, quote: Quote) -> Outcome:
        said = "The bid is being changed. Call again with the same arguments for the outcome."
        return Outcome(Status.UNCERTAIN, said, order_id=BidTerms.from_json(quote.terms).order_id)

    async def propose(self, request: SetSpotPrice, account: str) -> Proposal:
        row = (await self._context.readings.orders(EXECUTION_AGE)).find(request.order_id)
        bid = await priced(self._context, request, row, account, asked_at=self._context.clock())
        if bid.unchanged:
            raise Settled(await _answer(self._context, Status.UNCHANGED, bid))
        if bid.raises:
            await self._context.require_unfrozen()
            evidence = await self._pricer.evidence()
            try:
                evidence.require_whole()
            except Undecided as no:
                raise _cannot_decide(request.order_id, no) from None
            await self._closer.reconcile(account, evidence.current, evidence.completed)
            refusals = await self._context.state.read(
                lambda tx: self._stands_against(tx, account, bid, position(tx, self._context, account, evidence))
            )
            if refusals:
                raise Settled(results.raise_refused(refusals, bid.usd_per_hour))
        to_win = await to_win_usd(self._context, bid) if bid.raises else None
        return Proposal(
            terms=BidTerms(request.order_id, bid.day.value, bid.coin, bid.worst_usd),
            question=lambda quote_id: bid_question(quote_id, bid, to_win),
            yes=Yes.ALWAYS if bid.raises else Yes.NEVER,
        )

    async def carry_out(self, quote: Quote, request: SetSpotPrice, *, from_state: str, by: str) -> Outcome:
        try:
            outcome = await self._change(quote, request, from_state=from_state, by=by)
        except Settled as known:
            outcome = known.outcome
            if not known.final:  # nothing was used or sent
                return outcome
        return await settle_quote(self._context, quote, outcome)

    async def _change(self, quote: Quote, request: SetSpotPrice, *, from_state: str, by: str) -> Outcome:
        readings, unasked = self._context.readings, Consent.of(quote).yes is Yes.NEVER
        # Without a question this must lower the bid right now, and another process may have lowered it more.
        seen = await (readings.look(completed=False) if unasked else readings.orders(EXECUTION_AGE))
        row, terms = seen.find(request.order_id), BidTerms.from_json(quote.terms)
        bid = await priced(self._context, request, row, quote.account, asked_at=quote.created_at)
        if request.to_win and bid.unchanged:  # the rival has gone, so the bid already wins
            return await _answer(self._context, Status.UNCHANGED, bid)
        if bid.day.value > terms.bid_per_day and not request.to_win:  # the rate moved: never above what was approved
            bid = bid.at(terms.bid_per_day)
        _require_agreed(terms, bid, unasked=unasked)
        refusals, change = await self._claim(quote, bid, from_state=from_state, by=by)
        if refusals:
            return results.raise_refused(refusals)
        return await _send(self._context, quote, bid, change)

    def _stands_against(self, tx: Tx, account: str, bid: Bid, stands: Position) -> list[Refusal]:
        """Return every refusal of a raise. Raises Settled for an order that is being ended, because its further cost
        depends on a cancel that is not proven."""
        if _being_ended(tx, self._context, account, bid.row.id):
            raise _undecided(bid.row.id, "ending", "The order is being ended, so its bid is not raised.")
        held = intents.reservation_of_order(tx, account, bid.row.id)
        before_hourly = held.usd_per_hour if held else bid.usd(bid.row.price or ZERO)
        wanted = AddedUsage(
            usd_per_hour=max(ZERO, bid.usd_per_hour - before_hourly),
            usd_per_order=bid.worst_usd,
            usd_per_day=max(ZERO, bid.worst_usd - (held.worst_usd if held else ZERO)),
            active_orders=0,
        )
        return check(stands, Spend(wanted, bid.draw, UNENDED if bid.enforced_by is not None else None))

    async def _claim(
        self, quote: Quote, bid: Bid, *, from_state: str, by: str
    ) -> tuple[Sequence[Refusal], Change | None]:
        """Use the yes and raise the reservation first, so that a process killed here never counts too little. Return
        the refusals, or the reservation that the bid has begun to change. Raises Settled if the yes can't be used."""
        context = self._context
        evidence = await self._pricer.evidence() if bid.raises else None

        def write(tx: Tx) -> tuple[Sequence[Refusal], Change | None]:
            now = context.clock()
            if bid.raises:
                context.forbid_frozen(tx)
            try:
                stands = evidence and position(tx, context, quote.account, evidence, deciding=True)
            except Undecided as no:
                raise _cannot_decide(bid.row.id, no) from None
            end = orders.end_of(tx, quote.account, bid.row.id)
            if end != bid.end and not _being_ended(tx, context, quote.account, bid.row.id):
                why = "Its end was moved meanwhile, which changes what it may cost. Call again."
                raise _undecided(bid.row.id, "end_moved", why)
            refusals = self._stands_against(tx, quote.account, bid, stands) if stands else []
            if not quotes.consume(tx, quote.id, from_state=from_state, owner=context.owner, by=by, now=now):
                raise Settled(results.in_progress(quote.id), final=False)
            change = None if refusals else intents.begin_bid(tx, quote.id, reservation_of(bid, quote.account, now))
            context.note(tx, "bid_claimed", quote.caller, quote.account, quote_id=quote.id, order_id=bid.row.id,
                         bid_per_day=str(bid.day.value), coin=bid.coin.value, approved_by=by)  # fmt: skip
            return refusals, change

        return await context.state.write(write)


def _require_agreed(terms: BidTerms, bid: Bid, *, unasked: bool) -> None:
    reason, why = "", ""
    if bid.day.value > terms.bid_per_day:
        reason = "outbid_meanwhile"
        why = f"The winning bid is now {dollars(bid.usd_per_hour)} per hour, more than was approved. Call again."
    elif bid.raises and unasked:
        reason, why = "bid_changed", "The bid has changed meanwhile, so this would raise it. Call again."
    elif bid.raises and bid.due_usd > terms.worst_usd:
        reason = "worst_case_grew"
        why = f"It could cost {dollars(bid.worst_usd)} now, more than was approved. Call again."
    if reason:
        raise Settled(results.bid_refused(terms.order_id, reason, why))


def _undecided(order_id: int, reason: str, why: str) -> Settled:
    return Settled(results.bid_refused(order_id, reason, why), final=False)


def _cannot_decide(order_id: int, no: Undecided) -> Settled:
    again = "" if no.doubt is UndecidedReason.TOO_OLD else " Call again in a minute."
    return _undecided(order_id, no.doubt.value, f"{no.why}.{again}")


async def _send(context: Context, quote: Quote, bid: Bid, change: Change | None) -> Outcome:
    """Send a claimed bid and return its outcome. `change` is the reservation that it has begun to change."""
    order_id = bid.row.id
    try:
        before_send = _may_still_leave(context) if bid.raises else None
        await context.client.set_spot_price(order_id, bid.day, before_send=before_send)
    except Refused as error:
        await _record_refusal(context, quote, bid, change)
        return refusal_of(order_id, bid, error)
    except Failure as error:
        if error.spent is Spent.NO:
            if change is not None:
                await context.state.write(lambda tx: intents.undo_bid(tx, change, context.clock()))
            return results.bid_refused(order_id, error.code, f"{error.message} {error.hint}")
        if not await _arrived(context, bid):
            said = f"{error.message} The bid may or may not have changed. list_orders shows the price."
            usd = shown(bid.usd_per_hour)
            return Outcome(Status.UNCERTAIN, said, order_id=order_id, bid_usd_per_hour=usd)
    await _record(context, quote, bid, change)
    context.readings.changed()
    return await _answer(context, Status.UPDATED, bid)


async def _answer(context: Context, status: Status, bid: Bid) -> Outcome:
    view = await context.readings.spot_view_if_known(bid.row.server_id or 0)
    rank = view.our_rank if view else None
    winning = view.winning.get(bid.coin) if view else None
    wins = view is not None and any(offer.mine and offer.active for offer in view.offers)
    beaten = rank is not None and rank > 1 and not wins
    needed = bid.usd_to_ask(winning.value) if beaten and winning is not None else None
    said = "list_orders shows whether it runs."
    if wins:
        said = "It wins, so the order runs or starts now, and is billed."
    elif rank == 1:
        said = "It is the highest bid but not shown as winning yet. No bid wins while the server is rented on demand."
    elif beaten:
        least = "" if needed is None else f" {dollars(needed)} per hour would win now."
        said = f"Another bid is higher. The order waits and costs nothing, but its hours run.{least}"
    return Outcome(
        status,
        said,
        order_id=bid.row.id,
        bid_usd_per_hour=shown(bid.usd_per_hour),
        was_usd_per_hour=None if bid.row.price is None else shown(bid.usd(bid.row.price)),
        on_demand_usd_per_hour=None if bid.on_demand_usd is None else shown_up(bid.on_demand_usd),
        to_win_usd_per_hour=None if needed is None else shown_up(needed),
        price_per_day=float(bid.day.value),
        currency=bid.coin.ticker,
        rank=rank,
    )


def _being_ended(tx: Tx, context: Context, account: str, order_id: int) -> bool:
    """Return whether its lease is over or a cancel cut it short. Until that is proven, its end does not bound its
    cost."""
    end = orders.end_of(tx, account, order_id)
    return end is not None and end.on_end == "cancel" and end.ends_api_at <= context.readings.api_now()


def _may_still_leave(context: Context) -> Callable[[], Awaitable[None]]:
    """Return the check right before a raise is sent. It refuses after a freeze of spending, and in a process that was
    suspended since its claim."""
    not_after = context.clock() + context.patience.answer
    deadline = context.monotonic() + context.patience.answer

    async def refuse() -> None:
        await context.require_unfrozen()
        if context.clock() >= not_after or context.monotonic() >= deadline:
            raise SendAbandoned("The process was suspended before sending, so nothing was sent.", hint="Call again.")

    return refuse


async def _arrived(context: Context, bid: Bid) -> bool:
    for pause in _LOOK_PAUSES:
        await anyio.sleep(pause)
        with contextlib.suppress(CloreError):
            row = (await context.readings.look(completed=False)).find(bid.row.id)
            if row is not None and row.price is not None and abs(row.price - bid.day.value) <= bid.day.value / 10**9:
                return True
    return False


async def _record(context: Context, quote: Quote, bid: Bid, change: Change | None) -> None:
    def write(tx: Tx) -> None:
        orders.bid(tx, quote.account, bid.row.id, bid.day.value, bid.day.value)
        if change is not None:
            reserved = change.before.worst_usd if change.before and not bid.raises else bid.worst_usd
            least = reserved if _being_ended(tx, context, quote.account, bid.row.id) else bid.worst_usd
            intents.end_bid(tx, change, min(reserved, least), bid.usd_per_hour)
        _note(tx, context, "bid_set", quote, bid)

    await context.state.write(write)


async def _record_refusal(context: Context, quote: Quote, bid: Bid, change: Change | None) -> None:
    def write(tx: Tx) -> None:
        if change is not None:
            intents.undo_bid(tx, change, context.clock())
        _note(tx, context, "bid_refused", quote, bid)

    await context.state.write(write)


def _note(tx: Tx, context: Context, step: str, quote: Quote, bid: Bid) -> None:
    context.note(tx, step, quote.caller, quote.account, quote_id=quote.id, order_id=bid.row.id,
                 bid_per_day=str(bid.day.value), coin=bid.coin.value, api_at=context.readings.api_now(),
                 was_per_day=str(bid.row.price))  # fmt: skip

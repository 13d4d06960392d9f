"""Changing a spot bid: raising it spends and is asked about; lowering it is free, and Clore may refuse it.

Here it is decided whether a bid may leave; bid_price.py says what it comes to, bid_send.py sends it.
"""

from __future__ import annotations

from dataclasses import dataclass

from clore_mcp.money import ZERO, dollars
from clore_mcp.rental import outcomes
from clore_mcp.rental.account.reading import EXECUTION_AGE
from clore_mcp.rental.context import Desk, settle_quote
from clore_mcp.rental.create.quote import Appraiser
from clore_mcp.rental.orders.closure import Closing
from clore_mcp.rental.proposal import Consent, Proposal, Verb, Yes
from clore_mcp.rental.requests import SetSpotPrice
from clore_mcp.rental.results import Outcome, Refusal, Settled, Status
from clore_mcp.rental.rules.check import UNENDED, Doubt, Position, Spend, Undecided, check, position
from clore_mcp.rental.rules.limits import Wanted
from clore_mcp.rental.spot import bid_price, bid_send
from clore_mcp.rental.spot.bid_question import bid_question, told_of
from clore_mcp.rental.spot.bids import Bid, BidTerms, reservation_of
from clore_mcp.store import bids, ends, intents, quotes
from clore_mcp.store.bids import Change
from clore_mcp.store.database import Tx
from clore_mcp.store.quotes import Quote


@dataclass(frozen=True, slots=True)
class Claimed:
    """A yes that was used: what stands against it after all, or the reservation that its bid has begun to change."""

    refusals: tuple[Refusal, ...]
    change: Change | None


class Bidding(Verb[SetSpotPrice]):
    """Proposes and carries out changes of spot bids."""

    def __init__(self, desk: Desk, appraiser: Appraiser, closing: Closing) -> None:
        self._desk = desk
        self._appraiser = appraiser
        self._closing = closing

    def declined(self, ask: SetSpotPrice, unasked: str | None = None) -> Outcome:
        """See `Verb`: the bid stays."""
        return outcomes.bid_declined(ask.order_id, unasked)

    def lapsed(self, ask: SetSpotPrice) -> Outcome:
        """See `Verb`: the bid stays."""
        return outcomes.bid_refused(ask.order_id, "quote_expired", "The quote expired before it was used.")

    def left_to_person(self, ask: SetSpotPrice, quote_id: str) -> Outcome:
        """See `Verb`: the bid stays until then."""
        until_then = f"{outcomes.BID_STAYS.removesuffix('.')} until then."
        return outcomes.approval_required(quote_id, self._desk.program, order_id=ask.order_id, until_then=until_then)

    def unfinished(self, quote: Quote) -> Outcome:
        """The change is under way and its outcome unknown."""
        said = "The bid is being changed. Call again with the same arguments for the outcome."
        return Outcome(Status.UNCERTAIN, said, order_id=BidTerms.from_json(quote.terms).order_id)

    async def propose(self, ask: SetSpotPrice, account: str) -> Proposal:
        """What a person would be asked. Raises Settled where there is nothing to ask."""
        row = (await self._desk.readings.orders(EXECUTION_AGE)).find(ask.order_id)
        bid = await bid_price.price(self._desk, ask, row, account, asked_at=self._desk.clock())
        if bid.unchanged:
            raise Settled(await bid_send.answer(self._desk, Status.UNCHANGED, bid))
        if bid.raises:
            await self._desk.require_unfrozen()
            evidence = await self._appraiser.evidence()
            try:
                evidence.require_whole()
            except Undecided as no:
                raise _cannot_decide(ask.order_id, no) from None
            await self._closing.reconcile(account, evidence.current, evidence.completed)
            refusals = await self._desk.state.read(
                lambda tx: self._stands_against(tx, account, bid, position(tx, self._desk, account, evidence))
            )
            if refusals:
                raise Settled(outcomes.raise_refused(refusals, bid.usd_per_hour))
        told = told_of(bid, await bid_price.to_win_usd(self._desk, bid) if bid.raises else None)
        return Proposal(
            terms=BidTerms(ask.order_id, bid.day.value, bid.coin, bid.worst_usd),
            question=lambda quote_id: bid_question(quote_id, told),
            yes=Yes.ALWAYS if bid.raises else Yes.NEVER,
        )

    async def carry_out(self, quote: Quote, ask: SetSpotPrice, *, from_state: str, by: str) -> Outcome:
        """Send the bid once and report what Clore made of it."""
        try:
            outcome = await self._change(quote, ask, from_state=from_state, by=by)
        except Settled as known:
            outcome = known.outcome
            if not known.final:  # nothing was used or sent
                return outcome
        return await settle_quote(self._desk, quote, outcome)

    async def _change(self, quote: Quote, ask: SetSpotPrice, *, from_state: str, by: str) -> Outcome:
        readings, unasked = self._desk.readings, Consent.of(quote).yes is Yes.NEVER
        # Nobody was asked, so it must be a lowering at this very moment: another process may have lowered it more.
        seen = await (readings.look(completed=False) if unasked else readings.orders(EXECUTION_AGE))
        row, terms = seen.find(ask.order_id), BidTerms.from_json(quote.terms)
        bid = await bid_price.price(self._desk, ask, row, quote.account, asked_at=quote.created_at)
        if ask.to_win and bid.unchanged:  # the rival has gone: it wins already
            return await bid_send.answer(self._desk, Status.UNCHANGED, bid)
        if bid.day.value > terms.bid_per_day and not ask.to_win:  # the rate moved: never above what was approved
            bid = bid.at(terms.bid_per_day)
        _require_agreed(terms, bid, unasked=unasked)
        claimed = await self._claim(quote, bid, from_state=from_state, by=by)
        if claimed.refusals:
            return outcomes.raise_refused(claimed.refusals)
        return await bid_send.send(self._desk, quote, bid, claimed.change)

    def _stands_against(self, tx: Tx, account: str, bid: Bid, stands: Position) -> list[Refusal]:
        """Every limit that a raise would break. Raises Settled for an order that is being ended: what it may still
        cost hangs on a cancel that is not proven."""
        if bid_send.being_ended(tx, self._desk, account, bid.row.id):
            raise _undecided(bid.row.id, "ending", "It is being ended, or its lease is over, so its bid is not raised.")
        held = intents.reservation_of_order(tx, account, bid.row.id)
        before_hourly = held.usd_per_hour if held else bid.usd(bid.row.price or ZERO)
        wanted = Wanted(
            usd_per_hour=max(ZERO, bid.usd_per_hour - before_hourly),
            usd_per_order=bid.worst_usd,
            usd_per_day=max(ZERO, bid.worst_usd - (held.worst_usd if held else ZERO)),
            active_orders=0,
        )
        return check(stands, Spend(wanted, bid.draw, UNENDED if bid.enforced_by is not None else None))

    async def _claim(self, quote: Quote, bid: Bid, *, from_state: str, by: str) -> Claimed:
        """Consume the yes and raise the reservation first, so that a process killed here never counts too little.
        Without refusals the bid may be sent. Raises Settled when the yes is not to be had."""
        desk = self._desk
        evidence = await self._appraiser.evidence() if bid.raises else None

        def write(tx: Tx) -> Claimed:
            now = desk.clock()
            if bid.raises:
                desk.forbid_frozen(tx)
            try:
                stands = evidence and position(tx, desk, quote.account, evidence, deciding=True)
            except Undecided as no:
                raise _cannot_decide(bid.row.id, no) from None
            end = ends.of(tx, quote.account, bid.row.id)
            if end != bid.end and not bid_send.being_ended(tx, desk, quote.account, bid.row.id):
                why = "Its end has moved meanwhile, and with it what it may cost. Call again."
                raise _undecided(bid.row.id, "end_moved", why)
            refusals = self._stands_against(tx, quote.account, bid, stands) if stands else []
            if not quotes.consume(tx, quote.id, from_state=from_state, owner=desk.owner, by=by, now=now):
                raise Settled(outcomes.in_progress(quote.id), final=False)
            change = None if refusals else bids.begin(tx, quote.id, reservation_of(bid, quote.account, now))
            desk.note(tx, "bid_claimed", quote.caller, quote.account, quote_id=quote.id, order_id=bid.row.id,
                      bid_per_day=str(bid.day.value), coin=bid.coin.value, approved_by=by)  # fmt: skip
            return Claimed(tuple(refusals), change)

        return await desk.state.write(write)


def _require_agreed(terms: BidTerms, bid: Bid, *, unasked: bool) -> None:
    """Raises Settled where a bid is not what was agreed to any more."""
    reason, why = "", ""
    if bid.day.value > terms.bid_per_day:
        reason = "outbid_meanwhile"
        why = f"Winning takes {dollars(bid.usd_per_hour)} per hour by now, more than was approved. Call again."
    elif bid.raises and unasked:
        reason, why = "bid_changed", "The bid has changed meanwhile, so this would raise it. Call again."
    elif bid.raises and bid.due_usd > terms.worst_usd:
        reason = "worst_case_grew"
        why = f"It could cost {dollars(bid.worst_usd)} now, more than was approved. Call again."
    if reason:
        raise Settled(outcomes.bid_refused(terms.order_id, reason, why))


def _undecided(order_id: int, reason: str, why: str) -> Settled:
    """What the judgement rests on can't decide over money: it has grown too old, or can't be read whole."""
    return Settled(outcomes.bid_refused(order_id, reason, why), final=False)


def _cannot_decide(order_id: int, no: Undecided) -> Settled:
    again = "" if no.doubt is Doubt.TOO_OLD else " Call again in a minute."
    return _undecided(order_id, no.doubt.value, f"{no.why}.{again}")

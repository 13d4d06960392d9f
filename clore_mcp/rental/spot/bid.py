"""Changing a spot bid: raising it spends and is asked about; lowering it is free, and Clore may refuse it.

Here it is decided whether a bid may leave; bid_price.py says what it comes to, bid_send.py sends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from clore_mcp.money import ZERO, dollars, shown
from clore_mcp.rental import outcomes
from clore_mcp.rental.account.reading import EXECUTION_AGE
from clore_mcp.rental.context import Desk, settle_quote
from clore_mcp.rental.create.quote import Appraiser
from clore_mcp.rental.orders.closure import Closing
from clore_mcp.rental.proposal import Proposal, Yes
from clore_mcp.rental.requests import SetSpotPrice
from clore_mcp.rental.rules.check import Evidence, owed_now, used_now, wallet_refusal, watchdog_refusal
from clore_mcp.rental.rules.limits import Refusal, Wanted, check
from clore_mcp.rental.spot import bid_price, bid_send
from clore_mcp.rental.spot.bid_question import bid_question, told_of
from clore_mcp.rental.spot.bids import Bid, raise_refused, reservation_of
from clore_mcp.store import bids, ends, intents, quotes
from clore_mcp.store.bids import Change
from clore_mcp.store.database import Tx
from clore_mcp.store.quotes import Quote


class _Undecided(Exception):
    """What the judgement rests on can't decide over money: it has grown too old, or can't be read whole."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.why = why


@dataclass(frozen=True, slots=True)
class Claimed:
    """A yes that was used: what stands against it after all, or the reservation that its bid has begun to change."""

    refusals: tuple[Refusal, ...]
    change: Change | None


class Bidding:
    """Proposes and carries out changes of spot bids."""

    def __init__(self, desk: Desk, appraiser: Appraiser, closing: Closing) -> None:
        self._desk = desk
        self._appraiser = appraiser
        self._closing = closing

    async def already(self, ask: SetSpotPrice, account: str, digest: str) -> dict[str, Any] | None:
        """A bid that is set already is found unchanged by `propose`."""
        return None

    def unfinished(self, quote: Quote) -> dict[str, Any]:
        """The change is under way and its outcome unknown."""
        return {
            "status": "uncertain",
            "order_id": quote.terms["order_id"],
            "next": "The bid is being changed. Call again with the same arguments for the outcome.",
        }

    async def propose(self, ask: SetSpotPrice, account: str) -> Proposal | dict[str, Any]:
        """What a person would be asked; an outcome where there is nothing to ask."""
        row = (await self._desk.readings.orders(EXECUTION_AGE)).find(ask.order_id)
        bid = await bid_price.price(self._desk, ask, row, account, asked_at=self._desk.clock())
        if isinstance(bid, dict):
            return bid
        if bid.unchanged:
            return await bid_send.answer(self._desk, "unchanged", bid)
        if bid.raises:
            await self._desk.require_unfrozen()
            evidence = await self._appraiser.evidence()
            if (unsure := _unsure(evidence)) is not None:
                return outcomes.bid_refused(ask.order_id, unsure.reason, unsure.why)
            await self._closing.reconcile(account, evidence.current, evidence.completed)
            try:
                refusals = await self._desk.state.read(lambda tx: self._stands_against(tx, account, bid, evidence))
            except _Undecided as ending:
                return outcomes.bid_refused(ask.order_id, ending.reason, ending.why)
            if refusals:
                return {**raise_refused(refusals), "bid_usd_per_hour": shown(bid.usd_per_hour)}
        told = told_of(bid, await bid_price.to_win_usd(self._desk, bid) if bid.raises else None)
        return Proposal(
            terms={
                "order_id": ask.order_id,
                "bid_per_day": str(bid.day.value),
                "coin": bid.coin.value,
                "worst_usd": str(bid.worst_usd),
            },
            question=lambda quote_id: bid_question(quote_id, told),
            yes=Yes.ALWAYS if bid.raises else Yes.NEVER,
        )

    async def carry_out(self, quote: Quote, ask: SetSpotPrice, *, from_state: str, by: str) -> dict[str, Any]:
        """Send the bid once and report what Clore made of it."""
        readings, unasked = self._desk.readings, quote.terms["yes"] == Yes.NEVER
        # Nobody was asked, so it must be a lowering at this very moment: another process may have lowered it more.
        seen = await (readings.look(completed=False) if unasked else readings.orders(EXECUTION_AGE))
        row = seen.find(ask.order_id)
        bid = await bid_price.price(self._desk, ask, row, quote.account, asked_at=quote.created_at)
        if isinstance(bid, dict):
            return await settle_quote(self._desk, quote, bid)
        approved = Decimal(quote.terms["bid_per_day"])
        if ask.to_win and bid.unchanged:  # the rival has gone: it wins already
            return await settle_quote(self._desk, quote, await bid_send.answer(self._desk, "unchanged", bid))
        if bid.day.value > approved and not ask.to_win:  # the rate moved: never above what was approved
            bid = bid.at(approved)
        if (moved := _moved(quote, ask, bid, unasked=unasked)) is not None:
            return await settle_quote(self._desk, quote, moved)
        try:
            claimed = await self._claim(quote, bid, from_state=from_state, by=by)
        except _Undecided as unsure:  # nothing was used or sent
            return outcomes.bid_refused(ask.order_id, unsure.reason, unsure.why)
        if claimed is None:
            return outcomes.in_progress(quote.id)
        if claimed.refusals:
            return await settle_quote(self._desk, quote, raise_refused(claimed.refusals))
        return await settle_quote(self._desk, quote, await bid_send.send(self._desk, quote, bid, claimed.change))

    def _stands_against(self, tx: Tx, account: str, bid: Bid, evidence: Evidence) -> list[Refusal]:
        """Every limit that a raise would break. Raises _Undecided for an order that is being ended: what it may still
        cost hangs on a cancel that is not proven."""
        if bid_send.being_ended(tx, self._desk, account, bid.row.id):
            raise _Undecided("ending", "It is being ended, or its lease is over, so its bid is not raised.")
        held = intents.reservation_of_order(tx, account, bid.row.id)
        before_hourly = held.usd_per_hour if held else bid.usd(bid.row.price or ZERO)
        used = used_now(tx, account, evidence, self._desk.clock(), self._desk.settings.limits)
        wanted = Wanted(
            usd_per_hour=max(ZERO, bid.usd_per_hour - before_hourly),
            usd_per_order=bid.worst_usd,
            usd_per_day=max(ZERO, bid.worst_usd - (held.worst_usd if held else ZERO)),
            active_orders=0,
        )
        refusals = check(self._desk.settings.limits, used, wanted, self._desk.settings.sources)
        short = wallet_refusal(bid.draw, evidence, owed_now(tx, account, evidence))
        unwatched = watchdog_refusal(tx, self._desk, account, relied_on=bid.enforced_by is not None)
        return [*refusals, *(one for one in (short, unwatched) if one is not None)]

    async def _claim(self, quote: Quote, bid: Bid, *, from_state: str, by: str) -> Claimed | None:
        """Consume the yes and raise the reservation first, so that a process killed here never counts too little.
        None when the yes is not to be had; without refusals when the bid may be sent."""
        desk = self._desk
        evidence = await self._appraiser.evidence() if bid.raises else None

        def write(tx: Tx) -> Claimed | None:
            now = desk.clock()
            if bid.raises:
                desk.forbid_frozen(tx)
            if evidence is not None and not evidence.decides(now):
                raise _Undecided("too_slow", "Clore answers too slowly to check the limits.")
            if evidence is not None and (unsure := _unsure(evidence)) is not None:
                raise unsure
            end = ends.of(tx, quote.account, bid.row.id)
            if end != bid.end and not bid_send.being_ended(tx, desk, quote.account, bid.row.id):
                raise _Undecided("end_moved", "Its end has moved meanwhile, and with it what it may cost. Call again.")
            refusals = self._stands_against(tx, quote.account, bid, evidence) if evidence else []
            if not quotes.consume(tx, quote.id, from_state=from_state, owner=desk.owner, by=by, now=now):
                return None
            change = None if refusals else bids.begin(tx, quote.id, reservation_of(bid, quote.account, now))
            desk.note(tx, "bid_claimed", quote.caller, quote.account, quote_id=quote.id, order_id=bid.row.id,
                      bid_per_day=str(bid.day.value), coin=bid.coin.value, approved_by=by)  # fmt: skip
            return Claimed(tuple(refusals), change)

        return await desk.state.write(write)


def _moved(quote: Quote, ask: SetSpotPrice, bid: Bid, *, unasked: bool) -> dict[str, Any] | None:
    """Why a bid is not what was agreed to any more; None where it is."""
    if bid.day.value > Decimal(quote.terms["bid_per_day"]):
        why = f"Winning takes {dollars(bid.usd_per_hour)} per hour by now, more than was approved. Call again."
        return outcomes.bid_refused(ask.order_id, "outbid_meanwhile", why)
    if bid.raises and unasked:
        why = "The bid has changed meanwhile, so this would raise it. Call again."
        return outcomes.bid_refused(ask.order_id, "bid_changed", why)
    if bid.raises and bid.due_usd > Decimal(quote.terms["worst_usd"]):
        why = f"It could cost {dollars(bid.worst_usd)} now, more than was approved. Call again."
        return outcomes.bid_refused(ask.order_id, "worst_case_grew", why)
    return None


def _unsure(evidence: Evidence) -> _Undecided | None:
    if evidence.current.unreadable or evidence.completed.unreadable:
        why = "Clore's list of orders has a row that can't be read, so nothing can be counted against the limits."
        return _Undecided("unreadable_orders", f"{why} Call again in a minute.")
    return None

"""Changing a spot bid: raising it spends and is asked about; lowering it is free, and slow by Clore's rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import anyio

from clore_mcp.clore import OrderRow
from clore_mcp.errors import ArgumentInvalid, CloreError, Failure, NotFound, Refused, Spent
from clore_mcp.market.rates import OrderType
from clore_mcp.market.spotbook import SpotView, read_book
from clore_mcp.money import ZERO, Coin, DayPrice, dollars, shown
from clore_mcp.rental import disclosure, outcomes
from clore_mcp.rental.appraisal import Appraiser
from clore_mcp.rental.asks import SetSpotPrice
from clore_mcp.rental.bids import SLACK_HOURS, Bid, hours_left, refusal_of, reservation_of, told_of
from clore_mcp.rental.claiming import Abandoned
from clore_mcp.rental.closing import Closing
from clore_mcp.rental.desk import Desk, settle_quote
from clore_mcp.rental.exposure import UnknownRate
from clore_mcp.rental.judging import Evidence, owed_now, used_now, wallet_refusal, watchdog_refusal
from clore_mcp.rental.limits import Refusal, Wanted, check
from clore_mcp.rental.proposal import Proposal, Yes
from clore_mcp.rental.readings import EXECUTION_AGE
from clore_mcp.rental.terms import bid_within, reservation_margin
from clore_mcp.state import bids, ends, intents, orders, quotes
from clore_mcp.state.bids import Change
from clore_mcp.state.database import Tx
from clore_mcp.state.quotes import Quote

_LOOK_PAUSES: Final = (0.3, 1.0, 2.0, 4.0)


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
    """Prices, proposes and carries out changes of spot bids."""

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
        bid = await self._price(ask, row, account, asked_at=self._desk.clock())
        if isinstance(bid, dict):
            return bid
        if bid.unchanged:
            return await self._answer("unchanged", ask.order_id, bid)
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
                return {**outcomes.raise_refused(refusals), "bid_usd_per_hour": shown(bid.usd_per_hour)}
        told = told_of(bid)
        return Proposal(
            terms={
                "order_id": ask.order_id,
                "bid_per_day": str(bid.day.value),
                "coin": bid.coin.value,
                "worst_usd": str(bid.worst_usd),
            },
            question=lambda quote_id: disclosure.bid_question(quote_id, told),
            yes=Yes.ALWAYS if bid.raises else Yes.NEVER,
        )

    async def carry_out(self, quote: Quote, ask: SetSpotPrice, *, from_state: str, by: str) -> dict[str, Any]:
        """Send the bid once and report what Clore made of it."""
        readings, unasked = self._desk.readings, quote.terms["yes"] == Yes.NEVER
        # Nobody was asked, so it must be a lowering at this very moment: another process may have lowered it more.
        seen = await (readings.look(completed=False) if unasked else readings.orders(EXECUTION_AGE))
        bid = await self._price(ask, seen.find(ask.order_id), quote.account, asked_at=quote.created_at)
        if isinstance(bid, dict):
            return await settle_quote(self._desk, quote, bid)
        approved = Decimal(quote.terms["bid_per_day"])
        if bid.day.value > approved:  # the rate moved: never above what was approved
            bid = bid.at(approved)
        if bid.raises and unasked:
            why = "The bid has changed meanwhile, so this would raise it. Call again."
            return await settle_quote(self._desk, quote, outcomes.bid_refused(ask.order_id, "bid_changed", why))
        if bid.raises and bid.due_usd > Decimal(quote.terms["worst_usd"]):
            why = f"It could cost {dollars(bid.worst_usd)} now, more than was approved. Call again."
            return await settle_quote(self._desk, quote, outcomes.bid_refused(ask.order_id, "worst_case_grew", why))
        try:
            claimed = await self._claim(quote, bid, from_state=from_state, by=by)
        except _Undecided as unsure:  # nothing was used or sent
            return outcomes.bid_refused(ask.order_id, unsure.reason, unsure.why)
        if claimed is None:
            return outcomes.in_progress(quote.id)
        if claimed.refusals:
            return await settle_quote(self._desk, quote, outcomes.raise_refused(claimed.refusals))
        return await settle_quote(self._desk, quote, await self._send(quote, ask, bid, claimed.change))

    async def _price(
        self, ask: SetSpotPrice, row: OrderRow | None, account: str, *, asked_at: float
    ) -> Bid | dict[str, Any]:
        readings = self._desk.readings
        if row is None or row.expired:
            raise NotFound(f"No order {ask.order_id} is running.", hint="list_orders shows what runs.")
        if not row.spot:
            raise ArgumentInvalid(f"Order {ask.order_id} is on-demand: its price is fixed.", hint="Only spot has bids.")
        coin = Coin.parse(row.currency or "")
        snapshot, fees = await readings.snapshot(), await readings.fees()
        rate = snapshot.rates.usd_per(coin) if coin else None
        if coin is None or rate is None:
            return outcomes.bid_refused(ask.order_id, "unknown_rate", "No rate to USD is known for the order's coin.")
        fee = fees.fraction(OrderType.SPOT, coin)
        listing = snapshot.by_id.get(row.server_id or 0)
        minimum = listing.spot.get(coin) if listing else None
        day = bid_within(ask.exact_bid, coin, rate, fee, minimum)
        if day is None:
            least = DayPrice(minimum or ZERO, coin).usd_per_hour(rate) * (1 + fee)
            why = f"The host takes no bid under {dollars(least)} per hour."
            return outcomes.bid_refused(ask.order_id, "too_low_price", why)
        usd_per_hour = day.usd_per_hour(rate) * (1 + fee)
        end = await self._desk.state.read(lambda tx: ends.of(tx, account, ask.order_id))
        enforced_by = await self._desk.enforced_by() if end is not None and end.on_end == "cancel" else None
        enforced_end = end.ends_api_at if end is not None and enforced_by else None
        worst_hours = hours_left(enforced_end, readings.api_now(), self._desk.clock() - asked_at)
        spent = (row.spend or ZERO) * rate * (1 + fee)
        creation = fees.creation_usd(OrderType.SPOT, coin, rate)
        margin = reservation_margin(coin)
        worst_usd = spent + (usd_per_hour * worst_hours + creation) * margin
        due_usd = spent + usd_per_hour * (worst_hours - SLACK_HOURS) + creation
        left = ZERO if end is None else Decimal(str(end.ends_api_at - readings.api_now())) / 3600
        hours = min(left, worst_hours) if left > 0 else worst_hours
        return Bid(row, coin, rate, fee, day, usd_per_hour, worst_usd, due_usd, hours, end, enforced_by)

    def _is_being_ended(self, tx: Tx, account: str, bid: Bid) -> bool:
        """Whether its lease is over or was cut by a cancel: until that is proven, its end says nothing of its cost."""
        end = ends.of(tx, account, bid.row.id)
        return end is not None and end.on_end == "cancel" and end.ends_api_at <= self._desk.readings.api_now()

    def _stands_against(self, tx: Tx, account: str, bid: Bid, evidence: Evidence) -> list[Refusal]:
        """Every limit that a raise would break. Raises _Undecided for an order that is being ended: what it may still
        cost hangs on a cancel that is not proven."""
        if self._is_being_ended(tx, account, bid):
            raise _Undecided("ending", "It is being ended, or its lease is over, so its bid is not raised.")
        held = intents.reservation_of_order(tx, account, bid.row.id)
        before_hourly = held.usd_per_hour if held else bid.usd(bid.row.price or ZERO)
        try:
            used = used_now(tx, account, evidence, self._desk.clock())
        except UnknownRate as error:
            return [Refusal("unknown_rate", ZERO, ZERO, bid.worst_usd, f"nobody here: {error}")]
        wanted = Wanted(
            usd_per_hour=max(ZERO, bid.usd_per_hour - before_hourly),
            usd_per_order=bid.worst_usd,
            usd_per_day=max(ZERO, bid.worst_usd - (held.worst_usd if held else ZERO)),
            active_orders=0,
        )
        refusals = check(self._desk.caps, used, wanted, self._desk.sources)
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
            if end != bid.end and not self._is_being_ended(tx, quote.account, bid):
                raise _Undecided("end_moved", "Its end has moved meanwhile, and with it what it may cost. Call again.")
            refusals = self._stands_against(tx, quote.account, bid, evidence) if evidence else []
            if not quotes.consume(tx, quote.id, from_state=from_state, owner=desk.owner, by=by, now=now):
                return None
            change = None if refusals else bids.begin(tx, quote.id, reservation_of(bid, quote.account, now))
            desk.note(tx, "bid_claimed", quote.caller, quote.account, quote_id=quote.id, order_id=bid.row.id,
                      bid_per_day=str(bid.day.value), coin=bid.coin.value, approved_by=by)  # fmt: skip
            return Claimed(tuple(refusals), change)

        return await desk.state.write(write)

    async def _send(self, quote: Quote, ask: SetSpotPrice, bid: Bid, change: Change | None) -> dict[str, Any]:
        before_send = self._may_still_leave() if bid.raises else None
        try:
            await self._desk.client.set_spot_price(ask.order_id, bid.day, before_send=before_send)
        except Refused as error:
            await self._take_back(change)
            return refusal_of(ask.order_id, bid, error)
        except Failure as error:
            if error.spent is Spent.NO:
                await self._take_back(change)
                return outcomes.bid_refused(ask.order_id, error.code, f"{error.message} {error.hint}")
            if not await self._arrived(ask.order_id, bid):
                return {
                    "status": "uncertain",
                    "order_id": ask.order_id,
                    "bid_usd_per_hour": shown(bid.usd_per_hour),
                    "next": f"{error.message} The bid may or may not have changed; list_orders shows the price.",
                }
        await self._record(quote, bid, change)
        self._desk.readings.changed()
        return await self._answer("updated", ask.order_id, bid)

    def _may_still_leave(self) -> Callable[[], Awaitable[None]]:
        """The check right before a raise leaves: not after a freeze of spending, and not by a process that was held up
        since its claim."""
        desk = self._desk
        not_after = desk.clock() + desk.patience.answer
        deadline = desk.monotonic() + desk.patience.answer

        async def refuse() -> None:
            await desk.require_unfrozen()
            if desk.clock() >= not_after or desk.monotonic() >= deadline:
                raise Abandoned("The process was held up before sending, so nothing was sent.", hint="Call again.")

        return refuse

    async def _take_back(self, change: Change | None) -> None:
        """The bid stayed as it was: so does what it may cost, which `_claim` raised."""
        if change is not None:
            await self._desk.state.write(lambda tx: bids.undo(tx, change, self._desk.clock()))

    async def _arrived(self, order_id: int, bid: Bid) -> bool:
        for pause in _LOOK_PAUSES:
            await anyio.sleep(pause)
            try:
                row = (await self._desk.readings.look(completed=False)).find(order_id)
            except CloreError:
                continue
            if row is not None and row.price is not None and abs(row.price - bid.day.value) <= bid.day.value / 10**9:
                return True
        return False

    async def _record(self, quote: Quote, bid: Bid, change: Change | None) -> None:
        def write(tx: Tx) -> None:
            orders.bid(tx, quote.account, bid.row.id, bid.day.value, bid.day.value)
            if change is not None:
                reserved = change.before.worst_usd if change.before and not bid.raises else bid.worst_usd
                least = reserved if self._is_being_ended(tx, quote.account, bid) else bid.worst_usd
                bids.end(tx, change, min(reserved, least), bid.usd_per_hour)
            self._desk.note(tx, "bid_set", quote.caller, quote.account, quote_id=quote.id, order_id=bid.row.id,
                            bid_per_day=str(bid.day.value), coin=bid.coin.value)  # fmt: skip

        await self._desk.state.write(write)

    async def _answer(self, status: str, order_id: int, bid: Bid) -> dict[str, Any]:
        view = await self._book(bid)
        ours = next((n for n, offer in enumerate(view.offers, 1) if offer.mine), None) if view else None
        rank = (view.our_rank if view and view.our_rank else ours) or None
        told: dict[str, Any] = {
            "status": status,
            "order_id": order_id,
            "bid_usd_per_hour": shown(bid.usd_per_hour),
            "price_per_day": float(bid.day.value),
            "currency": bid.coin.value,
            "rank": rank,
            "next": "Rank 1 runs; a lower rank waits and costs nothing."
            if rank
            else "list_orders shows whether it runs.",
        }
        return {name: value for name, value in told.items() if value is not None}

    async def _book(self, bid: Bid) -> SpotView | None:
        readings = self._desk.readings
        try:
            snapshot, fees = await readings.snapshot(), await readings.fees()
            book = await self._desk.client.spot_marketplace(bid.row.server_id or 0)
        except CloreError:
            return None
        return read_book(book, snapshot.by_id.get(bid.row.server_id or 0), fees, snapshot.rates)


def _unsure(evidence: Evidence) -> _Undecided | None:
    if evidence.current.unreadable or evidence.completed.unreadable:
        why = "Clore's list of orders has a row that can't be read, so nothing can be counted against the limits."
        return _Undecided("unreadable_orders", f"{why} Call again in a minute.")
    return None

"""A wish for a server, priced: which servers fit, what each costs, and the evidence to judge it by (check.py).

A quote rests on what may be a minute old; the transaction that writes the reservation on the last ten seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import Cost, Priced, choose
from clore_mcp.market.rates import OrderType
from clore_mcp.market.spotbook import lowest_asked
from clore_mcp.money import ZERO, Coin, DayPrice, plain
from clore_mcp.rental.account.reading import BROWSING_AGE, EXECUTION_AGE
from clore_mcp.rental.context import Desk, enforcer
from clore_mcp.rental.monitoring import hosts
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.rules.check import (
    Draw,
    Evidence,
    Owed,
    draw_of,
    free_balance,
    owed_now,
    stands_against,
    wallet_refusal,
)
from clore_mcp.rental.rules.limits import Refusal
from clore_mcp.rental.rules.terms import Candidate, Terms, Unfit, bid_within, candidate_of, capped, cost_of
from clore_mcp.store import intents
from clore_mcp.store.database import Tx
from clore_mcp.store.intents import Intent


@dataclass(frozen=True, slots=True)
class Appraisal:
    """A priced wish. Without `terms` none of the servers fits, and `unfit` says why."""

    terms: Terms | None
    cost: Cost | None
    unfit: tuple[Unfit, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    wallet_covers_hours: Decimal | None = None

    @property
    def most_hours(self) -> Decimal | None:
        """For how long at most one of the servers could be rented, where the hours are why none of them fits."""
        if self.terms is not None:
            return None
        return max((one.most_hours for one in self.unfit if one.most_hours is not None), default=None)


class Appraiser:
    """Prices wishes and gathers the evidence to judge them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def evidence(self, max_age_seconds: float = EXECUTION_AGE) -> Evidence:
        """Everything that a judgement needs, none of it older than that."""
        readings = self._desk.readings
        fees = await readings.fees()
        completed = await readings.completed(max_age_seconds)
        snapshot = await readings.fresh_snapshot(max_age_seconds)
        current = await readings.orders(max_age_seconds)
        wallets = await readings.wallets(max_age_seconds)
        return Evidence(snapshot, fees, current, completed, wallets, readings.api_now())

    async def appraise(self, ask: CreateOrder, *, at_most: Decimal | None = None) -> Appraisal:
        """Price a wish and judge it; nothing is held. `at_most`: above so many USD per hour no server fits."""
        desk, evidence = self._desk, await self.evidence(BROWSING_AGE)
        account = await desk.readings.account()
        await desk.ask_enforcers(account)

        def read(tx: Tx) -> tuple[str | None, Owed, Mapping[int, int], list[Intent]]:
            failed = hosts.failed(tx, account, desk.clock(), ask.server_ids)
            held = (intents.open_on(tx, account, number) for number in ask.server_ids)
            open_ = [one for one in held if one is not None]
            return enforcer(tx, desk, account), owed_now(tx, account, evidence), failed, open_

        enforced_by, owed, failed, open_ = await desk.state.read(read)
        enforced, unsettled = enforced_by is not None, _unsettled(open_, desk.program)
        if ask.server_id in unsettled:  # never on to a fallback: that could be a second bill for one wish
            return Appraisal(None, None, (unsettled[ask.server_id],))
        found = [
            unsettled.get(number)
            or _passed_over(ask, number, failed)
            or await self._payable(ask, number, evidence, owed, enforced=enforced)
            for number in ask.server_ids
        ]
        if at_most is not None:
            found = [capped(one, at_most) if isinstance(one, Candidate) else one for one in found]
        found = [
            dataclasses.replace(one, failed_here=failed.get(one.server_id, 0)) if isinstance(one, Candidate) else one
            for one in found
        ]
        candidates = [one for one in found if isinstance(one, Candidate)]
        misfits = tuple(one for one in found if isinstance(one, Unfit))
        if not candidates:
            return Appraisal(None, None, misfits)
        order_type = OrderType(ask.order_type)
        terms = Terms(
            candidates=tuple(candidates),
            hours=ask.exact_hours,
            order_type=order_type,
            on_end=ask.on_end,
            image=ask.image,
            enforced_by=enforced_by,
            fees_assumed=any(evidence.fees.assumes(order_type, one.coin) for one in candidates),
            to_win_usd=await self._to_win_usd(ask, candidates[0]),
        )
        # What a watch may rent was asked about in other words.
        return await self._judged(terms, evidence, misfits, replaceable=at_most is None)

    async def _judged(
        self, terms: Terms, evidence: Evidence, misfits: tuple[Unfit, ...], *, replaceable: bool
    ) -> Appraisal:
        desk = self._desk
        account = await desk.readings.account()

        def read(tx: Tx) -> tuple[list[list[Refusal]], Owed]:
            found = [stands_against(tx, desk, account, evidence, one, terms) for one in terms.candidates]
            return found, owed_now(tx, account, evidence)

        refusals, owed = await desk.state.read(read)
        first, *others = zip(terms.candidates, refusals, strict=True)
        over = [Unfit(one.server_id, "over_limit", "; ".join(map(str, no))) for one, no in others if no]
        terms = dataclasses.replace(terms, candidates=(first[0], *(one for one, no in others if not no)))
        if replaceable and not first[1]:
            terms = await self._replaceable(terms, evidence, account)
        return Appraisal(
            terms=terms,
            cost=cost_of(first[0], terms.hours),
            unfit=(*misfits, *over),
            refusals=tuple(first[1]),
            wallet_covers_hours=_covered_hours(draw_of(first[0], terms.hours), evidence, owed),
        )

    async def _replaceable(self, terms: Terms, evidence: Evidence, account: str) -> Terms:
        """The same terms; where the limits have room for a lost server and the next one, the yes may cover both."""
        if terms.order_type is OrderType.SPOT or len(terms.candidates) == 1:
            return terms
        desk, wider = self._desk, dataclasses.replace(terms, replaceable=True)

        def fits(tx: Tx) -> bool:
            return not any(stands_against(tx, desk, account, evidence, one, wider) for one in wider.candidates)

        return wider if await desk.state.read(fits) else terms

    async def _payable(
        self, ask: CreateOrder, server_id: int, evidence: Evidence, owed: Owed, *, enforced: bool
    ) -> Candidate | Unfit:
        """The server in the cheapest coin; where that wallet is too small and another is not, in the other."""
        first = await self._candidate(ask, server_id, evidence, enforced=enforced)
        if isinstance(first, Unfit) or ask.currency or not _short(first, evidence, owed, ask):
            return first
        others = [coin for coin in evidence.snapshot.server(server_id).allowed_coins if coin is not first.coin]
        found = [
            await self._candidate(
                ask.model_copy(update={"currency": coin.ticker}), server_id, evidence, enforced=enforced
            )
            for coin in others
        ]
        paid = [one for one in found if isinstance(one, Candidate) and not _short(one, evidence, owed, ask)]
        return min(paid, key=lambda one: one.usd_per_hour, default=first)

    async def _candidate(
        self, ask: CreateOrder, server_id: int, evidence: Evidence, *, enforced: bool
    ) -> Candidate | Unfit:
        listing = evidence.snapshot.by_id.get(server_id)
        if listing is None:
            return Unfit(server_id, "not_listed", f"Server {server_id} is not on the marketplace now.")
        balances = evidence.wallets.balances
        bid: DayPrice | None = None
        if ask.order_type == "spot":
            found = await self._bid(ask, listing, evidence)
            if isinstance(found, Unfit):
                return found
            bid = found
        return candidate_of(
            ask,
            listing,
            evidence.fees,
            evidence.snapshot.rates,
            wallet=balances,
            preferred=self._desk.preferred,
            spot_bid=bid,
            enforced=enforced,
        )

    async def _bid(self, ask: CreateOrder, listing: Listing, evidence: Evidence) -> DayPrice | Unfit:
        """The bid in a coin: what was asked for, else what would win now."""
        rates, fees = evidence.snapshot.rates, evidence.fees
        priced = choose(
            listing,
            OrderType.SPOT,
            fees,
            rates,
            wallet=evidence.wallets.balances,
            preferred=self._desk.preferred,
            only=Coin(ask.currency) if ask.currency else None,
        )
        if not isinstance(priced, Priced):
            return Unfit(
                listing.server_id, "unpriced", f"Server {listing.server_id} has no spot price: {priced.value}."
            )
        if ask.exact_bid is None:
            winning = (await self._desk.readings.spot_view(listing.server_id)).winning.get(priced.coin)
            return winning if winning is not None and winning.value >= priced.day.value else priced.day
        bid = bid_within(ask.exact_bid, priced.coin, priced.usd_per_coin, priced.fee, priced.day.value)
        if bid is None:
            least = plain(lowest_asked(priced.day, priced.usd_per_coin, priced.fee))
            return Unfit(
                listing.server_id,
                "bid_under_minimum",
                f"Server {listing.server_id} takes no bid under ${least} per hour, fees included.",
            )
        return bid

    async def _to_win_usd(self, ask: CreateOrder, first: Candidate) -> Decimal | None:
        """USD per hour that would win in that coin now, where the bid that was asked for does not."""
        if ask.order_type != "spot" or ask.exact_bid is None:
            return None
        view = await self._desk.readings.spot_view_if_known(first.server_id)
        beaten = view is not None and view.beaten(DayPrice(first.listed_per_day, first.coin))
        winning = view.winning.get(first.coin) if view is not None and beaten else None
        return None if winning is None else lowest_asked(winning, first.usd_per_coin, first.fee_fraction)


def _unsettled(open_: Sequence[Intent], program: str) -> dict[int, Unfit]:
    """The servers with a create on its way or uncertain: a second one could be a second bill."""
    return {
        held.server_id: Unfit(
            held.server_id,
            "unsettled",
            f"An earlier create for server {held.server_id} is not settled yet ({held.state}), so no second one is"
            " sent. list_orders looks for it; take another server, or ask the person to run"
            f" `{program} settle {held.id} --order ID` or `--none`.",
        )
        for held in open_
    }


def _passed_over(ask: CreateOrder, server_id: int, failed: Mapping[int, int]) -> Unfit | None:
    """Why a fallback is not taken whose host failed here too often; the server that was named first may be."""
    if server_id == ask.server_id or server_id not in failed:
        return None
    said = f"Server {server_id} failed here {failed[server_id]} times in the last {hosts.DAYS} days and is passed over."
    return Unfit(server_id, "failed_here", said)


def _short(candidate: Candidate, evidence: Evidence, owed: Owed, ask: CreateOrder) -> bool:
    return wallet_refusal(draw_of(candidate, ask.exact_hours), evidence, owed) is not None


def _covered_hours(draw: Draw, evidence: Evidence, owed: Owed) -> Decimal | None:
    free = free_balance(draw, evidence, owed)
    return None if free is None or not draw.per_hour else max(ZERO, free - draw.once) / draw.per_hour

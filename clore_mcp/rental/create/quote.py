"""Prices a request: the servers that fit, the cost of each, and the evidence for check.py.

The evidence of a quote may be a minute old. In the transaction that writes the reservation it is at most ten seconds
old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import OrderType, Priced, choose
from clore_mcp.market.spotbook import lowest_asked
from clore_mcp.money import ZERO, Coin, DayPrice, plain
from clore_mcp.rental import hosts
from clore_mcp.rental.account.reading import BROWSING_AGE, EXECUTION_AGE
from clore_mcp.rental.context import Context, enforcer
from clore_mcp.rental.create.presence import unsettled_on
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.results import Refusal
from clore_mcp.rental.rules.check import (
    Evidence,
    Position,
    check,
    draw_of,
    free_balance,
    position,
    spend_of,
    wallet_refusal,
)
from clore_mcp.rental.terms import Candidate, Terms, Unfit, bid_within, candidate_of, capped
from clore_mcp.store import Beat, Intent, Tx


@dataclass(frozen=True, slots=True)
class PricedOrder:
    """A priced request. If none of the servers fits, `terms` is None and `unfit` says why."""

    terms: Terms | None
    unfit: tuple[Unfit, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    wallet_covers_hours: Decimal | None = None

    @property
    def most_hours(self) -> Decimal | None:
        """The longest rental of the servers that are unfit because of the hours, None if there are none."""
        return max((one.most_hours for one in self.unfit if one.most_hours is not None), default=None)


class Pricer:
    """Prices requests and gathers the evidence to check them."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def evidence(self, max_age_seconds: float = EXECUTION_AGE) -> Evidence:
        """Return the evidence for a check, no older than `max_age_seconds`."""
        readings = self._context.readings
        fees = await readings.fees()
        completed = await readings.completed(max_age_seconds)
        snapshot = await readings.fresh_snapshot(max_age_seconds)
        current = await readings.orders(max_age_seconds)
        wallets = await readings.wallets(max_age_seconds)
        return Evidence(snapshot, fees, current, completed, wallets, readings.api_now())

    async def price(
        self, request: CreateOrder, *, at_most: Decimal | None = None, known: Sequence[Beat] | None = None
    ) -> PricedOrder:
        """Price a request and check it. Nothing is held. `at_most` is the highest USD per hour that a server may cost.
        `known` holds the heartbeats of the processes that end leases, if they are already read."""
        context, evidence = self._context, await self.evidence(BROWSING_AGE)
        account = await context.readings.account()
        await context.ask_enforcers(account, known)

        def read(tx: Tx) -> tuple[str | None, Position, Mapping[int, int], Mapping[int, Intent]]:
            failed = hosts.failed(tx, account, context.clock(), request.server_ids)
            held = unsettled_on(tx, account, request.server_ids)
            return enforcer(tx, context, account), position(tx, context, account, evidence), failed, held

        enforced_by, stands, failed, held = await context.state.read(read)
        if request.server_id in held:  # no fallback is tried: that could be a second bill for one request
            return PricedOrder(None, (_unsettled(held[request.server_id], context.program),))
        candidates: list[Candidate] = []
        misfits: list[Unfit] = []
        for number in request.server_ids:
            if number in held:
                found: Candidate | Unfit = _unsettled(held[number], context.program)
            elif number in failed and number != request.server_id:  # the server named first is never skipped
                said = f"Server {number} failed here {failed[number]} times in the last {hosts.DAYS} days"
                found = Unfit(number, "failed_here", f"{said} and is skipped.")
            else:
                found = await self._payable(request, number, evidence, stands)
            if isinstance(found, Candidate) and at_most is not None:
                found = capped(found, at_most)
            if isinstance(found, Candidate):
                candidates.append(replace(found, failed_here=failed.get(number, 0)))
            else:
                misfits.append(found)
        if not candidates:
            return PricedOrder(None, tuple(misfits))
        order_type = OrderType(request.order_type)
        terms = Terms(
            candidates=tuple(candidates),
            hours=request.exact_hours,
            order_type=order_type,
            on_end=request.on_end,
            image=request.image,
            enforced_by=enforced_by,
            fees_assumed=any(evidence.fees.assumes(order_type, one.coin) for one in candidates),
            to_win_usd=await self._to_win_usd(request, candidates[0]),
        )
        # The question of a watch does not cover a replacement.
        return _judged(terms, evidence, stands, misfits, replaceable=at_most is None)

    async def _payable(
        self, request: CreateOrder, server_id: int, evidence: Evidence, stands: Position
    ) -> Candidate | Unfit:
        """Return the server priced in the cheapest coin, or in another one if only that wallet has enough."""
        first = await self._candidate(request, server_id, evidence, enforced=stands.ended)
        if isinstance(first, Unfit) or request.currency or not _short(first, evidence, stands, request):
            return first
        paid: list[Candidate] = []
        for coin in evidence.snapshot.server(server_id).allowed_coins:
            if coin is not first.coin:
                in_coin = request.model_copy(update={"currency": coin.ticker})
                one = await self._candidate(in_coin, server_id, evidence, enforced=stands.ended)
                if isinstance(one, Candidate) and not _short(one, evidence, stands, request):
                    paid.append(one)
        return min(paid, key=lambda one: one.usd_per_hour, default=first)

    async def _candidate(
        self, request: CreateOrder, server_id: int, evidence: Evidence, *, enforced: bool
    ) -> Candidate | Unfit:
        listing = evidence.snapshot.by_id.get(server_id)
        if listing is None:
            return Unfit(server_id, "not_listed", f"Server {server_id} is not on the marketplace now.")
        bid = await self._bid(request, listing, evidence) if request.order_type == "spot" else None
        if isinstance(bid, Unfit):
            return bid
        return candidate_of(
            request,
            listing,
            evidence.fees,
            evidence.snapshot.rates,
            wallet=evidence.wallets.balances,
            preferred=self._context.settings.currency,
            spot_bid=bid,
            enforced=enforced,
        )

    async def _bid(self, request: CreateOrder, listing: Listing, evidence: Evidence) -> DayPrice | Unfit:
        """Return the bid in a coin: the requested one, or else the one that would win now."""
        rates, fees = evidence.snapshot.rates, evidence.fees
        priced = choose(
            listing,
            OrderType.SPOT,
            fees,
            rates,
            wallet=evidence.wallets.balances,
            preferred=self._context.settings.currency,
            only=Coin(request.currency) if request.currency else None,
        )
        if not isinstance(priced, Priced):
            return Unfit(
                listing.server_id, "unpriced", f"Server {listing.server_id} has no spot price: {priced.value}."
            )
        if request.exact_bid is None:
            winning = (await self._context.readings.spot_view(listing.server_id)).winning.get(priced.coin)
            return winning if winning is not None and winning.value >= priced.day.value else priced.day
        bid = bid_within(request.exact_bid, priced.coin, priced.usd_per_coin, priced.fee, priced.day.value)
        if bid is None:
            least = plain(lowest_asked(priced.day, priced.usd_per_coin, priced.fee))
            return Unfit(
                listing.server_id,
                "bid_under_minimum",
                f"Server {listing.server_id} takes no bid under ${least} per hour, including fees.",
            )
        return bid

    async def _to_win_usd(self, request: CreateOrder, first: Candidate) -> Decimal | None:
        """Return the USD per hour that would win in that coin now, or None if the requested bid wins."""
        if request.order_type != "spot" or request.exact_bid is None:
            return None
        view = await self._context.readings.spot_view_if_known(first.server_id)
        beaten = view is not None and view.beaten(DayPrice(first.listed_per_day, first.coin))
        winning = view.winning.get(first.coin) if view is not None and beaten else None
        return None if winning is None else lowest_asked(winning, first.usd_per_coin, first.fee_fraction)


def _judged(
    terms: Terms, evidence: Evidence, stands: Position, misfits: Sequence[Unfit], *, replaceable: bool
) -> PricedOrder:
    """Return the terms without fallbacks that are over a limit, and with a replacement if the limits have room."""
    first, *others = terms.candidates
    refusals = check(stands, spend_of(first, terms))
    fallbacks: list[Candidate] = []
    over: list[Unfit] = []
    for one in others:
        no = check(stands, spend_of(one, terms))
        if no:
            over.append(Unfit(one.server_id, "over_limit", "; ".join(map(str, no))))
        else:
            fallbacks.append(one)
    terms = replace(terms, candidates=(first, *fallbacks))
    if replaceable and not refusals and fallbacks and terms.order_type is not OrderType.SPOT:
        wider = replace(terms, replaceable=True)
        terms = terms if any(check(stands, spend_of(one, wider)) for one in wider.candidates) else wider
    draw = draw_of(first, terms.hours)
    free = free_balance(draw, evidence, stands.owed)
    covered = None if free is None or not draw.per_hour else max(ZERO, free - draw.once) / draw.per_hour
    return PricedOrder(terms, (*misfits, *over), tuple(refusals), covered)


def _unsettled(held: Intent, program: str) -> Unfit:
    """Return why a server with an unsettled create is not used: a second one could be a second bill."""
    return Unfit(
        held.server_id,
        "unsettled",
        f"An earlier create for server {held.server_id} is not settled yet ({held.state}), so no second one is"
        " sent. list_orders checks for it again. Take another server, or ask the person to run"
        f" `{program} settle {held.id} --order ID` or `--none`.",
    )


def _short(candidate: Candidate, evidence: Evidence, stands: Position, request: CreateOrder) -> bool:
    return wallet_refusal(draw_of(candidate, request.exact_hours), evidence, stands.owed) is not None

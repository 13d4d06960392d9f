"""Prices a request: the servers that fit, the cost of each, and the evidence for check.py.

The evidence of a quote may be a minute old. In the transaction that writes the reservation it is at most ten seconds
old.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import Cost, OrderType, Priced, choose
from clore_mcp.market.spotbook import lowest_asked
from clore_mcp.money import ZERO, Coin, DayPrice, plain
from clore_mcp.rental import hosts
from clore_mcp.rental.account.reading import BROWSING_AGE, EXECUTION_AGE
from clore_mcp.rental.context import Context, enforcer
from clore_mcp.rental.create.presence import unsettled_on
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.results import Refusal
from clore_mcp.rental.rules.check import (
    Draw,
    Evidence,
    Position,
    WalletDebts,
    check,
    draw_of,
    free_balance,
    position,
    spend_of,
    wallet_refusal,
)
from clore_mcp.rental.terms import Candidate, Terms, Unfit, bid_within, candidate_of, capped, cost_of
from clore_mcp.store import Beat, Intent, Tx


@dataclass(frozen=True, slots=True)
class PricedOrder:
    """A priced request. If none of the servers fits, `terms` is None and `unfit` says why."""

    terms: Terms | None
    cost: Cost | None
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
        unsettled = {number: _unsettled(intent, context.program) for number, intent in held.items()}
        if request.server_id in unsettled:  # no fallback is tried: that could be a second bill for one request
            return PricedOrder(None, None, (unsettled[request.server_id],))
        found = [
            unsettled.get(number)
            or _passed_over(request, number, failed)
            or await self._payable(request, number, evidence, stands)
            for number in request.server_ids
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
            return PricedOrder(None, None, misfits)
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
        if isinstance(first, Unfit) or request.currency or not _short(first, evidence, stands.owed, request):
            return first
        others = [coin for coin in evidence.snapshot.server(server_id).allowed_coins if coin is not first.coin]
        found = [
            await self._candidate(
                request.model_copy(update={"currency": coin.ticker}), server_id, evidence, enforced=stands.ended
            )
            for coin in others
        ]
        paid = [one for one in found if isinstance(one, Candidate) and not _short(one, evidence, stands.owed, request)]
        return min(paid, key=lambda one: one.usd_per_hour, default=first)

    async def _candidate(
        self, request: CreateOrder, server_id: int, evidence: Evidence, *, enforced: bool
    ) -> Candidate | Unfit:
        listing = evidence.snapshot.by_id.get(server_id)
        if listing is None:
            return Unfit(server_id, "not_listed", f"Server {server_id} is not on the marketplace now.")
        balances = evidence.wallets.balances
        bid: DayPrice | None = None
        if request.order_type == "spot":
            found = await self._bid(request, listing, evidence)
            if isinstance(found, Unfit):
                return found
            bid = found
        return candidate_of(
            request,
            listing,
            evidence.fees,
            evidence.snapshot.rates,
            wallet=balances,
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
    terms: Terms, evidence: Evidence, stands: Position, misfits: tuple[Unfit, ...], *, replaceable: bool
) -> PricedOrder:
    refusals = [check(stands, spend_of(one, terms)) for one in terms.candidates]
    first, *others = zip(terms.candidates, refusals, strict=True)
    over = [Unfit(one.server_id, "over_limit", "; ".join(map(str, no))) for one, no in others if no]
    terms = dataclasses.replace(terms, candidates=(first[0], *(one for one, no in others if not no)))
    if replaceable and not first[1]:
        terms = _replaceable(terms, stands)
    return PricedOrder(
        terms=terms,
        cost=cost_of(first[0], terms.hours),
        unfit=(*misfits, *over),
        refusals=tuple(first[1]),
        wallet_covers_hours=_covered_hours(draw_of(first[0], terms.hours), evidence, stands.owed),
    )


def _replaceable(terms: Terms, stands: Position) -> Terms:
    """Return the terms, extended by a replacement if the limits have room for a lost server and the next one."""
    if terms.order_type is OrderType.SPOT or len(terms.candidates) == 1:
        return terms
    wider = dataclasses.replace(terms, replaceable=True)
    fits = not any(check(stands, spend_of(one, wider)) for one in wider.candidates)
    return wider if fits else terms


def _unsettled(held: Intent, program: str) -> Unfit:
    """Return why a server with an unsettled create is not used: a second one could be a second bill."""
    return Unfit(
        held.server_id,
        "unsettled",
        f"An earlier create for server {held.server_id} is not settled yet ({held.state}), so no second one is"
        " sent. list_orders checks for it again. Take another server, or ask the person to run"
        f" `{program} settle {held.id} --order ID` or `--none`.",
    )


def _passed_over(request: CreateOrder, server_id: int, failed: Mapping[int, int]) -> Unfit | None:
    """Return why a fallback is skipped: its host failed here too often. The server named first is never skipped."""
    if server_id == request.server_id or server_id not in failed:
        return None
    said = f"Server {server_id} failed here {failed[server_id]} times in the last {hosts.DAYS} days and is skipped."
    return Unfit(server_id, "failed_here", said)


def _short(candidate: Candidate, evidence: Evidence, owed: WalletDebts, request: CreateOrder) -> bool:
    return wallet_refusal(draw_of(candidate, request.exact_hours), evidence, owed) is not None


def _covered_hours(draw: Draw, evidence: Evidence, owed: WalletDebts) -> Decimal | None:
    free = free_balance(draw, evidence, owed)
    return None if free is None or not draw.per_hour else max(ZERO, free - draw.once) / draw.per_hour

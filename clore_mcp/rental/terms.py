"""The terms of a rental, priced once and frozen: what each server costs, the approved ceiling and the worst case.

Pure functions: the market and the fees are arguments. An approval is a ceiling in USD per hour and in the coin per day.
If the coin isn't USD, the ceiling is 3 % above the listing, because the rate moves while a person reads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import combinations
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, TypeAdapter

from clore_mcp import money
from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import (
    Cost,
    Fees,
    OrderType,
    Priced,
    Rates,
    Unpriced,
    choose,
    cost,
    on_demand_usd_per_hour,
    price_of,
)
from clore_mcp.money import HOURS_PER_DAY, ZERO, Coin, DayPrice, plain, up_to_micro
from clore_mcp.rental.requests import CreateOrder

POLL_SECONDS: Final = 60.0
_RATE_MARGIN: Final = Decimal("0.03")
_OTHER_COIN_MARGIN: Final = Decimal("1.10")
# The time beyond the end until a poll sees it. What Clore adds to `spend` a minute at a time fits into it too.
END_SLACK_HOURS: Final = Decimal(2) * Decimal(int(POLL_SECONDS)) / 3600
REPLACED_WITHIN_MINUTES: Final = 30  # of its start, an order with an unreachable host may be replaced by the next one
# For hosts without a longest rental, and for spot, which no host limit ends (docs/clore-api.md, section 2).
LONGEST_RENTAL_HOURS: Final = Decimal(money.LONGEST_RENTAL_HOURS)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One server of a quote. Prices per day are in the coin without fees. USD per hour is for the whole server,
    including fees.

    `max_rental_hours` is how long it counts as running if no one ends it. `failed_here` is how often the host failed
    here recently, 0 if too rarely to mention. `cuda` is the newest CUDA that its driver supports, as listed.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # a part that only a newer version knows is not dropped

    server_id: int
    gpu: str
    gpu_count: int
    country: str
    reliability: Decimal
    cpu: str
    coin: Coin
    listed_per_day: Decimal
    ceiling_per_day: Decimal
    usd_per_coin: Decimal
    fee_fraction: Decimal
    creation_fee_usd: Decimal
    usd_per_hour: Decimal
    ceiling_usd_per_hour: Decimal
    worst_hours: Decimal
    worst_usd: Decimal
    max_rental_hours: Decimal
    failed_here: int = 0
    cuda: str = ""
    on_demand_usd_per_hour: Decimal | None = None  # only for spot orders

    @property
    def dear_on_demand_usd(self) -> Decimal | None:
        """The on-demand price in USD per hour if a spot bid is not below it, else None."""
        usd = self.on_demand_usd_per_hour
        return usd if usd is not None and self.ceiling_usd_per_hour >= usd else None

    @property
    def unended_usd(self) -> Decimal:
        """The most that it may cost in USD if no one ends it."""
        return worst_usd(self.ceiling_usd_per_hour, self.max_rental_hours, self.creation_fee_usd, self.coin)

    @property
    def lost_usd(self) -> Decimal:
        """The most that it may have cost in USD when the next server replaces it, two polls after the last minute."""
        until = Decimal(REPLACED_WITHIN_MINUTES) / 60 + END_SLACK_HOURS
        return worst_usd(self.ceiling_usd_per_hour, min(self.worst_hours, until), self.creation_fee_usd, self.coin)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms that a person is asked to approve: these servers in this order, for these hours, at these ceilings.

    `to_win_usd` is the bid per hour that would win the first server, None if this one wins or that is unknown.
    `replaceable`: an order with an unreachable host may, once, be replaced by a server further down. `ssh_key` is the
    fingerprint of the key in the question. The terms of a replacement name the lost order and the most that it may have
    cost.
    """

    candidates: tuple[Candidate, ...]
    hours: Decimal
    order_type: OrderType
    on_end: str
    image: str
    enforced_by: str | None
    fees_assumed: bool
    to_win_usd: Decimal | None = None
    replaceable: bool = False
    ssh_key: str | None = None
    replaces_order_id: int | None = None
    replaced_most_usd: Annotated[Decimal | None, Field(alias="lost_usd")] = None

    @property
    def ends(self) -> bool:
        """Whether a process ends the rental at its time."""
        return self.on_end == "cancel" and self.enforced_by is not None

    @property
    def worst_usd(self) -> Decimal:
        """The most that the approval could cost: any of the candidates, or a lost one and one after it."""
        return max(self.bills(lambda one: one.worst_usd))

    def bills(self, usd: Callable[[Candidate], Decimal]) -> list[Decimal]:
        """Return the cost of each possible course: each server alone, in order, then each one after a lost one."""
        alone = [usd(one) for one in self.candidates]
        pairs = combinations(self.candidates, 2) if self.replaceable else ()
        return [*alone, *(lost.lost_usd + usd(one) for lost, one in pairs)]

    def reserved_usd(self, candidate: Candidate) -> Decimal:
        """Return what an order on that server may cost, including the one that may replace it."""
        later = self.after(candidate.server_id) if self.replaceable else ()
        return max([candidate.worst_usd, *(candidate.lost_usd + one.worst_usd for one in later)])

    @property
    def lost_usd(self) -> Decimal:
        """The most that may be lost on a server that is replaced, or zero if none can be."""
        return max((one.lost_usd for one in self.candidates[:-1]), default=ZERO) if self.replaceable else ZERO

    def after(self, server_id: int) -> tuple[Candidate, ...]:
        """Return the servers that come after that one."""
        place = next(at for at, one in enumerate(self.candidates) if one.server_id == server_id)
        return self.candidates[place + 1 :]

    @property
    def usd_per_hour(self) -> Decimal:
        """The highest ceiling of the candidates, in USD per hour."""
        return max(candidate.ceiling_usd_per_hour for candidate in self.candidates)

    def as_json(self) -> dict[str, Any]:
        """Return JSON for the quote's row, with exact decimals as text."""
        left_out = {"replaces_order_id", "replaced_most_usd"} if self.replaces_order_id is None else None
        row: dict[str, Any] = _in_rows().dump_python(self, mode="json", by_alias=True, exclude=left_out)
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Terms:
        """Return the terms that `as_json` wrote."""
        return _in_rows().validate_python(row)


@functools.cache
def _in_rows() -> TypeAdapter[Terms]:
    return TypeAdapter(Terms)


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a server can't be part of a quote: a code and a sentence. `most_hours` is set if fewer hours fit."""

    server_id: int
    reason: str
    message: str
    most_hours: Decimal | None = None


def candidate_of(
    request: CreateOrder,
    listing: Listing,
    fees: Fees,
    rates: Rates,
    *,
    wallet: Mapping[Coin, Decimal] | None,
    preferred: Coin | None,
    spot_bid: DayPrice | None,
    enforced: bool,
) -> Candidate | Unfit:
    """Return one server priced for these arguments. `spot_bid` is a spot order's bid in the listing's coin."""
    order_type = OrderType(request.order_type)
    longest = longest_hours(listing)
    server_id, server = listing.server_id, f"Server {listing.server_id}"
    if request.exact_hours > longest:
        most = f"{server} can be rented for at most {longest.normalize():f} hours at a time."
        return Unfit(server_id, "max_rental_hours", most, longest)
    if listing.rented:
        return Unfit(server_id, "already_rented", f"{server} is rented now.")
    only = Coin(request.currency) if request.currency else None
    priced = (
        price_of(spot_bid, order_type, fees, rates)
        if spot_bid is not None
        else choose(listing, order_type, fees, rates, wallet=wallet, preferred=preferred, only=only)
    )
    if isinstance(priced, Unpriced):
        return Unfit(server_id, "unpriced", f"{server} can't be priced: {priced.value}.")
    unended = unended_hours(listing, order_type)
    hours = worst_hours(request.exact_hours, unended, ends=request.on_end == "cancel" and enforced)
    moving = Decimal(0) if priced.coin is Coin.USD else _RATE_MARGIN
    ceiling = priced.day.raised(moving) if spot_bid is None else priced.day  # a bid is sent unchanged
    ceiling_usd = up_to_micro(max(priced.usd_per_hour, request.exact_bid or ZERO) * (1 + moving))
    creation = up_to_micro(fees.creation_usd(order_type, priced.coin, priced.usd_per_coin))
    return Candidate(
        server_id=server_id,
        gpu=listing.gpu,
        gpu_count=listing.gpu_count,
        country=listing.country or "??",
        reliability=Decimal(str(round(listing.reliability or 0, 4))),
        cpu=listing.cpu,
        coin=priced.coin,
        listed_per_day=priced.day.value,
        ceiling_per_day=ceiling.value,
        usd_per_coin=priced.usd_per_coin,
        fee_fraction=priced.fee,
        creation_fee_usd=creation,
        usd_per_hour=up_to_micro(priced.usd_per_hour),
        ceiling_usd_per_hour=ceiling_usd,
        worst_hours=hours,
        worst_usd=worst_usd(ceiling_usd, hours, creation, priced.coin),
        max_rental_hours=unended,
        cuda=listing.cuda,
        on_demand_usd_per_hour=None if spot_bid is None else on_demand_usd_per_hour(listing, priced.coin, fees, rates),
    )


def capped(candidate: Candidate, usd_per_hour: Decimal) -> Candidate | Unfit:
    """Return the candidate with its ceiling lowered to that price, or Unfit if it costs more."""
    if candidate.usd_per_hour > usd_per_hour:
        return Unfit(
            candidate.server_id,
            "above_ceiling",
            f"Server {candidate.server_id} costs {plain(candidate.usd_per_hour)} USD per hour.",
        )
    ceiling_usd = min(candidate.ceiling_usd_per_hour, usd_per_hour)
    day = usd_per_hour * HOURS_PER_DAY / (1 + candidate.fee_fraction) / candidate.usd_per_coin
    return replace(
        candidate,
        ceiling_usd_per_hour=ceiling_usd,
        ceiling_per_day=max(candidate.listed_per_day, min(candidate.ceiling_per_day, day)),
        worst_usd=worst_usd(ceiling_usd, candidate.worst_hours, candidate.creation_fee_usd, candidate.coin),
    )


def longest_hours(listing: Listing) -> Decimal:
    """Return the longest rental that the host allows, in hours."""
    return Decimal(str(listing.max_rental_hours)) if listing.max_rental_hours else LONGEST_RENTAL_HOURS


def unended_hours(listing: Listing, order_type: OrderType) -> Decimal:
    """Return how long a rental counts as running if no one ends it. Clore ends an on-demand order after the host's
    longest rental and never ends a spot order (docs/clore-api.md, section 5)."""
    longest = longest_hours(listing)
    return max(longest, LONGEST_RENTAL_HOURS) if order_type is OrderType.SPOT else longest


def worst_hours(hours: Decimal, unended: Decimal, *, ends: bool) -> Decimal:
    """Return the worst case of a rental's hours: two polls beyond its end if a process ends it, else `unended`."""
    return min(hours + END_SLACK_HOURS, unended) if ends else unended


def worst_usd(usd_per_hour: Decimal, hours: Decimal, creation_usd: Decimal, coin: Coin) -> Decimal:
    """Return the worst case of a rental's cost."""
    return up_to_micro((usd_per_hour * hours + creation_usd) * reservation_margin(coin))


def reservation_margin(coin: Coin) -> Decimal:
    """Return the factor of a reservation: 10 % more for a coin other than USD, because its rate moves."""
    return Decimal(1) if coin is Coin.USD else _OTHER_COIN_MARGIN


def cost_of(candidate: Candidate, hours: Decimal) -> Cost:
    """Return what the hours cost at the present price."""
    day = DayPrice(candidate.listed_per_day, candidate.coin)
    priced = Priced(day, candidate.usd_per_coin, candidate.fee_fraction, candidate.usd_per_hour)
    return cost(priced, hours, candidate.creation_fee_usd)


def bid_within(
    usd_per_hour: Decimal, coin: Coin, usd_per_coin: Decimal, fee: Decimal, minimum: Decimal | None
) -> DayPrice | None:
    """Return a spot bid in the coin, rounded down to the coin's precision so that it is never above the approved price.
    If it is under the host's minimum, return the minimum if that is within the approval, else None."""
    exact = DayPrice(usd_per_hour * HOURS_PER_DAY / (1 + fee) / usd_per_coin, coin)
    bid = exact.floored()
    if minimum is None or bid.value >= minimum:
        return bid if bid.value > 0 else None
    return DayPrice(minimum, coin) if minimum <= exact.value else None


def hours_left(enforced_end: int | None, api_now: float, asked_seconds_ago: float) -> Decimal:
    """Return how long a spot order may still run in the worst case, including slack: until an enforced end, or else for
    the longest rental from the question on. A host's `mrl` ends no spot order (docs/clore-api.md, section 5)."""
    if enforced_end is None:
        return LONGEST_RENTAL_HOURS + END_SLACK_HOURS - Decimal(str(asked_seconds_ago)) / 3600
    return max(ZERO, Decimal(str(enforced_end - api_now)) / 3600) + END_SLACK_HOURS

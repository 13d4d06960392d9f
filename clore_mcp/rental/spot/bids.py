"""A spot bid in USD and in its coin, and Clore's own rules on changing one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from math import ceil
from typing import Any, Final

from clore_mcp.clore import OrderRow
from clore_mcp.errors import BidTooLow, LoweringTooSoon, Refused, StepTooLarge
from clore_mcp.market.spotbook import lowest_asked
from clore_mcp.money import ZERO, Coin, DayPrice, plain, shown
from clore_mcp.rental import outcomes
from clore_mcp.rental.results import Outcome
from clore_mcp.rental.rules.check import Draw
from clore_mcp.rental.rules.terms import LONGEST_RENTAL_HOURS, POLL_SECONDS
from clore_mcp.store.ends import End
from clore_mcp.store.intents import Reservation

# Beyond the end, until a poll sees it; what Clore adds to `spend` a minute at a time fits into it too.
SLACK_HOURS: Final = Decimal(2) * Decimal(int(POLL_SECONDS)) / 3600


@dataclass(frozen=True, slots=True)
class Bid:
    """A new bid for one order, in the order's coin, with what the order may come to in all.

    `worst_usd` has room for a moving rate and a late end; `due_usd` has none. `hours` is how long it is to run still,
    for the wallet; `enforced_by`: the worst case stops at `end`, so someone must be there to end it.
    """

    row: OrderRow
    coin: Coin
    usd_per_coin: Decimal
    fee: Decimal
    day: DayPrice
    usd_per_hour: Decimal
    worst_usd: Decimal
    due_usd: Decimal
    hours: Decimal
    end: End | None
    enforced_by: str | None
    minimum: Decimal | None = None  # of the host, per day, as far as it is listed
    on_demand_usd: Decimal | None = None  # per hour, fee in, as far as the server has such a price

    @property
    def draw(self) -> Draw:
        """What it takes from the wallet until its end."""
        per_hour = self.day.value / 24 * (1 + self.fee)
        return Draw(self.coin, self.usd_per_coin, per_hour, self.hours, order_id=self.row.id)

    @property
    def dear_on_demand_usd(self) -> Decimal | None:
        """The on-demand price in USD per hour where this bid is not below it; None where it is, or nobody knows."""
        usd = self.on_demand_usd
        return usd if usd is not None and self.usd_per_hour >= usd else None

    @property
    def raises(self) -> bool:
        """Whether the bid is above the present one."""
        return self.row.price is None or self.day.value > self.row.price

    @property
    def unchanged(self) -> bool:
        """Whether Clore has this very bid already."""
        return self.row.price is not None and self.day.value == self.row.price

    def usd(self, per_day: Decimal) -> Decimal:
        """A price per day in the order's coin as USD per hour, fee in."""
        return DayPrice(per_day, self.coin).usd_per_hour(self.usd_per_coin) * (1 + self.fee)

    def usd_to_ask(self, per_day: Decimal) -> Decimal:
        """The lowest USD per hour, fee in, that comes to at least that price per day."""
        return usd_to_ask(per_day, self.coin, self.usd_per_coin, self.fee)

    def at(self, per_day: Decimal) -> Bid:
        """The same bid at another price per day; what it may come to stays the larger of the two."""
        return replace(self, day=DayPrice(per_day, self.coin), usd_per_hour=self.usd(per_day))


@dataclass(frozen=True, slots=True)
class BidTerms:
    """What was asked about: a bid per day in its coin, and the most that the order may come to with it."""

    order_id: int
    bid_per_day: Decimal
    coin: Coin
    worst_usd: Decimal

    def as_json(self) -> dict[str, Any]:
        """For the quote's row."""
        amounts = {"bid_per_day": str(self.bid_per_day), "coin": self.coin.value, "worst_usd": str(self.worst_usd)}
        return {"order_id": self.order_id, **amounts}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> BidTerms:
        """The terms that `as_json` wrote."""
        return cls(row["order_id"], Decimal(row["bid_per_day"]), Coin(row["coin"]), Decimal(row["worst_usd"]))


def usd_to_ask(per_day: Decimal, coin: Coin, usd_per_coin: Decimal, fee: Decimal) -> Decimal:
    """The lowest USD per hour, fee in, that comes to at least that price per day."""
    return lowest_asked(DayPrice(per_day, coin), usd_per_coin, fee)


def hours_left(enforced_end: int | None, api_now: float, asked_seconds_ago: float) -> Decimal:
    """How long a spot order may still run at worst, slack included: to an end that someone enforces, else the longest
    rental from the question on. A host's `mrl` ends no spot order (docs/clore-api.md, section 5)."""
    if enforced_end is None:
        return LONGEST_RENTAL_HOURS + SLACK_HOURS - Decimal(str(asked_seconds_ago)) / 3600
    return max(ZERO, Decimal(str(enforced_end - api_now)) / 3600) + SLACK_HOURS


def reservation_of(bid: Bid, account: str, now: float) -> Reservation:
    """What a raise reserves at least; a lowering reserves nothing."""
    worst, hourly = (bid.worst_usd, bid.usd_per_hour) if bid.raises else (ZERO, ZERO)
    return Reservation(None, account, bid.coin.value, worst, hourly, created_at=now, order_id=bid.row.id)


def too_low(order_id: int, least_usd: Decimal) -> Outcome:
    """The host takes no such bid."""
    why = f"The host takes no bid under {_exactly(least_usd)} per hour, fees included."
    return outcomes.bid_refused(order_id, "too_low_price", why)


def too_soon(order_id: int, seconds: float) -> Outcome:
    """The bid was lowered less than ten minutes ago."""
    why = (
        f"Clore lets a bid go down once in 600 seconds, this one again in {ceil(seconds)}. Raising it is not limited,"
        " and cancel_order ends it at once."
    )
    return replace(outcomes.bid_refused(order_id, "lowering_too_soon", why), retry_after_seconds=ceil(seconds))


def step_too_large(order_id: int, bid: Bid, lowest_per_day: Decimal | None) -> Outcome:
    """The bid goes down by more than Clore's largest step; `lowest_per_day` is None where it did not name that."""
    again = "one step in 600 seconds. Raising it is not limited."
    if lowest_per_day is None:
        why = f"Clore takes no such step down and does not say how large one may be: lower it by less, {again}"
        return outcomes.bid_refused(order_id, "exceeded_max_step", why)
    lowest = bid.usd_to_ask(max(lowest_per_day, bid.minimum or ZERO))
    why = f"Clore lets this bid go down to {_exactly(lowest)} per hour now, {again}"
    refused = outcomes.bid_refused(order_id, "exceeded_max_step", why)
    return replace(refused, lowest_usd_per_hour_now=shown(lowest))


def refusal_of(order_id: int, bid: Bid, error: Refused) -> Outcome:
    """What Clore refused, by its own rules on bids in USD per hour and seconds where it gave numbers."""
    if isinstance(error, StepTooLarge):
        step, present = error.max_step_per_day, bid.row.price
        told = max(ZERO, present - Decimal(str(step))) if step and step > 0 and present is not None else None
        return step_too_large(order_id, bid, told)
    if isinstance(error, LoweringTooSoon):
        return too_soon(order_id, error.retry_after_seconds or 0)
    if isinstance(error, BidTooLow) and error.min_price_per_day is not None:
        return too_low(order_id, bid.usd_to_ask(Decimal(str(error.min_price_per_day))))
    reason = "too_low_price" if isinstance(error, BidTooLow) else error.code
    return outcomes.bid_refused(order_id, reason, f"{error.message} {error.hint}")


def _exactly(usd: Decimal) -> str:
    """A bound as it may be asked for: a price that `dollars` rounds is no longer the lowest one."""
    return f"${plain(usd)}"

"""Prices a spot bid in USD and in its coin, writes the question before a raise, and explains Clore's refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from math import ceil
from typing import Any

from clore_mcp.clore import OrderRow
from clore_mcp.errors import ArgumentInvalid, BidTooLow, LoweringTooSoon, NotFound, Refused, StepTooLarge
from clore_mcp.market.pricing import OrderType, on_demand_usd_per_hour
from clore_mcp.market.spotbook import lowest_asked
from clore_mcp.money import ZERO, Coin, DayPrice, dollars, plain, shown, shown_up
from clore_mcp.rental import results
from clore_mcp.rental.context import Context
from clore_mcp.rental.questions import NOT_MADE_HERE, hardware, hardware_of, not_below_on_demand, would_not_win
from clore_mcp.rental.requests import SetSpotPrice
from clore_mcp.rental.results import Outcome, Settled
from clore_mcp.rental.rules.billing import spent_of
from clore_mcp.rental.rules.check import Draw
from clore_mcp.rental.terms import END_SLACK_HOURS, LONGEST_RENTAL_HOURS, bid_within, hours_left, reservation_margin
from clore_mcp.store import End, Reservation, orders
from clore_mcp.text import iso


@dataclass(frozen=True, slots=True)
class Bid:
    """A new bid for one order, in the order's coin, with the order's total in the worst case.

    `worst_usd` includes margins for a moving rate and a late end, and `due_usd` does not. `hours` is how long the order
    still runs, for the wallet. With `enforced_by`, the worst case stops at `end`, so that process must be alive.
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
    minimum: Decimal | None = None  # the host's, per day, if it is listed
    on_demand_usd: Decimal | None = None  # per hour including the fee, if the server has such a price

    @property
    def draw(self) -> Draw:
        """The amount that the order takes from the wallet until its end."""
        per_hour = self.day.value / 24 * (1 + self.fee)
        return Draw(self.coin, self.usd_per_coin, per_hour, self.hours, order_id=self.row.id)

    @property
    def dear_on_demand_usd(self) -> Decimal | None:
        """The on-demand price in USD per hour if this bid is not below it. None if it is below or that is unknown."""
        usd = self.on_demand_usd
        return usd if usd is not None and self.usd_per_hour >= usd else None

    @property
    def raises(self) -> bool:
        """Whether the bid is above the present one."""
        return self.row.price is None or self.day.value > self.row.price

    @property
    def unchanged(self) -> bool:
        """Whether Clore already has this bid."""
        return self.row.price is not None and self.day.value == self.row.price

    def usd(self, per_day: Decimal) -> Decimal:
        """Return a price per day in the order's coin as USD per hour, including the fee."""
        return DayPrice(per_day, self.coin).usd_per_hour(self.usd_per_coin) * (1 + self.fee)

    def usd_to_ask(self, per_day: Decimal) -> Decimal:
        """Return the lowest USD per hour, including the fee, that gives at least that price per day."""
        return lowest_asked(DayPrice(per_day, self.coin), self.usd_per_coin, self.fee)

    def at(self, per_day: Decimal) -> Bid:
        """Return the same bid at another price per day, with the larger of the two worst cases."""
        return replace(self, day=DayPrice(per_day, self.coin), usd_per_hour=self.usd(per_day))


@dataclass(frozen=True, slots=True)
class BidTerms:
    """The terms of the question: a bid per day in its coin, and the order's worst case with it."""

    order_id: int
    bid_per_day: Decimal
    coin: Coin
    worst_usd: Decimal

    def as_json(self) -> dict[str, Any]:
        """Return JSON for the quote's row."""
        return {**asdict(self), "bid_per_day": str(self.bid_per_day), "worst_usd": str(self.worst_usd)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> BidTerms:
        """Return the terms that `as_json` wrote."""
        return cls(row["order_id"], Decimal(row["bid_per_day"]), Coin(row["coin"]), Decimal(row["worst_usd"]))


def reservation_of(bid: Bid, account: str, now: float) -> Reservation:
    """Return the least that a raise reserves. A lowering reserves nothing."""
    worst, hourly = (bid.worst_usd, bid.usd_per_hour) if bid.raises else (ZERO, ZERO)
    return Reservation(None, account, bid.coin.value, worst, hourly, created_at=now, order_id=bid.row.id)


def _too_low(order_id: int, least_usd: Decimal) -> Outcome:
    why = f"The host takes no bid under {_exactly(least_usd)} per hour, including fees."
    return results.bid_refused(order_id, "too_low_price", why)


def _step_too_large(order_id: int, bid: Bid, error: StepTooLarge) -> Outcome:
    step, present = error.max_step_per_day, bid.row.price
    again = "one step every 600 seconds. Raising it is not limited."
    if not (step and step > 0) or present is None:
        why = f"Clore refuses such a large step down and does not name its limit. Lower it by less, {again}"
        return results.bid_refused(order_id, "exceeded_max_step", why)
    lowest = bid.usd_to_ask(max(ZERO, present - Decimal(str(step)), bid.minimum or ZERO))
    why = f"Clore lets this bid be lowered to {_exactly(lowest)} per hour now, {again}"
    refused = results.bid_refused(order_id, "exceeded_max_step", why)
    return replace(refused, lowest_usd_per_hour_now=shown(lowest))


def refusal_of(order_id: int, bid: Bid, error: Refused) -> Outcome:
    """Return the answer to a refusal by Clore's rules on bids, in USD per hour and seconds if Clore gave numbers."""
    if isinstance(error, StepTooLarge):
        return _step_too_large(order_id, bid, error)
    if isinstance(error, LoweringTooSoon):
        seconds = ceil(error.retry_after_seconds or 0)
        why = (
            f"Clore lets a bid be lowered once every 600 seconds, this one again in {seconds}. Raising it is"
            " not limited, and cancel_order ends it at once."
        )
        return replace(results.bid_refused(order_id, "lowering_too_soon", why), retry_after_seconds=seconds)
    if isinstance(error, BidTooLow) and error.min_price_per_day is not None:
        return _too_low(order_id, bid.usd_to_ask(Decimal(str(error.min_price_per_day))))
    reason = "too_low_price" if isinstance(error, BidTooLow) else error.code
    return results.bid_refused(order_id, reason, f"{error.message} {error.hint}")


def _exactly(usd: Decimal) -> str:
    """Return the price unrounded, because a rounded bound is no longer the bound."""
    return f"${plain(usd)}"


async def priced(
    context: Context, request: SetSpotPrice, row: OrderRow | None, account: str, *, asked_at: float
) -> Bid:
    """Return the priced bid for an order as Clore lists it, asked about at `asked_at`. Raises Settled if no such bid
    can be made, NotFound and ArgumentInvalid."""
    readings = context.readings
    api_now = readings.api_now()  # taken with the row: its cost and its remaining hours must be of one moment
    if row is None or row.expired:
        raise NotFound(f"No order {request.order_id} is running.", hint="list_orders shows what runs.")
    if not row.spot:
        said = f"Order {request.order_id} is on-demand, so its price is fixed."
        raise ArgumentInvalid(said, hint="Only spot has bids.")
    coin = Coin.parse(row.currency or "")
    snapshot, fees = await readings.snapshot(), await readings.fees()
    rate = snapshot.rates.usd_per(coin) if coin else None
    if coin is None or rate is None:
        why = "The USD rate of the order's coin is unknown. Call again later."
        raise Settled(results.bid_refused(request.order_id, "unknown_rate", why))
    fee = fees.fraction(OrderType.SPOT, coin)
    listing = snapshot.by_id.get(row.server_id or 0)
    minimum = listing.spot.get(coin) if listing else None
    day = bid_within(request.exact_bid, coin, rate, fee, minimum)
    if day is None:
        raise Settled(_too_low(request.order_id, lowest_asked(DayPrice(minimum or ZERO, coin), rate, fee)))
    if request.to_win:
        day = await _winning_bid(context, request, row, coin, rate, fee)
    usd_per_hour = day.usd_per_hour(rate) * (1 + fee)
    end = await context.state.read(lambda tx: orders.end_of(tx, account, request.order_id))
    enforced_by = await context.enforced_by() if end is not None and end.on_end == "cancel" else None
    enforced_end = end.ends_api_at if end is not None and enforced_by else None
    worst_hours = hours_left(enforced_end, api_now, context.clock() - asked_at)
    spent = (spent_of(row, None, api_now) or ZERO) * rate * (1 + fee)
    creation = fees.creation_usd(OrderType.SPOT, coin, rate)
    worst_usd = spent + (usd_per_hour * worst_hours + creation) * reservation_margin(coin)
    due_usd = spent + usd_per_hour * (worst_hours - END_SLACK_HOURS) + creation
    left = ZERO if end is None else Decimal(str(end.ends_api_at - api_now)) / 3600
    hours = min(left, worst_hours) if left > 0 else worst_hours
    on_demand = on_demand_usd_per_hour(listing, coin, fees, snapshot.rates) if listing else None
    return Bid(row, coin, rate, fee, day, usd_per_hour, worst_usd, due_usd, hours, end, enforced_by, minimum, on_demand)


async def _winning_bid(
    context: Context, request: SetSpotPrice, row: OrderRow, coin: Coin, rate: Decimal, fee: Decimal
) -> DayPrice:
    """Return the lowest bid that wins now, or the present one if no rival beats it. Raises Settled if that is unknown
    or above the named maximum."""
    view = await context.readings.spot_view_if_known(row.server_id or 0)
    winning = view.winning.get(coin) if view is not None else None
    if view is None or winning is None:
        why = "The bids of its server can't be read now, so the winning bid is unknown. Call again, or name a bid."
        raise Settled(results.bid_refused(request.order_id, "book_unreadable", why))
    present = None if row.price is None else DayPrice(row.price, coin)
    runs = any(offer.mine and offer.active for offer in view.offers)
    if present is not None and (runs or not view.beaten(present)):
        return present
    if winning.usd_per_hour(rate) * (1 + fee) <= request.exact_bid:
        return winning
    needed = lowest_asked(winning, rate, fee)
    why = f"The winning bid is now {dollars(needed)} per hour, more than max_usd_per_hour."
    refused = results.bid_refused(request.order_id, "above_max", why)
    raise Settled(replace(refused, to_win_usd_per_hour=shown_up(needed)))


async def to_win_usd(context: Context, bid: Bid) -> Decimal | None:
    """Return the USD per hour that would win in the order's coin now, or None if the bid wins or that is unknown."""
    view = await context.readings.spot_view_if_known(bid.row.server_id or 0)
    winning = view.winning.get(bid.coin) if view is not None and view.beaten(bid.day) else None
    return None if winning is None else bid.usd_to_ask(winning.value)


def bid_question(quote_id: str, bid: Bid, to_win_usd: Decimal | None) -> str:
    """Return the question before a spot bid is raised. `to_win_usd` is the bid per hour that would win, None if this
    one wins or that is unknown."""
    row, dear = bid.row, bid.dear_on_demand_usd
    server = "unknown" if row.server_id is None else row.server_id
    was = "unknown" if row.price is None else f"{dollars(bid.usd(row.price))} per hour"
    return "\n".join(
        [
            f"Raise the bid of spot order {row.id} to {dollars(bid.usd_per_hour)} per hour, including fees"
            f" ({plain(bid.day.value)} {bid.coin.ticker} per day)? It is {was} now.",
            f"Server {server}: {hardware(hardware_of(row))}",
            *([] if bid.end is not None and bid.end.made_here else [NOT_MADE_HERE]),
            *([] if to_win_usd is None else [would_not_win(to_win_usd)]),
            *([] if dear is None else [not_below_on_demand(dear)]),
            f"{_bid_end(bid.end, bid.enforced_by)} Worst case in total: {dollars(bid.worst_usd)}.",
            f"Quote {quote_id}. Nothing changes without a yes.",
        ]
    )


def _bid_end(end: End | None, enforced_by: str | None) -> str:
    if end is None:
        return f"End: NOTHING here ends it, so it counts for {plain(LONGEST_RENTAL_HOURS)} hours, the longest rental."
    ends_at = iso(end.ends_api_at)
    if end.on_end == "notify":
        return f"End: at {ends_at} clore-mcp notifies your assistant but cancels nothing."
    if enforced_by is None:
        return f"End: NOTHING ends it at {ends_at} unless someone cancels."
    return f"End: cancelled at {ends_at} by {enforced_by}."

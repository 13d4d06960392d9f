"""What a server costs: which coin to pay in, the all-in price per hour, and the cost of an order.

All of it is exact. `Cost` is rounded once, each part up to a whole micro-dollar, so that the parts add up to the
total and the total is never less than the bill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from clore_mcp.market.listing import Listing
from clore_mcp.market.rates import Fees, OrderType, Rates
from clore_mcp.money import HOURS_PER_DAY, ZERO, Coin, DayPrice, up_to_micro

Wallet = Mapping[Coin, Decimal | None]

# USD per hour for a whole server: outside this a listing is a typing mistake or a trap, not an offer.
SANE_USD_PER_HOUR: Final = (Decimal("0.0001"), Decimal(10_000))


class Unpriced(StrEnum):
    """Why a server can't be rented at any price that we can name."""

    NO_ACCEPTED_COIN = "the host accepts no coin that is known"
    NOT_ACCEPTED = "the host does not accept that coin"
    NO_PRICE = "no price is listed in a coin that the host accepts"
    NO_RATE = "no rate to USD is known for its coin"
    ABSURD = "the listed price is absurd"


@dataclass(frozen=True, slots=True)
class Priced:
    """A price that can be paid: `usd_per_hour` has the renter's fee in, `day` is the listing's own, fee out."""

    day: DayPrice
    usd_per_coin: Decimal
    fee: Decimal
    usd_per_hour: Decimal

    @property
    def coin(self) -> Coin:
        """The coin that the order is paid in."""
        return self.day.coin


@dataclass(frozen=True, slots=True)
class Cost:
    """What so many hours come to, in USD; `total_usd` is exactly the sum of the parts."""

    rent_usd: Decimal
    fee_usd: Decimal
    creation_fee_usd: Decimal

    @property
    def total_usd(self) -> Decimal:
        """Rent, fee and creation fee."""
        return self.rent_usd + self.fee_usd + self.creation_fee_usd


def price_of(day: DayPrice, order_type: OrderType, fees: Fees, rates: Rates) -> Priced | Unpriced:
    """A listing's price or a bid, with the fee in and in USD per hour."""
    rate = rates.usd_per(day.coin)
    if rate is None:
        return Unpriced.NO_RATE
    fee = fees.fraction(order_type, day.coin)
    usd_per_hour = day.usd_per_hour(rate) * (1 + fee)
    if not SANE_USD_PER_HOUR[0] <= usd_per_hour <= SANE_USD_PER_HOUR[1]:
        return Unpriced.ABSURD
    return Priced(day, rate, fee, usd_per_hour)


def prices_of(listing: Listing, order_type: OrderType, fees: Fees, rates: Rates) -> dict[Coin, Priced | Unpriced]:
    """Every coin in which the server has a price and which its host accepts, with what it comes to."""
    listed = listing.spot if order_type is OrderType.SPOT else listing.on_demand
    return {
        coin: price_of(DayPrice(listed[coin], coin), order_type, fees, rates)
        for coin in Coin
        if coin in listing.allowed_coins and coin in listed
    }


def choose(
    listing: Listing,
    order_type: OrderType,
    fees: Fees,
    rates: Rates,
    *,
    wallet: Wallet | None = None,
    preferred: Coin | None = None,
    only: Coin | None = None,
) -> Priced | Unpriced:
    """The cheapest accepted coin that the wallet holds (any, when it holds none of them or is not known).

    `preferred` wins wherever the host accepts it and the wallet holds it or nothing better; `only` excludes all others.
    """
    if not listing.allowed_coins:
        return Unpriced.NO_ACCEPTED_COIN
    if only is not None and only not in listing.allowed_coins:
        return Unpriced.NOT_ACCEPTED
    offers = prices_of(listing, order_type, fees, rates)
    if only is not None:
        return offers.get(only, Unpriced.NO_PRICE)
    payable = {coin: offer for coin, offer in offers.items() if isinstance(offer, Priced)}
    if not payable:
        return _worst(offers)
    if wallet is not None:
        payable = {coin: offer for coin, offer in payable.items() if (wallet.get(coin) or ZERO) > 0} or payable
    if preferred in payable:
        return payable[preferred]
    return min(payable.values(), key=lambda offer: offer.usd_per_hour)


def on_demand_usd_per_hour(listing: Listing, coin: Coin, fees: Fees, rates: Rates) -> Decimal | None:
    """The on-demand price in USD per hour, fee in: in that coin, else in the cheapest one; None where there is none."""
    offers = prices_of(listing, OrderType.ON_DEMAND, fees, rates)
    payable = {coin: offer.usd_per_hour for coin, offer in offers.items() if isinstance(offer, Priced)}
    return payable.get(coin, min(payable.values(), default=None))


def per_gpu(listing: Listing, priced: Priced) -> Decimal:
    """The all-in price per hour of one of the server's GPUs."""
    return priced.usd_per_hour / listing.gpu_count


def cost(priced: Priced, hours: Decimal, creation_usd: Decimal) -> Cost:
    """What `hours` at this price cost. The creation fee always counts, although Clore waives it for ten minutes."""
    rent = priced.day.value * priced.usd_per_coin * hours / HOURS_PER_DAY
    return Cost(
        rent_usd=up_to_micro(rent),
        fee_usd=up_to_micro(rent * priced.fee),
        creation_fee_usd=up_to_micro(creation_usd),
    )


def _worst(offers: Mapping[Coin, Priced | Unpriced]) -> Unpriced:
    reasons = {offer for offer in offers.values() if isinstance(offer, Unpriced)}
    return next((reason for reason in (Unpriced.ABSURD, Unpriced.NO_RATE) if reason in reasons), Unpriced.NO_PRICE)

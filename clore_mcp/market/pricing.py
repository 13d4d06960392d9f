"""Prices of a server: the value of each coin in USD, Clore's fees, the price per hour in a coin, the cost of an order.

A coin's rate is the market's median, never one row's own figure, because some rows contradict themselves. An unknown
fee counts as the highest that Clore ever documented, and `Fees` marks it. All figures are exact. Only `Cost` is
rounded, each part up to a whole micro-dollar, so that the parts add up to the total and the total is never less than
the bill.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from statistics import median
from typing import Final

from clore_mcp.clore.models import RenterFees, ServerRow
from clore_mcp.market.listing import Listing
from clore_mcp.money import HOURS_PER_DAY, ZERO, Coin, DayPrice, up_to_micro

_MIN_SAMPLE: Final = 3  # fewer rows than this are a claim, not a market
_RATE_RANGE: Final = (Decimal("1e-9"), Decimal("1e9"))  # USD per coin; a value outside this is an error, not a rate
_AMOUNT_RANGE: Final = (Decimal("1e-12"), Decimal("1e12"))
_HUNDRED: Final = Decimal(100)


class OrderType(StrEnum):
    """Clore's two order types, by its own names."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"


# The highest fees in Clore's documents (docs/clore-api.md section 3, 2023-2026).
HIGHEST_FEE: Final = {OrderType.ON_DEMAND: Decimal("0.10"), OrderType.SPOT: Decimal("0.025")}
CREATION_FEE_AFTER_SECONDS: Final = 600  # a cancel before that saves the creation fee, by one of the documents
HIGHEST_CREATION_FEE_USD: Final = Decimal("0.1")
_FAR_BEYOND: Final = 100  # times the usual fee: a larger one is not in the coin that it is listed for


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per coin. A coin without a rate has no price in USD, and nothing may be bought with it."""

    usd: Mapping[Coin, Decimal] = field(default_factory=dict)

    def usd_per(self, coin: Coin) -> Decimal | None:
        """Return USD for one of `coin`, or None if there is no trusted rate."""
        return self.usd.get(coin)


def coin_rates(prices: Mapping[str, Decimal | None] | None) -> dict[Coin, Decimal]:
    """Return Clore's `currency_rates_in_usd` for the known coins, without implausible rates."""
    known = ((coin, (prices or {}).get(coin.value)) for coin in Coin)
    return {coin: rate for coin, rate in known if rate is not None and _within(rate, _RATE_RANGE)}


def market_rates(rows: Iterable[ServerRow]) -> Rates:
    """Return each coin's median over the rows, if there are enough. One USD is one USD."""
    samples: dict[Coin, list[Decimal]] = {Coin.BTC: [], Coin.CLORE: []}
    for row in rows:
        prices = row.on_demand or {}
        for coin, in_usd in ((Coin.BTC, row.usd_on_demand_btc), (Coin.CLORE, row.usd_on_demand_clore)):
            if (rate := _ratio(in_usd, prices.get(coin.value))) is not None:
                samples[coin].append(rate)
    medians = {coin: median(found) for coin, found in samples.items() if len(found) >= _MIN_SAMPLE}
    return Rates({Coin.USD: Decimal(1), **medians})


@dataclass(frozen=True, slots=True)
class Fees:
    """What a renter pays on top, by order type and coin: fractions (0.05 is 5 %), and creation fees as Clore gives
    them."""

    fractions: Mapping[tuple[OrderType, Coin], Decimal] = field(default_factory=dict)
    creation: Mapping[tuple[OrderType, Coin], Decimal] = field(default_factory=dict)
    assumed: bool = True

    @classmethod
    def highest_documented(cls) -> Fees:
        """Return the fees to assume if Clore's are unknown. They are never less than the actual ones."""
        return cls()

    def fraction(self, order_type: OrderType, coin: Coin) -> Decimal:
        """Return the renter's fee as a fraction of a price in `coin`."""
        return self.fractions.get((order_type, coin), HIGHEST_FEE[order_type])

    def creation_usd(self, order_type: OrderType, coin: Coin, usd_per_coin: Decimal) -> Decimal:
        """Return the one-time creation fee in USD.

        Clore's figure for BTC and CLORE is not in any capture, so `creation_fee_usd` interprets it.
        """
        told = self.creation.get((order_type, coin))
        return HIGHEST_CREATION_FEE_USD if told is None else creation_fee_usd(told, usd_per_coin)

    def assumes(self, order_type: OrderType, coin: Coin) -> bool:
        """Return whether a fee for this kind of order is the highest documented one instead of Clore's own."""
        return (order_type, coin) not in self.fractions or (order_type, coin) not in self.creation


def creation_fee_usd(figure: Decimal, usd_per_coin: Decimal, usual_usd: Decimal = ZERO) -> Decimal:
    """Return a one-time fee in USD. It is unknown whether Clore's figure is in the coin or in USD.

    If both make sense, the larger one counts, with the USD one capped at the documented fee, because a mistake is our
    loss. A figure far beyond the usual fee is not in the coin: 0.1 for a bitcoin order is $0.10, not 0.1 BTC.
    """
    usual = max(usual_usd, HIGHEST_CREATION_FEE_USD)
    in_coin = figure * usd_per_coin
    if in_coin <= usual * _FAR_BEYOND:
        return max(in_coin, min(figure, HIGHEST_CREATION_FEE_USD))
    return figure if figure <= usual * _FAR_BEYOND else usual


def read_fees(wire: RenterFees | None) -> Fees:
    """Return Clore's fees for this account, less its Proof-of-Holding discount. Parts that make no sense stay
    unknown."""
    if wire is None:
        return Fees.highest_documented()
    kept = (_HUNDRED - _poh_reduction_percent(wire)) / _HUNDRED
    fractions: dict[tuple[OrderType, Coin], Decimal] = {}
    creation: dict[tuple[OrderType, Coin], Decimal] = {}
    for order_type, percents, once in (
        (OrderType.ON_DEMAND, wire.on_demand_percent, wire.creation_on_demand),
        (OrderType.SPOT, wire.spot_percent, wire.creation_spot),
    ):
        for coin in Coin:
            percent, fee = percents.get(coin.value), once.get(coin.value)
            if percent is not None and 0 <= percent <= _HUNDRED:
                fractions[order_type, coin] = percent / _HUNDRED * kept
            if fee is not None and (fee == 0 or _within(fee, _AMOUNT_RANGE)):
                creation[order_type, coin] = fee
    every = len(OrderType) * len(Coin)
    assumed = len(fractions) < every or len(creation) < every
    return Fees(fractions, creation, assumed)


def _poh_reduction_percent(wire: RenterFees) -> Decimal:
    held, full, most = wire.poh_balance, wire.poh_full_amount, wire.poh_max_percent
    if held is None or full is None or most is None or held <= 0 or full <= 0 or not 0 <= most <= _HUNDRED:
        return ZERO
    share = Decimal(1) if held >= full else held / full
    return (share * most).quantize(Decimal(1), ROUND_HALF_UP)


def _ratio(in_usd: Decimal | None, price: Decimal | None) -> Decimal | None:
    if in_usd is None or price is None or not (_within(in_usd, _AMOUNT_RANGE) and _within(price, _AMOUNT_RANGE)):
        return None
    rate = in_usd / price
    return rate if _within(rate, _RATE_RANGE) else None


def _within(value: Decimal, bounds: tuple[Decimal, Decimal]) -> bool:
    return bounds[0] <= value <= bounds[1]


Wallet = Mapping[Coin, Decimal | None]

# USD per hour for a whole server. A listing outside this is a typing mistake or a trap, not an offer.
SANE_USD_PER_HOUR: Final = (Decimal("0.0001"), Decimal(10_000))


class Unpriced(StrEnum):
    """Why a server has no price that it can be rented at."""

    NO_ACCEPTED_COIN = "the host accepts no coin that is known"
    NOT_ACCEPTED = "the host does not accept that coin"
    NO_PRICE = "no price is listed in a coin that the host accepts"
    NO_RATE = "no rate to USD is known for its coin"
    ABSURD = "the listed price is absurd"


@dataclass(frozen=True, slots=True)
class Priced:
    """A price that can be paid. `usd_per_hour` includes the renter's fee. `day` is the listing's own, without the
    fee."""

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
    """The cost of a number of hours, in USD. `total_usd` is exactly the sum of the parts."""

    rent_usd: Decimal
    fee_usd: Decimal
    creation_fee_usd: Decimal

    @property
    def total_usd(self) -> Decimal:
        """Rent, fee and creation fee."""
        return self.rent_usd + self.fee_usd + self.creation_fee_usd


PricedServer = tuple[Listing, Priced | Unpriced]


def price_of(day: DayPrice, order_type: OrderType, fees: Fees, rates: Rates) -> Priced | Unpriced:
    """Return a listing's price or a bid in USD per hour, including the fee."""
    rate = rates.usd_per(day.coin)
    if rate is None:
        return Unpriced.NO_RATE
    fee = fees.fraction(order_type, day.coin)
    usd_per_hour = day.usd_per_hour(rate) * (1 + fee)
    if not SANE_USD_PER_HOUR[0] <= usd_per_hour <= SANE_USD_PER_HOUR[1]:
        return Unpriced.ABSURD
    return Priced(day, rate, fee, usd_per_hour)


def prices_of(listing: Listing, order_type: OrderType, fees: Fees, rates: Rates) -> dict[Coin, Priced | Unpriced]:
    """Return the server's price in each coin that is listed and that its host accepts."""
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
    """Return the price in the cheapest accepted coin that the wallet holds. If it holds none of them or is unknown, all
    accepted coins count.

    `preferred` wins if it is one of those coins. `only` excludes all others. If no coin is left, return the reason.
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
        telling = (reason for reason in (Unpriced.ABSURD, Unpriced.NO_RATE) if reason in offers.values())
        return next(telling, Unpriced.NO_PRICE)
    if wallet is not None:
        payable = {coin: offer for coin, offer in payable.items() if (wallet.get(coin) or ZERO) > 0} or payable
    if preferred in payable:
        return payable[preferred]
    return min(payable.values(), key=lambda offer: offer.usd_per_hour)


def on_demand_usd_per_hour(listing: Listing, coin: Coin, fees: Fees, rates: Rates) -> Decimal | None:
    """Return the on-demand price in USD per hour including the fee, in that coin, else in the cheapest one, or None."""
    priced = choose(listing, OrderType.ON_DEMAND, fees, rates, preferred=coin)
    return priced.usd_per_hour if isinstance(priced, Priced) else None


def per_gpu(listing: Listing, priced: Priced) -> Decimal:
    """Return the price per hour of one of the server's GPUs, including the fee."""
    return priced.usd_per_hour / listing.gpu_count


def cost(priced: Priced, hours: Decimal, creation_usd: Decimal) -> Cost:
    """Return the cost of `hours` at this price. The creation fee always counts, although Clore waives it for ten
    minutes."""
    rent = priced.day.value * priced.usd_per_coin * hours / HOURS_PER_DAY
    return Cost(
        rent_usd=up_to_micro(rent),
        fee_usd=up_to_micro(rent * priced.fee),
        creation_fee_usd=up_to_micro(creation_usd),
    )

"""The value of each coin in USD, and Clore's fees.

A rate is the market's median, never one row's own figure, because some rows contradict themselves. An unknown fee
counts as the highest that Clore ever documented, and `Fees` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from statistics import median
from types import MappingProxyType
from typing import Final

from clore_mcp.clore.models import RenterFees, ServerRow
from clore_mcp.money import ZERO, Coin

_MIN_SAMPLE: Final = 3  # fewer rows than this are somebody's claim, not a market
_RATE_RANGE: Final = (Decimal("1e-9"), Decimal("1e9"))  # USD per coin outside this is a fault, not a rate
_AMOUNT_RANGE: Final = (Decimal("1e-12"), Decimal("1e12"))
_HUNDRED: Final = Decimal(100)


class OrderType(StrEnum):
    """Clore's two ways to rent, by its own names."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"


# The highest that Clore's documents ever named (docs/clore-api.md section 3, 2023-2026).
HIGHEST_FEE: Final = MappingProxyType({OrderType.ON_DEMAND: Decimal("0.10"), OrderType.SPOT: Decimal("0.025")})
HIGHEST_CREATION_FEE_USD: Final = Decimal("0.1")
_FAR_BEYOND: Final = 100  # times what is usual: such a fee is not in the coin that stands beside it


def _nothing() -> Mapping[Coin, Decimal]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per coin. A coin without a rate has no price in USD, and nothing may be bought with it."""

    usd: Mapping[Coin, Decimal] = field(default_factory=_nothing)
    sources: Mapping[Coin, str] = field(default_factory=lambda: MappingProxyType({}))

    def usd_per(self, coin: Coin) -> Decimal | None:
        """USD for one of `coin`, or None when nobody trustworthy says."""
        return self.usd.get(coin)


def coin_rates(prices: Mapping[str, Decimal | None] | None) -> dict[Coin, Decimal]:
    """Clore's `currency_rates_in_usd`, as far as its coins are known and its numbers sane."""
    known = ((coin, (prices or {}).get(coin.value)) for coin in Coin)
    return {coin: rate for coin, rate in known if rate is not None and _within(rate, _RATE_RANGE)}


def market_rates(rows: Iterable[ServerRow]) -> Rates:
    """Each coin's median over the rows, where there are enough. One USD is one USD."""
    samples: dict[Coin, list[Decimal]] = {Coin.BTC: [], Coin.CLORE: []}
    for row in rows:
        prices = row.on_demand or {}
        for coin, in_usd in ((Coin.BTC, row.usd_on_demand_btc), (Coin.CLORE, row.usd_on_demand_clore)):
            if (rate := _ratio(in_usd, prices.get(coin.value))) is not None:
                samples[coin].append(rate)
    usd, sources = {Coin.USD: Decimal(1)}, {Coin.USD: "par"}
    for coin, found in samples.items():
        if len(found) >= _MIN_SAMPLE:
            usd[coin], sources[coin] = median(found), "market median"
    return Rates(MappingProxyType(usd), MappingProxyType(sources))


@dataclass(frozen=True, slots=True)
class Fees:
    """What a renter pays on top: fractions (0.05 is 5 %), and creation fees in the coin itself, by type and coin."""

    fractions: Mapping[tuple[OrderType, Coin], Decimal] = field(default_factory=lambda: MappingProxyType({}))
    creation: Mapping[tuple[OrderType, Coin], Decimal] = field(default_factory=lambda: MappingProxyType({}))
    assumed: bool = True
    poh_reduction_percent: Decimal = ZERO

    @classmethod
    def highest_documented(cls) -> Fees:
        """The fees to count with when Clore has not said: never less than the truth."""
        return cls()

    def fraction(self, order_type: OrderType, coin: Coin) -> Decimal:
        """The renter's part of the fee on a price in `coin`."""
        return self.fractions.get((order_type, coin), HIGHEST_FEE[order_type])

    def creation_usd(self, order_type: OrderType, coin: Coin, usd_per_coin: Decimal) -> Decimal:
        """The one-time creation fee in USD.

        Clore's figure for BTC and CLORE is not seen in any capture, so `creation_fee_usd` says what it means.
        """
        told = self.creation.get((order_type, coin))
        if told is None:
            return HIGHEST_CREATION_FEE_USD
        return creation_fee_usd(told, usd_per_coin)

    def assumes(self, order_type: OrderType, coin: Coin) -> bool:
        """Whether a figure for this kind of order is the highest documented one instead of Clore's own."""
        return (order_type, coin) not in self.fractions or (order_type, coin) not in self.creation


def creation_fee_usd(figure: Decimal, usd_per_coin: Decimal, usual_usd: Decimal = ZERO) -> Decimal:
    """What a one-time fee that Clore names comes to in USD, read in the coin or as USD: nobody has seen which.

    Where both make sense the larger one counts, the USD one capped at the documented fee, because a mistake is our
    loss. Far beyond what is usual, a figure is not in the coin: 0.1 beside a bitcoin order is $0.10, not 0.1 BTC.
    """
    usual = max(usual_usd, HIGHEST_CREATION_FEE_USD)
    in_coin = figure * usd_per_coin
    if in_coin <= usual * _FAR_BEYOND:
        return max(in_coin, min(figure, HIGHEST_CREATION_FEE_USD))
    return figure if figure <= usual * _FAR_BEYOND else usual


def read_fees(wire: RenterFees | None) -> Fees:
    """Clore's fees for this account, its Proof-of-Holding discount taken off; parts that make no sense stay unknown."""
    if wire is None:
        return Fees.highest_documented()
    reduction = _poh_reduction_percent(wire)
    kept = (_HUNDRED - reduction) / _HUNDRED
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
    return Fees(MappingProxyType(fractions), MappingProxyType(creation), assumed, reduction)


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

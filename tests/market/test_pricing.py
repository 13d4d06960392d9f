from __future__ import annotations

from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.market.listing import read_listing
from clore_mcp.market.pricing import Fees, OrderType, Priced, Rates, Unpriced, Wallet, choose, cost, price_of
from clore_mcp.money import Coin, DayPrice
from tests.market.rows import BTC, CLORE, RATES, USD, row

D = Decimal
MARKET = Rates(MappingProxyType({**RATES, Coin.USD: D(1)}))
FEES = Fees(MappingProxyType({(OrderType.ON_DEMAND, coin): D("0.05") for coin in Coin}))
ALL = [BTC, CLORE, USD]
PRICES = {"on_demand": {BTC: 0.0002, CLORE: 5500, USD: 12.6}, "spot": {}}  # 12, 11 and 12.6 USD a day


def chosen(prices: dict[str, Any] = PRICES, accepts: list[str] = ALL, **choice: Any) -> Coin | Unpriced:
    listing = read_listing(row(price=prices, allowed_coins=accepts))
    offer = choose(listing, OrderType.ON_DEMAND, FEES, MARKET, **choice)
    return offer.coin if isinstance(offer, Priced) else offer


def test_the_renter_pays_the_price_and_the_fee() -> None:
    offer = price_of(DayPrice(D(24), Coin.USD), OrderType.ON_DEMAND, FEES, MARKET)
    assert offer == Priced(DayPrice(D(24), Coin.USD), D(1), D("0.05"), D("1.05"))


def test_the_cheapest_accepted_coin_is_taken() -> None:
    assert chosen() is Coin.CLORE
    assert chosen(accepts=[BTC, USD]) is Coin.BTC
    assert chosen(accepts=[USD]) is Coin.USD


def test_a_listed_price_in_a_coin_that_is_not_accepted_counts_for_nothing() -> None:
    assert chosen({"on_demand": {CLORE: 1, USD: 12}}, accepts=[USD]) is Coin.USD
    assert chosen({"on_demand": {CLORE: 1000}}, accepts=[USD]) is Unpriced.NO_PRICE
    assert chosen(accepts=[]) is Unpriced.NO_ACCEPTED_COIN
    assert chosen(accepts=["doge"]) is Unpriced.NO_ACCEPTED_COIN


@pytest.mark.parametrize(
    ("wallet", "coin"),
    [
        ({Coin.USD: D(5)}, Coin.USD),
        ({Coin.USD: D(5), Coin.BTC: D("0.001")}, Coin.BTC),
        ({Coin.USD: D(5), Coin.CLORE: D(0)}, Coin.USD),
        ({Coin.CLORE: None}, Coin.CLORE),
        ({}, Coin.CLORE),
        (None, Coin.CLORE),
    ],
)
def test_a_coin_that_the_wallet_holds_goes_first(wallet: Wallet | None, coin: Coin) -> None:
    assert chosen(wallet=wallet) is coin


def test_a_preferred_coin_wins_where_it_can_be_paid() -> None:
    assert chosen(preferred=Coin.USD) is Coin.USD
    assert chosen(preferred=Coin.USD, accepts=[BTC]) is Coin.BTC
    assert chosen(preferred=Coin.USD, wallet={Coin.BTC: D(1)}) is Coin.BTC


def test_an_only_coin_excludes_the_others() -> None:
    assert chosen(only=Coin.USD) is Coin.USD
    assert chosen(only=Coin.USD, accepts=[BTC]) is Unpriced.NOT_ACCEPTED
    assert chosen({"on_demand": {BTC: 1}}, only=Coin.USD) is Unpriced.NO_PRICE


@pytest.mark.parametrize("usd_per_day", [1e-12, 1e-9, 0.001, 300_000, 1e11])
def test_an_absurd_price_is_none(usd_per_day: float) -> None:
    assert chosen({"on_demand": {USD: usd_per_day}}) is Unpriced.ABSURD
    assert chosen({"on_demand": {USD: usd_per_day, BTC: 0.0002}}) is Coin.BTC


def test_a_coin_without_a_rate_has_no_price() -> None:
    listing = read_listing(row(price=PRICES, allowed_coins=[BTC]))
    assert choose(listing, OrderType.ON_DEMAND, FEES, Rates()) is Unpriced.NO_RATE


def test_a_spot_price_has_the_spot_fee() -> None:
    listing = read_listing(row(price={"on_demand": {USD: 48}, "spot": {USD: 24}}))
    offer = choose(listing, OrderType.SPOT, Fees.highest_documented(), MARKET)
    assert isinstance(offer, Priced)
    assert offer.usd_per_hour == D("1.025")


def test_an_order_costs_rent_fee_and_creation_fee() -> None:
    offer = price_of(DayPrice(D(24), Coin.USD), OrderType.ON_DEMAND, FEES, MARKET)
    assert isinstance(offer, Priced)
    bill = cost(offer, D("2.5"), D("0.1"))
    assert (bill.rent_usd, bill.fee_usd, bill.creation_fee_usd) == (D("2.5"), D("0.125"), D("0.1"))
    assert bill.total_usd == D("2.725")


amounts = st.decimals("0.01", 100_000, places=8)


@given(amounts, st.sampled_from(Coin), st.decimals("0.01", 1000, places=3), st.sampled_from(OrderType))
def test_a_cost_is_never_less_than_the_bill_and_at_most_three_micros_more(
    day: Decimal, coin: Coin, hours: Decimal, order_type: OrderType
) -> None:
    fees = Fees.highest_documented()
    offer = price_of(DayPrice(day, coin), order_type, fees, MARKET)
    if isinstance(offer, Priced):
        bill = cost(offer, hours, D("0.1"))
        exact = offer.usd_per_hour * hours + D("0.1")
        assert exact - D("1e-15") <= bill.total_usd <= exact + D("0.000003")
        assert bill.total_usd == bill.rent_usd + bill.fee_usd + bill.creation_fee_usd

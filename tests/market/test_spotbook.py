from __future__ import annotations

from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.clore.models import SpotBook
from clore_mcp.market.listing import read_listing
from clore_mcp.market.pricing import Fees, OrderType, Rates
from clore_mcp.market.spotbook import SpotView, lowest_asked, read_book
from clore_mcp.money import HOURS_PER_DAY, Coin, DayPrice, shown, up_to_coin
from tests.market.rows import BTC, CLORE, USD, row

D = Decimal
FEES = Fees(MappingProxyType({(OrderType.SPOT, coin): D("0.0125") for coin in Coin}))
RATES = {USD: 1, CLORE: 0.0025, BTC: 60_000}
NO_RATES = Rates(MappingProxyType({Coin.USD: D(1)}))
SERVER = read_listing(row(price={"on_demand": {}, "spot": {USD: 2.4}}, allowed_coins=[USD, CLORE, BTC]))


def offer(bid: Any, coin: str = USD, **more: Any) -> dict[str, Any]:
    return {"offer_id": 1, "bid": bid, "active": False, "my": False, "currency": coin, **more}


def view(*offers: dict[str, Any], minimum: dict[str, Any] | None = None, rates: dict[str, Any] = RATES) -> SpotView:
    server = {"min_pricing": {USD: 2.4} if minimum is None else minimum, "online": True}
    book = {"market": {"offers": list(offers), "server": server, "currency_rates_in_usd": rates}, "exists": True}
    return read_book(SpotBook.model_validate(book), SERVER, FEES, NO_RATES)


def test_an_empty_book_is_won_with_the_minimum() -> None:
    empty = view()
    assert empty.min_usd_per_hour == empty.to_win_usd_per_hour == D("0.1013")  # 0.1 + 1.25 %, rounded up
    assert empty.to_win == DayPrice(D("2.40"), Coin.USD)
    assert (empty.our_rank, empty.offers) == (None, ())


def test_bids_in_different_coins_compare_in_dollars() -> None:
    book = view(offer(3), offer(2000, CLORE, active=True), offer(0.00004, BTC))
    assert [one.day.coin for one in book.offers] == [Coin.CLORE, Coin.USD, Coin.BTC]
    assert book.offers[0].usd_per_hour == D("5") / 24 * D("1.0125")


def test_winning_takes_one_step_above_the_best_rival() -> None:
    book = view(offer(3), offer(2000, CLORE, active=True), offer(9, my=True))
    assert book.to_win == DayPrice(D("5.01"), Coin.USD)
    assert view(offer(1, active=True)).to_win == DayPrice(D("2.40"), Coin.USD)


def test_the_coin_with_the_finest_step_wins_cheapest() -> None:
    book = view(offer(3, active=True), minimum={USD: 2.4, CLORE: 900})
    assert book.to_win == DayPrice(D("1200.01"), Coin.CLORE)


@pytest.mark.parametrize(
    ("offers", "rank"),
    [
        ([offer(3, my=True, active=True), offer(2)], 1),
        ([offer(3, my=True), offer(3, active=True), offer(2)], 2),
        ([offer(3, my=True), offer(3), offer(4, active=True)], 3),
        ([offer(3)], None),
    ],
)
def test_our_rank_counts_equal_bids_against_us(offers: list[dict[str, Any]], rank: int | None) -> None:
    assert view(*offers).our_rank == rank


def test_bids_that_can_not_be_compared_are_left_out() -> None:
    book = view(offer(3, "doge"), offer(None), offer(-1), offer(5, BTC), offer(1e300), rates={})
    assert book.offers == ()


def test_without_a_minimum_in_the_book_the_listing_counts() -> None:
    assert view(minimum={}).min_usd_per_hour == D("0.1013")
    nothing = read_book(SpotBook.model_validate({}), None, FEES, NO_RATES)
    assert (nothing.min_usd_per_hour, nothing.to_win, nothing.to_win_usd_per_hour) == (None, None, None)


def test_a_minimum_without_a_rate_names_no_winning_bid() -> None:
    book = view(minimum={CLORE: 900, USD: -1}, rates={})
    assert book.minimum == {Coin.CLORE: DayPrice(D(900), Coin.CLORE), Coin.USD: DayPrice(D("2.4"), Coin.USD)}
    assert book.to_win == DayPrice(D("2.40"), Coin.USD)


def test_a_bid_is_beaten_by_an_equal_one_and_never_by_our_own() -> None:
    book = view(offer(3, active=True), offer(1100, CLORE), offer(9, my=True))
    assert book.beaten(DayPrice(D("3.00"), Coin.USD)) and book.beaten(DayPrice(D(1200), Coin.CLORE))
    assert not book.beaten(DayPrice(D("3.01"), Coin.USD))
    assert not view().beaten(DayPrice(D("2.40"), Coin.USD))


def test_a_bid_that_wins_is_named_in_each_coin_that_has_a_minimum() -> None:
    book = view(offer(3, active=True), minimum={USD: 2.4, CLORE: 1500})
    assert dict(book.winning) == {Coin.USD: DayPrice(D("3.01"), Coin.USD), Coin.CLORE: DayPrice(D(1500), Coin.CLORE)}
    assert not any(book.beaten(day) for day in book.winning.values())


def test_what_wins_is_enough_by_the_rates_of_the_book_and_of_the_market() -> None:
    book = {"market": {"offers": [], "server": {"min_pricing": {CLORE: 900}}, "currency_rates_in_usd": {CLORE: 0.002}}}
    dearer = Rates(MappingProxyType({Coin.USD: D(1), Coin.CLORE: D("0.0025")}))
    found = read_book(SpotBook.model_validate(book), None, FEES, dearer)
    assert found.min_usd_per_hour == found.to_win_usd_per_hour == D("0.0950")  # 900 × 0.0025 / 24 + 1.25 %


@given(
    st.decimals("0.01", 100_000, places=9),
    st.sampled_from([(Coin.USD, D(1)), (Coin.CLORE, D("0.00125")), (Coin.BTC, D(64_000))]),
    st.decimals(0, "0.1", places=5),
)
def test_the_price_that_is_named_comes_to_that_bid_and_hardly_more(
    per_day: Decimal, paid: tuple[Coin, Decimal], fee: Decimal
) -> None:
    coin, rate = paid
    named = D(str(shown(lowest_asked(DayPrice(per_day, coin), rate, fee))))
    back = DayPrice(named * HOURS_PER_DAY / rate / (1 + fee), coin).floored()
    assert back.value >= per_day
    exact = up_to_coin(per_day, coin) * rate / 24 * (1 + fee)
    assert named - exact <= D("0.0002")


bids = st.lists(st.tuples(st.decimals("0.01", 5000, places=4), st.sampled_from([USD, CLORE, BTC])), max_size=5)


@given(bids, st.decimals("0.01", 100, places=5))
def test_the_winning_price_as_shown_still_wins_when_turned_into_a_bid(
    rivals: list[tuple[Decimal, str]], least: Decimal
) -> None:
    book = view(*(offer(str(bid), coin) for bid, coin in rivals), minimum={USD: str(least)})
    assert book.to_win and book.to_win_usd_per_hour
    rate = book.rates.usd_per(book.to_win.coin)
    assert rate
    told = D(str(shown(book.to_win_usd_per_hour)))
    bid = DayPrice(told * HOURS_PER_DAY / rate / D("1.0125"), book.to_win.coin).floored()
    assert bid.value >= least
    assert all(bid.value * rate > rival.day.value * book.rates.usd[rival.day.coin] for rival in book.offers)

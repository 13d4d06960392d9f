"""Money: exact, in one coin at a time, and every rounding against us."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.money import (
    Coin,
    DayPrice,
    dollars,
    from_micros,
    plain,
    shown,
    to_micros,
    up_to_micro,
    wire_number,
)

COINS = st.sampled_from(Coin)
SUMS = st.decimals(Decimal("-1e12"), Decimal("1e12"), allow_nan=False, allow_infinity=False)
PRICES = st.decimals(Decimal("1e-12"), Decimal("1e12"), allow_nan=False, allow_infinity=False)


@given(SUMS)
def test_a_stored_cost_is_never_smaller_than_the_cost_and_less_than_a_micro_larger(usd: Decimal) -> None:
    over = Fraction(from_micros(to_micros(usd))) - Fraction(usd)
    assert 0 <= over < Fraction(1, 1_000_000)
    assert up_to_micro(usd) == from_micros(to_micros(usd))


def test_a_cost_with_more_digits_than_a_context_holds_still_rounds_up() -> None:
    assert to_micros(Decimal("0.0000010000000000000000000000000000000000001")) == 2


@given(st.integers(-(10**30), 10**30))
def test_micros_survive_storage_exactly(micros: int) -> None:
    assert to_micros(from_micros(micros)) == micros


@given(PRICES, COINS)
def test_a_floored_bid_is_never_above_what_was_asked_and_has_the_coins_precision(value: Decimal, coin: Coin) -> None:
    bid = DayPrice(value, coin).floored()
    assert 0 <= Fraction(value) - Fraction(bid.value) < Fraction(1, 10**coin.precision)
    assert -bid.value.as_tuple().exponent <= coin.precision  # type: ignore[operator]


@given(st.floats(1e-12, 1e12) | st.integers(1, 10**9))
def test_a_wire_number_is_the_listings_own_number_again(number: float) -> None:
    listed = json.dumps(number)
    read = json.loads(listed, parse_float=Decimal, parse_int=Decimal)
    sent = json.dumps(wire_number(read))
    assert Decimal(sent) == read
    assert "." not in sent if read == read.to_integral_value() and "e" not in sent else True


def test_ten_dollars_are_sent_as_ten() -> None:
    assert json.dumps([wire_number(Decimal("10.0")), wire_number(Decimal("0.00015609"))]) == "[10, 0.00015609]"


@pytest.mark.parametrize(
    ("usd", "cost", "left"),
    [
        ("0", "$0.00", "$0.00"),
        ("-0.0000001", "$0.00", "-$0.0001"),
        ("0.0000001", "$0.0001", "$0.00"),
        ("0.00421", "$0.0043", "$0.0042"),
        ("0.42", "$0.42", "$0.42"),
        ("0.99996", "$1.00", "$0.9999"),
        ("1.001", "$1.01", "$1.00"),
        ("-2.345", "-$2.34", "-$2.35"),
        ("1e30", "$1000000000000000000000000000000.00", "$1000000000000000000000000000000.00"),
    ],
)
def test_a_cost_reads_rounded_up_and_what_is_left_rounded_down(usd: str, cost: str, left: str) -> None:
    assert (dollars(Decimal(usd)), dollars(Decimal(usd), up=False)) == (cost, left)


@given(SUMS)
def test_what_a_person_reads_is_never_less_than_the_cost(usd: Decimal) -> None:
    def read(text: str) -> Fraction:
        return Fraction(text.replace("$", ""))

    assert read(dollars(usd, up=False)) <= Fraction(usd) <= read(dollars(usd))


@pytest.mark.parametrize(
    ("value", "told"),
    [("0", 0.0), ("0.123456", 0.1235), ("0.000123456", 0.000123), ("-0.000123456", -0.000123), ("1e-20", 1e-20),
     ("12.5", 12.5), ("1e40", 1e40)],
)  # fmt: skip
def test_a_number_for_a_model_is_short_and_does_not_vanish(value: str, told: float) -> None:
    assert shown(Decimal(value)) == told


@pytest.mark.parametrize(
    ("value", "text"), [("1E+3", "1000"), ("10.500", "10.5"), ("0.00", "0"), ("1E-8", "0.00000001")]
)
def test_plain_numbers_have_no_exponent_and_no_idle_zeros(value: str, text: str) -> None:
    assert plain(Decimal(value)) == text


@pytest.mark.parametrize("coin", Coin)
def test_a_coin_is_known_by_clores_name_and_by_its_ticker_in_any_case(coin: Coin) -> None:
    assert {Coin.parse(text) for text in (coin.value, coin.ticker, coin.ticker.lower(), f" {coin.value.upper()} ")} == {
        coin
    }
    assert Coin.parse("dogecoin") is None


def test_a_price_per_day_is_a_twenty_fourth_an_hour_and_its_margin_comes_on_top() -> None:
    price = DayPrice(Decimal("8002.07"), Coin.CLORE)
    assert price.usd_per_hour(Decimal("0.00125")) == Decimal("8002.07") * Decimal("0.00125") / 24
    assert price.raised(Decimal("0.03")).value == Decimal("8002.07") * Decimal("1.03")

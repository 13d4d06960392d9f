"""Terms: ceilings, worst cases and bids, all rounded against us."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clore_mcp.market.pricing import Fees
from clore_mcp.money import Coin, DayPrice
from clore_mcp.rental.terms import Candidate, Terms, Unfit, bid_within, capped, cost_of
from tests.rental.wishes import RATES, ask, candidate, fees, fit, listing, terms

FEES = st.decimals("0", "0.15", places=4).map(str)
HOURS = st.floats(0.01, 168)
USD_PER_DAY = st.decimals("0.01", "5000", places=4)
COINS = st.sampled_from(Coin)
ENDS = st.sampled_from(["cancel", "notify"])


def in_coin(usd_per_day: Decimal, coin: Coin) -> str:
    return str(usd_per_day / RATES.usd[coin])


@given(COINS, USD_PER_DAY, HOURS, FEES, st.sampled_from(["cancel", "notify"]), st.booleans())
def test_the_worst_case_is_never_under_the_cost_whatever_the_coin_the_hours_and_the_fee(
    coin: Coin, usd_per_day: Decimal, hours: float, fee: str, on_end: str, enforced: bool
) -> None:
    wish, table = ask(hours=hours, on_end=on_end), fees(fee)
    one = candidate(wish, listing(coin, in_coin(usd_per_day, coin)), table, enforced=enforced)
    cost = cost_of(one, wish.exact_hours)
    assert one.worst_usd >= cost.total_usd - Decimal("0.000002")  # cost rounds each of its parts up, so two at most
    assert one.worst_hours >= wish.exact_hours
    assert one.ceiling_usd_per_hour >= one.usd_per_hour
    assert cost.total_usd == cost.rent_usd + cost.fee_usd + cost.creation_fee_usd


@given(COINS, USD_PER_DAY, FEES)
def test_a_ceiling_is_the_listing_and_three_percent_more_where_the_coin_is_not_usd(
    coin: Coin, usd_per_day: Decimal, fee: str
) -> None:
    one = candidate(ask(), listing(coin, in_coin(usd_per_day, coin)), fees(fee))
    margin = Fraction(100 if coin is Coin.USD else 103, 100)
    listed = Fraction(one.listed_per_day)
    assert Fraction(one.ceiling_per_day) == pytest.approx(listed * margin, rel=1e-20)
    exact = listed * margin * Fraction(RATES.usd[coin]) * (1 + Fraction(fee)) / 24
    assert 0 <= Fraction(one.ceiling_usd_per_hour) - exact < Fraction(1, 10**6) + exact / 10**20


@pytest.mark.parametrize(
    ("changes", "enforced", "hours"),
    [
        ({}, True, Decimal(2) + Decimal(120) / 3600),
        ({}, False, Decimal(168)),
        ({"on_end": "notify"}, True, Decimal(168)),
        ({"hours": 168}, True, Decimal(168)),
    ],
)
def test_the_worst_time_is_the_lease_and_two_polls_or_all_that_the_host_allows(
    changes: dict[str, Any], enforced: bool, hours: Decimal
) -> None:
    assert candidate(ask(**changes), listing(), fees(), enforced=enforced).worst_hours == hours


@pytest.mark.parametrize(("mrl", "hours"), [(168, 3000), (2000, 3000)])
@pytest.mark.parametrize(("on_end", "enforced"), [("notify", True), ("cancel", False)])
def test_no_hosts_limit_bounds_a_spot_order_that_nobody_ends(mrl: int, hours: int, on_end: str, enforced: bool) -> None:
    wish = ask(order_type="spot", on_end=on_end, bid_usd_per_hour=0.3)
    one = candidate(wish, listing(mrl=mrl), fees(), enforced=enforced, bid=DayPrice(Decimal(5), Coin.USD))
    assert one.worst_hours == one.max_rental_hours == hours
    assert one.worst_usd == one.unended_usd


@pytest.mark.parametrize("mrl", [None, 0, -1, float("nan"), 3_001, 50_000, 1e300])
def test_a_host_that_names_no_longest_rental_that_can_be_counts_with_the_longest_there_is(mrl: float | None) -> None:
    one = candidate(ask(hours=2999), listing(mrl=mrl), fees(), enforced=False)
    assert one.worst_hours == one.max_rental_hours == 3000
    assert candidate(ask(), listing(mrl=2_500), fees(), enforced=False).worst_hours == 2500


def test_other_coins_carry_ten_percent_more() -> None:
    usd = candidate(ask(), listing(Coin.USD, "9.6"), fees())
    clore = candidate(ask(), listing(Coin.CLORE, "7680"), fees())
    hours = Decimal(2) + Decimal(120) / 3600
    assert usd.worst_usd == Decimal("0.954")  # 0.42 an hour, and the creation fee
    assert usd.ceiling_usd_per_hour == Decimal("0.42")
    assert clore.ceiling_usd_per_hour == Decimal("0.4326")
    assert clore.worst_usd == ((Decimal("0.4326") * hours + Decimal("0.1")) * Decimal("1.1")).quantize(Decimal("1e-6"))


def test_unknown_fees_count_as_the_highest_documented() -> None:
    one = candidate(ask(), listing(), Fees.highest_documented())
    assert (one.fee_fraction, one.creation_fee_usd) == (Decimal("0.10"), Decimal("0.1"))
    bid = DayPrice(Decimal(5), Coin.USD)
    spot = candidate(ask(order_type="spot"), listing(), Fees.highest_documented(), bid=bid)
    assert spot.fee_fraction == Decimal("0.025")


@given(COINS, st.floats(0.01, 100), FEES)
def test_a_bid_is_sent_as_it_stands_and_its_ceiling_in_usd_covers_what_was_asked_for(
    coin: Coin, usd_per_hour: float, fee: str
) -> None:
    wish = ask(order_type="spot", bid_usd_per_hour=usd_per_hour)
    bid = bid_within(Decimal(str(usd_per_hour)), coin, RATES.usd[coin], Decimal(fee), None)
    assume(bid is not None)
    one = candidate(wish, listing(coin), fees(fee), bid=bid)
    assert bid and one.ceiling_per_day == one.listed_per_day == bid.value
    margin = Decimal(1) if coin is Coin.USD else Decimal("1.03")
    assert 0 <= one.ceiling_usd_per_hour - Decimal(str(usd_per_hour)) * margin < Decimal("0.000001")


@given(COINS, st.decimals("0.0001", "1000", places=6), FEES, st.none() | st.decimals("0", "1e6", places=8))
def test_a_bid_is_never_above_the_approval_nor_under_the_minimum(
    coin: Coin, usd_per_hour: Decimal, fee: str, minimum: Decimal | None
) -> None:
    rate = RATES.usd[coin]
    bid = bid_within(usd_per_hour, coin, rate, Decimal(fee), minimum)
    most = Fraction(usd_per_hour) * 24 / (1 + Fraction(fee)) / Fraction(rate)
    if bid is None:
        least = Fraction(minimum or 0)
        assert least > most or most < Fraction(1, 10**coin.precision)
        return
    assert bid.value > 0
    assert Fraction(bid.value) <= most * (1 + Fraction(1, 10**26))
    assert minimum is None or bid.value >= minimum
    assert bid.value == minimum or bid == bid.floored()


def test_a_bid_that_rounding_took_under_the_minimum_becomes_the_minimum_where_the_approval_covers_it() -> None:
    approved = Decimal("0.4175")  # 10.02 a day
    assert bid_within(approved, Coin.USD, Decimal(1), Decimal(0), Decimal("10.015")) == DayPrice(
        Decimal("10.02"), Coin.USD
    )
    assert bid_within(Decimal("0.41749"), Coin.USD, Decimal(1), Decimal(0), Decimal("10.015")) == DayPrice(
        Decimal("10.015"), Coin.USD
    )
    assert bid_within(Decimal("0.41"), Coin.USD, Decimal(1), Decimal(0), Decimal("10.015")) is None
    assert bid_within(Decimal("0.0001"), Coin.USD, Decimal(1), Decimal(0), None) is None


@pytest.mark.parametrize(
    ("wish", "place", "reason"),
    [
        (ask(hours=169), listing(), "max_rental_hours"),
        (ask(), listing(rented=True), "already_rented"),
        (ask(), listing(per_day="1e-12"), "unpriced"),
        (ask(), listing(per_day="1e11"), "unpriced"),
        (ask(currency="bitcoin"), listing(), "unpriced"),
    ],
)
def test_a_server_that_does_not_fit_says_why_by_its_number(wish: Any, place: Any, reason: str) -> None:
    found = fit(wish, place, fees())
    assert isinstance(found, Unfit)
    assert (found.reason, found.message[:9]) == (reason, "Server 1 ")


@given(COINS, USD_PER_DAY, HOURS, FEES, st.none() | st.text(max_size=20), st.booleans(), ENDS)
def test_terms_survive_their_row_exactly(
    coin: Coin, usd_per_day: Decimal, hours: float, fee: str, by: str | None, assumed: bool, on_end: str
) -> None:
    wish = ask(hours=hours, on_end=on_end)
    one = candidate(wish, listing(coin, in_coin(usd_per_day, coin)), fees(fee))
    other = replace(one, server_id=2, worst_usd=one.worst_usd * 2)
    whole = terms(wish, one, other, enforced_by=by, assumed=assumed, to_win=usd_per_day if assumed else None)
    assert Terms.from_json(json.loads(json.dumps(whole.as_json()))) == whole
    assert whole.worst_usd == one.worst_usd * 2
    assert whole.usd_per_hour == one.ceiling_usd_per_hour


def test_a_server_that_costs_more_than_a_watch_may_pay_does_not_fit_and_a_cheaper_one_never_costs_more() -> None:
    one = candidate(ask(), listing(Coin.CLORE, "7680"), fees())
    over = capped(one, one.usd_per_hour - Decimal("0.000001"))
    assert isinstance(over, Unfit)
    assert (over.reason, over.message) == ("above_ceiling", "Server 1 costs 0.42 USD per hour.")
    just = capped(one, one.usd_per_hour)
    assert isinstance(just, Candidate)
    assert just.ceiling_usd_per_hour == one.usd_per_hour < one.ceiling_usd_per_hour
    assert one.listed_per_day <= just.ceiling_per_day < one.ceiling_per_day
    assert just.worst_usd < one.worst_usd
    assert capped(one, one.ceiling_usd_per_hour * 2) == one, "a watch that may pay more raises no ceiling"

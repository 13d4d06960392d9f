"""What orders cost as Clore's rows show it: fees added, nothing that can't be counted passed over."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.clore import OrderRow
from clore_mcp.market.pricing import Fees, Rates
from clore_mcp.money import ZERO, Coin
from clore_mcp.rental.rules.billing import (
    Bill,
    ListedCost,
    bill,
    drained,
    shown_orders,
    usd_per_hour,
    why_unpriced,
    worst_usd_per_hour,
)
from clore_mcp.store.orders import Lease
from tests.rental.wishes import RATES, fees, listing, order

DAY = 86_400
NOW = 1_800_000_000 + DAY
WORST = Decimal(3)
NUMBERS = st.decimals("0", "1000", places=6)


def shown(
    active: list[OrderRow], completed: list[OrderRow] | None = None, rates: Rates = RATES, api_now: float = NOW,
    table: Fees | None = None,
) -> list[ListedCost]:  # fmt: skip
    return shown_orders(active, completed or [], table or fees(), rates, api_now=api_now, worst=lambda row: WORST)


def lease(order_id: int = 1, ends: int = NOW + 3_600, **changes: Any) -> Lease:
    values: dict[str, Any] = {
        "account": "a", "order_id": order_id, "intent_id": "i", "digest": "d", "server_id": 5,
        "order_type": "on-demand", "image": "x", "coin": "CLORE-Blockchain", "price_native": Decimal(1),
        "ceiling_native": Decimal(1), "fee_fraction": Decimal("0.05"), "creation_fee_usd": Decimal("0.1"),
        "usd_per_coin": Decimal("0.002"), "started_api_at": 1_800_000_000, "ends_api_at": ends, "on_end": "cancel",
        **changes,
    }  # fmt: skip
    return Lease(**values)


@given(NUMBERS, NUMBERS, st.integers(0, 3 * DAY), st.sampled_from(Coin), st.booleans())
def test_a_bill_is_the_sum_of_its_parts_and_its_fees_come_on_top_of_what_clore_calls_spend(
    spend: Decimal, creation: Decimal, age: int, coin: Coin, spot: bool
) -> None:
    row = order(currency=coin.value, spend=str(spend), creation_fee=str(creation), spot=spot or None)
    got = bill(row, fees("0.05"), RATES, api_now=1_800_000_000 + age)
    assert got.total_usd == got.rent_usd + got.fee_usd + got.creation_fee_usd
    assert got.rent_usd >= spend * RATES.usd[coin]
    assert got.fee_usd >= spend * RATES.usd[coin] * Decimal("0.05")
    assert got.never_won == (spot and not spend)
    ran = age if not spot else spend / 24 * DAY  # a bid of 24 a day pays for so many seconds
    assert bool(got.creation_fee_usd) == (ran > 600 and creation > 0 and not got.never_won)
    told = got.receipt().as_json()
    assert told["estimated"] and told["total_usd"] == pytest.approx(float(got.total_usd), abs=1e-6)


@pytest.mark.parametrize(
    ("row", "never"),
    [
        ({"spot": True, "spend": 0}, True),
        ({"spot": True, "spend": 0.001}, False),
        ({"spot": True, "spend": None}, False),  # it does not say what it has billed
        ({"spend": 0}, False),
    ],
)
def test_a_bid_that_never_won_costs_nothing_only_where_clore_says_that_it_billed_nothing(
    row: dict[str, Any], never: bool
) -> None:
    got = bill(order(**row, ended_at=None), fees("0.05"), RATES, api_now=1_800_000_000 + DAY)
    assert got.never_won == never
    assert (got.total_usd == 0) == never
    assert got.hours == 24


@pytest.mark.parametrize(
    ("creation", "coin", "age", "usd"),
    [
        (0.1, Coin.USD, 600, "0"),
        (0.1, Coin.USD, 601, "0.1"),
        (None, Coin.USD, 601, "0.1"),
        (80, Coin.CLORE, 601, "0.1"),
        (0.1, Coin.CLORE, 601, "0.1"),  # 0.1 CLORE is next to nothing: if it was meant as USD, that is our loss
        (0, Coin.USD, 601, "0"),
    ],
)
def test_the_creation_fee_is_taken_after_ten_minutes_in_its_larger_reading(
    creation: float | None, coin: Coin, age: int, usd: str
) -> None:
    row = order(currency=coin.value, creation_fee=creation)
    assert bill(row, fees(), RATES, api_now=1_800_000_000 + age).creation_fee_usd == Decimal(usd)


def test_an_order_made_here_keeps_its_approved_rate_and_fee_where_the_market_has_none() -> None:
    row = order(currency="CLORE-Blockchain", spend=1000, creation_fee=0, order_end=1_800_000_000 + 7_200, expired=True)
    got = bill(row, fees("0.1"), Rates({Coin.USD: Decimal(1)}), api_now=NOW, lease=lease())
    assert got == Bill(Decimal(2), Decimal(2), Decimal("0.1"), ZERO)


@pytest.mark.parametrize("changes", [{"currency": "dogecoin"}, {"currency": None}, {"price": None}, {"price": -1}])
def test_an_active_order_that_nobody_can_price_counts_as_the_worst_that_is_known(changes: dict[str, Any]) -> None:
    row = order(**{"ct": NOW - 7_200, "spend": None, **changes})
    assert usd_per_hour(row, fees(), RATES) is None
    assert shown([row]) == [ListedCost(1, True, WORST, 2 * WORST + Decimal("0.1"), priced=False)]
    untimed = order(**{"ct": None, "spend": None, **changes})
    assert shown([untimed]) == [ListedCost(1, True, WORST, 24 * WORST + Decimal("0.1"), priced=False)]


def test_an_ended_order_in_a_coin_without_a_rate_counts_for_its_hours_of_the_last_day() -> None:
    gone = order(currency="bitcoin", expired=True, ct=NOW - 3_610, order_end=NOW - 10)
    dollars_alone = Rates({Coin.USD: Decimal(1)})
    assert shown([], [gone], dollars_alone) == [ListedCost(1, False, ZERO, WORST + Decimal("0.1"), priced=False)]
    assert shown([], [gone], dollars_alone, api_now=NOW + DAY) == []


@pytest.mark.parametrize(
    ("row", "place", "usd"),
    [
        ({"currency": "USDT", "price": 240}, "9.6", "11"),  # read as USD, with the highest fee
        ({"currency": "USDT", "price": 2.4}, "9.6", "0.44"),  # its server's is dearer
        ({"currency": "USDT", "price": -2}, "9.6", "0.44"),
        ({"currency": "bitcoin", "price": 10**9}, None, "5"),  # nothing is known: the whole hourly cap
        ({"currency": None, "price": 3}, None, "5"),
    ],
)
def test_the_worst_that_is_known_is_the_dearest_price_or_else_the_whole_cap(
    row: dict[str, Any], place: str | None, usd: str
) -> None:
    listed = None if place is None else listing(per_day=place)
    assert worst_usd_per_hour(order(**row), listed, RATES, Decimal(5)) == Decimal(usd)


@pytest.mark.parametrize(
    ("creation", "coin", "usd"),
    [
        (0.1, Coin.BTC, "0.1"),  # as every order in USD has it; 0.1 BTC would be $6,400
        (0.00001, Coin.BTC, "0.64"),
        (10**12, Coin.BTC, "0.1"),
        (5, Coin.USD, "5"),
        (10**9, Coin.USD, "0.1"),
        (-1, Coin.USD, "0.1"),
    ],
)
def test_a_creation_fee_far_beyond_its_coins_table_counts_once_as_usd(creation: float, coin: Coin, usd: str) -> None:
    row = order(currency=coin.value, creation_fee=creation, spend=0)
    assert bill(row, fees(), RATES, api_now=NOW).creation_fee_usd == Decimal(usd)
    (counted,) = shown([order(currency=coin.value, creation_fee=creation, spend=0, ct=NOW - 60, price="0.001")])
    assert counted.usd_last_day == Decimal(usd)


def test_orders_of_the_last_day_count_with_fees_and_those_before_it_do_not() -> None:
    found = shown_orders(
        [order(1, spend=2, ct=NOW - 100, creation_fee=0.1), order(9, expired=True, order_end=NOW)],
        [
            order(2, spend=3, expired=True, ct=NOW - 2 * DAY, order_end=NOW - DAY + 1),
            order(3, spend=3, expired=True, ct=NOW - 2 * DAY, order_end=NOW - DAY),
            order(1, spend=2, expired=True, order_end=NOW),  # listed in both for a moment: it still runs
        ],
        fees("0.05"),
        RATES,
        api_now=NOW,
        worst=lambda row: WORST,
    )
    assert found == [
        ListedCost(1, True, Decimal("1.05"), Decimal("2.2")),
        ListedCost(2, False, ZERO, Decimal("3.15")),
    ]


def test_a_long_order_counts_with_a_days_price_at_most_unless_its_bid_may_have_been_higher() -> None:
    old = {"price": 10, "spend": 70, "ct": NOW - 7 * DAY}
    (fixed,) = shown_orders([order(**old)], [], fees("0"), RATES, api_now=NOW, worst=lambda row: WORST)
    (bid,) = shown_orders([order(**old, spot=True)], [], fees("0"), RATES, api_now=NOW, worst=lambda row: WORST)
    assert [fixed.usd_last_day, bid.usd_last_day] == [Decimal(10), Decimal(70)]


@given(st.lists(st.tuples(NUMBERS, st.booleans()), max_size=6))
def test_what_is_shown_in_all_is_the_sum_of_what_is_shown_of_each(rows: list[tuple[Decimal, bool]]) -> None:
    active = [order(n, spend=str(spend)) for n, (spend, runs) in enumerate(rows, 1) if runs]
    over = {"expired": True, "order_end": NOW - 1}
    ended = [order(n, spend=str(spend), **over) for n, (spend, runs) in enumerate(rows, 1) if not runs]
    apart = [
        *(one for row in active for one in shown([row])),
        *(one for row in ended for one in shown([], [row])),
    ]
    assert shown_orders(active, ended, fees(), RATES, api_now=NOW, worst=lambda row: WORST) == apart


def test_a_wallet_is_drained_by_ours_until_their_end_and_by_others_throughout() -> None:
    rows = [order(1), order(2), order(3, currency="bitcoin"), order(4, expired=True)]
    taken = drained(Coin.USD, rows, {1: lease(1, ends=NOW + 1_800)}, fees("0.05"), Decimal(2), api_now=NOW)
    assert taken == Decimal("1.05") * (Decimal("0.5") + 2)
    late = drained(Coin.USD, [order(1)], {1: lease(1, ends=NOW - 60)}, fees(), Decimal(2), api_now=NOW)
    assert late == 0


@pytest.mark.parametrize("ends", [NOW - 60, NOW + 1_800])
def test_a_wallet_is_drained_beyond_an_end_at_which_nothing_is_cancelled(ends: int) -> None:
    told = lease(1, ends=ends, on_end="notify")
    assert drained(Coin.USD, [order(1)], {1: told}, fees("0.05"), Decimal(2), api_now=NOW) == Decimal("2.1")


def test_an_order_that_ended_between_the_two_readings_counts_with_what_it_spent() -> None:
    assert shown_orders(
        [], [order(1, spend=3, ct=NOW - DAY)], fees("0.05"), RATES, api_now=NOW, worst=lambda row: WORST
    ) == [ListedCost(1, False, ZERO, Decimal("3.15"))]


@pytest.mark.parametrize("currency", ["DOGE", "bitcoin", None])
def test_an_order_in_a_coin_that_nobody_prices_has_no_bill(currency: str | None) -> None:
    row = order(currency=currency, spend="1")
    got = bill(row, fees("0.05"), Rates(), api_now=NOW)
    assert not got.priced and got.total_usd == ZERO and got.hours > 0, "never one coin for one dollar"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"price": None}, "Clore names no usable price for it"),
        ({"currency": "DOGE"}, "it is paid in DOGE, whose USD rate is unknown"),
        ({"currency": None}, "Clore names no coin for it"),
        ({"currency": None, "price": None}, "Clore names no usable price for it"),
    ],
)
def test_it_is_said_why_nobody_knows_what_an_order_costs(changes: dict[str, Any], why: str) -> None:
    assert why_unpriced(order(**changes)) == why

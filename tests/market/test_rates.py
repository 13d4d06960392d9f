from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.clore.models import RenterFees
from clore_mcp.market.pricing import Fees, OrderType, coin_rates, market_rates, read_fees
from clore_mcp.money import Coin
from tests.market.rows import BTC, CLORE, USD, row

D = Decimal


def priced(server_id: int, clore: float, in_usd: float | None) -> Any:
    return row(server_id, price={"on_demand": {CLORE: clore}, "usd": {"on_demand_clore": in_usd}})


def test_a_rate_is_the_median_so_one_row_can_not_move_it() -> None:
    honest = [priced(number, 1000 * number, 2 * number) for number in range(1, 6)]
    liar = priced(9, 1, 1e9)
    assert market_rates(honest).usd_per(Coin.CLORE) == D("0.002")
    assert market_rates([*honest, liar]).usd_per(Coin.CLORE) == D("0.002")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_two_rows_are_no_market(count: int) -> None:
    few = [priced(number, 1000, 2) for number in range(count)]
    assert market_rates(few).usd_per(Coin.CLORE) is None


@pytest.mark.parametrize(("clore", "in_usd"), [(0, 2), (-5, 2), (1000, 0), (1000, -2), (1000, None), (1e-300, 1e300)])
def test_rows_without_sense_do_not_vote(clore: float, in_usd: float | None) -> None:
    assert market_rates([priced(number, clore, in_usd) for number in range(5)]).usd_per(Coin.CLORE) is None


def test_a_dollar_is_a_dollar() -> None:
    assert market_rates([]).usd_per(Coin.USD) == 1


def test_clores_rates_are_read_as_far_as_they_make_sense() -> None:
    assert coin_rates({BTC: D(60_000), CLORE: D(0), USD: None, "doge": D(1)}) == {Coin.BTC: D(60_000)}
    assert coin_rates(None) == {}


def wire_fees(**changes: Any) -> RenterFees:
    return RenterFees.model_validate(
        {
            "renter_fees": {
                "on_demand": {"base": dict.fromkeys((BTC, CLORE, USD), 5)},
                "spot": {"base": dict.fromkeys((BTC, CLORE, USD), 1.25)},
            },
            "creation_fees": {
                "on_demand": {USD: 0.1, CLORE: 50, BTC: 0.0000016},
                "spot": {USD: 0.1, CLORE: 50, BTC: 0.0000016},
            },
            "poh_config": {"max_reduction_percent": 50, "max_poh_amount": 2_000_000},
            "poh_balance": 0,
            "code": 0,
            **changes,
        }
    )


def test_fees_are_percents_by_kind_of_order_and_coin() -> None:
    fees = read_fees(wire_fees())
    assert fees.fraction(OrderType.ON_DEMAND, Coin.USD) == D("0.05")
    assert fees.fraction(OrderType.SPOT, Coin.BTC) == D("0.0125")
    assert not fees.assumed
    assert fees.creation_usd(OrderType.ON_DEMAND, Coin.USD, D(1)) == D("0.1")


@pytest.mark.parametrize(
    ("held", "percent"),
    [(200_000, 5), (500_000, 13), (1_000_000, 25), (1_500_000, 38), (2_000_000, 50), (9_000_000, 50), (0, 0), (-1, 0)],
)
def test_proof_of_holding_takes_its_documented_part_off(held: int, percent: int) -> None:
    fees = read_fees(wire_fees(poh_balance=held))
    assert fees.fraction(OrderType.ON_DEMAND, Coin.USD) == D("0.05") * (100 - percent) / 100


def test_unknown_fees_are_the_highest_documented_and_say_so() -> None:
    for fees in (Fees.highest_documented(), read_fees(None), read_fees(RenterFees.model_validate({}))):
        assert fees.assumed
        assert fees.fraction(OrderType.ON_DEMAND, Coin.CLORE) == D("0.10")
        assert fees.fraction(OrderType.SPOT, Coin.CLORE) == D("0.025")
        assert fees.creation_usd(OrderType.SPOT, Coin.BTC, D(60_000)) == D("0.1")


@pytest.mark.parametrize("percent", [-1, 100.5, 1e300])
def test_a_percent_of_no_sense_is_ignored(percent: float) -> None:
    fees = read_fees(wire_fees(renter_fees={"on_demand": {"base": {USD: percent, CLORE: 4}}}))
    assert fees.fraction(OrderType.ON_DEMAND, Coin.USD) == D("0.10")
    assert fees.fraction(OrderType.ON_DEMAND, Coin.CLORE) == D("0.04")
    assert fees.assumed
    assert fees.assumes(OrderType.ON_DEMAND, Coin.USD)
    assert not fees.assumes(OrderType.ON_DEMAND, Coin.CLORE)


@pytest.mark.parametrize(
    ("coin", "rate", "told", "usd"),
    [
        pytest.param(Coin.CLORE, "0.002", 50, "0.1", id="in the coin"),
        pytest.param(Coin.CLORE, "0.002", 0.1, "0.1", id="perhaps in USD"),
        pytest.param(Coin.BTC, "60000", 0.00001, "0.6", id="more than documented"),
        pytest.param(Coin.CLORE, "0.002", 0, "0", id="waived"),
    ],
)
def test_a_creation_fee_is_read_the_dearer_way(coin: Coin, rate: str, told: float, usd: str) -> None:
    fees = read_fees(wire_fees(creation_fees={"on_demand": {coin.value: told}}))
    assert fees.creation_usd(OrderType.ON_DEMAND, coin, D(rate)) == D(usd)


@given(st.decimals(0, 3_000_000, places=2), st.decimals(0, 100, places=2))
def test_a_discount_never_makes_a_fee_negative_or_higher(held: Decimal, most: Decimal) -> None:
    config = {"max_reduction_percent": str(most), "max_poh_amount": 2_000_000}
    fees = read_fees(wire_fees(poh_balance=str(held), poh_config=config))
    assert 0 <= fees.fraction(OrderType.ON_DEMAND, Coin.USD) <= D("0.05")

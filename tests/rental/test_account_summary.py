"""What was spent in a window, and when all ends: never more than in all, never less than what is known of it."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.money import ZERO
from clore_mcp.rental.account_summary import DAY, MONTH, OrderCost, spent_since, then
from clore_mcp.rental.rules.billing import Bill
from clore_mcp.store.orders import End

NOW = 1_800_000_000.0
NUMBERS = st.decimals("0", "500", places=4)


@st.composite
def costs(draw: st.DrawFn) -> OrderCost:
    """An order that cost its price all the time that it ran."""
    hourly = draw(st.decimals("0.01", "50", places=2))
    until = NOW - draw(st.integers(0, int(MONTH)))
    began = until - draw(st.integers(0, int(MONTH)))
    hours = Decimal(int(until - began)) / 3600
    creation = Decimal("0.1") if until - began > 600 else ZERO
    return OrderCost(Bill(hours, hourly * hours, ZERO, creation), began, until, hourly)


@given(st.lists(costs(), max_size=5))
def test_a_longer_window_holds_at_least_as_much_and_never_more_than_all(found: list[OrderCost]) -> None:
    by_id = dict(enumerate(found, 1))
    day, month = (spent_since(by_id, {}, NOW - seconds) for seconds in (DAY, MONTH))
    everything = sum((one.bill.total_usd for one in found), ZERO)
    assert ZERO <= day <= month <= everything
    assert spent_since(by_id, {}, 0) == everything


@given(costs(), st.integers(0, 2 * int(MONTH)))
def test_of_an_order_at_one_price_a_window_holds_its_hours_at_that_price(one: OrderCost, back: int) -> None:
    moment = NOW - back
    inside = Decimal(int(max(0, one.until - max(one.began, moment)))) / 3600
    rent = (one.dearest_usd_per_hour or ZERO) * inside
    slack = (one.dearest_usd_per_hour or ZERO) / 60 + Decimal("0.1")  # a minute more, and the creation fee
    assert rent <= one.since(moment) + Decimal("1e-9") <= rent + slack + Decimal("2e-9")


@given(st.lists(costs(), max_size=4), st.dictionaries(st.integers(1, 8), NUMBERS, max_size=6))
def test_a_receipt_counts_once_and_only_where_clore_lists_the_order_no_more(
    found: list[OrderCost], receipts: dict[int, Decimal]
) -> None:
    by_id = dict(enumerate(found, 1))
    unlisted = sum((usd for order_id, usd in receipts.items() if order_id > len(found)), ZERO)
    assert spent_since(by_id, receipts, NOW - DAY) == spent_since(by_id, {}, NOW - DAY) + unlisted


@given(st.lists(st.tuples(NUMBERS, st.integers(0, 100)), min_size=1, max_size=5))
def test_all_ends_with_the_last_and_costs_what_it_has_cost_and_its_hours_until_then(
    orders: list[tuple[Decimal, int]],
) -> None:
    found = {n: OrderCost(Bill(ZERO, Decimal(n), ZERO, ZERO), NOW, NOW, None) for n in range(1, len(orders) + 1)}
    billing = {n: usd for n, (usd, _) in enumerate(orders, 1)}
    ends = {n: End("a", n, int(NOW) + hours * 3600, "cancel", made_here=True) for n, (_, hours) in enumerate(orders, 1)}
    told = then(billing, ends, found, NOW)
    assert told is not None
    assert told[0] == NOW + max(hours for _, hours in orders) * 3600
    assert told[1] == sum((usd * hours for usd, hours in orders), ZERO) + sum(found, 0)
    assert then({**billing, 1: None}, ends, found, NOW) is None
    assert then(billing, {}, found, NOW) is None and then({}, ends, found, NOW) is None
    told_only = {**ends, 1: End("a", 1, int(NOW), "notify", made_here=True)}
    assert then(billing, told_only, found, NOW) is None

"""Limits: what is used is the larger of the record and what Clore shows, and no cap is ever passed."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.money import ZERO
from clore_mcp.rental.results import Refusal, cure
from clore_mcp.rental.rules.billing import ListedCost
from clore_mcp.rental.rules.check import AddedUsage, Usage, over_caps, usage
from clore_mcp.settings import Caps
from clore_mcp.store.intents import Reservation

USD = st.decimals("0", "200", places=2)
IDS = st.integers(1, 6)


def reserved(order_id: int | None, worst: Decimal, hourly: Decimal, actual: Decimal | None = None) -> Reservation:
    gone = None if actual is None else 2.0
    return Reservation("i", "a", "USD-Blockchain", worst, hourly, 1.0, order_id, gone, actual)


OPEN = st.lists(
    st.builds(reserved, st.none() | IDS, USD, USD), max_size=4, unique_by=lambda one: one.order_id or object()
)
PAID = st.lists(st.builds(reserved, st.none() | IDS, USD, USD, USD), max_size=4)
SHOWN = st.lists(st.builds(ListedCost, IDS, st.booleans(), USD, USD), max_size=5, unique_by=lambda one: one.order_id)


@given(OPEN, PAID, SHOWN)
def test_each_order_counts_once_with_the_larger_of_the_record_and_what_clore_shows(
    open_: list[Reservation], paid: list[Reservation], shown: list[ListedCost]
) -> None:
    held = {one.order_id for one in open_}
    hourly = daily = ZERO
    active = 0
    for order_id in {one.order_id for one in [*open_, *paid]} | {one.order_id for one in shown}:
        mine = [one for one in open_ if one.order_id == order_id]
        was_paid = sum((one.actual_usd or ZERO for one in paid if one.order_id == order_id), ZERO)
        seen = [one for one in shown if one.order_id == order_id and order_id is not None]
        seen_hourly = sum((one.usd_per_hour for one in seen if one.active or order_id in held), ZERO)
        seen_daily = sum((one.usd_last_day for one in seen), ZERO)
        hourly += max(sum((one.usd_per_hour for one in mine), ZERO), seen_hourly)
        if order_id in held:
            daily += max(sum((one.worst_usd for one in mine), ZERO), seen_daily) + was_paid
        else:
            daily += max(was_paid, seen_daily)
        active += max(len(mine), sum(one.active for one in seen))
    assert usage(open_, paid, shown) == Usage(hourly, daily, active)


@given(OPEN, PAID, SHOWN)
def test_a_lost_state_frees_nothing_that_clore_shows(
    open_: list[Reservation], paid: list[Reservation], shown: list[ListedCost]
) -> None:
    known, lost = usage(open_, paid, shown), usage([], [], shown)
    assert lost.usd_per_hour <= known.usd_per_hour
    assert lost.usd_per_day <= known.usd_per_day
    assert lost.active_orders <= known.active_orders
    assert lost.usd_per_day == sum((one.usd_last_day for one in shown), ZERO)


def test_an_order_taken_for_gone_that_still_runs_counts_as_active() -> None:
    used = usage([], [reserved(1, Decimal(9), Decimal(1), Decimal(2))], [ListedCost(1, True, Decimal(1), Decimal(5))])
    assert used == Usage(Decimal(1), Decimal(5), 1)


@given(
    st.builds(Caps, USD, USD, USD, st.integers(0, 5)),
    st.builds(Usage, USD, USD, st.integers(0, 6)),
    st.builds(AddedUsage, USD, USD, USD, st.integers(0, 1)),
)
def test_a_wish_is_refused_by_exactly_the_caps_that_it_would_pass(caps: Caps, used: Usage, wanted: AddedUsage) -> None:
    broken = set()
    if wanted.usd_per_order and wanted.usd_per_order > caps.usd_per_order:
        broken.add("usd_per_order")
    if wanted.usd_per_hour and used.usd_per_hour + wanted.usd_per_hour > caps.usd_per_hour:
        broken.add("usd_per_hour")
    if wanted.usd_per_day and used.usd_per_day + wanted.usd_per_day > caps.usd_per_day:
        broken.add("usd_per_day")
    if wanted.active_orders and used.active_orders + wanted.active_orders > caps.active_orders:
        broken.add("active_orders")
    assert {one.limit for one in over_caps(caps, used, wanted, {})} == broken


def test_a_cap_may_be_used_to_the_last_micro_dollar_and_not_one_further() -> None:
    caps = Caps(usd_per_hour=Decimal("0.42"))
    fits = AddedUsage(Decimal("0.42"), Decimal(1), Decimal(1))
    assert over_caps(caps, Usage(ZERO, ZERO, 0), fits, {}) == []
    (no,) = over_caps(caps, Usage(Decimal("0.000001"), ZERO, 0), fits, {"usd_per_hour": "limits.toml"})
    assert no.limit == "usd_per_hour"
    assert no.change == "the operator, with CLORE_MAX_USD_PER_HOUR (limits.toml now)"


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (Refusal("usd_per_day", Decimal(100), Decimal("99.99999"), Decimal("0.421"), "x"),
         "usd_per_day: $0.4210 needed, $0.00 of $100.00 left, can only be changed by x"),
        (Refusal("usd_per_day", Decimal(5), Decimal(9), Decimal(1), "x"),
         "usd_per_day: $1.00 needed, $0.00 of $5.00 left, can only be changed by x"),
        (Refusal("active_orders", Decimal(5), Decimal(5), Decimal(1), "x"),
         "1 more active order, 5 of 5 in use, can only be changed by x"),
        (Refusal("watchdog", ZERO, ZERO, ZERO, "the operator: start one"), "watchdog: the operator: start one"),
    ],
)  # fmt: skip
def test_a_refusal_reads_with_what_is_left_rounded_down(refusal: Refusal, text: str) -> None:
    assert str(refusal) == text
    assert refusal.as_json()["left"] >= 0


def test_a_refusal_tells_a_model_each_amount_by_its_name() -> None:
    refusal = Refusal("usd_per_day", Decimal(9), Decimal("2.5"), Decimal(7), "the operator: raise it")
    told = {"limit": "usd_per_day", "cap": 9, "used": 2.5, "needed": 7, "left": 6.5, "change": "the operator: raise it"}
    assert refusal.as_json() == told


def refused_by(limit: str, change: str = "the operator, with X", cap: int = 1) -> Refusal:
    return Refusal(limit, Decimal(cap), ZERO, Decimal(2), change)


SMALLER = " Rent fewer hours or a cheaper server."
OPERATOR = " The operator changes limits outside this chat."


@pytest.mark.parametrize(
    ("refusals", "ends", "told"),
    [
        ([refused_by("usd_per_order")], True, SMALLER + OPERATOR),
        ([refused_by("wallet", "the person, by topping up")], True, SMALLER),
        ([refused_by("wallet", "the person, by topping up")], False, SMALLER),
        ([refused_by("usd_per_day"), refused_by("wallet", "the person")], True, SMALLER + OPERATOR),
        ([refused_by("usd_per_day", cap=0)], True, OPERATOR),
        ([refused_by("usd_per_day"), refused_by("active_orders")], True, OPERATOR),
        ([refused_by("active_orders", "the person, by ending one")], True, ""),
        ([refused_by("frozen", "the person")], True, ""),
    ],
)
def test_what_is_said_to_help_would_help_against_all_of_the_refusals(
    refusals: list[Refusal], ends: bool, told: str
) -> None:
    assert cure(refusals, ends=ends) == told


def test_fewer_hours_are_no_cure_where_nobody_ends_the_order() -> None:
    told = cure([refused_by("usd_per_order")], ends=False)
    assert "fewer hours" not in told
    assert "on_end cancel" in told

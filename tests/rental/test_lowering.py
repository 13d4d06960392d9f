"""What the record says of lowering a bid, whatever the clocks do."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.rental.spot.lowering_rules import LOWERING_SECONDS, STEP_TOLD_SECONDS, LoweringRoom, known
from clore_mcp.store.ledger import Entry

BID = Decimal("2.50")
AT = 1_000_000.0


def row(step: str = "bid_set", at: float = AT, **data: Any) -> Entry:
    return Entry(at=at, account="a", step=step, caller="t", order_id=1, data={"api_at": at, **data})


def lowered(at: float = AT) -> Entry:
    return row(at=at, lower_after_seconds=LOWERING_SECONDS)


def told_step(step: str = "0.25", was: Decimal = BID, at: float = AT) -> Entry:
    return row("bid_refused", at, max_step_per_day=step, was_per_day=str(was))


def after(seconds: float, *entries: Entry, set_by: float = 0.0) -> LoweringRoom:
    """So long after `AT`; `set_by` is how far this machine's clock was set meanwhile."""
    return known(entries, BID, api_now=AT + seconds, now=AT + seconds + set_by)


def test_nothing_is_known_of_an_order_that_was_never_lowered() -> None:
    assert after(0) == LoweringRoom()
    assert after(0, row()) == LoweringRoom(), "a raise"


def test_ten_minutes_are_waited_for_and_a_second_for_each_date() -> None:
    assert [after(seconds, lowered()).wait_seconds for seconds in (0, 100.5, 600, 601, 5000)] == [602, 502, 2, 0, 0]


@given(st.floats(0, 600), st.floats(0, 0.999), st.floats(0, 0.999), st.floats(0, 0.999))
def test_whoever_waits_as_long_as_was_said_is_let_through_though_dates_are_whole_seconds(
    asked: float, at_lowering: float, at_asking: float, at_end: float
) -> None:
    rows = [row(at=AT - at_lowering, lower_after_seconds=LOWERING_SECONDS)]
    said = known(rows, BID, api_now=AT + asked - at_asking, now=0).wait_seconds
    then = asked + said
    assert not said or then >= LOWERING_SECONDS, "Clore lets it through"
    assert known(rows, BID, api_now=AT + then - at_end, now=0).wait_seconds == 0, "and so do we"


def test_the_newest_word_counts() -> None:
    told = row("bid_refused", AT + 60, lower_after_seconds=41.0, was_per_day=str(BID))
    assert after(60, told, lowered()).wait_seconds == 43
    assert after(60, row(at=AT + 30), lowered()).wait_seconds == 542, "a raise after it says nothing of lowering"


@pytest.mark.parametrize("set_by", [-86_400.0, -3_600.0, -300.0, -10.0])
def test_a_clock_that_is_set_back_makes_nobody_wait_longer(set_by: float) -> None:
    assert after(400, lowered(), set_by=set_by).wait_seconds == 202
    assert after(601, lowered(), set_by=set_by).wait_seconds == 0
    assert after(STEP_TOLD_SECONDS, told_step(), set_by=set_by).lowest_per_day is None


@given(st.floats(-1e7, 1e7), st.floats(-1e7, 1e7))
def test_whatever_the_clocks_show_nobody_waits_longer_than_the_window(api: float, wall: float) -> None:
    found = known([lowered(), told_step()], BID, api_now=AT + api, now=AT + wall)
    assert 0 <= found.wait_seconds <= LOWERING_SECONDS + 2
    if max(api, wall) > LOWERING_SECONDS + 1 or max(api, wall) < -1:
        assert found.wait_seconds == 0, "one clock says it is over, or none that it has begun"
    elif min(api, wall) >= 0 and max(api, wall) < LOWERING_SECONDS:
        assert found.wait_seconds > 0


def test_a_step_counts_for_the_very_bid_of_which_it_was_told() -> None:
    assert after(5, told_step()).lowest_per_day == Decimal("2.25")
    assert after(5, told_step(was=Decimal("2.40"))).lowest_per_day is None, "of another bid nobody told one"
    assert after(5, told_step(was=Decimal("2.5"))).lowest_per_day == Decimal("2.25"), "the same number"
    assert after(5, told_step("3")).lowest_per_day == 0
    assert after(STEP_TOLD_SECONDS + 1, told_step()).lowest_per_day is None
    assert known([told_step()], None, api_now=AT, now=AT) == LoweringRoom()

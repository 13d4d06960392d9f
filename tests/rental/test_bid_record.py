"""Only winning time costs, at the bid of that time: bounds that hold for every way in which an order may have won."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.money import ZERO
from clore_mcp.rental.rules.bid_record import BidHistory, of_row, read
from clore_mcp.rental.rules.billing import bill
from clore_mcp.store import Database, Entry, Tx, ledger
from tests.rental.wishes import RATES, fees, order

START = 1_800_000_000
HOUR = 3_600
LIVES = st.lists(  # stretches of a bid: how long it stood, how much of that it won, and the bid
    st.tuples(st.integers(0, 20_000), st.floats(0, 1), st.decimals("0.01", "500", places=2)), min_size=1, max_size=6
)
NOISE = Decimal("1e-9")


def lived(stretches: list[tuple[int, float, Decimal]]) -> tuple[BidHistory, int, int, Decimal]:
    """A history, its end, the seconds that were won and what they cost."""
    at, won, spent, bids = START, 0, ZERO, []
    for length, part, bid in stretches:
        bids.append((float(at), bid))
        seconds = int(length * part)
        won, spent, at = won + seconds, spent + bid * seconds / 86_400, at + length
    return BidHistory(tuple(bids), float(START)), at, won, spent


@given(LIVES)
def test_the_time_that_was_won_lies_between_the_bounds_and_the_cost_below_the_most(
    stretches: list[tuple[int, float, Decimal]],
) -> None:
    history, until, won, spent = lived(stretches)
    fewest, most = history.winning_seconds(spent, until)
    assert fewest - NOISE <= won <= most + NOISE
    assert most <= until - START + NOISE
    assert spent <= history.most_spent(until) + NOISE
    if len({bid for _, _, bid in stretches}) == 1:
        assert abs(most - fewest) < NOISE, "one bid leaves no doubt"


@given(LIVES, st.integers(0, 100_000))
def test_nothing_is_spent_before_it_was_first_seen_winning(
    stretches: list[tuple[int, float, Decimal]], after: int
) -> None:
    history, until, _, _ = lived(stretches)
    later = BidHistory(history.bids, float(START + after))
    assert ZERO <= later.most_spent(until) <= history.most_spent(until)
    assert BidHistory(history.bids, None).most_spent(until) == 0
    if START + after >= until:
        assert later.most_spent(until) == 0


@given(st.integers(0, 10 * HOUR), st.integers(1, 900))
def test_hours_in_the_queue_before_a_raise_cost_nothing_and_take_no_creation_fee(queued: int, won: int) -> None:
    low, high = Decimal(2), Decimal(3)
    history = BidHistory(((START, low), (START + queued, high)), START)
    row = order(spot=True, price=str(high), spend=str(high * won / 86_400), creation_fee=0.1)
    got = bill(row, fees("0.05"), RATES, api_now=START + queued + won, history=history)
    assert got.rent_usd - high * won / 86_400 < Decimal("0.000002")
    if won <= 400:  # a raise by a half: at the lower bid it would have been 600 seconds
        assert got.creation_fee_usd == 0
    if won > 600:
        assert got.creation_fee_usd == Decimal("0.1") and not got.unsure


def test_where_clore_says_no_cost_a_raise_does_not_price_the_hours_before_it() -> None:
    silent = order(spot=True, price=30, spend=None)
    raised = BidHistory(((START, Decimal(3)), (START + HOUR, Decimal(30))), START)
    got = bill(silent, fees("0"), RATES, api_now=START + 2 * HOUR, history=raised)
    assert got.rent_usd == Decimal(33) / 24 and got.unsure
    queued = bill(silent, fees("0"), RATES, api_now=START + 2 * HOUR, history=BidHistory(raised.bids, None))
    assert queued.total_usd == 0 and queued.unsure
    assert of_row(silent, START).most_spent(START + HOUR) == Decimal(30) / 24


def test_hours_at_a_bid_of_nothing_count_as_no_winning_time() -> None:
    history = BidHistory(((START, ZERO), (START + HOUR, Decimal(24))), START)
    assert set(history.winning_seconds(Decimal(1), START + 3 * HOUR)) == {Decimal(HOUR)}


def test_a_bid_that_was_changed_elsewhere_counts_from_the_last_change_that_is_known(tmp_path: Path) -> None:
    state = Database(tmp_path)
    row = order(7, spot=True, price=9)

    def note(tx: Tx, step: str, **what: Any) -> None:
        ledger.write(tx, Entry(at=START, account="a", step=step, caller="c", order_id=row.id, data=what))

    def write(tx: Tx) -> None:
        note(tx, "created", price_per_day="2")
        note(tx, "late_order_adopted", price_per_day="5")  # the bid that it was made with is known already
        note(tx, "bid_set", bid_per_day="3", was_per_day="2", api_at=START + HOUR)

    state.write_now(write)
    found = state.read_now(lambda tx: read(tx, "a", row, START, won_from=START))
    assert found.bids == ((START, Decimal(2)), (START + HOUR, Decimal(3)), (START + HOUR, Decimal(9)))
    unknown = state.read_now(lambda tx: read(tx, "b", row, START, won_from=START))
    assert unknown.bids == ((START, Decimal(9)),)
    assert found.most_spent(START + 2 * HOUR) == Decimal(2 + 9) / 24, "what it was in between is counted as the higher"


def test_a_bid_that_was_changed_here_on_an_order_made_elsewhere_begins_with_the_bid_before(tmp_path: Path) -> None:
    state = Database(tmp_path)
    told = {"bid_per_day": "3", "was_per_day": "2", "api_at": START + HOUR}
    state.write_now(
        lambda tx: ledger.write(tx, Entry(START, account="a", step="bid_set", caller="c", order_id=7, data=told))
    )
    row = order(7, spot=True, price=3)
    found = state.read_now(lambda tx: read(tx, "a", row, START, won_from=START))
    assert found.bids == ((START, Decimal(2)), (START + HOUR, Decimal(3)))

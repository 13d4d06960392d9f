"""Clore's clock, carried on from the replies that told it: no single date moves it, several that agree do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.rental.account.api_clock import ApiClock, Belief, DatedReply, created_between

SLACK = 10.0
HOUR = 3_600.0
jumps = st.one_of(st.floats(60, 1e9), st.floats(-1e9, -60))


class Machine:
    """Two clocks of one machine, and Clore's, which is `ahead` of this machine's."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.wall = 1_800_000_000.0
        self.monotonic = 50.0
        self.ahead = ahead
        self.clock = ApiClock(lambda: self.wall, lambda: self.monotonic)

    @property
    def api(self) -> float:
        return self.wall + self.ahead

    def wait(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def hear(self, wrong_by: float = 0.0, after: float = 1.1) -> None:
        self.wait(after)
        self.clock.hear(self.api + wrong_by)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_before_any_reply_this_machines_clock_serves_and_ends_nothing(machine: Machine) -> None:
    assert machine.clock.now() == machine.wall
    assert not machine.clock.certain


@pytest.mark.parametrize("jump", [7 * HOUR, -7 * HOUR])
def test_a_local_jump_moves_nothing(machine: Machine, jump: float) -> None:
    machine.hear()
    began = machine.api
    machine.wait(30)
    machine.wall += jump
    assert machine.clock.now() == began + 30
    assert machine.clock.certain
    machine.ahead -= jump
    machine.hear()
    assert machine.clock.settled and machine.clock.now() == machine.api


def test_a_machine_that_slept_is_late_until_the_next_reply(machine: Machine) -> None:
    machine.hear()
    began = machine.api
    machine.wall += 3_600
    assert machine.clock.now() == began
    machine.hear()
    assert machine.clock.settled and machine.clock.now() == machine.api


@given(before=st.integers(0, 3), jump=jumps, after=st.integers(1, 3))
def test_one_wrong_date_moves_nothing_wherever_it_comes(before: int, jump: float, after: int) -> None:
    machine = Machine()
    for _ in range(before):
        machine.hear()
    machine.hear(wrong_by=jump)
    assert machine.clock.certain == bool(before) and not machine.clock.settled
    assert not before or machine.clock.now() == pytest.approx(machine.api)
    for _ in range(after):
        machine.hear()
        assert machine.clock.certain and machine.clock.settled
        assert machine.clock.now() == pytest.approx(machine.api)


@given(ahead=jumps, wrong=jumps)
def test_where_this_machines_time_is_wrong_three_dates_that_agree_tell_it_and_one_that_does_not_is_left_out(
    ahead: float, wrong: float
) -> None:
    machine = Machine(ahead)
    machine.hear()
    machine.hear()
    assert not machine.clock.certain
    machine.hear()
    assert machine.clock.certain and machine.clock.now() == pytest.approx(machine.api)
    machine.hear(wrong_by=wrong)
    assert machine.clock.certain and machine.clock.now() == pytest.approx(machine.api)


@given(jump=jumps)
def test_a_true_jump_counts_with_the_third_date(jump: float) -> None:
    machine = Machine()
    machine.hear()
    machine.ahead += jump
    machine.hear()
    machine.hear()
    assert machine.clock.certain and not machine.clock.settled
    assert machine.clock.now() == pytest.approx(machine.api - jump)
    machine.hear()
    assert machine.clock.settled and machine.clock.now() == pytest.approx(machine.api)


def test_dates_that_never_agree_leave_it_to_this_machines_clock(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1, 7):
        assert not machine.clock.certain
        machine.hear(wrong_by=number * HOUR)
    assert machine.clock.certain and machine.clock.now() == machine.wall
    assert "contradict" in caplog.text


@given(st.lists(st.tuples(st.floats(0.5, 300), st.floats(-1e7, 1e7)), max_size=12))
def test_what_is_believed_agrees_with_a_date_that_two_others_or_a_clock_confirm(
    heard: list[tuple[float, float]],
) -> None:
    belief, at, told = Belief(), 0.0, [DatedReply(0.0, 0.0, 0.0)]
    for passed, wrong in heard:
        at += passed
        told.append(DatedReply(at + wrong, at, at))
        before = belief
        belief = belief.after(told[-1], SLACK)
        if belief.dated and belief.base != before.base:
            confirmed = told[0 if before.base is None or not before.dated else told.index(before.base)]
            assert confirmed.agrees(told[-1], SLACK) or all(
                one.agrees(two, SLACK) for one, two in zip(told[-3:], told[-2:], strict=False)
            )


def test_a_reply_without_a_date_takes_back_no_known_time(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.hear()
    began = machine.api
    machine.wait(30)
    for _ in range(2):
        machine.clock.hear(None)
    assert machine.clock.now() == began + 30
    assert caplog.text.count("no date") == 1
    assert "the last one that had" in caplog.text


def test_where_no_reply_has_a_date_this_machines_clock_counts_and_a_jump_asks_for_a_reply(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.clock.hear(None)
    began = machine.wall
    assert "this machine's clock" in caplog.text
    machine.wait(30)
    assert (machine.clock.now(), machine.clock.certain) == (began + 30, True)
    machine.wall += 60
    assert (machine.clock.now(), machine.clock.certain) == (began + 30, False)
    machine.clock.hear(None)
    assert (machine.clock.now(), machine.clock.certain) == (began + 90, True)


@given(told=st.none() | st.integers(0, 2**40), sent=st.none() | st.floats(1e9, 2e9), waited=st.floats(0, 1e5))
def test_an_order_began_after_its_send_and_before_it_was_seen(
    told: int | None, sent: float | None, waited: float
) -> None:
    seen = (sent or 1.5e9) + waited
    began = created_between(told, sent, seen)
    assert began <= seen
    assert sent is None or began >= int(sent)
    assert told is None or not (sent or 0) <= told <= seen or began == told

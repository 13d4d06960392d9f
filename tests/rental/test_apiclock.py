"""Clore's clock, carried on from the last reply that told it."""

from __future__ import annotations

import pytest

from clore_mcp.rental.apiclock import ApiClock


class Machine:
    """Two clocks of one machine."""

    def __init__(self) -> None:
        self.wall = 1_000.0
        self.monotonic = 50.0
        self.clock = ApiClock(lambda: self.wall, lambda: self.monotonic)

    def wait(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_before_any_reply_this_machines_clock_serves_and_ends_nothing(machine: Machine) -> None:
    assert machine.clock.now() == 1_000
    assert not machine.clock.certain


@pytest.mark.parametrize("jump", [7 * 3600.0, -7 * 3600.0])
def test_a_local_jump_moves_nothing(machine: Machine, jump: float) -> None:
    machine.clock.hear(5_000.0)
    machine.wait(30)
    machine.wall += jump
    assert machine.clock.now() == 5_030
    assert machine.clock.certain


def test_a_machine_that_slept_is_late_until_the_next_reply(machine: Machine) -> None:
    machine.clock.hear(5_000.0)
    machine.wall += 3_600
    assert machine.clock.now() == 5_000
    machine.clock.hear(8_600.0)
    assert machine.clock.now() == 8_600


def test_a_reply_without_a_date_takes_back_no_known_time(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.clock.hear(5_000.0)
    machine.wait(30)
    for _ in range(2):
        machine.clock.hear(None)
    assert machine.clock.now() == 5_030
    assert caplog.text.count("no date") == 1
    assert "the last one that had" in caplog.text


def test_where_no_reply_has_a_date_this_machines_clock_counts_and_a_jump_asks_for_a_reply(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.clock.hear(None)
    assert "this machine's clock" in caplog.text
    machine.wait(30)
    assert (machine.clock.now(), machine.clock.certain) == (1_030, True)
    machine.wall += 60
    assert (machine.clock.now(), machine.clock.certain) == (1_030, False)
    machine.clock.hear(None)
    assert (machine.clock.now(), machine.clock.certain) == (1_090, True)

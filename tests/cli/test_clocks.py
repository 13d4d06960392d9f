"""One wrong date, heard by a process of its own: an order ends neither early nor never."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Desk
from tests.cli.watchdogs import active, until


@pytest.mark.parametrize("ahead", [2 * 3_600, -3 * 3_600])
def test_a_round_that_hears_one_wrong_date_ends_nothing_early_and_nothing_late(desk: Desk, ahead: float) -> None:
    order_id = desk.rent(hours=6)
    desk.control("/faults", {"kind": "wrong_date", "endpoint": "my_orders", "seconds": ahead})
    done = desk.run("watchdog", "--once")
    assert (done.code, active(desk, order_id)) == (0, True), done
    desk.control("/clock", {"advance": 6 * 3_600 + 100})
    desk.control("/faults", {"kind": "wrong_date", "endpoint": "my_orders", "seconds": ahead})
    desk.run("watchdog", "--once")
    until(lambda: not active(desk, order_id), "the lease has ended")

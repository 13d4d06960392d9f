"""One wrong date, heard by a process of its own: an order ends neither early nor never."""

from __future__ import annotations

import pytest

from tests.cli.watchdogs import active, until
from tests.world import World


@pytest.mark.parametrize("ahead", [2 * 3_600, -3 * 3_600])
def test_a_round_that_hears_one_wrong_date_ends_nothing_early_and_nothing_late(world: World, ahead: float) -> None:
    order_id = world.rent(hours=6)
    world.post("/faults", {"kind": "wrong_date", "endpoint": "my_orders", "seconds": ahead})
    done = world.run("watchdog", "--once")
    assert (done.code, active(world, order_id)) == (0, True), done
    world.post("/clock", {"advance": 6 * 3_600 + 100})
    world.post("/faults", {"kind": "wrong_date", "endpoint": "my_orders", "seconds": ahead})
    world.run("watchdog", "--once")
    until(lambda: not active(world, order_id), "the lease has ended")

"""What a raise leaves behind when its process is killed, in a market whose time passes as ours does.

Where a minute passes in a second, a machine that is slow for seconds makes the time between a question and its answer
longer than any worst case has room for.
"""

from __future__ import annotations

import sys

import pytest

from tests.guard.calls import call
from tests.guard.children import Child
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.guard.spots import WIDE, raised, rich, spot, spot_elsewhere
from tests.world import World

pytestmark = pytest.mark.anyio
LONGEST = 3000


@pytest.fixture
def world(real_time: World) -> World:
    return real_time


def worst(world: World) -> float:
    return sum(float(row["worst_micros"]) for row in world.reserved()) / 10**6


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("made_here", [True, False])
@pytest.mark.parametrize("place", ["bid claimed", "bid sent"])
async def test_a_raise_killed_anywhere_leaves_its_worst_case_reserved(
    world: World, process: Processes, children: list[Child], place: str, made_here: bool
) -> None:
    rich(world)
    services = await process(env=WIDE)
    order_id, bid = await spot(world, services) if made_here else spot_elsewhere(world, world.free()[0])
    hours = 2 if made_here else LONGEST
    child = Child(world, raised(order_id, bid), stop=place, env=WIDE)
    children.append(child)
    child.await_place()
    child.kill()
    assert len(world.sent("set_spot_price")) == (place == "bid sent")
    assert worst(world) >= bid * 1.499 * hours
    again = await process(env=WIDE)
    outcome = await call(again, raised(order_id, bid, 1.45))
    assert outcome.status == "updated"
    assert worst(world) >= bid * 1.499 * hours, "the first may be at Clore, or on its way there"
    check_invariants(world)

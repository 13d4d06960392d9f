"""What another process writes ends what this one has read, though that one dies before it looks."""

from __future__ import annotations

import pytest

from tests.guard.calls import rent
from tests.guard.conftest import Processes
from tests.world import World

pytestmark = pytest.mark.anyio
UNWATCHED = {"CLORE_WATCHDOG": "off"}


async def test_a_cancel_in_one_process_is_seen_by_the_next_list_of_another(world: World, process: Processes) -> None:
    one, other = await process(env=UNWATCHED), await process(env=UNWATCHED)
    order_id = (await rent(one, world.free()[0])).order_id
    assert (await one.context.readings.orders()).find(order_id)
    asked = len(world.sent("my_orders"))
    assert (await other.context.readings.orders()).find(order_id)
    assert len(world.sent("my_orders")) == asked, "they share what was read"
    await one.context.client.cancel_order(order_id)
    assert not (await other.context.readings.orders()).find(order_id)
    assert not (await one.context.readings.orders()).find(order_id)
    assert len(world.sent("my_orders")) == asked + 1, "and read it once again"

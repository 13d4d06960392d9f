"""A state that is deleted while it is used takes no send, and hides none."""

from __future__ import annotations

import asyncio

import pytest

from clore_mcp.errors import StateUnavailable
from clore_mcp.store.database import FILE_NAME
from clore_mcp.wiring import Services
from tests.guard.calls import call, wish
from tests.guard.conftest import Processes
from tests.world import World

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("background", ["quiet", "meets it first"])
async def test_nothing_is_spent_into_a_state_that_was_deleted(
    world: World, process: Processes, background: str
) -> None:
    services, ask = await process(), wish(world.free()[0])
    world.lose_state()
    if background == "meets it first":
        await services.keeper.poll()
    with pytest.raises(StateUnavailable, match="deleted"):
        await call(services, ask)
    assert not world.sent()
    await services.keep_leases()
    assert (await call(services, ask)).status == "created", "a new state is begun"
    assert (world.state / FILE_NAME).exists()
    other = await process()
    [seen] = (await other.overview.orders()).orders
    assert seen.made_here, "other processes see its record"


async def test_a_yes_is_not_used_in_a_state_that_was_deleted_after_the_question(
    world: World, services: Services
) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    world.lose_state()
    await services.keeper.poll()  # what works in the background meets it first
    with pytest.raises(StateUnavailable):
        await services.guard.conclude(held, ask, answer=True, caller="t")
    assert not world.sent()


@pytest.mark.parametrize("background", ["quiet", "meets it first"])
async def test_a_state_deleted_while_a_create_is_looked_for_is_said_as_uncertain(
    world: World, services: Services, background: str
) -> None:
    world.fault("late_visible", seconds=50_000)
    renting = asyncio.ensure_future(call(services, wish(world.free()[0])))
    await asyncio.to_thread(world.await_request, "create_order", effect=True)
    await asyncio.to_thread(world.await_state, lambda: "answered" in world.steps())
    world.lose_state()
    if background == "meets it first":
        await services.keeper.poll()  # then a new state is begun, which knows nothing of this create
    outcome = await renting
    assert outcome.status == "uncertain"
    assert len(world.sent()) == 1

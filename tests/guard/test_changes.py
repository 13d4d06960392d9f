"""What changed of the orders since the last look: each thing once, whoever recorded it, also after another state."""

from __future__ import annotations

import time
from typing import Any

import pytest

from clore_mcp.rental.events import Changed, Changes
from clore_mcp.wiring import Services
from tests.guard.calls import let_time_pass
from tests.guard.conftest import Processes
from tests.guard.test_events import elsewhere
from tests.world import World

pytestmark = pytest.mark.anyio
NOTHING = Changed()


async def note(services: Services, step: str, **what: Any) -> None:
    await services.context.state.write(lambda tx: services.context.note(tx, step, "clore-mcp", "a", **what))


async def test_each_step_is_told_once_to_each(world: World, process: Processes) -> None:
    ours, theirs = await process(), await process()
    await note(ours, "outbid", order_id=1)
    one, other = (
        Changes(ours.context.state, ours.context.readings, time.time() + 60),
        Changes(ours.context.state, ours.context.readings, 0.0),
    )
    assert await one.look() == NOTHING
    assert (await other.look()).order_ids == {1}
    await note(theirs, "outbid", order_id=2)
    for each in (one, other):
        assert await each.look() == Changed(frozenset({2}), account=True, ledger=True)
        assert await each.look() == NOTHING
    await note(theirs, "wallet_short", coin="USD")
    assert await one.look() == Changed(frozenset(), account=True, ledger=True)
    await note(theirs, "quoted")
    assert await one.look() == Changed(frozenset(), account=False, ledger=True)


async def test_what_looks_different_at_clore_is_told_and_what_it_has_cost_is_not(
    world: World, services: Services
) -> None:
    changes = Changes(services.context.state, services.context.readings, time.time() + 60)
    assert await changes.look() == NOTHING
    order_id = elsewhere(world)

    async def look() -> Changed:
        let_time_pass(services)
        await services.context.readings.orders()
        return await changes.look()

    assert await look() == NOTHING, "the first list is what the next is held against"
    world.advance(900)
    assert (await look()).order_ids == {order_id}
    world.advance(900)
    assert await look() == NOTHING
    second = elsewhere(world, 1)
    assert second in (await look()).order_ids
    world.api.post("/cancel_order", json={"id": order_id})
    assert order_id in (await look()).order_ids


async def test_another_state_is_followed_from_its_beginning(world: World, services: Services) -> None:
    for number in range(3):
        await note(services, "outbid", order_id=number)
    changes = Changes(services.context.state, services.context.readings, 0.0)
    assert (await changes.look()).order_ids == {0, 1, 2}
    world.change("DROP TRIGGER ledger_keeps_rows")
    world.change("DELETE FROM ledger")
    world.change("DELETE FROM sqlite_sequence")
    await note(services, "outbid", order_id=9)
    assert (await changes.look()).order_ids == {9}


async def test_a_state_that_was_never_begun_is_not_begun(world: World) -> None:
    services = world.services()
    assert await Changes(services.context.state, services.context.readings, 0.0).look() == NOTHING
    assert not services.context.state.exists
    await services.aclose()

"""What Clore lists as running has its end, whatever Clore said of it before."""

from __future__ import annotations

from typing import Any

import pytest

from clore_mcp.rental.orders.order_view import OrderList
from clore_mcp.rental.requests import CancelOrder
from clore_mcp.wiring import Services
from tests.guard.calls import call, let_time_pass, rent
from tests.guard.conftest import LocalTime, Processes
from tests.guard.extensions import longer
from tests.guard.invariants import check_invariants
from tests.world import Json, World

pytestmark = pytest.mark.anyio
HOURS_3 = 3 * 3_600.0


def seem(world: World, order_id: int, seems: str, **more: Any) -> None:
    world.post(f"/orders/{order_id}", {"seems": seems, **more})


def lease(world: World, order_id: int) -> Json:
    [row] = world.rows("SELECT * FROM orders WHERE order_id = ?", order_id)
    return row


async def look(services: Services) -> OrderList:
    let_time_pass(services)
    return await services.overview.orders(include_ended=True, max_age_seconds=0)


async def alone(services: Services) -> None:
    """From now on this process makes the rounds that the test asks for, and no other: one between two lines of a test
    would look before what it looks for is there, and then not again for ten polls."""
    await services.keeper.stop()


async def gone(world: World, services: Services, order_id: int, seems: str, local: LocalTime) -> None:
    """The order counts as gone because of what Clore says of it."""
    seem(world, order_id, seems)
    await look(services)
    if seems == "vanished":
        local.pass_by(70)
        world.advance(70)
        await look(services)
    assert lease(world, order_id)["ended_at"] is not None
    assert not world.reserved()


@pytest.mark.parametrize("seems", ["expired", "vanished"])
async def test_an_order_that_counted_as_gone_and_is_listed_again_has_its_lease_and_its_reservation_back(
    world: World, process: Processes, local: LocalTime, seems: str
) -> None:
    services = await process()
    order_id = (await rent(services, world.free()[0])).order_id
    before, [reserved] = lease(world, order_id), world.reserved()
    await gone(world, services, order_id, seems, local)
    seem(world, order_id, "as_it_is")
    local.pass_by(15)
    [shown] = (await look(services)).orders
    assert shown.made_here and shown.ends_at
    assert lease(world, order_id) == before
    assert world.reserved() == [reserved], "the limits count it again"
    assert "order_seen_again" in world.steps()
    world.advance(HOURS_3)
    await services.keeper.poll()
    assert not world.active()


@pytest.mark.parametrize("seems", ["expired", "vanished"])
@pytest.mark.parametrize("fresh", [False, True])
async def test_the_keeper_alone_notices_and_ends_what_is_due_in_the_same_round(
    world: World, process: Processes, local: LocalTime, seems: str, fresh: bool
) -> None:
    services = await process()
    order_id = (await rent(services, world.free()[0])).order_id
    await alone(services)
    await gone(world, services, order_id, seems, local)
    world.advance(HOURS_3)
    local.pass_by(15)
    seem(world, order_id, "as_it_is")
    if fresh:
        await services.aclose()
        services = world.services()
    try:
        await services.keeper.poll()
        assert not world.active()
        assert services.keeper.last.left, "there was something to keep"
    finally:
        if fresh:
            await services.aclose()
    check_invariants(world)


async def test_long_after_its_end_an_order_is_still_looked_for_now_and_then(
    world: World, process: Processes, local: LocalTime
) -> None:
    services = await process()
    order_id = (await rent(services, world.free()[0])).order_id
    await gone(world, services, order_id, "expired", local)
    await alone(services)
    await services.keeper.poll()
    assert services.keeper.last.left, "a watchdog stays for some rounds"
    local.pass_by(12 * 3_600)
    world.advance(HOURS_3)
    await services.keeper.poll()
    assert not services.keeper.last.left, "a started watchdog may end"
    before = len(world.sent("my_orders"))
    await services.keeper.poll()
    assert len(world.sent("my_orders")) == before, "not in every round"
    seem(world, order_id, "as_it_is")
    local.pass_by(10 * 60)
    await services.keeper.poll()
    assert not world.active()
    local.pass_by(25 * 3_600)
    await services.keeper.poll()
    before = len(world.sent("my_orders"))
    local.pass_by(25 * 3_600)
    await services.keeper.poll()
    assert len(world.sent("my_orders")) == before, "and not for ever"


async def test_a_cancel_that_was_proven_and_is_listed_again_is_told_and_sent_again(
    world: World, process: Processes, local: LocalTime
) -> None:
    services = await process()
    order_id = (await rent(services, world.free()[0])).order_id
    await alone(services)
    world.fault("cancel_ignored")
    seem(world, order_id, "expired")
    told = await services.closer.cancel(order_id, issue=None, caller="ann", why="asked for")
    assert told.status == "cancelled"
    assert lease(world, order_id)["ended_at"]
    local.pass_by(15)
    seem(world, order_id, "as_it_is")
    await services.keeper.poll()
    assert not world.active()
    steps = world.steps()
    assert steps.index("order_seen_again") < len(steps) - 1 - steps[::-1].index("cancel_sent")
    await look(services)
    assert lease(world, order_id)["ended_at"]
    assert not world.reserved()


async def test_what_is_in_both_lists_at_once_runs(world: World, process: Processes, local: LocalTime) -> None:
    services = await process()
    order_id = (await rent(services, world.free()[0])).order_id
    seem(world, order_id, "both")
    await look(services)
    assert lease(world, order_id)["ended_at"] is None
    world.fault("cancel_ignored", times=10_000)
    told = await call(services, CancelOrder(order_id=order_id))
    assert told.status == "unverified", "it was told that it had ended, while it runs"
    world.mend()
    told = await call(services, CancelOrder(order_id=order_id))
    seem(world, order_id, "as_it_is")
    assert not world.active()


async def test_an_order_whose_row_is_another_one_is_still_ours(world: World, process: Processes) -> None:
    services = await process()
    order_id = (await rent(services, world.free()[0])).order_id
    seem(world, order_id, "as_it_is", row={"si": 7, "image": "someone/else", "ct": 1_000_000, "spend": 0})
    [shown] = (await look(services)).orders
    assert shown.made_here
    world.advance(HOURS_3)
    await services.keeper.poll()
    assert not world.active()


async def test_a_clock_that_went_back_hides_no_return(world: World, process: Processes, local: LocalTime) -> None:
    services = await process()
    order_id = (await rent(services, world.free()[0])).order_id
    await gone(world, services, order_id, "expired", local)
    local.wall -= 3_600
    seem(world, order_id, "as_it_is")
    world.advance(HOURS_3)
    await services.keeper.poll()
    assert not world.active()


async def test_an_end_given_to_an_order_made_elsewhere_comes_back_with_it(
    world: World, process: Processes, local: LocalTime
) -> None:
    services = await process()
    order_id = world.rent_elsewhere(world.free()[0])
    assert (await call(services, longer(order_id, 2))).status == "extended"
    [reserved] = world.reserved()
    await alone(services)
    seem(world, order_id, "expired")
    await look(services)
    assert not world.reserved()
    local.pass_by(15)
    seem(world, order_id, "as_it_is")
    await services.keeper.poll()
    assert world.reserved() == [reserved]
    world.advance(HOURS_3)
    await services.keeper.poll()
    assert not world.active()

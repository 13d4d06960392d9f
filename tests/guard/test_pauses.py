"""A pause that Clore asks for holds reads, and no cancel for longer than seconds; what is said is what happened."""

from __future__ import annotations

import asyncio
import time

import pytest

from clore_mcp.rental.requests import CancelOrder
from clore_mcp.wiring import Services
from tests.guard.calls import SHORT, call, cancel, rent
from tests.guard.conftest import Processes
from tests.world import World

pytestmark = pytest.mark.anyio
REAL = {"CLORE_REQUEST_GAP_SECONDS": "1.1"}  # Clore's own pace, so that an urgent request may wait five seconds


@pytest.fixture
def world(real_time: World) -> World:
    return real_time


@pytest.mark.parametrize("kind", ["too_fast", "too_fast_until"])
@pytest.mark.parametrize("seconds", [30, 600, 10**9])
async def test_a_pause_that_a_read_brings_holds_no_cancel(
    world: World, process: Processes, kind: str, seconds: int
) -> None:
    services = await process(env=REAL)
    order_id = (await rent(services, world.free()[0])).order_id
    world.fault(kind, "my_orders", seconds=seconds)
    services.context.readings.changed()
    began = time.monotonic()
    assert (await cancel(services, order_id)).status == "cancelled"
    assert time.monotonic() - began < 40, "with its looks, its receipt and what runs still"
    assert not world.active()


async def test_a_pause_that_another_process_brought_or_left_holds_no_lease(world: World, process: Processes) -> None:
    services = await process(env=REAL)
    await rent(services, world.free()[0])
    world.fault("too_fast", "marketplace", seconds=600)
    other = world.services(SHORT, **REAL)
    with pytest.raises(Exception, match=r"too many requests|wait for their turn"):
        await other.context.readings.fresh_snapshot(0)
    await other.aclose()
    world.advance(13 * 3_600)
    began = time.monotonic()
    for _ in range(2):
        await services.keeper.poll()
    assert time.monotonic() - began < 60
    assert not world.active()


@pytest.mark.parametrize("seconds", [30, 600])
async def test_a_pause_that_a_fresh_process_finds_holds_no_cancel(
    world: World, process: Processes, seconds: int
) -> None:
    """It knows neither its account nor its fees, and everything that it would read waits."""
    services = await process(env=REAL)
    order_id = (await rent(services, world.free()[0])).order_id
    world.fault("too_fast", "wallets", seconds=seconds, times=100)
    with pytest.raises(Exception, match=r"too many requests|wait for their turn"):
        await services.context.client.wallets()
    other = world.services(SHORT, **REAL)
    try:
        began = time.monotonic()
        told = await other.closer.cancel(order_id, issue=None, caller="a person", why="asked for")
        assert time.monotonic() - began < 60
        assert told.status == "cancelled"
    finally:
        await other.aclose()


async def _end(services: Services, order_id: int, *, asked: bool) -> None:
    if not asked:
        await services.keeper.poll()
        return
    await services.keep_leases()
    assert (await cancel(services, order_id)).status in ("cancelled", "unverified")


@pytest.mark.parametrize("way", ["its lease is over", "asked for through a client"])
async def test_a_short_pause_that_a_fresh_process_finds_holds_no_end_until_it_is_over(
    world: World, process: Processes, way: str
) -> None:
    """A pause that is shorter than the patience of a read is waited out by reads, and by no end."""
    services = await process(env=REAL)
    order_id = (await rent(services, world.free()[0])).order_id
    if way == "its lease is over":
        world.advance(13 * 3_600)
        await services.context.readings.look(completed=False)
        await services.keeper.stop()
    other = world.services(SHORT, **REAL)
    try:
        world.fault("too_fast", "wallets", seconds=50)
        began = time.monotonic()
        ending = asyncio.create_task(_end(other, order_id, asked=way != "its lease is over"))
        await asyncio.to_thread(world.await_state, lambda: not world.active())
        assert time.monotonic() - began < 30
        await ending
    finally:
        await other.aclose()


async def test_a_cancel_that_is_itself_told_to_wait_goes_again_within_seconds(world: World, process: Processes) -> None:
    services = await process(env=REAL)
    order_id = (await rent(services, world.free()[0])).order_id
    world.fault("too_fast", "cancel_order", seconds=600, times=2)
    began = time.monotonic()
    await cancel(services, order_id)  # its answer may come before
    world.await_state(lambda: not world.active())
    assert time.monotonic() - began < 60


async def test_a_cancel_that_never_went_through_is_not_said_to_have(world: World, services: Services) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    world.fault("too_fast", "cancel_order", seconds=600, times=1_000)
    while "not complete yet" in (told := await cancel(services, order_id)).next:
        assert told.status == "unverified"
    assert told.status == "unverified"
    assert "Clore did not cancel the order: too many requests" in told.next
    world.mend()
    assert (await cancel(services, order_id)).status == "cancelled"


@pytest.mark.parametrize("word", ["issue_description_too_long", "invalid_input"])
async def test_a_comment_that_clore_does_not_take_is_left_out(world: World, services: Services, word: str) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    world.fault("refused", "cancel_order", error=word)
    assert (await call(services, CancelOrder(order_id=order_id, issue="a slow disk"))).status == "cancelled"
    assert [row["body"].get("issue") for row in world.sent("cancel_order")][:2] == ["a slow disk", None]

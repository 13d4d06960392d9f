"""kill -9 and a freeze before and after every step that a create makes from its yes on: each write to the state, and
its bytes leaving. A later process brings each wish to no order and nothing reserved, or to one order, adopted and
reserved; a process that wakes up changes nothing about that. All wishes run side by side, each with a fallback."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import replace
from typing import Final

import pytest

from clore_mcp.rental.context import Patience
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.wiring import Services
from tests.guard.calls import SHORT, call, wish
from tests.guard.children import Child, settle
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.guard.stepping import Point
from tests.world import USD, Json, World

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="signals")]

_PATIENCE: Final = replace(SHORT, answer=20.0, look=0.7, send_within=1.0, window=1.3, orphan=0.5)
_SETTLED_WITHIN: Final = _PATIENCE.send_within + _PATIENCE.window + _PATIENCE.look + 60.0
_UNLIMITED: Final = {
    "CLORE_MAX_USD_PER_HOUR": "1000",
    "CLORE_MAX_USD_PER_DAY": "10000",
    "CLORE_MAX_ACTIVE_ORDERS": "100",
}


def many_free(world: World) -> list[int]:
    """A hundred free servers of one kind."""
    row = world.get(f"/servers/{world.free()[0]}")["row"]
    copies = [{**row, "id": 900_000 + number} for number in range(100)]
    for copy in copies:
        world.post("/servers", copy)
    return [copy["id"] for copy in copies]


async def stop_everywhere(world: World, children: list[Child], sign: int) -> None:
    """One wish for each point of a create, each stopped there."""
    world.options(order_limit=100)
    world.post("/wallets", {"balances": {USD: 1000.0}})
    servers = iter(many_free(world))

    def begin(point: Point, patience: Patience = _PATIENCE) -> Child:
        ask = wish(next(servers), fallback_server_ids=[next(servers)], hours=12)  # on a busy machine no lease ends yet
        child = Child(world, ask, patience=patience, env=_UNLIMITED, point=point, sign=sign)
        children.append(child)
        return child

    unhurried = replace(_PATIENCE, look=20.0, send_within=20.0, window=20.0)
    undisturbed = begin(Point(0, after=False), unhurried)
    outcome = await asyncio.to_thread(undisturbed.outcome)
    assert outcome["status"] == "created", outcome
    at_once = asyncio.Semaphore(4)

    async def stopped(point: Point) -> None:
        async with at_once:
            await asyncio.to_thread(begin(point).await_signal)

    await asyncio.gather(
        *(stopped(Point(step, after)) for step in range(1, outcome["steps"] + 1) for after in (False, True))
    )


def wish_of(one: Child) -> CreateOrder:
    """What its process was to rent."""
    assert isinstance(one.ask, CreateOrder)
    return one.ask


def orders_of(world: World, one: Child) -> list[Json]:
    """What runs at Clore for a wish."""
    servers = set(wish_of(one).server_ids)
    return [order for order in world.active() if order["server_id"] in servers]


async def fulfilled(world: World, services: Services, one: Child) -> None:
    """The same call again until it has its order: one, wherever its process was stopped."""
    async with asyncio.timeout(90):
        while (outcome := await call(services, wish_of(one))).status != "created":
            assert outcome.status in ("in_progress", "failed"), (one.point, outcome)
            services.context.readings.changed()
    assert len(orders_of(world, one)) == 1, (one.point, outcome)


@pytest.mark.parametrize("fault", ["", "lost_reply"])
async def test_a_create_that_is_killed_anywhere_leaves_one_order_or_none(
    world: World, process: Processes, children: list[Child], fault: str
) -> None:
    if fault:
        world.fault(fault, "create_order", times=1000)
    later = await process(_PATIENCE, _UNLIMITED)
    await stop_everywhere(world, children, signal.SIGKILL)
    world.mend()
    await settle(world, later, seconds=_SETTLED_WITHIN)
    check_invariants(world)
    assert all(len(orders_of(world, one)) <= 1 for one in children)
    await asyncio.gather(*(fulfilled(world, later, one) for one in children))
    check_invariants(world)


async def test_a_create_that_is_frozen_anywhere_and_wakes_up_leaves_one_order_or_none(
    world: World, process: Processes, children: list[Child]
) -> None:
    later = await process(_PATIENCE, _UNLIMITED)
    await stop_everywhere(world, children, signal.SIGSTOP)
    await settle(world, later, seconds=_SETTLED_WITHIN)
    check_invariants(world)
    frozen = [one for one in children if one.lives]
    repeated = [one for one in frozen if one.point and one.point.after]  # the person has asked again meanwhile
    await asyncio.gather(*(fulfilled(world, later, one) for one in repeated))
    for one in frozen:
        one.wake()
    woken = await asyncio.gather(*(asyncio.to_thread(one.outcome) for one in frozen))
    await settle(world, later, seconds=_SETTLED_WITHIN)
    for one, outcome in zip(frozen, woken, strict=True):
        # "in progress" was said of what was not yet known
        may_run = {"created": (1,), "failed": (0,), "in_progress": (0, 1)}[outcome["status"]]
        assert len(orders_of(world, one)) in ((1,) if one in repeated else may_run), (one.point, outcome)
    check_invariants(world)

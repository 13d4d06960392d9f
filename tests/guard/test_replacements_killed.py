"""kill -9 before and after every step of a replacement, each write to the state and the create's bytes: at most one
order runs at any time after it, and the same call again ends with the next server's order or with none."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import pytest

from clore_mcp.rental.results import Outcome
from clore_mcp.wiring import Services
from tests.guard.calls import SHORT, Told, call, cancel, let_time_pass
from tests.guard.children import Child, settle
from tests.guard.dead import Dead, dead, forget, running, ssh_market
from tests.guard.invariants import check_invariants
from tests.guard.stepping import Point
from tests.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="signals")]

_PATIENCE: Final = replace(SHORT, answer=20.0, look=0.7, send_within=1.0, window=1.3, orphan=0.5)
_PARTS: Final = 4
_LANES: Final = 2
_WIDE: Final = {
    "CLORE_MAX_USD_PER_HOUR": "1000",
    "CLORE_MAX_USD_PER_DAY": "10000",
    "CLORE_MAX_ACTIVE_ORDERS": "100",
}


def child_of(world: World, lost: Dead, children: list[Child], point: Point, sign: int) -> Child:
    child = Child(world, lost.replacing, patience=_PATIENCE, env=_WIDE, point=point, sign=sign)
    children.append(child)
    return child


async def steps_of(world: World, services: Services, children: list[Child]) -> int:
    """How many steps a replacement has that nothing disturbs."""
    lost = await dead(world, services)
    outcome = await asyncio.to_thread(child_of(world, lost, children, Point(0, after=False), 0).outcome)
    assert outcome["status"] == "created", outcome
    await over(world, services, cast(Told, Outcome.from_json(outcome)))
    return int(outcome["steps"])


async def over(world: World, services: Services, outcome: Told) -> None:
    """End what runs, and forget that it was dead."""
    for order in world.active():
        await cancel(services, order["id"])
    forget(world)
    assert not world.active(), outcome


async def finished(services: Services, lost: Dead) -> Told:
    """The same call again until it says something final."""
    async with asyncio.timeout(60):
        while True:
            let_time_pass(services)
            outcome = await call(services, lost.replacing, answer=None, can_ask=False)
            if outcome.status != "in_progress":
                return outcome


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[tuple[World, Services]]:
    """A market with a state of its own, and a process that lives on."""
    with contextmanager(ssh_market)(folder) as world:
        services = world.services(_PATIENCE, **_WIDE)
        try:
            await services.keep_leases()
            yield world, services
        finally:
            await services.aclose()


async def killed_at(points: Sequence[Point], folder: Path, children: list[Child]) -> set[str]:
    """One dead order for each point, whose replacement is killed there: how the same call came out after it."""
    ended, at = set[str](), 0
    async with place(folder) as (world, later):
        for point in points:
            lost, made = await dead(world, later, at=at), len(world.sent())
            at = (at + 3) % (len(world.free()) - 3)
            child = child_of(world, lost, children, point, signal.SIGKILL)
            await asyncio.to_thread(child.await_signal)
            assert len(running(world)) <= 1, point
            outcome = await finished(later, lost)
            assert running(world) == ([lost.fallbacks[0]] if outcome.status == "created" else []), (point, outcome)
            assert outcome.replaced is not None and outcome.replaced.order_id == lost.order_id, (point, outcome)
            await settle(world, later)
            assert len(world.sent()) <= made + 1, point
            check_invariants(world)
            ended.add(outcome.status)
            await over(world, later, outcome)
    return ended


@pytest.mark.parametrize("part", range(_PARTS))
async def test_a_replacement_that_is_killed_anywhere_leaves_one_order_or_none(
    tmp_path: Path, children: list[Child], part: int
) -> None:
    async with place(tmp_path / "whole") as (world, services):
        steps = await steps_of(world, services, children)
    points = [Point(step, after) for step in range(1, steps + 1) for after in (False, True)][part::_PARTS]
    ended = await asyncio.gather(
        *(killed_at(points[lane::_LANES], tmp_path / str(lane), children) for lane in range(_LANES))
    )
    assert set.union(*ended) <= {"created", "failed"} and "created" in set.union(*ended)


async def test_a_process_that_wakes_up_after_another_has_replaced_the_order_rents_nothing(
    tmp_path: Path, children: list[Child]
) -> None:
    async with place(tmp_path / "one") as (world, later):
        lost = await dead(world, later)
        child = Child(world, lost.replacing, stop="evidence", patience=_PATIENCE, env=_WIDE)
        children.append(child)
        await asyncio.to_thread(child.await_place)
        assert not running(world), "its cancel is proven, and nothing else is rented yet"
        outcome = await finished(later, lost)
        assert outcome.status == "created", outcome
        child.wake()
        woken = await asyncio.to_thread(child.outcome)
        assert (woken["status"], woken["order_id"]) == ("created", outcome.order_id), woken
        assert running(world) == [lost.fallbacks[0]] and len(world.sent()) == 2
        check_invariants(world)

"""kill -9 and a freeze at every step of a watch's rental: a later process brings it to its one order, never to two."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from dataclasses import replace
from typing import Final

import pytest

from clore_mcp.rental.watches.watch import cancelled
from clore_mcp.rental.watches.watch import listed as watches_listed
from clore_mcp.wiring import Services
from tests.guard.calls import SHORT
from tests.guard.children import Child, settle
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.guard.stepping import Point
from tests.guard.watching import COUNTRIES, stock, watch, watched
from tests.world import USD, World

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="signals")]

_PATIENCE: Final = replace(SHORT, look=2.0, send_within=1.0, window=1.3, orphan=0.5)
_CAPS: Final = {
    "CLORE_MAX_USD_PER_HOUR": "1000",
    "CLORE_MAX_USD_PER_DAY": "10000",
    "CLORE_MAX_ACTIVE_ORDERS": "100",
    "CLORE_WATCHDOG": "off",  # rounds are begun by the test
}


async def one_round(services: Services) -> None:
    services.marketplace.forget()
    services.market._held = None
    services.context.readings.changed()
    await services.keeper.poll()
    await services.keeper.finish()


async def a_watch(world: World, services: Services, number: int) -> list[int]:
    """One more watch, for two servers in a country of its own; their ids."""
    servers = [
        stock(world, 900_000 + 2 * number + which, 0.10 + which / 100, country=COUNTRIES[number]) for which in (0, 1)
    ]
    await watched(services, watch(countries=[COUNTRIES[number]], hours=12.0))
    return servers


def given_up(world: World) -> bool:
    """Whether the last create was claimed and, as far as a look tells, never sent: one may show for a day."""
    return str(world.intents()[-1]["state"]) == "failed"


@pytest.mark.parametrize("sign", ["SIGKILL", "SIGSTOP"])
async def test_a_watch_whose_watchdog_stops_anywhere_has_one_order(
    world: World, process: Processes, children: list[Child], sign: str
) -> None:
    world.options(order_limit=100)
    world.post("/wallets", {"balances": {USD: 1_000.0}})
    later = await process(_PATIENCE, _CAPS)
    await one_round(later)  # a heartbeat: somebody looks after what is rented
    servers = [await a_watch(world, later, 0)]

    def begun(point: Point) -> Child:
        child = Child(world, None, patience=_PATIENCE, env=_CAPS, point=point, sign=getattr(signal, sign))
        children.append(child)
        return child

    undisturbed = await asyncio.to_thread(begun(Point(0, after=False)).outcome)
    assert len(world.active()) == 1, "a round without a stop rents"
    for number, step in enumerate(range(1, undisturbed["steps"] + 1), start=1):
        servers.append(await a_watch(world, later, number))
        stopped = begun(Point(step, after=True))
        await asyncio.to_thread(stopped.await_signal)
        until = time.monotonic() + 60
        while not (made := [one for one in world.active() if one["server_id"] in servers[-1]]) and not given_up(world):
            assert time.monotonic() < until, f"nothing was rented after step {step}"
            await one_round(later)
        if stopped.lives:
            stopped.wake()
            await asyncio.to_thread(stopped.outcome)
        await settle(world, later)
        await one_round(later)
        made = [one for one in world.active() if one["server_id"] in servers[-1]]
        assert len(made) == (not given_up(world)), f"{len(made)} orders for one watch, stopped after step {step}"
        if not made:
            (held,) = (await watches_listed(later.context, include_ended=False)).watches
            assert "shows no order yet" in (held.held_up or ""), "claimed and never sent: it says why it waits"
            await cancelled(later.context, held.watch_id, by="tester")
    assert world.steps().count("watch_fired") == len(world.active()) >= len(servers) - 2, (
        "given up only where the send was claimed"
    )
    check_invariants(world)

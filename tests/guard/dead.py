"""Orders whose host can't be reached, and the call that moves them to the next approved server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clore_mcp.rental.orders.readiness import Waited
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.sandbox import Options, start_in_thread
from clore_mcp.wiring import Services
from tests.guard.calls import call, let_time_pass, wish
from tests.guard.spots import rich
from tests.world import World

OPTIONS: Final = Options(servers=160, rate_limit="off", speed=1.0, visible_after=0.0)


def ssh_market(folder: Path) -> Iterator[World]:
    """Yield a market whose orders have real SSH ports, and whose time passes in real time."""
    folder.mkdir(exist_ok=True)
    with start_in_thread(OPTIONS) as market:
        made = World(market, folder)
        try:
            yield made
        finally:
            made.close()


@dataclass(frozen=True)
class Dead:
    """An order whose wait failed: the call that made it, and its id."""

    ask: CreateOrder
    order_id: int

    @property
    def replacing(self) -> CreateOrder:
        """Return the same call, which now replaces the order."""
        return self.ask.model_copy(update={"replaces_order_id": self.order_id})

    @property
    def fallbacks(self) -> list[int]:
        return self.ask.server_ids[1:]


async def waited(services: Services, order_id: int, caller: str = "tester") -> Waited:
    """Return what wait_for_order answers at once."""

    async def silent(seconds: float, message: str) -> None:
        pass

    let_time_pass(services)
    return await services.readiness.wait(order_id, 0.1, silent, caller)


async def rented(
    world: World,
    services: Services,
    *,
    ssh: str = "ssh_refused",
    minutes: float = 7,
    fallbacks: int = 2,
    at: int = 0,
    **more: Any,
) -> Dead:
    """Return an order with fallbacks, `minutes` old. `at` is its place among the free servers."""
    if ssh:
        world.fault(ssh)
    rich(world)
    first, *others = world.free()[at : at + 1 + fallbacks]
    ask = wish(first, fallback_server_ids=others or None, **more)
    made = await call(services, ask)
    assert made.status == "created", made
    world.advance(minutes * 60)
    let_time_pass(services)
    return Dead(ask, made.order_id)


async def dead(world: World, services: Services, **more: Any) -> Dead:
    """Return the same after wait_for_order has found that it can't be reached."""
    found = await rented(world, services, **more)
    told = await waited(services, found.order_id)
    assert told.ready is False, told
    return found


def running(world: World) -> list[int]:
    """Return the servers on which this account has running orders."""
    return [order["server_id"] for order in world.active()]


def forget(world: World) -> None:
    """Delete what earlier waits for orders have found."""
    world.change("DELETE FROM meta WHERE name LIKE 'reached %'")

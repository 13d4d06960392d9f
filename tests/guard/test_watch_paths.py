"""Five hundred random paths of prices: what a watch bought it was allowed to buy, and what it could buy it bought."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

import pytest

from clore_mcp.wiring import Services
from tests.guard.calls import SHORT
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.guard.watching import COUNTRIES, FEE, per_day, stock_many, watch, watched
from tests.world import USD, Json, World

pytestmark = pytest.mark.anyio

WORLDS: Final = 8
PATHS: Final = 25  # in each, every one in a country of its own
POLLS: Final = 7
HOURS: Final = 12.0
CEILINGS: Final = (0.10, 0.15, 0.20, 0.30)
CAPS: Final[tuple[dict[str, str], ...]] = (
    {},
    {"CLORE_MAX_ACTIVE_ORDERS": "6"},
    {"CLORE_MAX_USD_PER_HOUR": "0.9"},
    {"CLORE_MAX_USD_PER_DAY": "12"},
)
NO_CAPS: Final = {
    "CLORE_MAX_USD_PER_HOUR": "1000",
    "CLORE_MAX_USD_PER_DAY": "10000",
    "CLORE_MAX_ACTIVE_ORDERS": "200",
}


@dataclass
class Path:
    """One watch, and the prices of its two servers over time; None while a server is rented by somebody else."""

    country: str
    ceiling: float
    max_orders: int
    servers: tuple[int, int]
    prices: list[tuple[float | None, float | None]] = field(default_factory=list)

    def cheap(self, poll: int) -> int:
        """How many servers could be bought then."""
        return sum(price is not None and price <= self.ceiling for price in self.prices[poll])


def drawn(rng: random.Random, number: int) -> Path:
    """Prices that wander around the ceiling, some jumping; hosts that come and go."""
    ceiling = rng.choice(CEILINGS)
    made = Path(COUNTRIES[number], ceiling, rng.choice((1, 1, 2)), (900_000 + 2 * number, 900_001 + 2 * number))
    now = [ceiling * rng.uniform(0.9, 1.8) for _ in made.servers]
    for _ in range(POLLS):
        now = [max(0.02, price * rng.choice((0.5, 0.85, 0.95, 1.0, 1.0, 1.05, 1.2, 2.0))) for price in now]
        # exactly at the ceiling is a price that may be paid
        now = [ceiling if rng.random() < 0.1 else price for price in now]
        made.prices.append((now[0], None if rng.random() < 0.2 else now[1]))
    return made


def lay_out(world: World, path: Path, poll: int) -> None:
    """Its servers as they are at that poll."""
    for server_id, price in zip(path.servers, path.prices[poll], strict=True):
        change: Json = {"rented": price is None}
        if price is not None:
            change["price"] = {"on_demand": {USD: per_day(price)}}
        world.post(f"/servers/{server_id}", change)


async def one_round(services: Services) -> None:
    services.marketplace.forget()
    services.market._held = None
    await services.keeper.poll()
    await services.keeper.finish()


def room(caps: dict[str, str], orders: list[Json], path: Path) -> bool:
    """Whether the caps leave room for one more order of this watch at its ceiling."""
    worst = Decimal(str(path.ceiling)) * (Decimal(str(HOURS)) + Decimal(2) / 60) + Decimal("0.1")
    running = [one for one in orders if one["ended_at"] is None]
    hourly = sum(Decimal(str(one["price"])) / 24 * Decimal(str(FEE)) for one in running)
    whole = len(orders) * (Decimal("0.3") * (Decimal(str(HOURS)) + 1) + Decimal("0.1"))  # no order is worth more
    return (
        len(running) < int(caps["CLORE_MAX_ACTIVE_ORDERS"])
        and hourly * Decimal("1.01") + Decimal(str(path.ceiling)) <= Decimal(caps["CLORE_MAX_USD_PER_HOUR"])
        and whole + worst <= Decimal(caps["CLORE_MAX_USD_PER_DAY"])
    )


@pytest.mark.parametrize("seed", range(WORLDS))
async def test_every_purchase_was_allowed_and_every_chance_was_taken(
    world: World, process: Processes, seed: int
) -> None:
    rng = random.Random(seed)
    caps = {**NO_CAPS, **rng.choice(CAPS)}
    world.options(order_limit=200)
    world.post("/wallets", {"balances": {USD: 10_000.0}})
    services = await process(SHORT, {**caps, "CLORE_WATCHDOG": "off"})  # its rounds are ours to begin
    await one_round(services)
    paths = [drawn(rng, number) for number in range(PATHS)]
    stock_many(world, [(server, path.country) for path in paths for server in path.servers])
    for path in paths:
        await watched(
            services,
            watch(path.ceiling, countries=[path.country], max_orders=path.max_orders, hours=HOURS, env=None),
        )
    chances: dict[str, int] = {path.country: 0 for path in paths}
    missed: set[str] = set()
    for poll in range(POLLS):
        for path in paths:
            await asyncio.to_thread(lay_out, world, path, poll)
        await one_round(services)
        orders = await asyncio.to_thread(world.orders)
        for path in paths:
            bought = [one for one in orders if one["server_id"] in path.servers]
            free = [s for s in path.servers if s not in {one["server_id"] for one in bought}]
            cheap = sum(
                price is not None and price <= path.ceiling
                for server, price in zip(path.servers, path.prices[poll], strict=True)
                if server in free
            )
            could = len(bought) < path.max_orders and cheap > 0 and room(caps, orders, path)
            chances[path.country] = chances[path.country] + 1 if could else 0
            if chances[path.country] >= 2:
                missed.add(path.country)
    assert not missed, f"two polls long they could have bought: {missed}"
    _allowed(world, caps, paths)
    check_invariants(world)


def _allowed(world: World, caps: dict[str, str], paths: list[Path]) -> None:
    orders = world.orders()
    by_server = {server: path for path in paths for server in path.servers}
    for order in orders:
        path = by_server[order["server_id"]]
        assert float(order["price"]) / 24 * FEE <= path.ceiling * (1 + 1e-9), (order, path)
    for path in paths:
        assert sum(by_server[order["server_id"]] is path for order in orders) <= path.max_orders
    hourly = sum(float(order["price"]) / 24 * FEE for order in orders)
    assert len(orders) <= int(caps["CLORE_MAX_ACTIVE_ORDERS"])
    assert hourly <= float(caps["CLORE_MAX_USD_PER_HOUR"])
    assert sum(row["worst_micros"] for row in world.reserved()) <= float(caps["CLORE_MAX_USD_PER_DAY"]) * 10**6
    assert orders or not any(path.cheap(poll) for path in paths for poll in range(POLLS))

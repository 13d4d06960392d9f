"""Extended leases: the request, and an order's end and cost by the rows and the marketplace."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from clore_mcp.rental.orders.order_view import OrderList
from clore_mcp.rental.requests import ExtendOrder
from clore_mcp.wiring import Services
from tests.guard.calls import rent
from tests.world import World

FEE: Final = 1.05


def longer(order_id: int, hours: float = 1.0) -> ExtendOrder:
    return ExtendOrder(order_id=order_id, hours=hours)


def at(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp())


def end_of(world: World, order_id: int) -> int | None:
    """Return the end by the rows, for an order made here or elsewhere."""
    rows = world.rows("SELECT ends_api_at FROM orders WHERE order_id = ?", order_id) or world.rows(
        "SELECT ends_api_at FROM reservations WHERE order_id = ? AND released_at IS NULL", order_id
    )
    return rows[0]["ends_api_at"] if rows else None


def worst(world: World, order_id: int) -> float:
    [row] = [row for row in world.reserved() if row["order_id"] == order_id]
    return float(row["worst_micros"]) / 10**6


def hourly(world: World, order_id: int) -> float:
    [row] = [row for row in world.orders() if row["id"] == order_id]
    return float(row["price"]) / 24 * FEE


def unmoved(world: World, order_id: int) -> tuple[int | None, list[dict[str, Any]]]:
    return end_of(world, order_id), world.reserved()


async def ours(world: World, services: Services, **more: Any) -> int:
    return int((await rent(services, world.free()[0], **more)).order_id)


async def look(services: Services) -> OrderList:
    services.context.readings.changed()
    return await services.overview.orders(max_age_seconds=0)


def iso_of(unix_seconds: int) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

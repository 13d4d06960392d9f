"""Spot orders for the tests of bids: made here or elsewhere, raised, and listed differently by Clore."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from clore_mcp.clore import OrderRow
from clore_mcp.rental.requests import SetSpotPrice
from clore_mcp.rental.results import Outcome
from clore_mcp.wiring import Services
from tests.guard.calls import rent
from tests.world import USD, World

WIDE: Final = {
    "CLORE_MAX_USD_PER_ORDER": "99999",
    "CLORE_MAX_USD_PER_DAY": "99999",
    "CLORE_MAX_USD_PER_HOUR": "999",
}


async def spot(world: World, services: Services, **more: Any) -> tuple[int, float]:
    """Return a running spot order, and its bid in USD/hour."""
    server_id = world.free()[0]
    bid = round(world.price(server_id, "spot") * 2 / 24, 4)
    made = await rent(services, server_id, order_type="spot", bid_usd_per_hour=bid, **more)
    return made.order_id, bid


def spot_elsewhere(world: World, server_id: int, **more: Any) -> tuple[int, float]:
    """Return a spot order that another program made a moment ago, and its bid in USD/hour."""
    price = world.price(server_id, "spot") * 2
    order_id = world.rent_elsewhere(server_id, type="spot", spotprice=price, **more)
    world.advance(5)
    return order_id, price / 24 * 1.025


def rich(world: World) -> None:
    """Fill the wallet, so that it limits nothing."""
    world.post("/wallets", {"balances": {USD: 99_999}})


def raised(order_id: int, bid: float, factor: float = 1.5) -> SetSpotPrice:
    return SetSpotPrice(order_id=order_id, bid_usd_per_hour=round(bid * factor, 4))


def limits_of(outcome: Outcome) -> list[str]:
    return [one.limit for one in outcome.refusals]


def rewrite(services: Services, monkeypatch: pytest.MonkeyPatch, change: Callable[[OrderRow], OrderRow | None]) -> None:
    """Change Clore's lists of orders. `change` returns None for a row that can't be read."""
    read = services.context.client.my_orders

    async def my_orders(**how: Any) -> Any:
        reply = await read(**how)
        rows = [row for row in map(change, reply.rows) if row is not None]
        return replace(reply, rows=rows, dropped=reply.dropped + len(reply.rows) - len(rows))

    monkeypatch.setattr(services.context.client, "my_orders", my_orders)
    services.context.readings.changed()

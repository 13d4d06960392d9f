"""Watches in tests: servers in a country where the sandbox has none, and requests for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from clore_mcp.rental.requests import CreateWatch
from clore_mcp.wiring import Services
from tests.guard.calls import ENV_VALUE, call
from tests.world import IMAGE, USD, Json, World

GPU: Final = "NVIDIA GeForce RTX 4090"
COUNTRY: Final = "IS"
COUNTRIES: Final = (
    "AD", "AL", "AM", "AZ", "BA", "BY", "CY", "FO", "GE", "GI", "GL", "HR", "IM", "IS", "JE", "LI", "LU", "MC", "MD",
    "ME", "MK", "MT", "SI", "SM", "XK",
)  # fmt: skip
"""Countries without a server of the sandbox."""
FEE: Final = 1.05  # the sandbox's on-demand fee, as a factor


def per_day(usd_per_hour: float) -> float:
    """Return the native price per day that costs that many USD/hour including the fee, rounded down."""
    return math.floor(usd_per_hour * 24 / FEE * 1e6) / 1e6


def stock(
    world: World,
    server_id: int,
    usd_per_hour: float,
    *,
    gpu: str = GPU,
    country: str = COUNTRY,
    cuda: str | None = None,
) -> int:
    """Add a server at that price including the fee. Returns its id."""
    row = world.get(f"/servers/{world.free()[0]}")["row"]
    return _stock(world, row if cuda is None else {**row, "cuda_version": cuda}, server_id, usd_per_hour, gpu, country)


def stock_many(world: World, servers: Sequence[tuple[int, str]]) -> None:
    """Add servers by id and country, each at 5 USD/hour."""
    row = world.get(f"/servers/{world.free()[0]}")["row"]
    for server_id, country in servers:
        _stock(world, row, server_id, 5.0, GPU, country)


def _stock(world: World, row: Json, server_id: int, usd_per_hour: float, gpu: str, country: str) -> int:
    copy: Json = {**row, "id": server_id, "rating": {"avg": 5, "cnt": 10}, "reliability": 0.99, "mrl": 720}
    copy["allowed_coins"] = [USD]
    copy["price"] = {**row["price"], "on_demand": {USD: per_day(usd_per_hour)}}
    copy["specs"] = {**row["specs"], "gpu": f"1x {gpu}", "gpuram": 24, "net": {**row["specs"]["net"], "cc": country}}
    copy["gpu_array"] = [gpu]
    world.post("/servers", copy)
    return server_id


def reprice(world: World, server_id: int, usd_per_hour: float) -> None:
    """Give one of our servers another price."""
    world.post(f"/servers/{server_id}", {"price": {"on_demand": {USD: per_day(usd_per_hour)}}})


def watch(usd_per_hour: float = 0.20, **more: Any) -> CreateWatch:
    """Return a request for a 4090 in our country."""
    return CreateWatch(
        **{
            "gpu": "4090",
            "countries": [COUNTRY],
            "max_usd_per_hour": usd_per_hour,
            "hours": 2.0,
            "image": IMAGE,
            "env": {"HF_TOKEN": ENV_VALUE},
            "expires_hours": 24.0,
            **more,
        }
    )


def ask_for_coin(world: World, server_id: int, usd_per_hour: float, coin: str = "CLORE-Blockchain") -> None:
    """Make that server accept only `coin`, by default CLORE, at a price of that many USD/hour including the fee."""
    native = math.floor(per_day(usd_per_hour) / world.get("/options")["clore_usd"] * 1e6) / 1e6
    world.post(f"/servers/{server_id}", {"allowed_coins": [coin], "price": {"on_demand": {coin: native}}})


async def watched(services: Services, ask: CreateWatch) -> str:
    """Return the id of a new watch that a person approved."""
    outcome = await call(services, ask)
    assert outcome.status == "waiting", outcome
    return str(outcome.watch_id)

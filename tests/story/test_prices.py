"""Prices before now, as a model and the resource are told them by real servers that share one state."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from mcp import Client
from mcp.types import TextResourceContents

from clore_mcp.sandbox import Running
from clore_mcp.server import create_server
from clore_mcp.store.prices import PriceRow, add, open_prices
from tests.conftest import environment, settings_for


@asynccontextmanager
async def server(market: Running, folder: Path) -> AsyncIterator[Client]:
    async with Client(create_server(settings_for(environment(market, folder), folder))) as client:
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    told: dict[str, Any] = json.loads(result.content[0].text)  # type: ignore[union-attr]
    assert bool(result.is_error) is ("error" in told), told
    return told


@pytest.mark.anyio
async def test_what_a_search_saw_is_the_history_of_the_next_server(market: Running, tmp_path: Path) -> None:
    async with server(market, tmp_path) as client:
        nothing = await call(client, "price_history", gpu="3060")
        assert nothing["hours_recorded"] == 0 and nothing["models"][0]["now"], nothing
        assert nothing["next"].startswith("Prices are recorded from now on")
        found = await call(client, "search_servers", gpu="RTX 3060")
    asked = len(requests(market))
    async with server(market, tmp_path) as client:
        told = await call(client, "price_history", gpu="RTX 3060", max_usd_per_gpu_hour=9)
        resource = (await client.read_resource("clore://market/gpus")).contents[0]
        # one minute of market data serves both servers, and the record asks for nothing
        assert "marketplace" not in [row["endpoint"] for row in requests(market)[asked:]]
    (model,) = told["models"]
    assert model["gpu"] == "RTX 3060" and told["hours_recorded"] == 1
    assert told["next"] == "Of the last 168 hours 167 were not recorded and are left out."
    usual, now = model["usual"], model["now"]
    assert (usual["low"], usual["median"], usual["high"]) == (now["low"], now["median"], now["high"])
    assert {**now, "cheapest_free": 0} == {**found["typical_usd_per_gpu_hour"], "cheapest_free": 0}
    assert model["ceiling_met_percent"] == 100 and model["dearer_than_now_percent"] == 0
    (bucket,) = model["buckets"]
    assert bucket["cheapest_free"] == now["cheapest_free"] == model["cheapest_free"]["lowest"]
    assert isinstance(resource, TextResourceContents)
    listed = json.loads(resource.text)
    (week,) = [one["last_week_usd_per_gpu_hour"] for one in listed["models"] if one["model"] == "RTX 3060"]
    assert week == {name: model[name] for name in ("usual", "cheapest_free", "dearer_than_now_percent")}
    assert listed["hours_recorded"] == 1


@pytest.mark.anyio
async def test_a_gpu_that_is_none_is_named_with_its_neighbours(market: Running, tmp_path: Path) -> None:
    async with server(market, tmp_path) as client:
        told = await call(client, "price_history", gpu="RTX 3065")
        assert told["error"] == "not_found" and "RTX 306" in told["message"]
        several = await call(client, "price_history", gpu="RTX 3060 or RTX 3090 or RTX 4090 or A100 or RTX 3080")
        assert len(several["models"]) == 4 and "name one" in several["next"]


@pytest.mark.anyio
async def test_a_search_says_what_is_usual_once_a_day_is_recorded(market: Running, tmp_path: Path) -> None:
    url = settings_for(environment(market, tmp_path), tmp_path).api_url
    name, hour = hashlib.sha256(url.encode()).hexdigest()[:16], int(time.time() // 3600)
    (tmp_path / "state").mkdir()
    database = open_prices(tmp_path / "state")
    for past in range(1, 26):
        row = PriceRow(hour - past, Decimal(1), Decimal(2), Decimal(3), None)
        sample = [("RTX 3060", "on-demand", row)]
        database.write_now(lambda tx, at=row.hour * 3600.0, sample=sample: add(tx, name, at, sample))  # type: ignore[misc]
    database.close()
    async with server(market, tmp_path) as client:
        typical = (await call(client, "search_servers", gpu="RTX 3060"))["typical_usd_per_gpu_hour"]
        assert typical["median_7_days"] == 2 and "median_30_days" not in typical
        assert (await call(client, "price_history", gpu="RTX 3060"))["models"][0]["usual"]["high"] == 3
        for name in ("prices.sqlite3", "prices.sqlite3-wal"):  # the log too, which may hold all of its pages
            (tmp_path / "state" / name).write_bytes(b"no database")
        typical = (await call(client, "search_servers", gpu="RTX 3060"))["typical_usd_per_gpu_hour"]
        assert typical["median"] and "median_7_days" not in typical


def requests(market: Running) -> list[dict[str, Any]]:
    with httpx.Client(trust_env=False, verify=False) as http:
        told: list[dict[str, Any]] = http.get(f"{market.control_url}/requests").json()["requests"]
    return told

"""Real payloads, read through the client field by field: what a payload says is what the model holds."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from clore_mcp.clore import OrderRow, ServerRow, Wallet
from tests.clore.conftest import CAPTURES, always

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not CAPTURES.is_dir(), reason="the captured payloads are not beside the repository"),
]

SERVER_FIELDS = {
    "id": "id",
    "max_rental_hours": "mrl",
    "rented": "rented",
    "on_demand": "price.on_demand",
    "spot": "price.spot",
    "usd_on_demand_btc": "price.usd.on_demand_btc",
    "usd_on_demand_clore": "price.usd.on_demand_clore",
    "allowed_coins": "allowed_coins",
    "reliability": "reliability",
    "rating": "rating.avg",
    "rating_count": "rating.cnt",
    "cuda": "cuda_version",
    "gpu_array": "gpu_array",
    "partial_gpus_total": "partial_gpu_rental.total_gpus",
    "partial_gpus_free": "partial_gpu_rental.available_gpus",
    "gpu": "specs.gpu",
    "vram_gb": "specs.gpuram",
    "board": "specs.mb",
    "cpu": "specs.cpu",
    "cpu_cores_threads": "specs.cpus",
    "ram_gb": "specs.ram",
    "disk": "specs.disk",
    "disk_mb_per_second": "specs.disk_speed",
    "country": "specs.net.cc",
    "download_mbps": "specs.net.down",
    "upload_mbps": "specs.net.up",
    "pcie_revision": "specs.pcie_rev",
    "pcie_width": "specs.pcie_width",
}
ORDER_FIELDS = {
    "id": "id",
    "server_id": "si",
    "image": "image",
    "currency": "currency",
    "price": "price",
    "spend": "spend",
    "creation_fee": "creation_fee",
    "created_at": "ct",
    "ended_at": "order_end",
    "max_rental_seconds": "mrl",
    "spot": "spot",
    "expired": "expired",
    "online": "online",
    "container": "mon_container",
    "hosts": "pub_cluster",
    "tcp_ports": "tcp_ports",
    "http_host": "http_pub",
    "gpu_array": "gpu_array",
    "gpu": "specs.gpu",
    "country": "specs.net.cc",
}
WALLET_FIELDS = {"name": "name", "deposit": "deposit", "balance": "balance"}


def capture(name: str) -> Any:
    """The payload, its numbers as written."""
    return json.loads((CAPTURES / name).read_text(encoding="utf-8"), parse_float=Decimal)


def said(payload: dict[str, Any], path: str) -> Any:
    value: Any = payload
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def as_told(value: Any) -> Any:
    """The model's value as the payload writes it: prices are exact, measurements are floats."""
    return Decimal(repr(value)) if isinstance(value, float) else value


def differences(row: BaseModel, payload: dict[str, Any], paths: dict[str, str]) -> list[str]:
    assert set(paths) == set(type(row).model_fields)
    pairs = [(path, as_told(getattr(row, name)), said(payload, path)) for name, path in paths.items()]
    return [f"{path}: {held!r} is not {told!r}" for path, held, told in pairs if held != told]


def encoded(payload: Any) -> bytes:
    return json.dumps(payload, default=float).encode()


async def test_the_whole_market_of_2024_is_held_as_it_was_listed() -> None:
    body = (CAPTURES / "marketplace_2024_sample.json").read_bytes()
    servers = capture("marketplace_2024_sample.json")["servers"]
    async with always(200, content=body) as client:
        market = await client.marketplace()
    assert market.dropped == 0
    assert len(market.rows) == len(servers) > 300
    assert [
        gone for row, told in zip(market.rows, servers, strict=True) for gone in differences(row, told, SERVER_FIELDS)
    ] == []


async def test_the_documented_market_and_wallets_are_read() -> None:
    documented = capture("documented_examples.json")
    async with always(200, content=encoded(documented["marketplace"])) as client:
        (server,) = (await client.marketplace()).rows
    assert differences(server, documented["marketplace"]["servers"][0], SERVER_FIELDS) == []
    async with always(200, content=encoded(documented["wallets"])) as client:
        (wallet,) = (await client.wallets()).rows
    assert isinstance(wallet, Wallet)
    assert differences(wallet, documented["wallets"]["wallets"][0], WALLET_FIELDS) == []


@pytest.mark.parametrize("name", ["my_orders_active.json", "my_orders_completed_partial.json"])
async def test_real_orders_are_held_as_they_were_listed(name: str) -> None:
    payload = {"code": 0, **capture(name)}
    async with always(200, content=encoded(payload)) as client:
        got = await client.my_orders(completed="completed" in name)
    assert got.dropped == 0
    assert len(got.rows) == len(payload["orders"])
    for row, told in zip(got.rows, payload["orders"], strict=True):
        assert isinstance(row, OrderRow)
        assert differences(row, told, ORDER_FIELDS) == []


async def test_the_price_blocks_of_2026_are_held_to_the_last_digit() -> None:
    blocks = capture("price_blocks_2026.json")["blocks"]
    servers = [{"id": one["id"], "price": {"on_demand": one["on_demand"], "usd": one["usd"]}} for one in blocks]
    async with always(200, content=encoded({"servers": servers, "code": 0})) as client:
        rows = (await client.marketplace()).rows
    for row, told in zip(rows, servers, strict=True):
        assert isinstance(row, ServerRow)
        assert differences(row, told, SERVER_FIELDS) == []

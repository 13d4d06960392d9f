"""Made-up marketplace rows of the real shape, and snapshots of them."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from clore_mcp.clore.models import Rows, ServerRow, read_rows
from clore_mcp.market.snapshot import Snapshot, build_snapshot, with_rates
from clore_mcp.money import Coin

BTC, CLORE, USD = (coin.value for coin in Coin)
RATES = {Coin.BTC: Decimal(60_000), Coin.CLORE: Decimal("0.002")}


def wire(server_id: int = 1, **changes: Any) -> dict[str, Any]:
    """One row as JSON holds it; `changes` replace top-level fields, `specs` and `net` are merged."""
    net = {"cc": "DE", "down": 900.0, "up": 450.5, **changes.pop("net", {})}
    specs = {
        "mb": "B550 BOARD",
        "cpu": "Made-up CPU 16-Core @ 2.10GHz",
        "cpus": "16/32",
        "ram": 63.9,
        "disk": "MADEx20UPx20DISKx201x 812.5GB",
        "disk_speed": 512.5,
        "gpu": "2x NVIDIA GeForce RTX 4090",
        "gpuram": 23.99,
        "pcie_rev": 4,
        "pcie_width": 16,
        **changes.pop("specs", {}),
        "net": net,
    }
    return {
        "id": server_id,
        "owner": 7,
        "mrl": 168,
        "rented": False,
        "price": {"on_demand": {USD: 12.0}, "spot": {USD: 6.0}},
        "allowed_coins": [USD],
        "reliability": 0.99,
        "rating": {"avg": 4.5, "cnt": 12},
        "cuda_version": "12.4",
        "specs": specs,
        **changes,
    }


def rows(values: Iterable[object]) -> Rows[ServerRow]:
    return read_rows(ServerRow, values)


def row(server_id: int = 1, **changes: Any) -> ServerRow:
    (only,) = rows([wire(server_id, **changes)]).rows
    return only


def price(usd_per_day: float, spot_usd_per_day: float | None = None) -> dict[str, Any]:
    spot = {} if spot_usd_per_day is None else {USD: spot_usd_per_day}
    return {"on_demand": {USD: usd_per_day}, "spot": spot}


def snapshot(*values: object, fetched_at: float = 1000.0) -> Snapshot:
    got = rows(values)
    return with_rates(build_snapshot(got.rows, fetched_at=fetched_at), RATES)

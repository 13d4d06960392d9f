"""Which servers fit a watch now, cheapest first."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.market.query import MAX_LIMIT, Query
from clore_mcp.market.search import Found, find
from clore_mcp.rental.asks import CreateWatch
from clore_mcp.rental.desk import Desk

_HINT: Final = "Give a model that search_servers finds; a watch is for models that are on the market."


@dataclass(frozen=True, slots=True)
class Fitting:
    """The models that the GPU's name stands for, and the free servers with one of them that pass the filters."""

    models: tuple[str, ...]
    servers: tuple[Found, ...]


async def fitting(
    desk: Desk, ask: CreateWatch, *, max_age_seconds: float, models: Collection[str] | None = None
) -> Fitting:
    """What fits, by a snapshot no older than that; only of `models` where a person has read which ones. Raises
    ArgumentInvalid for a GPU or a place that nobody knows."""
    readings = desk.readings
    snapshot = await readings.fresh_snapshot(max_age_seconds)
    fees, balances = await readings.fees(), await readings.balances_if_known()
    query = Query(
        gpu=ask.gpu,
        min_gpus=ask.min_gpus,
        max_gpus=ask.max_gpus,
        min_vram_gb=ask.min_vram_gb,
        countries=tuple(ask.countries or ()),
        min_reliability=ask.min_reliability,
        min_rental_hours=ask.hours,
        preferred=desk.preferred,
        limit=MAX_LIMIT,
    )
    result = await find(snapshot, query, fees, balances, desk.clock())
    if result.unknown_gpu is not None and models is None:
        raise ArgumentInvalid(f"gpu: {' '.join(result.suggestions)} Nothing was asked or spent.", hint=_HINT)
    servers = (one for one in result.matches if models is None or one.listing.gpu in models)
    return Fitting(result.gpu_models, tuple(servers))

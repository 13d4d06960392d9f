"""Which servers fit a watch now, cheapest first."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.market.query import MAX_LIMIT, Query
from clore_mcp.market.search import Found, find
from clore_mcp.money import Coin
from clore_mcp.rental.context import Context
from clore_mcp.rental.create.images import least_cuda
from clore_mcp.rental.requests import CreateWatch
from clore_mcp.text import clean

_MOST_MODELS: Final = 8  # each is named in the question
_HINT: Final = "Name a GPU, such as RTX 4090 or H100 SXM. It need not be listed now."
# Filters that are called alike in a search and in a watch.
_SAME: Final = (
    "min_gpus", "max_gpus", "min_vram_gb", "min_ram_gb", "min_disk_gb", "min_cpu_threads", "min_download_mbps",
    "min_upload_mbps", "min_reliability", "min_rating",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fitting:
    """The models that the GPU's name stands for, listed now or not, how many of them (least and most), and the free
    servers with one of them that pass the filters."""

    models: tuple[str, ...]
    gpu_counts: tuple[int | None, int | None]
    servers: tuple[Found, ...]


async def fitting(
    context: Context, request: CreateWatch, *, max_age_seconds: float, models: Collection[str] | None = None
) -> Fitting:
    """What fits, by a snapshot no older than that; only of `models` where a person has read which ones. Raises
    ArgumentInvalid for a GPU or a place that nobody knows, and for a name that stands for more GPUs than a question
    can list."""
    readings = context.readings
    snapshot = await readings.fresh_snapshot(max_age_seconds)
    fees, balances = await readings.fees(), await readings.balances_if_known()
    query = Query(
        gpu=request.gpu,
        **{name: getattr(request, name) for name in _SAME},
        countries=tuple(request.countries or ()),
        exclude_countries=tuple(request.exclude_countries or ()),
        min_cuda=least_cuda(request.image, request.min_cuda),
        min_rental_hours=request.hours,
        currency=Coin(request.currency) if request.currency else None,
        preferred=context.settings.currency,
        limit=MAX_LIMIT,
    )
    result = await find(snapshot, query, fees, balances, context.clock())
    if models is None:
        if not result.gpu_models:
            said = f"gpu: {clean(request.gpu, 60)!r} names no GPU model."
            if result.unknown_gpu is not None:
                said = " ".join(result.suggestions)
            raise ArgumentInvalid(f"{said} Nothing was asked or spent.", hint=_HINT)
        if len(result.gpu_models) > _MOST_MODELS:
            raise ArgumentInvalid(
                f"gpu: {clean(request.gpu, 60)!r} stands for {len(result.gpu_models)} models; a watch is for"
                f" {_MOST_MODELS} at most. Nothing was asked or spent.",
                hint="Name the models that the person means, such as '4090 or 3090'.",
            )
    servers = (one for one in result.matches if models is None or one.listing.gpu in models)
    return Fitting(result.gpu_models, result.gpu_counts, tuple(servers))

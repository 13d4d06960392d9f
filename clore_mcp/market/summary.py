"""Summaries of the market: quartiles of a set of prices, and every GPU model with its counts and prices."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import quantiles

from clore_mcp.market.pricing import Fees, OrderType, Priced, PricedServer, per_gpu
from clore_mcp.market.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Quartiles:
    """The quartiles of a set of prices in USD per GPU and hour, including the fee, and the number of servers.

    Rented servers count too, because what people pay is a price. Partially rented ones never count.
    """

    low: Decimal
    median: Decimal
    high: Decimal
    servers: int


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """One GPU model on the market: servers and GPUs, free and total, and the price of one GPU per hour."""

    model: str
    servers: int
    servers_free: int
    gpus: int
    gpus_free: int
    vram_gb: tuple[int, ...]
    usd_per_gpu_hour: Quartiles | None
    cheapest_free_usd_per_gpu_hour: Decimal | None


def gpu_models_summary(snapshot: Snapshot, fees: Fees) -> tuple[ModelSummary, ...]:
    """Return every model on the market with its on-demand prices, those with the most free GPUs first."""
    models = by_model(snapshot.priced(OrderType.ON_DEMAND, fees))
    summaries = [_summary(model, servers) for model, servers in models.items()]
    return tuple(sorted(summaries, key=lambda found: (-found.gpus_free, -found.gpus, found.model)))


def usual_prices(snapshot: Snapshot, fees: Fees, models: Collection[str]) -> dict[str, Quartiles]:
    """Return the usual on-demand price per hour of one GPU of each of these models."""
    wanted = (one for one in snapshot.priced(OrderType.ON_DEMAND, fees) if one[0].gpu in models)
    found = {model: typical(servers) for model, servers in by_model(wanted).items()}
    return {model: usual for model, usual in found.items() if usual is not None}


def by_model(servers: Iterable[PricedServer]) -> dict[str, list[PricedServer]]:
    """Return the servers by their GPU model."""
    found: dict[str, list[PricedServer]] = {}
    for one in servers:
        found.setdefault(one[0].gpu, []).append(one)
    return found


def quartiles(values: Iterable[Decimal]) -> Quartiles | None:
    """Return the quartiles of `values`, or None if there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    if len(ordered) == 1:
        return Quartiles(ordered[0], ordered[0], ordered[0], 1)
    low, middle, high = quantiles(ordered, n=4, method="inclusive")
    return Quartiles(low, middle, high, len(ordered))


def typical(servers: Iterable[PricedServer]) -> Quartiles | None:
    """Return the usual price per hour of one GPU of these servers."""
    return quartiles(
        per_gpu(listing, priced) for listing, priced in servers if isinstance(priced, Priced) and not listing.partial
    )


def free_prices(servers: Iterable[PricedServer]) -> list[Decimal]:
    """Return the price per hour of one GPU of each of these servers that is free."""
    return [
        per_gpu(listing, priced)
        for listing, priced in servers
        if isinstance(priced, Priced) and not listing.rented and not listing.partial
    ]


def _summary(model: str, servers: Sequence[PricedServer]) -> ModelSummary:
    free = [listing for listing, _ in servers if not listing.rented and not listing.partial]
    return ModelSummary(
        model=model,
        servers=len(servers),
        servers_free=len(free),
        gpus=sum(listing.gpu_count for listing, _ in servers),
        gpus_free=sum(listing.gpu_count for listing in free),
        vram_gb=tuple(sorted({listing.vram_gb for listing, _ in servers if listing.vram_gb is not None})),
        usd_per_gpu_hour=typical(servers),
        cheapest_free_usd_per_gpu_hour=min(free_prices(servers), default=None),
    )

"""What a search asks for, and the filters that it comes down to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.market import regions
from clore_mcp.market.gpus import Match
from clore_mcp.market.listing import Listing, version
from clore_mcp.market.pricing import Priced, Unpriced
from clore_mcp.market.rates import OrderType
from clore_mcp.money import Coin
from clore_mcp.text import clean

MAX_LIMIT: Final = 50


class SortBy(StrEnum):
    """What comes first: the lowest price, or the most of something."""

    PRICE = "price"
    PRICE_PER_GPU = "price_per_gpu"
    RELIABILITY = "reliability"
    VRAM = "vram"
    DOWNLOAD = "download"


@dataclass(frozen=True, slots=True)
class Query:
    """One search. A server that does not state what a filter asks about does not pass it."""

    gpu: str | None = None
    min_gpus: int | None = None
    max_gpus: int | None = None
    min_vram_gb: float | None = None
    min_ram_gb: float | None = None
    min_disk_gb: float | None = None
    min_cpu_threads: int | None = None
    min_download_mbps: float | None = None
    min_upload_mbps: float | None = None
    countries: tuple[str, ...] = ()
    exclude_countries: tuple[str, ...] = ()
    min_reliability: float | None = None
    min_rating: float | None = None
    min_cuda: str | None = None
    min_rental_hours: float | None = None
    max_usd_per_hour: Decimal | None = None
    order_type: OrderType = OrderType.ON_DEMAND
    currency: Coin | None = None  # this coin or none
    preferred: Coin | None = None  # this coin where the host takes it
    include_rented: bool = False
    sort_by: SortBy = SortBy.PRICE
    limit: int = 10
    cursor: str | None = None


Test = Callable[[Listing, Priced | Unpriced], bool]
UNPRICED: Final = "unpriced"  # no price that can be paid: not an argument, but a reason to be left out
RENTED: Final = "rented"
GPU_VRAM: Final = "gpu_vram"  # the memory named together with the GPU ("3080 12GB")

# argument of the query: the field of a listing that must be at least as much
AT_LEAST: Final = {
    "min_vram_gb": "vram_gb",
    "min_ram_gb": "ram_gb",
    "min_disk_gb": "disk_gb",
    "min_cpu_threads": "cpu_threads",
    "min_download_mbps": "download_mbps",
    "min_upload_mbps": "upload_mbps",
    "min_reliability": "reliability",
    "min_rating": "rating",
    "min_rental_hours": "max_rental_hours",
}


def filters_of(query: Query, match: Match | None) -> dict[str, Test]:
    """The query's filters by name, each independent of the others; ArgumentInvalid where one makes no sense."""
    if not 1 <= query.limit <= MAX_LIMIT:
        raise ArgumentInvalid(f"limit: {query.limit} is not between 1 and {MAX_LIMIT}.", hint="Give a number like 10.")
    return dict([*_hardware(query, match), *_place(query), *_offer(query)])


def _hardware(query: Query, match: Match | None) -> Iterator[tuple[str, Test]]:
    if match is not None:
        models, vram_gb = match.models, match.vram_gb
        yield "gpu", lambda server, _: server.gpu in models
        if vram_gb is not None:
            yield GPU_VRAM, lambda server, _: server.vram_gb == vram_gb
    least_gpus = match.min_count if query.min_gpus is None and match else query.min_gpus
    if least_gpus is not None:
        yield "min_gpus", lambda server, _: server.gpu_count >= least_gpus
    if (most_gpus := query.max_gpus) is not None:
        yield "max_gpus", lambda server, _: server.gpu_count <= most_gpus
    for argument, field in AT_LEAST.items():
        if (least := getattr(query, argument)) is not None:
            yield argument, _at_least(field, least)
    if query.min_cuda is not None:
        yield "min_cuda", _cuda(query.min_cuda)


def _at_least(field: str, least: float) -> Test:
    def passes(server: Listing, _: Priced | Unpriced) -> bool:
        value = getattr(server, field)
        return value is not None and value >= least

    return passes


def _cuda(text: str) -> Test:
    least = version(text)
    if least is None:
        raise ArgumentInvalid(
            f"min_cuda: '{clean(text, 20)}' is not a CUDA version.", hint="Give a version like 12.4, or leave it out."
        )
    return lambda server, _: server.cuda_version is not None and server.cuda_version >= least


def _place(query: Query) -> Iterator[tuple[str, Test]]:
    if query.countries:
        wanted = regions.codes(query.countries, "countries")
        yield "countries", lambda server, _: server.country in wanted
    if query.exclude_countries:
        unwanted = regions.codes(query.exclude_countries, "exclude_countries")
        yield "exclude_countries", lambda server, _: server.country is not None and server.country not in unwanted


def _offer(query: Query) -> Iterator[tuple[str, Test]]:
    if not query.include_rented:
        yield RENTED, lambda server, _: not server.rented and not server.partial
    if query.currency is not None:
        yield "currency", lambda _, priced: priced is not Unpriced.NOT_ACCEPTED
    yield UNPRICED, lambda _, priced: isinstance(priced, Priced) or priced is Unpriced.NOT_ACCEPTED
    if (most_usd := query.max_usd_per_hour) is not None:
        yield "max_usd_per_hour", lambda _, priced: not isinstance(priced, Priced) or priced.usd_per_hour <= most_usd

"""The arguments of a search, and the filters that follow from them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.market import regions
from clore_mcp.market.listing import Listing, version
from clore_mcp.market.pricing import OrderType, Priced, Unpriced
from clore_mcp.market.wish import Match
from clore_mcp.money import Coin
from clore_mcp.text import clean

MAX_LIMIT: Final = 50


class SortBy(StrEnum):
    """The sort order: the lowest price first, or the most of something first."""

    PRICE = "price"
    PRICE_PER_GPU = "price_per_gpu"
    RELIABILITY = "reliability"
    VRAM = "vram"
    DOWNLOAD = "download"


@dataclass(frozen=True, slots=True)
class Query:
    """One search. A server that does not state the value that a filter needs does not pass it."""

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
    currency: Coin | None = None  # only this coin
    preferred: Coin | None = None  # this coin if the host accepts it
    include_rented: bool = False
    sort_by: SortBy = SortBy.PRICE
    limit: int = 10
    cursor: str | None = None


UNPRICED: Final = "unpriced"  # no price that can be paid: not an argument, but a reason to exclude a server
RENTED: Final = "rented"
GPU_VRAM: Final = "gpu_vram"  # the memory named together with the GPU ("3080 12GB")

# argument of the query: the listing's field that must be at least as large
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


# A name and a condition for a server, independent of the other filters.
Filter = tuple[str, Callable[[Listing, Priced | Unpriced], bool]]


def filters_of(query: Query, match: Match | None) -> list[Filter]:
    """Return the query's filters. Raises ArgumentInvalid if one makes no sense."""
    return [*_hardware(query, match), *_offer(query)]


def _hardware(query: Query, match: Match | None) -> Iterator[Filter]:
    if match is not None:
        models, sizes = match.models, match.sizes
        yield "gpu", lambda listing, _: listing.gpu in models
        if sizes:
            yield GPU_VRAM, lambda listing, _: listing.gpu not in sizes or listing.vram_gb in sizes[listing.gpu]
    least_gpus, most_gpus = gpu_counts(query, match)
    if least_gpus is not None:
        yield _at_least("min_gpus", "gpu_count", least_gpus)
    if most_gpus is not None:
        yield "max_gpus", lambda listing, _: listing.gpu_count <= most_gpus
    for argument, field in AT_LEAST.items():
        if (least := getattr(query, argument)) is not None:
            yield _at_least(argument, field, least)
    if query.min_cuda is not None:
        least_cuda = version(query.min_cuda)
        if least_cuda is None:
            raise ArgumentInvalid(
                f"min_cuda: '{clean(query.min_cuda, 20)}' is not a CUDA version.",
                hint="Give a version like 12.4, or leave it out.",
            )
        yield _at_least("min_cuda", "cuda_version", least_cuda)


def _at_least(argument: str, field: str, least: object) -> Filter:
    """Return a filter that a server without the field does not pass."""
    read = operator.attrgetter(field)

    def passes(listing: Listing, _: Priced | Unpriced) -> bool:
        value = read(listing)
        return value is not None and bool(value >= least)

    return argument, passes


def gpu_counts(query: Query, match: Match | None) -> tuple[int | None, int | None]:
    """Return the least and the most GPUs. A number named with the GPU ("8 H100s") counts if the argument is not given.
    Raises ArgumentInvalid if it is given and excludes that number."""
    least, most, named = query.min_gpus, query.max_gpus, match.count if match else None
    if named is None:
        return least, most
    if not (least or named) <= named <= (most or named):
        raise ArgumentInvalid(
            f"gpu: it names {named} GPUs, which min_gpus or max_gpus rules out.",
            hint="Name the model only, and give min_gpus and max_gpus.",
        )
    return (named if least is None else least), (named if most is None else most)


def _offer(query: Query) -> Iterator[Filter]:
    if query.countries:
        wanted = regions.codes(query.countries, "countries")
        yield "countries", lambda listing, _: listing.country in wanted
    if query.exclude_countries:
        unwanted = regions.codes(query.exclude_countries, "exclude_countries") | {None}
        yield "exclude_countries", lambda listing, _: listing.country not in unwanted
    if not query.include_rented:
        yield RENTED, lambda listing, _: not (listing.rented or listing.partial)
    if query.currency is not None:
        yield "currency", lambda _, priced: priced is not Unpriced.NOT_ACCEPTED
    yield UNPRICED, lambda _, priced: isinstance(priced, Priced) or priced is Unpriced.NOT_ACCEPTED
    if (most := query.max_usd_per_hour) is not None:
        # a server without a price passes here: another filter removes it
        yield "max_usd_per_hour", lambda _, paid: not isinstance(paid, Priced) or paid.usd_per_hour <= most

"""A market at the prices of one price list, by columns: what a search needs to look at every server in a few calls.

A set of servers is a number with one byte a server, 1 for those in it, in the order of the listings: sets of thousands
are joined, told apart and counted in microseconds.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from itertools import compress
from math import nan
from typing import Any, Final

from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import Priced, Unpriced, per_gpu
from clore_mcp.market.query import Filter, SortBy

Candidate = tuple[Listing, Priced | Unpriced]
Key = tuple[Decimal, Decimal, int]

# What stands for "not stated", so that a filter needs not ask; `nan` is neither more nor less than anything.
_NOT_STATED: Final[dict[str, object]] = {"country": None, "cuda_version": ()}
_FREE_OF_PRICE: Final = Decimal("-Infinity")  # what has no price is not too dear; that it has none is another filter

_OF_OFFERS: Final[dict[str, Callable[[Listing, Priced | Unpriced], object]]] = {
    "gpu_and_vram": lambda listing, _: (listing.gpu, listing.vram_gb),
    "taken": lambda listing, _: listing.rented or listing.partial,
    "coin_refused": lambda _, priced: priced is Unpriced.NOT_ACCEPTED,
    "unpriced": lambda _, priced: not isinstance(priced, Priced) and priced is not Unpriced.NOT_ACCEPTED,
    "usd_per_hour": lambda _, priced: priced.usd_per_hour if isinstance(priced, Priced) else _FREE_OF_PRICE,
}


@dataclass(frozen=True, slots=True)
class Columns:
    """The listings and their prices, in one order; all else is worked out once, when it is first asked for."""

    listings: tuple[Listing, ...]
    prices: tuple[Priced | Unpriced, ...]
    _columns: dict[str, Sequence[Any]] = field(default_factory=dict, repr=False)
    _orders: dict[SortBy, Sequence[int]] = field(default_factory=dict, repr=False)

    def passing(self, one: Filter) -> int:
        """The servers that pass this filter."""
        return int.from_bytes(bytes(map(one.passes, self._column(one.column))), "little")

    @property
    def every(self) -> int:
        """All servers."""
        return int.from_bytes(bytes([1]) * len(self.listings), "little")

    def at(self, position: int) -> tuple[Listing, Priced]:
        """The server at a position that `ordered` gave."""
        priced = self.prices[position]
        if not isinstance(priced, Priced):
            raise TypeError("only servers with a price are put in order")
        return self.listings[position], priced

    def candidates(self, servers: int) -> Iterator[Candidate]:
        """These servers with their prices."""
        return compress(zip(self.listings, self.prices, strict=True), self._bytes(servers))

    def ordered(self, servers: int, sort_by: SortBy) -> Sequence[int]:
        """The positions of those of these servers that have a price, in the order asked for."""
        order = self._orders.get(sort_by)
        if order is None:
            priced = [at for at, price in enumerate(self.prices) if isinstance(price, Priced)]
            order = self._orders[sort_by] = array("I", sorted(priced, key=partial(self.key, sort_by)))
        among = self._bytes(servers)
        return array("I", [at for at in order if among[at]])

    def key(self, sort_by: SortBy, at: int) -> Key:
        """Ascending: what was asked for, then the price, then the id, so that no two servers are equal."""
        listing, priced = self.at(at)
        most: float | None = None
        match sort_by:
            case SortBy.PRICE:
                return priced.usd_per_hour, priced.usd_per_hour, listing.server_id
            case SortBy.PRICE_PER_GPU:
                return per_gpu(listing, priced), priced.usd_per_hour, listing.server_id
            case SortBy.RELIABILITY:
                most = listing.reliability
            case SortBy.VRAM:
                most = listing.vram_gb
            case SortBy.DOWNLOAD:
                most = listing.download_mbps
        return Decimal(1) if most is None else -Decimal(repr(most)), priced.usd_per_hour, listing.server_id

    def _column(self, name: str) -> Sequence[Any]:
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = tuple(self._read(name))
        return column

    def _read(self, name: str) -> Iterable[Any]:
        if name in _OF_OFFERS:
            return map(_OF_OFFERS[name], self.listings, self.prices)
        absent = _NOT_STATED.get(name, nan)
        values = (getattr(listing, name) for listing in self.listings)
        return (absent if value is None else value for value in values)

    def _bytes(self, servers: int) -> bytes:
        return servers.to_bytes(len(self.listings), "little")

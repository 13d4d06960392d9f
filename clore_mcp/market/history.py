"""What GPUs cost before now: a market's sample, the prices of a span of hours, and where a price stands among them.

Prices are in USD per GPU and hour, with the fee. An hour that nobody looked at is a gap: it counts for nothing,
and nothing is put in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import Priced, Unpriced, per_gpu
from clore_mcp.market.rates import Fees, OrderType
from clore_mcp.market.snapshot import Snapshot
from clore_mcp.market.summary import Quartiles, quartiles, typical
from clore_mcp.money import ZERO
from clore_mcp.store.prices import HourRow, PriceRow

SECONDS_PER_HOUR: Final = 3600
MOST_HOURS: Final = 400 * 24
_SIZES: Final = (1, 2, 3, 6, 12, 24, 48, 168, 336, 672)  # hours of one bucket


@dataclass(frozen=True, slots=True)
class Now:
    """What one GPU of a model costs now, over how many servers, and the cheapest free one."""

    all: Quartiles
    cheapest_free: Decimal | None
    free: int


@dataclass(frozen=True, slots=True)
class Past:
    """What one GPU of a model cost in the hours of `rows`, of which the market was looked at in `hours`."""

    rows: tuple[PriceRow, ...]
    hours: int
    now: Now | None

    @property
    def cheapest(self) -> Quartiles | None:
        """The quartiles of each hour's cheapest free server."""
        return quartiles(self._cheapest())

    @property
    def usual(self) -> Quartiles | None:
        """What is usual: each quartile's median over the hours."""
        found = [quartiles(getattr(row, name) for row in self.rows) for name in ("low", "median", "high")]
        low, middle, high = (one.median if one else ZERO for one in found)
        return Quartiles(low, middle, high, len(self.rows)) if self.rows else None

    @property
    def lowest(self) -> PriceRow | None:
        """The row in which the cheapest free server was the cheapest of all."""
        free = [row for row in self.rows if row.cheapest is not None]
        return min(free, key=lambda row: row.cheapest or ZERO, default=None)

    @property
    def dearer_percent(self) -> int | None:
        """In how many of a hundred rows with a free server the cheapest cost more than it does now."""
        found = self._cheapest()
        if self.now is None or self.now.cheapest_free is None or not found:
            return None
        # A stored price is rounded up to a micro-dollar; now's is not.
        return _percent(sum(one - self.now.cheapest_free > Decimal("0.000001") for one in found), len(found))

    def met_percent(self, ceiling: Decimal) -> int | None:
        """In how many of a hundred recorded rows a server was free at that price or less. Where none was free or
        listed, the ceiling was not met."""
        return _percent(sum(one <= ceiling for one in self._cheapest()), self.hours) if self.hours else None

    def _cheapest(self) -> list[Decimal]:
        return [row.cheapest for row in self.rows if row.cheapest is not None]


def samples(snapshot: Snapshot, fees: Fees) -> list[tuple[str, str, PriceRow]]:
    """One row for each model and order type on the market now: model, order type, prices."""
    hour = int(snapshot.fetched_at // SECONDS_PER_HOUR)
    found = []
    for order_type in OrderType:
        for model, now in models_now(snapshot, fees, order_type).items():
            row = PriceRow(hour, now.all.low, now.all.median, now.all.high, now.cheapest_free)
            found.append((model, order_type.value, row))
    return found


def models_now(snapshot: Snapshot, fees: Fees, order_type: OrderType) -> dict[str, Now]:
    """What one GPU of each model costs now."""
    by_model: dict[str, list[tuple[Listing, Priced | Unpriced]]] = {}
    for listing, priced in zip(snapshot.listings, snapshot.prices(order_type, fees), strict=True):
        by_model.setdefault(listing.gpu, []).append((listing, priced))
    return {model: now for model, servers in by_model.items() if (now := _now(servers)) is not None}


def _now(servers: Sequence[tuple[Listing, Priced | Unpriced]]) -> Now | None:
    usual = typical(servers)
    if usual is None:
        return None
    free = [
        per_gpu(listing, priced)
        for listing, priced in servers
        if isinstance(priced, Priced) and not listing.rented and not listing.partial
    ]
    return Now(usual, min(free, default=None), len(free))


def past(rows: Iterable[PriceRow], hours: Iterable[HourRow], now: Now | None) -> Past:
    """The past of one model; `hours` are those in which the market was looked at."""
    return Past(tuple(rows), len(list(hours)), now)


def bucket_hours(hours: int, most: int) -> int:
    """How many hours one bucket has, so that so many hours make at most that many buckets."""
    return next((size for size in _SIZES if hours <= size * most), _SIZES[-1])


def buckets(rows: Iterable[PriceRow], size: int) -> list[PriceRow]:
    """The rows, put together in buckets of `size` hours: the mean of each quartile, and the cheapest of all. An hour
    counts by its samples. Where nothing was recorded there is no bucket."""
    groups: dict[int, list[PriceRow]] = {}
    for row in rows:
        groups.setdefault(row.hour // size * size, []).append(row)
    return [_merged(start, group) for start, group in sorted(groups.items())]


def _merged(start: int, group: Sequence[PriceRow]) -> PriceRow:
    weight = sum(row.samples for row in group)
    low, middle, high = (
        sum((getattr(row, name) * row.samples for row in group), ZERO) / weight for name in ("low", "median", "high")
    )
    free = [row.cheapest for row in group if row.cheapest is not None]
    return PriceRow(start, low, middle, high, min(free, default=None), weight)


def _percent(part: int, whole: int) -> int:
    return min(100, round(100 * part / whole))

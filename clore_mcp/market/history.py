"""Past GPU prices: the record of snapshots that were fetched anyway, and the prices of a span of hours.

Prices are in USD per GPU and hour, including the fee. An hour without a snapshot is a gap. Gaps are not counted, and no
price is put in their place.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import median
from typing import Final

from clore_mcp.errors import Failure
from clore_mcp.market.pricing import Fees, OrderType
from clore_mcp.market.snapshot import Snapshot
from clore_mcp.market.summary import Quartiles, by_model, free_prices, quartiles, typical
from clore_mcp.money import ZERO
from clore_mcp.store import prices
from clore_mcp.store.database import Database, Tx
from clore_mcp.store.prices import HourRow, PriceRow

log = logging.getLogger(__name__)

SECONDS_PER_HOUR: Final = 3600
_SIZES: Final = (1, 2, 3, 6, 12, 24, 48, 168, 336, 672)  # hours of one bucket
_EVERY_SECONDS: Final = 600.0  # six samples an hour, however many processes fetch
_AFTER_SECONDS: Final = 1.0  # the call that fetched the snapshot goes first
_AHEAD_SECONDS: Final = 300.0  # a sample from further ahead dates from before the clock was set back


@dataclass(frozen=True, slots=True)
class Now:
    """The price of one GPU of a model now, the cheapest free one, and the number of free servers with a price."""

    all: Quartiles
    cheapest_free: Decimal | None
    free: int


@dataclass(frozen=True, slots=True)
class Past:
    """The price of one GPU of a model over `rows`. `hours` is the number of recorded hours (or days) of the market."""

    rows: tuple[PriceRow, ...]
    hours: int
    now: Now | None

    @property
    def cheapest(self) -> Quartiles | None:
        """The quartiles of each row's cheapest free server."""
        return quartiles(self._cheapest())

    @property
    def usual(self) -> Quartiles | None:
        """The usual price: each quartile's median over the rows."""
        if not self.rows:
            return None
        low, middle, high = (median(getattr(row, name) for row in self.rows) for name in ("low", "median", "high"))
        return Quartiles(low, middle, high, len(self.rows))

    @property
    def lowest(self) -> PriceRow | None:
        """The row with the lowest price of a free server."""
        free = [row for row in self.rows if row.cheapest is not None]
        return min(free, key=lambda row: row.cheapest or ZERO, default=None)

    @property
    def dearer_percent(self) -> int | None:
        """The percentage of rows with a free server in which the cheapest cost more than it does now."""
        found = self._cheapest()
        if self.now is None or self.now.cheapest_free is None or not found:
            return None
        # Stored prices are rounded up to a micro-dollar; the current one is not.
        return _percent(sum(one - self.now.cheapest_free > Decimal("0.000001") for one in found), len(found))

    def met_percent(self, ceiling: Decimal) -> int | None:
        """Return the percentage of recorded rows in which a server was free at that price or less. A row in which none
        was free or listed counts as not met."""
        return _percent(sum(one <= ceiling for one in self._cheapest()), self.hours) if self.hours else None

    def _cheapest(self) -> list[Decimal]:
        return [row.cheapest for row in self.rows if row.cheapest is not None]


def samples(snapshot: Snapshot, fees: Fees) -> list[tuple[str, str, PriceRow]]:
    """Return one row for each model and order type on the market now: model, order type, prices."""
    hour = int(snapshot.fetched_at // SECONDS_PER_HOUR)
    return [
        (model, order_type.value, PriceRow(hour, now.all.low, now.all.median, now.all.high, now.cheapest_free))
        for order_type in OrderType
        for model, now in models_now(snapshot, fees, order_type).items()
    ]


def models_now(snapshot: Snapshot, fees: Fees, order_type: OrderType) -> dict[str, Now]:
    """Return the price of one GPU of each model now."""
    found = {}
    for model, servers in by_model(snapshot.priced(order_type, fees)).items():
        if usual := typical(servers):
            free = free_prices(servers)
            found[model] = Now(usual, min(free, default=None), len(free))
    return found


def bucket_hours(hours: int, most: int) -> int:
    """Return the size of a bucket in hours, so that `hours` hours make at most `most` buckets."""
    return next((size for size in _SIZES if hours <= size * most), _SIZES[-1])


def buckets(rows: Iterable[PriceRow], size: int) -> list[PriceRow]:
    """Return the rows merged into buckets of `size` hours: the mean of each quartile, weighted by samples, and the
    lowest price of a free server. If nothing was recorded there is no bucket."""
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


@dataclass(frozen=True, slots=True)
class RecordedPrices:
    """The recorded prices of some models over a span of hours. `first` is the oldest hour on record, in unix
    seconds."""

    rows: dict[str, list[PriceRow]]
    looked: tuple[HourRow, ...]
    first: float | None

    @property
    def hours(self) -> int:
        """The number of hours in which the market was sampled."""
        return sum(row.hours for row in self.looked)

    def past(self, model: str, now: Now | None) -> Past:
        """Return the past of one model."""
        return Past(tuple(self.rows.get(model, ())), len(self.looked), now)


class PriceRecord:
    """The price record of one market, which all processes of the state share. The constructor opens nothing."""

    def __init__(self, database: Database, api_url: str, clock: Callable[[], float]) -> None:
        self._database = database
        self._market = hashlib.sha256(api_url.encode()).hexdigest()[:16]
        self._clock = clock
        self._noted_at = float("-inf")  # when the last snapshot noted here was fetched
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def note(self, snapshot: Snapshot, fees: Fees) -> None:
        """Record the snapshot a little later, unless a process has just recorded one. Called on the event loop.

        Nothing is recorded while Clore's fees are unknown, because prices with assumed fees would look like a rise.
        """
        if not fees.fractions or not snapshot.listings or abs(snapshot.fetched_at - self._noted_at) < _EVERY_SECONDS:
            return
        self._noted_at = snapshot.fetched_at
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._soon(snapshot, fees))

    async def read(self, hours: int, order_type: OrderType, models: Collection[str] | None = None) -> RecordedPrices:
        """Return what is recorded of the last `hours` hours. Raises StateUnavailable."""
        if not self._database.exists:
            return RecordedPrices({}, (), None)
        now_hour = int(self._clock() // SECONDS_PER_HOUR)
        since = now_hour - hours + 1

        def work(tx: Tx) -> RecordedPrices:
            first = prices.first_hour(tx, self._market)
            return RecordedPrices(
                prices.read(tx, self._market, order_type.value, since, now_hour, models),
                tuple(prices.recorded(tx, self._market, since, now_hour)),
                None if first is None else float(first * SECONDS_PER_HOUR),
            )

        return await self._database.read(work)

    async def aclose(self) -> None:
        """Finish a pending record, and close the file."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait([self._task])
        await asyncio.to_thread(self._database.close)

    async def _soon(self, snapshot: Snapshot, fees: Fees) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), _AFTER_SECONDS)
        try:
            await asyncio.to_thread(self._record, snapshot, fees)
        except Failure as failure:
            log.warning("prices are not recorded: %s", failure.message)
        except Exception as error:  # a failing price record must not end anything else
            log.warning("prices are not recorded: %s", type(error).__name__)

    def _record(self, snapshot: Snapshot, fees: Fees) -> None:
        at = snapshot.fetched_at
        if not self._database.folder.is_dir():  # prices do not recreate a deleted state
            return
        if not self._is_due(self._database.read_now(lambda tx: prices.looked_at(tx, self._market)), at):
            return
        found = samples(snapshot, fees)

        def write(tx: Tx) -> None:
            last = prices.looked_at(tx, self._market)
            if not self._is_due(last, at):
                return  # another process was first
            prices.add(tx, self._market, at, found)
            if last is None or int(last // 86_400) != int(at // 86_400):
                prices.thin(tx, self._clock())

        self._database.write_now(write)

    def _is_due(self, last: float | None, at: float) -> bool:
        return last is None or at - last >= _EVERY_SECONDS or at < last - _AHEAD_SECONDS

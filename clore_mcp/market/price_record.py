"""Records what GPUs cost from the snapshots that are fetched anyway, and reads it again. It never asks Clore."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from clore_mcp.errors import Failure
from clore_mcp.market import history
from clore_mcp.market.history import SECONDS_PER_HOUR, Past
from clore_mcp.market.rates import Fees, OrderType
from clore_mcp.market.snapshot import Snapshot
from clore_mcp.store import prices
from clore_mcp.store.database import Database, Tx
from clore_mcp.store.prices import HourRow, PriceRow

log = logging.getLogger(__name__)

_EVERY_SECONDS: Final = 600.0  # six samples an hour, whatever many processes fetch
_AFTER_SECONDS: Final = 1.0  # the call that fetched the snapshot goes first
_AHEAD_SECONDS: Final = 300.0  # a sample from further ahead is from before a clock went back


@dataclass(frozen=True, slots=True)
class RecordedPrices:
    """What is recorded of some models in the last `hours`. `first` is the oldest hour on record, in unix seconds."""

    rows: dict[str, list[PriceRow]]
    looked: tuple[HourRow, ...]
    first: float | None

    @property
    def hours(self) -> int:
        """In how many hours the market was looked at."""
        return sum(row.hours for row in self.looked)

    def past(self, model: str, now: history.Now | None) -> Past:
        """The past of one model."""
        return history.past(self.rows.get(model, ()), self.looked, now)


class PriceRecord:
    """The record of one market, which every process of the state shares. Building one opens nothing."""

    def __init__(self, database: Database, api_url: str, clock: Callable[[], float]) -> None:
        self._database = database
        self._market = hashlib.sha256(api_url.encode()).hexdigest()[:16]
        self._clock = clock
        self._noted_at = float("-inf")  # what this process has seen last
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def note(self, snapshot: Snapshot, fees: Fees) -> None:
        """Record the snapshot a little later, unless a process has just recorded one. Called on the event loop.

        Where Clore has not said its fees nothing is recorded: prices with assumed fees would look like a rise.
        """
        if not fees.fractions or not snapshot.listings or abs(snapshot.fetched_at - self._noted_at) < _EVERY_SECONDS:
            return
        self._noted_at = snapshot.fetched_at
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._soon(snapshot, fees))

    async def read(self, hours: int, order_type: OrderType, models: Collection[str] | None = None) -> RecordedPrices:
        """What is recorded of the last so many hours. Raises StateUnavailable."""
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
        """Finish what is noted, and close the file."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait([self._task])
        await asyncio.to_thread(self._database.close)

    async def _soon(self, snapshot: Snapshot, fees: Fees) -> None:
        try:
            async with asyncio.timeout(_AFTER_SECONDS):
                await self._closing.wait()
        except TimeoutError:
            pass
        try:
            await asyncio.to_thread(self._record, snapshot, fees)
        except Failure as failure:
            log.warning("prices are not recorded: %s", failure.message)
        except Exception as error:  # a record of prices must end nothing else
            log.warning("prices are not recorded: %s", type(error).__name__)

    def _record(self, snapshot: Snapshot, fees: Fees) -> None:
        at = snapshot.fetched_at
        if not self._database.folder.is_dir():  # a state that was deleted is not begun anew for prices
            return
        if not self._is_due(self._database.read_now(lambda tx: prices.looked_at(tx, self._market)), at):
            return
        found = history.samples(snapshot, fees)

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

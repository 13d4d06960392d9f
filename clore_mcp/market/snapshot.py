"""The marketplace as last fetched, with its age, and the only code in the process that fetches it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from clore_mcp.clore.models import Rows, ServerRow
from clore_mcp.errors import Failure, NotFound
from clore_mcp.market import gpus
from clore_mcp.market.listing import Listing, read_listing
from clore_mcp.market.pricing import Fees, OrderType, PricedServer, Rates, Wallet, choose, market_rates
from clore_mcp.money import ZERO, Coin
from clore_mcp.store.shared import Reading

DEFAULT_MAX_AGE_SECONDS: Final = 60.0
STALE_LIMIT_SECONDS: Final = 900.0  # older prices would mislead more than an error
_PRICE_LISTS: Final = 16  # kept per snapshot; each is as long as the market

PriceList = tuple[PricedServer, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The market at one instant. If it is older than requested, `stale_because` is why it could not be renewed."""

    listings: tuple[Listing, ...]
    fetched_at: float  # unix seconds
    rates: Rates
    by_id: Mapping[int, Listing]
    by_model: Mapping[str, tuple[Listing, ...]]
    stale_because: str | None = None
    _price_lists: dict[object, PriceList] = field(default_factory=dict, repr=False, compare=False)

    def age_seconds(self, now: float) -> float:
        """Return the age of the data. It is never negative, even if the clock was set back."""
        return max(0.0, now - self.fetched_at)

    @property
    def models(self) -> tuple[str, ...]:
        """The GPU models on the market, sorted."""
        return tuple(sorted(self.by_model))

    def server(self, server_id: int) -> Listing:
        """Return the listing with that id. Raises NotFound."""
        listing = self.by_id.get(server_id)
        if listing is None:
            raise NotFound(
                f"No server {server_id} is on the marketplace now.", hint="Search again; the listing may be gone."
            )
        return listing

    def priced(
        self,
        order_type: OrderType,
        fees: Fees,
        *,
        wallet: Wallet | None = None,
        preferred: Coin | None = None,
        only: Coin | None = None,
    ) -> PriceList:
        """Return each listing with its price, in the order of `listings`. The result is kept for the same arguments."""
        held = None if wallet is None else frozenset(coin for coin in Coin if (wallet.get(coin) or ZERO) > 0)
        key = (order_type, tuple(fees.fraction(order_type, coin) for coin in Coin), held, preferred, only)
        if (known := self._price_lists.get(key)) is not None:
            return known
        priced = tuple(
            (listing, choose(listing, order_type, fees, self.rates, wallet=wallet, preferred=preferred, only=only))
            for listing in self.listings
        )
        if len(self._price_lists) >= _PRICE_LISTS:
            oldest, *_ = self._price_lists
            self._price_lists.pop(oldest, None)  # another thread may have removed it
        return self._price_lists.setdefault(key, priced)


def build_snapshot(rows: Sequence[ServerRow], *, fetched_at: float) -> Snapshot:
    """Return the market that `rows` describe. The first row of an id counts."""
    read_gpus = functools.cache(gpus.of_server)  # a market of thousands has a few hundred names
    first: dict[int, ServerRow] = {}
    for row in rows:
        first.setdefault(row.id, row)
    by_id = {row.id: read_listing(row, read_gpus) for row in first.values()}
    by_model: dict[str, list[Listing]] = {}
    for listing in by_id.values():
        by_model.setdefault(listing.gpu, []).append(listing)
    return Snapshot(
        listings=tuple(by_id.values()),
        fetched_at=fetched_at,
        rates=market_rates(first.values()),
        by_id=by_id,
        by_model={model: tuple(found) for model, found in by_model.items()},
    )


def with_rates(snapshot: Snapshot, known: Mapping[Coin, Decimal]) -> Snapshot:
    """Return the snapshot with rates for coins that its own rows give none for. The market's median is never
    replaced."""
    return replace(snapshot, rates=Rates({**known, **snapshot.rates.usd}), _price_lists={})


# Takes the maximum age in seconds.
Fetch = Callable[[float], Awaitable[Reading[Rows[ServerRow]]]]


class Market:
    """Provides the snapshot and renews it when it is too old. One fetch runs at a time, shared by all callers that
    wait."""

    def __init__(self, fetch: Fetch, clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._held: Snapshot | None = None
        self._renewal: asyncio.Task[Snapshot] | None = None

    async def snapshot(self, max_age_seconds: float = DEFAULT_MAX_AGE_SECONDS, *, allow_stale: bool = True) -> Snapshot:
        """Return a snapshot no older than `max_age_seconds`. If renewing fails and `allow_stale`, return the last one
        with the reason, up to STALE_LIMIT_SECONDS old.

        A caller that is cancelled does not cancel the fetch for the others.
        """
        held, since = self._held, self._clock() - max_age_seconds
        if held is not None and 0 <= self._clock() - held.fetched_at <= max_age_seconds:
            return held
        try:
            while True:
                joined = self._renewal is not None and not self._renewal.done()
                if self._renewal is None or self._renewal.done():  # awaiting a done task never yields
                    self._renewal = asyncio.create_task(self._renew(max_age_seconds), name="marketplace fetch")
                    self._renewal.add_done_callback(self._renewed)
                renewed = await asyncio.shield(self._renewal)
                if not joined or renewed.fetched_at >= since:  # the caller that began it may accept an older one
                    return renewed
        except Failure as failure:
            if not allow_stale or held is None or held.age_seconds(self._clock()) > STALE_LIMIT_SECONDS:
                raise
            return replace(held, stale_because=failure.message)

    async def aclose(self) -> None:
        """Cancel a fetch that is under way, and with it the callers that wait for it."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])

    async def _renew(self, max_age_seconds: float) -> Snapshot:
        got = await self._fetch(max_age_seconds)
        return await asyncio.to_thread(build_snapshot, got.value.rows, fetched_at=got.at)

    def _renewed(self, task: asyncio.Task[Snapshot]) -> None:
        if self._renewal is task:
            self._renewal = None
        if not task.cancelled() and task.exception() is None:  # retrieve it, so that asyncio does not report it
            self._held = task.result()

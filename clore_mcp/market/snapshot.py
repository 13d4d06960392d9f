"""The marketplace as last fetched, with its age, and the one place in the process that fetches it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, TypeVar

from clore_mcp.clore.collecting import no_garbage
from clore_mcp.clore.models import Rows, ServerRow
from clore_mcp.errors import Failure, NotFound
from clore_mcp.market import gpus
from clore_mcp.market.columns import Columns
from clore_mcp.market.listing import Listing, read_listing
from clore_mcp.market.pricing import Priced, Unpriced, Wallet, choose
from clore_mcp.market.rates import Fees, OrderType, Rates, market_rates
from clore_mcp.money import ZERO, Coin
from clore_mcp.state.shared import Reading

DEFAULT_MAX_AGE_SECONDS: Final = 60.0
STALE_LIMIT_SECONDS: Final = 900.0  # older prices mislead more than an error does
_PRICE_LISTS: Final = 16  # kept per snapshot; one is a list as long as the market
_ANSWERS: Final = 64  # kept per snapshot; one to a search holds up to four bytes a server

Made = TypeVar("Made")

PriceList = tuple[Priced | Unpriced, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The market at one instant. `stale_because` says why it could not be renewed when it is older than asked for."""

    listings: tuple[Listing, ...]
    fetched_at: float  # unix seconds
    dropped: int  # rows that could not be read, or that repeated an id
    rates: Rates
    by_id: Mapping[int, Listing]
    by_model: Mapping[str, tuple[Listing, ...]]
    stale_because: str | None = None
    _price_lists: dict[object, Columns] = field(default_factory=dict, repr=False, compare=False)
    _kept: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)

    def age_seconds(self, now: float) -> float:
        """How old the data is; never negative, whatever the clock did."""
        return max(0.0, now - self.fetched_at)

    @property
    def models(self) -> tuple[str, ...]:
        """The GPU models on the market, sorted."""
        return tuple(sorted(self.by_model))

    def server(self, server_id: int) -> Listing:
        """The listing with that id, or NotFound."""
        listing = self.by_id.get(server_id)
        if listing is None:
            raise NotFound(
                f"No server {server_id} is on the marketplace now.", hint="Search again; the listing may be gone."
            )
        return listing

    def prices(
        self,
        order_type: OrderType,
        fees: Fees,
        *,
        wallet: Wallet | None = None,
        preferred: Coin | None = None,
        only: Coin | None = None,
    ) -> PriceList:
        """Each listing's price, in the order of `listings`; worked out once for the same question."""
        return self.columns(order_type, fees, wallet=wallet, preferred=preferred, only=only).prices

    def columns(
        self,
        order_type: OrderType,
        fees: Fees,
        *,
        wallet: Wallet | None = None,
        preferred: Coin | None = None,
        only: Coin | None = None,
    ) -> Columns:
        """The listings with these prices, ready to be searched."""
        held = held_coins(wallet)
        key = (order_type, tuple(fees.fraction(order_type, coin) for coin in Coin), held, preferred, only)
        if (known := self._price_lists.get(key)) is not None:
            return known
        priced = tuple(
            choose(listing, order_type, fees, self.rates, wallet=wallet, preferred=preferred, only=only)
            for listing in self.listings
        )
        if len(self._price_lists) >= _PRICE_LISTS:
            oldest, *_ = self._price_lists
            self._price_lists.pop(oldest, None)  # another thread may have been first
        return self._price_lists.setdefault(key, Columns(self.listings, priced))

    def knows(self, question: object) -> bool:
        """Whether `kept` has the answer at hand."""
        return question in self._kept

    def kept(self, question: object, make: Callable[[], Made]) -> Made:
        """What `make` makes of this market and `question` alone (never None), made once while few others are asked."""
        made: Made | None = self._kept.get(question)
        if made is None:
            made = make()
            if len(self._kept) >= _ANSWERS:
                oldest, *_ = self._kept
                self._kept.pop(oldest, None)
            self._kept[question] = made
        return made


def held_coins(wallet: Wallet | None) -> frozenset[Coin] | None:
    """The coins that the wallet holds any of; None where it is not known."""
    return None if wallet is None else frozenset(coin for coin in Coin if (wallet.get(coin) or ZERO) > 0)


def build_snapshot(
    rows: Iterable[ServerRow],
    dropped: int = 0,
    *,
    fetched_at: float,
    extra_rates: Mapping[Coin, Decimal] | None = None,
) -> Snapshot:
    """The market that `rows` describe. The first row of an id counts; a repeated one is dropped and counted."""
    read_gpus = functools.cache(gpus.of_server)  # a few hundred names make up a market of thousands
    by_id: dict[int, Listing] = {}
    models: dict[str, list[Listing]] = {}

    def first_of_each() -> Iterator[ServerRow]:
        nonlocal dropped
        for row in rows:
            if row.id in by_id:
                dropped += 1
                continue
            listing = by_id[row.id] = read_listing(row, read_gpus)
            models.setdefault(listing.gpu, []).append(listing)
            yield row

    with no_garbage():
        rates = market_rates(first_of_each(), extra_rates)  # in one go, so that no row has to be held
    return Snapshot(
        listings=tuple(by_id.values()),
        fetched_at=fetched_at,
        dropped=dropped,
        rates=rates,
        by_id=MappingProxyType(by_id),
        by_model=MappingProxyType({model: tuple(found) for model, found in models.items()}),
    )


def with_rates(snapshot: Snapshot, known: Mapping[Coin, Decimal]) -> Snapshot:
    """The snapshot with rates for coins that its own rows give none for; the market's median is never replaced."""
    own = snapshot.rates
    usd = {**known, **own.usd}
    sources = {**dict.fromkeys(known, "spot market"), **own.sources}
    rates = Rates(MappingProxyType(usd), MappingProxyType(sources))
    return replace(snapshot, rates=rates, _price_lists={}, _kept={})


# No older than so many seconds. `Market` empties the list of rows.
Fetch = Callable[[float], Awaitable[Reading[Rows[ServerRow]]]]


def _used_up(rows: list[ServerRow]) -> Iterator[ServerRow]:
    """The rows in their order, each let go when the next one is wanted: to free thousands at once takes long."""
    rows.reverse()
    while rows:
        yield rows.pop()


class Market:
    """Hands out the snapshot and renews it when it is too old: one fetch at a time, shared by all who wait."""

    def __init__(
        self,
        fetch: Fetch,
        clock: Callable[[], float],
        *,
        extra_rates: Callable[[], Mapping[Coin, Decimal] | None] = lambda: None,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._extra_rates = extra_rates
        self._held: Snapshot | None = None
        self._renewal: asyncio.Task[Snapshot] | None = None

    async def snapshot(self, max_age_seconds: float = DEFAULT_MAX_AGE_SECONDS, *, allow_stale: bool = True) -> Snapshot:
        """A snapshot at most so old. When it can't be renewed: the last one, if allowed and not too old, saying why.

        A caller that goes away does not take the fetch from the others.
        """
        held, since = self._held, self._clock() - max_age_seconds
        if held is not None and 0 <= self._clock() - held.fetched_at <= max_age_seconds:
            return held
        try:
            while True:
                joined = self._renewal is not None and not self._renewal.done()
                if self._renewal is None or self._renewal.done():  # to await what is over yields to nobody
                    self._renewal = asyncio.create_task(self._renew(max_age_seconds), name="marketplace fetch")
                    self._renewal.add_done_callback(self._renewed)
                renewed = await asyncio.shield(self._renewal)
                if not joined or renewed.fetched_at >= since:  # whoever began it may take an older one
                    return renewed
        except Failure as failure:
            if not allow_stale or held is None or held.age_seconds(self._clock()) > STALE_LIMIT_SECONDS:
                raise
            return replace(held, stale_because=failure.message)

    async def aclose(self) -> None:
        """End a fetch that is still under way; whoever waits for it is cancelled."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])

    async def _renew(self, max_age_seconds: float) -> Snapshot:
        got = await self._fetch(max_age_seconds)
        return await asyncio.to_thread(
            build_snapshot,
            _used_up(got.value.rows),
            got.value.dropped,
            fetched_at=got.at,
            extra_rates=self._extra_rates(),
        )

    def _renewed(self, task: asyncio.Task[Snapshot]) -> None:
        if self._renewal is task:
            self._renewal = None
        if not task.cancelled() and task.exception() is None:  # reading it keeps asyncio from reporting it unread
            self._held = task.result()

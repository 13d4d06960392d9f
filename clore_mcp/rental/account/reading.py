"""Reads the account at Clore, no more often than needed. Each reading has its age.

Clore accepts one request per second for each account, so callers state the oldest answer they accept, and share
answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, Generic, TypeVar

import anyio
from pydantic import TypeAdapter

from clore_mcp.clore import CloreClient, OrderRow, OrdersReply
from clore_mcp.clore.models import SpotBook, Wallet
from clore_mcp.errors import CloreError, InvalidApiKey, NoApiKey, NotJson
from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import Fees, coin_rates, read_fees
from clore_mcp.market.snapshot import Market, Snapshot, with_rates
from clore_mcp.market.spotbook import SpotView, read_book
from clore_mcp.money import Coin
from clore_mcp.rental.account.account_id import Identity
from clore_mcp.rental.account.api_clock import ApiClock
from clore_mcp.store import Lease
from clore_mcp.store.shared import Copies, Departure, Instant, Reading, Shared

T = TypeVar("T")
log = logging.getLogger(__name__)

EXECUTION_AGE: Final = 10.0  # seconds; no decision about money uses older data
BROWSING_AGE: Final = 60.0
_FEES_AGE: Final = 600.0
_KNOWN_KEY_SECONDS: Final = 5.0  # if the wallets take longer, a known key alone identifies the account
_LOOKS_AT_A_JUMP: Final = 4  # one that is wrong and three that agree


class CachedValue(Generic[T]):
    """Holds what `fetch` returned and when. Concurrent callers share one fetch. A cancelled caller harms no other."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._value: tuple[T, float] | None = None
        self._running: asyncio.Task[T] | None = None

    async def get(self, max_age_seconds: float) -> T:
        """Return the value, no older than `max_age_seconds` when the call began. Raises what the fetch raises."""
        if self._value is not None and 0 <= self._clock() - self._value[1] <= max_age_seconds:
            return self._value[0]
        if self._running is None:
            self._running = asyncio.ensure_future(self._refresh())
            # Read the exception of a fetch that fails after all callers have left, so that asyncio does not log it.
            self._running.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._running)

    def forget(self) -> None:
        """Make the next call fetch, even if a fetch is under way that may have started too early."""
        self._value = None
        self._running = None

    @property
    def last(self) -> tuple[T, float] | None:
        """The held value, of any age, and when its fetch began."""
        return self._value

    async def _refresh(self) -> T:
        task, began = asyncio.current_task(), self._clock()
        try:
            value = await self._fetch()
            if self._running is task:
                self._value = (value, began)
            return value
        finally:
            if self._running is task:
                self._running = None


@dataclass(frozen=True, slots=True)
class Orders:
    """The account's orders as Clore lists them."""

    rows: list[OrderRow]
    unreadable: int
    limit: int | None
    at: float  # when they were requested, by this machine's clock
    api_at: float | None  # Clore's time in the reply, if given

    def find(self, order_id: int) -> OrderRow | None:
        """Return the row of one order."""
        return next((row for row in self.rows if row.id == order_id), None)


@dataclass(frozen=True, slots=True)
class Wallets:
    """Balances by coin. `balances` leaves out wallets without a reported balance."""

    rows: list[Wallet]
    at: float
    unreadable: int = 0

    @property
    def balances(self) -> dict[Coin, Decimal]:
        """The balance of each wallet, in its own coin."""
        known = ((Coin.parse(row.name), row.balance) for row in self.rows)
        return {coin: balance for coin, balance in known if coin is not None and balance is not None}


@dataclass(frozen=True, slots=True)
class _Listed:
    """A list of orders as shared with other processes, and when it came. It has only the fields that we read, none of
    them secret."""

    reply: OrdersReply
    came: Instant


@functools.cache
def _kept() -> TypeAdapter[_Listed]:
    return TypeAdapter(_Listed)


class Readings:
    """The account at Clore. `api_clock` keeps Clore's time, and `identity` knows which account this is. `copies` shares
    its orders with other processes. `latest` is the list of current orders last read here. `note` gets each snapshot
    together with the fees, once both are known."""

    def __init__(
        self,
        client: CloreClient,
        market: Market,
        api_clock: ApiClock,
        identity: Identity,
        copies: Copies,
        note: Callable[[Snapshot, Fees], None] = lambda snapshot, fees: None,
    ) -> None:
        self.client = client
        self.market = market
        self.api_clock = api_clock
        self.identity = identity
        self._clock = clock = api_clock.wall
        self._note = note
        self._snapshot: Snapshot | None = None
        self._account: str | None = None
        self.latest: Orders | None = None
        self._book_rates: dict[Coin, Decimal] = {}
        # The listings, rates and result of the last call of _rated: figures derived from a snapshot are cached on it.
        self._rated_last: tuple[tuple[Listing, ...], dict[Coin, Decimal], Snapshot | None] = ((), {}, None)
        self._no_balances_at = -math.inf
        self._no_addresses_at = -math.inf
        self._wallets = CachedValue(self._fetch_wallets, clock)
        self._fees = CachedValue(self._fetch_fees, clock)
        self._current = self._shared(copies, "my_orders", completed=False)
        self._completed = self._shared(copies, "my_orders_completed", completed=True)

    async def account(self) -> str:
        """Return which account this is, by its deposit addresses, or by its key if Clore does not list them soon. Rows
        in the state belong to it. Raises CloreError."""
        if self._account is not None:
            return self._account
        known = await self.identity.of_key()
        if known is not None and 0 <= self._clock() - self._no_addresses_at < _KNOWN_KEY_SECONDS:
            return known
        try:
            with anyio.fail_after(None if known is None else _KNOWN_KEY_SECONDS):
                account, certain = await self._identify()
        except (NoApiKey, InvalidApiKey):
            raise
        except (CloreError, TimeoutError) as error:
            if known is None:
                raise
            if isinstance(error, TimeoutError):  # so that the end of a lease does not wait for them each time
                self._no_addresses_at = self._clock()
            log.warning("the account is known by its key alone: %s", getattr(error, "message", "no reply yet"))
            return known
        if not certain:  # tried again until the state can be used
            return account
        self._account = account
        if self.latest is not None:  # it was read before the account was known
            await self._join(self.latest)
        return self._account

    async def doubtful(self) -> list[Lease]:
        """Return the orders made here that may be this account's, though neither its addresses nor its lists say so.
        The list with completed orders is compared with them first. Raises CloreError, StateUnavailable."""
        found = await self.identity.doubtful(await self.account(), self.api_now())
        if not found:
            return []
        with contextlib.suppress(CloreError):
            await self.completed(BROWSING_AGE)
        return await self.identity.doubtful(await self.account(), self.api_now())

    async def _identify(self) -> tuple[str, bool]:
        """Read the wallets, twice if the addresses are new, because one reading must not create or merge accounts."""
        addresses = await self._addresses()
        if not await self.identity.needs_second_reading(addresses):
            return await self.identity.of(addresses)
        self._wallets.forget()
        if sorted(await self._addresses()) != sorted(addresses):
            raise NotJson("Two lists of wallets in a row name other deposit addresses, so the account is not certain.")
        current, completed = await self._current.get(BROWSING_AGE), await self._completed.get(BROWSING_AGE)
        listed = {row.id for reading in (current, completed) for row in reading.value.reply.rows}
        return await self.identity.of(addresses, listed)

    async def _join(self, found: Orders) -> None:
        """Correct the account if orders made here are listed for it."""
        if self._account is not None:
            self._account = await self.identity.joined(self._account, {row.id for row in found.rows}, self._clock())

    async def _addresses(self) -> list[str]:
        wallets = await self._wallets.get(_FEES_AGE)
        if wallets.unreadable:  # without a known address it would look like another account, without its leases
            self._wallets.forget()
            raise NotJson("Clore's list of wallets could not be read whole, so the account is not certain.")
        return [row.deposit for row in wallets.rows if row.deposit]

    async def snapshot(self, max_age_seconds: float = BROWSING_AGE) -> Snapshot:
        """Return the marketplace."""
        return self._seen(await self._rated(await self.market.snapshot(max_age_seconds)))

    async def fresh_snapshot(self, max_age_seconds: float) -> Snapshot:
        """Return the marketplace, but never an older one if Clore does not answer, because it decides about money."""
        return self._seen(await self._rated(await self.market.snapshot(max_age_seconds, allow_stale=False)))

    async def spot_book(self, server_id: int) -> SpotBook:
        """Return the spot market of one server. Its rates are used if the marketplace is too small for a median."""
        book = await self.client.spot_marketplace(server_id)
        self._book_rates = coin_rates(book.rates) or self._book_rates
        return book

    async def spot_view(self, server_id: int) -> SpotView:
        """Return the spot market of one server in USD per hour. Raises CloreError."""
        snapshot, fees = await self.snapshot(), await self.fees()
        return read_book(await self.spot_book(server_id), snapshot.by_id.get(server_id), fees, snapshot.rates)

    async def spot_view_if_known(self, server_id: int) -> SpotView | None:
        """Return the spot market of one server in USD per hour, or None without a key or if Clore does not answer."""
        try:
            return await self.spot_view(server_id)
        except CloreError:
            return None

    async def _rated(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with a rate for every coin that a trusted source has, asked once per snapshot."""
        if all(snapshot.rates.usd_per(coin) for coin in Coin) or not snapshot.listings:
            return snapshot
        of, known, rated = self._rated_last
        if of is not snapshot.listings:
            of, rated = snapshot.listings, None
            if not self._book_rates:
                with contextlib.suppress(CloreError):
                    await self.spot_book(snapshot.listings[0].server_id)
        if rated is None or known != self._book_rates:
            known, rated = self._book_rates, with_rates(snapshot, self._book_rates)
        self._rated_last = of, known, rated
        return replace(rated, stale_because=snapshot.stale_because)

    def _seen(self, snapshot: Snapshot) -> Snapshot:
        """Record market prices if the fees are already known, and return the snapshot."""
        self._snapshot = snapshot
        if (fees := self._fees.last) is not None:
            self._note(snapshot, fees[0])
        return snapshot

    async def wallets(self, max_age_seconds: float = BROWSING_AGE) -> Wallets:
        """Return the wallets."""
        return await self._wallets.get(max_age_seconds)

    async def balances_if_known(self) -> dict[Coin, Decimal] | None:
        """Return balances for choosing a coin, or None if Clore does not list them or did not in the last minute."""
        if 0 <= self._clock() - self._no_balances_at < BROWSING_AGE:
            return None
        try:
            return (await self.wallets(_FEES_AGE)).balances
        except CloreError:
            self._no_balances_at = self._clock()
            return None

    async def fees(self) -> Fees:
        """Return the renter's fees, or the highest documented ones if Clore does not say."""
        fees = await self._fees.get(_FEES_AGE)
        if self._snapshot is not None:
            self._note(self._snapshot, fees)
        return fees

    async def orders(self, max_age_seconds: float = EXECUTION_AGE) -> Orders:
        """Return the orders that Clore lists as current."""
        self.latest = found = self._told(await self._current.get(max_age_seconds))
        if not self.api_clock.settled:
            return await self.look(completed=False)
        await self._join(found)
        return found

    async def completed(self, max_age_seconds: float = BROWSING_AGE) -> Orders:
        """Return the orders that Clore lists when also asked for completed ones."""
        found = self._told(await self._completed.get(max_age_seconds))
        await self._join(found)
        return found

    async def look(self, *, completed: bool) -> Orders:
        """Return the present orders, read by this call ahead of ordinary requests. If Clore's clock has jumped, look up
        to four times, until it is known whether the jump is real."""
        shared = self._completed if completed else self._current
        for _ in range(_LOOKS_AT_A_JUMP):
            found = self._told(await shared.fetch(functools.partial(self._ask, completed=completed, urgent=True)))
            if self.api_clock.settled:
                break
        if not completed:
            self.latest = found
        await self._join(found)
        return found

    async def aclose(self) -> None:
        """Cancel running reads."""
        await self._current.aclose()
        await self._completed.aclose()

    def changed(self) -> None:
        """Drop everything read before now, because a write or a new reading has shown that it is out of date."""
        for reading in (self._wallets, self._current, self._completed):
            reading.forget()

    def changed_orders(self) -> None:
        """Drop every list of current orders read before now. Time has passed, and the caller waits for a change."""
        self._current.forget()

    def api_now(self) -> float:
        """Return Clore's time in unix seconds."""
        return self.api_clock.now()

    async def _fetch_wallets(self) -> Wallets:
        rows = await self.client.wallets()
        return Wallets(rows.rows, self._clock(), rows.dropped)

    async def _fetch_fees(self) -> Fees:
        try:
            return read_fees(await self.client.renter_fees())
        except CloreError:
            return Fees.highest_documented()

    def _shared(self, copies: Copies, what: str, *, completed: bool) -> Shared[_Listed]:
        request = functools.partial(self._ask, completed=completed, urgent=False)
        return Shared(copies, what, request, lambda body: _kept().validate_json(body), marked=True)

    async def _ask(self, departure: Departure, *, completed: bool, urgent: bool) -> tuple[_Listed, bytes]:
        reply = await self.client.my_orders(completed=completed, urgent=urgent, before_send=departure)
        listed = _Listed(reply, self.api_clock.here())
        return listed, _kept().dump_json(listed)

    def _told(self, reading: Reading[_Listed]) -> Orders:
        reply = reading.value.reply
        self.api_clock.hear(reply.api_time, reading.value.came)
        rows = [  # the real start of an order that began in the future is unknown
            row.model_copy(update={"created_at": None}) if self.api_clock.is_ahead(row.created_at) else row
            for row in reply.rows
        ]
        return Orders(rows, reply.dropped, reply.limit, reading.at, reply.api_time)

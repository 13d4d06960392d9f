"""Wires the parts that tools, resources and commands receive into one frozen object. Building it opens nothing."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Final
from urllib.parse import urlsplit

from anyio.to_thread import run_sync

from clore_mcp.clore import CloreClient, Gaps, Pacer, Rows, ServerRow, Timing, read_marketplace
from clore_mcp.errors import Failure
from clore_mcp.market.history import PriceRecord
from clore_mcp.market.snapshot import Market
from clore_mcp.rental.account.account_id import Identity
from clore_mcp.rental.account.api_clock import ApiClock
from clore_mcp.rental.account.reading import BROWSING_AGE, Readings
from clore_mcp.rental.approvals import Approvals, Verb
from clore_mcp.rental.context import Commitments, Context, Patience
from clore_mcp.rental.create.adopt import Adopter
from clore_mcp.rental.create.order import CreateVerb
from clore_mcp.rental.create.quote import Pricer
from clore_mcp.rental.create.replacement import Replacements
from clore_mcp.rental.create.settle import Settler
from clore_mcp.rental.ends.closure import Closer
from clore_mcp.rental.events import Changes
from clore_mcp.rental.guard import Guard
from clore_mcp.rental.hosts import Hosts
from clore_mcp.rental.monitoring.monitor import Overseer
from clore_mcp.rental.monitoring.notifier import Notifier
from clore_mcp.rental.orders.cancel import CancelVerb
from clore_mcp.rental.orders.extend import ExtendVerb
from clore_mcp.rental.orders.keeper import Keeper
from clore_mcp.rental.orders.readiness import Readiness
from clore_mcp.rental.orders.stop import Stopper, lapse_restored
from clore_mcp.rental.orders.views import Overview
from clore_mcp.rental.spot.bid import BidVerb
from clore_mcp.rental.ssh.keys import public_key
from clore_mcp.rental.terms import POLL_SECONDS
from clore_mcp.rental.watches.runner import WatchRunner
from clore_mcp.rental.watches.watch import WatchVerb
from clore_mcp.settings import DEFAULT_GAP_SECONDS, Settings, Watchdog
from clore_mcp.store import Database, Entry
from clore_mcp.store.folder import HighWater, Pulse, watchdog_place
from clore_mcp.store.pace import open_pace
from clore_mcp.store.prices import open_prices
from clore_mcp.store.shared import Copies, Shared, owner_of

_FASTEST: Final = 0.01  # a simulated clock is assumed to run no more than a hundred times as fast as ours
_DRAIN_SECONDS: Final = 150.0  # longer than the look after a create; the next start settles what is left


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """Everything below the tools, wired together."""

    settings: Settings
    pacer: Pacer
    context: Context
    market: Market
    marketplace: Shared[Rows[ServerRow]]
    prices: PriceRecord
    pricer: Pricer
    approvals: Approvals
    guard: Guard
    overview: Overview
    readiness: Readiness
    closer: Closer
    settler: Settler
    keeper: Keeper
    poll_seconds: float
    overseer: Overseer
    watch_runner: WatchRunner
    hosts: Hosts
    notifier: Notifier
    stopper: Stopper
    commitments: Commitments

    @property
    def keeps(self) -> bool:
        """Whether this process acts without being asked."""
        return self.settings.watchdog is Watchdog.AUTO and not self.settings.read_only

    async def keep_leases(self) -> None:
        """Start ending leases in this process, at the first call, unless the operator switched that off."""
        if self.keeps:
            await self.keeper.start()

    async def look_over(self, *, wallets: bool = True) -> list[Entry]:
        """Record what is wrong with the orders that were just read. With `wallets`, check the wallets too and return
        what this process may not record. Failures are only logged, so that no answer is lost."""
        readings = self.context.readings
        try:
            account, current = await readings.account(), await readings.orders(BROWSING_AGE)
            if not self.keeps:
                return await self.overseer.show(account, current) if wallets else []
            await self.overseer.record(account, current, wallets=wallets)
        except Failure as failure:
            log.warning("the orders could not be checked: %s", failure.message)
        except Exception as error:  # even a row that can't be read
            log.error("the orders could not be checked: %s", type(error).__name__)
        return []

    def changes(self, since: float) -> Changes:
        """Return an object that reports changes of the orders from then on (this machine's clock)."""
        return Changes(self.context.state, self.context.readings, since)

    async def aclose(self) -> None:
        """Let spending that has begun finish, then close everything."""
        await self.commitments.drain(_DRAIN_SECONDS)
        await self.keeper.stop()
        await asyncio.to_thread(self.notifier.close)
        await self.prices.aclose()
        await self.market.aclose()
        await self.marketplace.aclose()
        await self.context.readings.aclose()
        await self.context.client.aclose()
        await self.pacer.aclose()
        await asyncio.to_thread(self.context.state.close)


def _address(api_url: str) -> tuple[str, int]:
    """Return host and port of the Clore API."""
    parts = urlsplit(api_url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def state_of(settings: Settings) -> Database:
    """Return the state, opened at first use. If it is found to be an older copy of itself, every yes in it lapses."""
    mark = HighWater(settings.cache_dir, settings.state_dir) if settings.cache_dir else None
    return Database(settings.state_dir, mark=mark, when_restored=lambda tx: lapse_restored(tx, now=time.time()))


def build(
    settings: Settings,
    patience: Patience | None = None,
    *,
    owner: str = "",
    wake_watchdog: Callable[[], bool] | None = None,
    open_page: Callable[[str], bool] = lambda quote_id: False,
    queue_seconds: float | None = None,
) -> Services:
    """Wire the parts for these settings. Nothing is opened, read or sent. Tests shorten the patience.

    `owner` is the beginning of this process's name. `wake_watchdog` is called while there is an order, to start a
    watchdog if none runs. `open_page` shows the person a question that can't be asked otherwise. A request that is not
    urgent and would wait longer than `queue_seconds` for its turn is refused at once.
    """
    key_digest = hashlib.sha256((settings.api_key or "").encode()).hexdigest()
    pacer = Pacer(Gaps.scaled(settings.request_gap_seconds), state=open_pace(settings.state_dir), key=settings.key_name)
    whose = owner_of(settings.api_url, settings.api_key)
    copies = Copies(settings.state_dir / "copies", whose, time.time, time.monotonic)
    client = CloreClient(
        pacer=pacer,
        api_url=settings.api_url,
        api_key=settings.api_key,
        trusts_network=settings.trusts_network,
        timing=Timing(patience_seconds=queue_seconds),
        after_write=lambda: run_sync(copies.change),
    )
    marketplace = Shared(
        copies,
        "marketplace",
        lambda departure: client.marketplace_as_sent(before_send=departure),
        read_marketplace,
        marked=False,
    )
    market = Market(marketplace.get, time.time)
    state = state_of(settings)
    name = owner + token_hex(8)
    identity = Identity(state, settings.api_url, key_digest)
    notifier = Notifier(settings.notify_command, settings.state_dir, settings.api_key)
    # Clore takes a call in 1.1 s. A simulated market that takes them faster also runs faster, so it is polled sooner.
    slower = min(1.0, settings.request_gap_seconds / DEFAULT_GAP_SECONDS)
    api_clock = ApiClock(time.time, time.monotonic, faster=1 / max(slower, _FASTEST))
    prices = PriceRecord(open_prices(settings.state_dir), settings.api_url, time.time)
    readings = Readings(client, market, api_clock, identity, copies, prices.note)
    context = Context(
        settings=settings,
        state=state,
        client=client,
        readings=readings,
        owner=name,
        host=socket.gethostname(),
        clock=time.time,
        monotonic=time.monotonic,
        pulse=Pulse(settings.state_dir, name, time.monotonic),
        watchdog_place=watchdog_place(settings.state_dir, settings.key_name),
        ssh_key=lambda: public_key(settings.ssh_public_key, Path.home(), settings.state_dir),
        program="clore-mcp --sandbox" if settings.api_key_source == "sandbox" else "clore-mcp",
        patience=patience or Patience(),
        starts_watchdog=wake_watchdog is not None,
        wake_watchdog=wake_watchdog or (lambda: False),
        open_page=open_page,
        tell=notifier.tell if settings.notify_command and not settings.read_only else lambda event: None,
    )
    pricer = Pricer(context)
    closer = Closer(context)
    commitments = Commitments()
    settler = Settler(context, Adopter(context, closer), commitments)
    approvals = Approvals(context.state, time.time, context.program)
    overseer = Overseer(context)
    overview = Overview(context, closer, settler)
    readiness = Readiness(context, overview, _address(settings.api_url))
    replacements = Replacements(context, pricer, approvals, closer, readiness.again)
    creating = CreateVerb(context, pricer, settler, closer, replacements)
    verbs: dict[str, Verb[Any]] = {
        "create_order": creating,
        "extend_order": ExtendVerb(context, pricer, closer),
        "create_watch": WatchVerb(context),
        "set_spot_price": BidVerb(context, pricer, closer),
        "cancel_order": CancelVerb(context, closer),
    }
    poll_seconds = POLL_SECONDS * slower
    watch_runner = WatchRunner(context, pricer, approvals, creating, commitments, poll_seconds)
    return Services(
        settings=settings,
        pacer=pacer,
        context=context,
        market=market,
        marketplace=marketplace,
        prices=prices,
        pricer=pricer,
        approvals=approvals,
        guard=Guard(context, approvals, commitments, settler, verbs),
        overview=overview,
        readiness=readiness,
        closer=closer,
        settler=settler,
        keeper=Keeper(context, closer, settler, (overseer, watch_runner), poll_seconds),
        poll_seconds=poll_seconds,
        overseer=overseer,
        watch_runner=watch_runner,
        hosts=Hosts(context),
        notifier=notifier,
        stopper=Stopper(context, closer, settler),
        commitments=commitments,
    )

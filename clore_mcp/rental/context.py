"""What every rental step shares: the state, the readings, the clocks, the operator's caps, who we are, what goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio.to_thread

from clore_mcp.clore import CloreClient
from clore_mcp.errors import SpendingFrozen
from clore_mcp.rental.account.reading import Readings
from clore_mcp.rental.create.ssh_keys import SshKey
from clore_mcp.rental.monitoring import events
from clore_mcp.rental.results import Outcome, Status, outcome_of
from clore_mcp.rental.rules.terms import POLL_SECONDS
from clore_mcp.settings import Settings
from clore_mcp.store import ledger, quotes
from clore_mcp.store.database import CLOCK_SLACK_SECONDS, Database, Tx
from clore_mcp.store.folder import Place, Pulse
from clore_mcp.store.ledger import Beat, Entry
from clore_mcp.store.quotes import Quote

HEARTBEAT_LASTS_SECONDS: Final = 3 * POLL_SECONDS
WATCHDOG: Final = "watchdog-"  # how the name of an owner begins that no client closes


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take, in seconds; tests shorten them, nobody else does."""

    answer: float = 20.0  # clients give up early: after this the answer is `in_progress`
    look: float = 120.0  # for an order after its create was sent
    look_after_refusal: float = 15.0  # Clore said no in unknown words: an order would show by then, if it made one
    leave_within: float = 90.0  # from a yes to the claim of the send, waiting for a turn included
    send_within: float = 8.0  # from claiming the send to the bytes leaving
    window: float = 60.0  # longer than any HTTP time-out: until then nobody else settles what was sent
    orphan: float = 120.0  # longer than a live process needs between two steps; then what it left is closed
    proof: float = 25.0  # for a cancelled order to show as gone
    absence: float = 60.0  # between two replies without an order before it counts as gone


@dataclass(frozen=True, slots=True)
class Context:
    """The shared parts. `owner` names this process, `host` this machine."""

    settings: Settings
    state: Database
    client: CloreClient
    readings: Readings
    owner: str
    host: str
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    pulse: Pulse
    watchdog_place: Path
    ssh_key: Callable[[], SshKey]
    program: str = "clore-mcp"  # what a person types to reach this state
    patience: Patience = field(default_factory=Patience)
    starts_watchdog: bool = False  # whether `wake_watchdog` starts one
    wake_watchdog: Callable[[], bool] = lambda: False  # whether one is there; quick, on a worker thread, never raises
    open_page: Callable[[str], bool] = lambda quote_id: False  # whether the person has that question on their page now
    tell: Callable[[Entry], object] = lambda event: None  # as quick, of each event once it is in the ledger

    async def enforced_by(self) -> str | None:
        """Who ends leases now, in words for a person; None when nobody does. Takes seconds where one is frozen."""
        account = await self.readings.account()
        await self.ask_enforcers(account)
        return await self.state.read(lambda tx: enforcer(tx, self, account))

    async def ask_enforcers(self, account: str, known: Sequence[Beat] | None = None) -> None:
        """Have those who said lately that they end leases answer now: a frozen process can't, and a killed one. Who has
        answered counts for half a minute, also inside a transaction, which waits for nobody. `known`: who they are."""
        found = await self.state.read(lambda tx: beats(tx, self, account)) if known is None else known
        watchdogs = [one.owner for one in found if one.owner.startswith(WATCHDOG)]
        await self.pulse.ask(watchdogs)
        if not any(self.pulse.answered(one.owner) for one in found):
            await self.pulse.ask([one.owner for one in found if one.owner not in watchdogs])

    async def watched_by(self) -> str | None:
        """Who ends leases and rents for watches from the next moment on; None when nobody does."""
        now = await self.enforced_by()
        promised = now is not None and self.starts_watchdog and not await self.watchdog_hangs()
        return _watchdog_on(self.host) if promised else now

    async def watchdog_hangs(self) -> bool:
        """Whether a watchdog holds the place of the one that would be started, and does not say that it ends leases."""
        account = await self.readings.account()
        await self.ask_enforcers(account)
        found = await self.state.read(lambda tx: beats(tx, self, account))
        if any(one.owner.startswith(WATCHDOG) and self.pulse.answered(one.owner) for one in found):
            return False
        place = Place(self.watchdog_place)
        free = await anyio.to_thread.run_sync(place.take)
        place.release()
        return not free

    async def require_unfrozen(self) -> None:
        """Stop here while the person has stopped all spending. Raises SpendingFrozen."""
        await self.state.read(self.forbid_frozen)

    def forbid_frozen(self, tx: Tx) -> None:
        """The same inside a transaction."""
        freeze = ledger.frozen(tx)
        if freeze is not None:
            raise SpendingFrozen(
                f"The person stopped all spending at {iso(freeze.at)}; nothing was sent. Looking and cancelling work.",
                hint=f"Only they can lift that, with `{self.program} stop --lift` in their own terminal.",
            )

    def note(self, tx: Tx, step: str, caller: str, account: str, **what: Any) -> None:
        """Append a step to the ledger; ids by name, everything else as data. An event is told on when it is there."""
        ids = {name: what.pop(name) for name in ("quote_id", "intent_id", "order_id", "server_id") if name in what}
        entry = Entry(at=self.clock(), account=account, step=step, caller=caller, data=what, **ids)
        ledger.write(tx, entry)
        if step in events.NOTES:
            tx.afterwards.append(lambda: self.tell(entry))


def beats(tx: Tx, context: Context, account: str) -> list[Beat]:
    """Who said lately that it ends leases; a watchdog goes before a server. A beat from the future is from before a
    clock went back: nobody knows how old it is."""
    now = context.clock()
    since, until = now - HEARTBEAT_LASTS_SECONDS, now + CLOCK_SLACK_SECONDS
    return ledger.beats(tx, account, first=WATCHDOG, since=since, until=until)


def enforcer(tx: Tx, context: Context, account: str) -> str | None:
    """Who ends leases now, inside a transaction: of those who said so, one that has answered since."""
    alive = next((one for one in beats(tx, context, account) if context.pulse.answered(one.owner)), None)
    if alive is None:
        return None
    return (
        _watchdog_on(alive.host)
        if alive.owner.startswith(WATCHDOG)
        else f"clore-mcp on {alive.host}, while it runs and the machine is awake"
    )


def _watchdog_on(host: str) -> str:
    return f"the watchdog on {host}, with or without an assistant, while the machine is awake"


def left_to_watchdog(tx: Tx, context: Context, account: str) -> bool:
    """Whether a watchdog lives and this process is not it: then it alone does what one process is enough for."""
    first = next(iter(beats(tx, context, account)), None)
    return first is not None and first.owner.startswith(WATCHDOG) and not context.owner.startswith(WATCHDOG)


def lease_end_is_enforced(tx: Tx, context: Context, account: str) -> bool:
    """Whether someone who ends leases was alive a moment ago."""
    return enforcer(tx, context, account) is not None


async def settle_quote(context: Context, quote: Quote, outcome: Outcome) -> Outcome:
    """Record what came of a quote that this process carries out or that nobody has begun; the outcome that counts.

    A quote that was declined, has expired or is another process's stays as it is. While another process carries it out,
    what stood in our way may be its very order: then it is `in_progress`, whatever we came to. The end of an order has
    its own row in the ledger (closure.py), whoever asked for it; and what was made before is not made again.
    """

    def write(tx: Tx) -> Outcome:
        now = quotes.get(tx, quote.id)
        if now is not None and now.state == "settled":
            return outcome_of(now) or outcome
        if now is not None and now.state == "committing" and now.owner != context.owner:
            return Outcome(Status.IN_PROGRESS, "Another process carries it out.")
        ours = now is not None and now.state in ("pending", "approved", "committing")
        if ours and outcome.status is not Status.IN_PROGRESS:
            quotes.settle(tx, quote.id, outcome.as_json())
            if quote.verb != "cancel_order":
                context.note(
                    tx, "repeated" if outcome.repeated else outcome.status.value, quote.caller, quote.account,
                    quote_id=quote.id, order_id=outcome.order_id, attempts=[one.as_json() for one in outcome.attempts],
                )  # fmt: skip
        return outcome

    return await context.state.write(write)


def iso(unix_seconds: float) -> str:
    """A time for a result: ISO 8601, UTC, whole seconds."""
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


log = logging.getLogger(__name__)


class Commitments:
    """Spending work by quote id. A caller that is cancelled or gives up waiting leaves the work running."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Outcome]] = {}

    async def run(
        self, quote_id: str, work: Callable[[], Awaitable[Outcome]], patience_seconds: float | None
    ) -> Outcome | None:
        """Begin the work, or join it, and wait for its outcome; None when it goes on beyond the patience, if that
        has an end."""
        task = self._running.get(quote_id)
        if task is None:
            task = asyncio.ensure_future(work())
            self._running[quote_id] = task
            task.add_done_callback(lambda done: self._finished(quote_id, done))
        # wait() ends no work, and tells its outcome also where that came in the instant in which the patience ended.
        await asyncio.wait([task], timeout=patience_seconds)
        return task.result() if task.done() else None

    def runs(self, quote_id: str) -> bool:
        """Whether this process is carrying that quote out now."""
        return quote_id in self._running

    async def drain(self, patience_seconds: float) -> None:
        """At the end of the process: let what has begun come to its end, at most so long. The rest is settled later."""
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=patience_seconds)

    def _finished(self, quote_id: str, task: asyncio.Task[Outcome]) -> None:
        self._running.pop(quote_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("quote %s failed: %s", quote_id, type(error).__name__)

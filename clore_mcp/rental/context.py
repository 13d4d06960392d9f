"""The parts that every rental step shares: state, readings, clocks, the operator's caps, this process and its work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio.to_thread

from clore_mcp.clore import CloreClient
from clore_mcp.errors import SpendingFrozen
from clore_mcp.rental import events
from clore_mcp.rental.account.reading import Readings
from clore_mcp.rental.results import Outcome, Status, outcome_of
from clore_mcp.rental.ssh.keys import SshKey
from clore_mcp.rental.terms import POLL_SECONDS
from clore_mcp.settings import Settings
from clore_mcp.store import CLOCK_SLACK_SECONDS, Beat, Database, Entry, Quote, Tx, ledger, quotes
from clore_mcp.store.folder import Place, Pulse
from clore_mcp.text import iso

HEARTBEAT_LASTS_SECONDS: Final = 3 * POLL_SECONDS
WATCHDOG: Final = "watchdog-"  # prefix of an owner that no client closes
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take, in seconds. Only tests shorten them."""

    answer: float = 20.0  # clients give up early, so after this the answer is `in_progress`
    look: float = 120.0  # for an order after its create was sent
    look_after_refusal: float = 15.0  # after an unknown refusal; an order that was made anyway would show by then
    leave_within: float = 90.0  # from a yes to the claim of the send, including the wait for a turn
    send_within: float = 8.0  # from claiming the send to the bytes leaving
    window: float = 60.0  # longer than any HTTP timeout; until then no other process settles what was sent
    orphan: float = 120.0  # longer than a live process needs between two steps; then its unfinished work is closed
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
    # Returns whether a watchdog is there. It is quick, runs on a worker thread and never raises.
    wake_watchdog: Callable[[], bool] = lambda: False
    open_page: Callable[[str], bool] = lambda quote_id: False  # whether the person has that question on their page now
    tell: Callable[[Entry], object] = lambda event: None  # just as quick; called for each event in the ledger

    async def enforced_by(self) -> str | None:
        """Return which process ends leases now, for a person, or None. Takes seconds if a process is suspended."""
        account = await self.readings.account()
        await self.ask_enforcers(account)
        return await self.state.read(lambda tx: enforcer(tx, self, account))

    async def ask_enforcers(self, account: str, known: Sequence[Beat] | None = None) -> None:
        """Ask the processes that recently said that they end leases to answer now, which a suspended or killed process
        can't. An answer counts for half a minute, also inside transactions, which can't wait. `known` holds their
        heartbeats, if they are already read."""
        found = await self.state.read(lambda tx: beats(tx, self, account)) if known is None else known
        watchdogs = [one.owner for one in found if one.owner.startswith(WATCHDOG)]
        await self.pulse.ask(watchdogs)
        if not any(self.pulse.answered(one.owner) for one in found):
            await self.pulse.ask([one.owner for one in found if one.owner not in watchdogs])

    async def watched_by(self) -> str | None:
        """Return which process will end leases and rent for watches from now on, or None."""
        now = await self.enforced_by()
        promised = now is not None and self.starts_watchdog and not await self.watchdog_hangs()
        return _watchdog_on(self.host) if promised else now

    async def watchdog_hangs(self) -> bool:
        """Return whether a process holds the watchdog's place but does not answer that it ends leases."""
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
        """Raise SpendingFrozen while the person has stopped all spending."""
        await self.state.read(self.forbid_frozen)

    def forbid_frozen(self, tx: Tx) -> None:
        """Raise SpendingFrozen, inside a transaction, while the person has stopped all spending."""
        freeze = ledger.frozen(tx)
        if freeze is not None:
            raise SpendingFrozen(
                f"The person stopped all spending at {iso(freeze.at)}, so nothing was sent. Reading and cancelling"
                " still work.",
                hint=f"Only they can lift the freeze, with `{self.program} stop --lift` in their own terminal.",
            )

    def note(self, tx: Tx, step: str, caller: str, account: str, **what: Any) -> None:
        """Append a step to the ledger, ids by name and the rest as data. Events are reported once written."""
        ids = {name: what.pop(name) for name in ("quote_id", "intent_id", "order_id", "server_id") if name in what}
        entry = Entry(at=self.clock(), account=account, step=step, caller=caller, data=what, **ids)
        ledger.write(tx, entry)
        if step in events.NOTES:
            tx.afterwards.append(lambda: self.tell(entry))


def beats(tx: Tx, context: Context, account: str) -> list[Beat]:
    """Return the recent heartbeats of processes that end leases, watchdogs before servers. A heartbeat from the future
    was written before a clock went back, so its age is unknown and it is left out."""
    now = context.clock()
    since, until = now - HEARTBEAT_LASTS_SECONDS, now + CLOCK_SLACK_SECONDS
    return ledger.beats(tx, account, first=WATCHDOG, since=since, until=until)


def enforcer(tx: Tx, context: Context, account: str) -> str | None:
    """Return which process ends leases now, or None, inside a transaction. It has answered since its heartbeat."""
    alive = next((one for one in beats(tx, context, account) if context.pulse.answered(one.owner)), None)
    if alive is None:
        return None
    if alive.owner.startswith(WATCHDOG):
        return _watchdog_on(alive.host)
    return f"clore-mcp on {alive.host}, while it runs and the machine is awake"


def _watchdog_on(host: str) -> str:
    return f"the watchdog on {host}, with or without an assistant, while the machine is awake"


def left_to_watchdog(tx: Tx, context: Context, account: str) -> bool:
    """Return whether another process is a live watchdog, which then alone does the work that needs one process."""
    first = next(iter(beats(tx, context, account)), None)
    return first is not None and first.owner.startswith(WATCHDOG) and not context.owner.startswith(WATCHDOG)


async def settle_quote(context: Context, quote: Quote, outcome: Outcome) -> Outcome:
    """Record the outcome of a quote that this process carries out or that no process has begun. Returns the outcome
    that counts.

    A quote that was declined, has expired or belongs to another process stays as it is. While another process carries
    it out, the obstacle here may be that process's own order, so the outcome is then `in_progress`. The end of an order
    has its own row in the ledger (closure.py), no matter who asked for it.
    """

    def write(tx: Tx) -> Outcome:
        now = quotes.get(tx, quote.id)
        if now is not None and now.state == "settled":
            return outcome_of(now) or outcome
        if now is not None and now.state == "committing" and now.owner != context.owner:
            return Outcome(
                Status.IN_PROGRESS,
                "Another process is carrying it out. Call again with the same arguments for the outcome.",
            )
        ours = now is not None and now.state in ("pending", "approved", "committing")
        if ours and outcome.status is not Status.IN_PROGRESS:
            quotes.settle(tx, quote.id, outcome.as_json())
            if quote.verb != "cancel_order":
                context.note(
                    tx, "repeated" if outcome.repeated else outcome.status.value, quote.caller, quote.account,
                    quote_id=quote.id, order_id=outcome.order_id, attempts=[asdict(one) for one in outcome.attempts],
                )  # fmt: skip
        return outcome

    return await context.state.write(write)


class Commitments:
    """Runs spending work by quote id. The work goes on if its caller is cancelled or gives up waiting."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Outcome]] = {}

    async def run(
        self, quote_id: str, work: Callable[[], Awaitable[Outcome]], patience_seconds: float | None
    ) -> Outcome | None:
        """Start the work or join it, and return its outcome, or None if it takes longer than `patience_seconds`."""
        task = self._running.get(quote_id)
        if task is None:
            task = self._running[quote_id] = asyncio.ensure_future(work())
            task.add_done_callback(lambda done: self._finished(quote_id, done))
        # wait() cancels no work, and it also returns an outcome that arrives at the instant of the timeout.
        await asyncio.wait([task], timeout=patience_seconds)
        return task.result() if task.done() else None

    def runs(self, quote_id: str) -> bool:
        """Return whether this process is carrying out that quote now."""
        return quote_id in self._running

    async def drain(self, patience_seconds: float) -> None:
        """Wait up to `patience_seconds` for the running work, at the end of the process. The rest is settled later."""
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=patience_seconds)

    def _finished(self, quote_id: str, task: asyncio.Task[Outcome]) -> None:
        self._running.pop(quote_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("quote %s failed: %s", quote_id, type(error).__name__)

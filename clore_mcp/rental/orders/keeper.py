"""Ends leases while this process runs. Its heartbeat shows that. Without one, every reservation counts for longer.

Leases follow Clore's time. A round starts with a look at the orders, and due orders are cancelled before anything else.
No failure delays an end, be it of the state (leases are remembered), of the list of orders or of other work. A
heartbeat is written only after a round that could read and end leases.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from clore_mcp.errors import CloreError, Failure, InvalidApiKey, NoApiKey, StateNewer, StateUnavailable
from clore_mcp.rental.account.reading import Orders
from clore_mcp.rental.context import Context
from clore_mcp.rental.create.settle import Settler
from clore_mcp.rental.ends import cancels
from clore_mcp.rental.ends.cancels import SentCancel
from clore_mcp.rental.ends.closure import Closer
from clore_mcp.rental.results import Status
from clore_mcp.store import End, Tx, ledger, orders, quotes

log = logging.getLogger(__name__)
_BACK_WITHIN_SECONDS: Final = 86_400.0  # how long an order that vanished or ended is looked for
_BACK_WITHIN_POLLS: Final = 10  # for this many polls, every round looks for an order proven gone; then each tenth does
_REMEMBERED_SECONDS: Final = 600.0  # how long after its end an order known only in memory is looked for


@dataclass(frozen=True, slots=True)
class Round:
    """The result of a round: whether anything is left to end, why Clore's list of orders can't be read, why orders (by
    id) run beyond their end, and why the leases could not be read, so that the remembered ones were used. `endless`
    holds orders made here that run without a recorded end. `doubtful` holds those that may belong to this account,
    without proof."""

    left: bool = True
    blind: CloreError | None = None
    overdue: Mapping[int, str] = field(default_factory=dict)
    unread: StateUnavailable | None = None
    endless: frozenset[int] = frozenset()
    doubtful: frozenset[int] = frozenset()


class Keeper:
    """Cancels orders at their end, writes the heartbeat and settles open creates. `last` is the last round."""

    def __init__(
        self,
        context: Context,
        closer: Closer,
        settler: Settler,
        chores: Sequence[Chore],
        poll_seconds: float,
    ) -> None:
        self._context = context
        self._closer = closer
        self._settler = settler
        self._chores = Chores(chores)
        self._poll_seconds = poll_seconds
        self._task: asyncio.Task[None] | None = None
        self._pulse: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._at_work = asyncio.Lock()  # rounds share the fields below, so only one runs at a time
        self.last = Round()
        self._blind: CloreError | None = None
        self._leases: list[End] = []  # as last read; used while the state can't be read
        self._unread: StateUnavailable | None = None  # why the leases are those of an earlier reading
        self._looked_at = -math.inf  # monotonic
        self._doubtful: frozenset[int] = frozenset()
        self._strays = False  # whether another account that may be this one has open creates
        self._held_back = False  # whether the last round skipped a cancel, because another process's is on its way

    async def start(self) -> None:
        """Write a heartbeat and start the rounds in the background. Further calls do nothing. Raises NoApiKey and
        InvalidApiKey; other failures are retried in the background."""
        async with self._starting:
            if self._task is None:
                try:
                    # The heartbeat for the call that starts this. It lasts three polls, and only a round that could end
                    # leases renews it.
                    account = await self._context.readings.account()
                    await self._read_leases(account)
                    if self._unread is not None:
                        raise self._unread
                    await self._beat(account)
                except (NoApiKey, InvalidApiKey):
                    raise
                except Failure as failure:
                    log.warning("the leases are not watched yet: %s", failure.message)
                self._task = asyncio.ensure_future(self._run())
                self._pulse = asyncio.ensure_future(self.answer())

    async def answer(self) -> None:
        """Answer other processes that ask whether leases are enforced, while this one can read them."""
        await self._context.pulse.keep(self._can_read)

    async def _can_read(self) -> bool:
        try:
            await self._context.state.read(lambda tx: None)
        except StateUnavailable:
            return False
        return self._unread is None

    async def finish(self) -> None:
        """Wait for the work that the last round has started."""
        await self._chores.finish()

    async def stop(self) -> None:
        """Stop the work and withdraw the heartbeat."""
        await self._chores.stop()
        if self._task is None or self._pulse is None:
            return
        self._task.cancel()
        self._pulse.cancel()
        await asyncio.wait([self._task, self._pulse])
        self._task = self._pulse = None
        try:
            account = await self._context.readings.account()
            await self._context.state.write(lambda tx: ledger.rest(tx, account, self._context.owner))
        except Failure as failure:  # then it expires by itself
            log.warning("the heartbeat could not be taken back: %s", failure.message)

    async def poll(self) -> float:
        """Do one round and return the seconds until the next. Raises CloreError while the account is unknown."""
        async with self._at_work:
            return await self._round()

    async def _round(self) -> float:
        try:
            account = await self._context.readings.account()
        except CloreError as error:
            self.last = Round(blind=error)
            raise
        left = await self._anything(account)
        # A watchdog of the version that changed the state may have moved ends that this process remembers differently.
        if isinstance(self._unread, StateNewer) and await asyncio.to_thread(self._context.wake_watchdog):
            self.last = Round(unread=self._unread)
            return self._poll_seconds
        if not (left or self._doubtful or self._strays or await self._may_come_back(account)):
            self.last = Round(left=await self._asked(account), unread=self._unread)
            await self._beat_if_read(account)
            return self._poll_seconds
        current = await self._look()
        if current is not None:
            account = await self._taken_up(account, current)
            left = left or bool(self._leases)
        sent = await self._end_due(current)
        if left:
            await asyncio.to_thread(self._context.wake_watchdog)
        overdue = self._overdue_unseen() if current is None else {}
        overdue |= {one.order_id: one.unproven for one in sent}
        if current is not None:
            if not any(one.trouble for one in sent):
                await self._beat_if_read(account)
            await self._try("orders could not be written down", self._settler.write_down())
            await self._try("what is open could not be settled", self._settler.settle_open(account, current))
            await self._try("ended orders could not be closed", self._closer.reconcile(account, current, None))
            self._chores.begin(account, current)
        if sent:
            await self._try("ended leases could not be reported", self._tell_ended(sent, overdue))
        self.last = Round(
            left=self._remembers(current)
            if self._unread is not None
            else left or self._strays or bool(self._doubtful) or await self._asked(account),
            blind=self._blind,
            overdue=overdue,
            unread=self._unread,
            endless=await self._endless(account, current),
            doubtful=self._doubtful,
        )
        if current is None or self._unread is not None or self._held_back or any(one.trouble for one in sent):
            return self._poll_seconds / 4
        return await self._until_next(account)

    async def _anything(self, account: str) -> bool:
        """Return whether there is work: leases, orders that may come back, creates that may still show, chores."""
        if await self._read_leases(account):
            return True
        if self._unread is not None:
            return False
        try:
            return await self._settler.to_settle(account) or await self._chores.left(account)
        except Exception as error:  # then there may be work
            log.warning("what is left to do could not be read: %s", error)
            return True

    async def _read_leases(self, account: str) -> bool:
        """Return whether there are leases or orders that may come back. Unreadable leases are enforced as last read,
        and those of unrecorded orders as remembered."""
        now = self._context.clock()
        unseen, proven = now - _BACK_WITHIN_SECONDS, now - _BACK_WITHIN_POLLS * self._poll_seconds

        def read(tx: Tx) -> tuple[list[End], bool]:
            back = orders.ended_since(tx, account, unseen, unlisted=True) or orders.ended_since(tx, account, proven)
            return orders.ends(tx, account), back

        back, unread = False, None
        try:
            self._leases, back = await self._context.state.read(read)
        except StateUnavailable as error:
            unread = error
        except Exception as error:  # including a row that can't be read
            unread = StateUnavailable(f"The ends of orders can't be read ({type(error).__name__}).")
        self._unread = unread  # set only now, because others may ask meanwhile whether leases are enforced
        if unread is not None:
            log.warning("the leases could not be read: %s", unread.message)
        known = {lease.order_id for lease in self._leases}
        self._leases += [end for end in self._settler.unwritten(account) if end.order_id not in known]
        return back or bool(self._leases)

    def _remembers(self, current: Orders | None) -> bool:
        api_now = self._context.readings.api_now()
        listed = None if current is None or current.unreadable else {r.id for r in current.rows if not r.expired}
        return any(
            lease.on_end == "cancel"
            and (listed is None or lease.order_id in listed or api_now < lease.ends_api_at + _REMEMBERED_SECONDS)
            for lease in self._leases
        )

    async def _may_come_back(self, account: str) -> bool:
        """Return whether to look for orders that were proven gone and those of other accounts, although no work is
        left: in the first round of a process, and in every tenth one while an order has ended within a day."""
        seconds = self._context.monotonic() - self._looked_at
        if seconds < _BACK_WITHIN_POLLS * self._poll_seconds:
            return False
        since = self._context.clock() - _BACK_WITHIN_SECONDS

        def read(tx: Tx) -> bool:
            return orders.ended_since(tx, account, since) or (seconds == math.inf and orders.made_any(tx))

        try:
            return await self._context.state.read(read)
        except Exception as error:  # then there may be some
            log.warning("what has ended could not be read: %s", error)
            return True

    async def _taken_up(self, account: str, current: Orders) -> str:
        """Restore the leases of orders that are listed as running. Returns the account, which may have changed."""
        self._looked_at = self._context.monotonic()
        try:
            account = await self._context.readings.account()
            await self._closer.reopen_listed(account, current)
            self._doubtful = frozenset(lease.order_id for lease in await self._context.readings.doubtful())
            account = await self._context.readings.account()
            self._strays = await self._settler.strays(account)
            found = await self._context.state.read(lambda tx: orders.ends(tx, account))
        except Exception as error:  # no error, such as an unreadable row, may delay an end
            log.warning("what runs again could not be taken up: %s", getattr(error, "message", type(error).__name__))
            return account
        # Ends that were read before stay, because the state may have been deleted in between.
        self._leases = list({end.order_id: end for end in (*self._leases, *found)}.values())
        return account

    async def _endless(self, account: str, current: Orders | None) -> frozenset[int]:
        if current is None:
            return frozenset()
        try:
            return frozenset(lease.order_id for lease in await self._closer.back(account, current))
        except Exception:  # including a row that can't be read, which is reported elsewhere
            return frozenset()

    async def _asked(self, account: str) -> bool:
        """Return whether a question waits or is approved. Its process relies on this watchdog and may be killed."""
        now = self._context.clock()
        try:
            held = await self._context.state.read(lambda tx: quotes.waiting(tx, account))
            return any(quote.in_time(now) for quote in held)
        except Exception as error:  # then there may be one
            log.warning("the questions could not be read: %s", error)
            return True

    async def _look(self) -> Orders | None:
        self._blind = None
        try:
            return await self._context.readings.look(completed=False)
        except CloreError as error:
            self._blind = error
            log.warning("ends are enforced without the list of orders: %s", error.message)
            return None

    async def _end_due(self, current: Orders | None) -> list[SentCancel]:
        """Cancel all due orders at once while Clore's time is certain. A jump of either clock forces the next look.
        Without the list, an order counts as running."""
        readings = self._context.readings
        self._held_back = False
        if not readings.api_clock.certain:
            return []
        api_now = readings.api_now()
        listed = None if current is None else {row.id for row in current.rows if not row.expired}
        over = [lease for lease in self._leases if api_now >= lease.ends_api_at]
        due = [
            (lease.account, lease.order_id)
            for lease in over
            if lease.on_end == "cancel"
            and (listed is None or lease.order_id in listed or (current is not None and current.unreadable))
        ]
        by = cancels.LeaseOver(None if current is None else current.at, self._poll_seconds / 2)
        sent = (
            await cancels.send(self._context, due, caller="clore-mcp", why=cancels.LEASE_OVER, over=by) if due else []
        )
        self._held_back = len(sent) < len(due)
        for lease in over:
            if lease.on_end == "notify" and listed is not None and lease.order_id in listed:
                await self._try("the end of a lease could not be reported", self._tell(lease, "lease_over"))
        return sent

    def _overdue_unseen(self) -> dict[int, str]:
        api_now = self._context.readings.api_now()
        over = (lease for lease in self._leases if lease.on_end == "cancel" and api_now >= lease.ends_api_at)
        why = "" if self._blind is None else self._blind.message
        return {lease.order_id: why for lease in over}

    async def _tell_ended(self, sent: Sequence[SentCancel], overdue: dict[int, str]) -> None:
        """Prove the cancels. An order that is not proven gone stays overdue, and the next round tries again."""
        for one in await self._closer.prove(sent):
            if one.status is Status.CANCELLED and one.order_id is not None:
                overdue.pop(one.order_id, None)
        for lease in self._leases:
            if lease.order_id in {one.order_id for one in sent}:
                await self._tell(lease, "still_billing" if lease.order_id in overdue else "lease_ended")

    async def _tell(self, lease: End, step: str) -> None:
        """Record an event for get_account, once for each end; the ledger's row shows whether it was recorded. An order
        ends once, and the first process that closes it records that (closure.py)."""

        def write(tx: Tx) -> None:
            told = ledger.steps(tx, lease.account, lease.order_id, step)
            if not any(step == "lease_ended" or one["ends_api_at"] == lease.ends_api_at for one in told):
                self._context.note(
                    tx, step, "clore-mcp", lease.account, order_id=lease.order_id, ends_api_at=lease.ends_api_at
                )

        await self._context.state.write(write)

    async def _until_next(self, account: str) -> float:
        await self._read_leases(account)  # the round may have added some
        api_now = self._context.readings.api_now()
        left = [lease.ends_api_at - api_now for lease in self._leases if lease.ends_api_at > api_now]
        return max(1.0, min([self._poll_seconds, *left]))

    async def _beat_if_read(self, account: str) -> None:
        """Write the heartbeat only if the leases can be read, because new ones could not be ended otherwise."""
        if self._unread is None:
            await self._try("the heartbeat could not be written", self._beat(account))

    async def _beat(self, account: str) -> None:
        context = self._context
        await context.state.write(lambda tx: ledger.beat(tx, account, context.owner, context.host, context.clock()))

    async def _try(self, otherwise: str, work: Awaitable[None]) -> None:
        try:
            await work
        except Failure as failure:
            log.warning("%s: %s", otherwise, failure.message)
        except Exception as error:  # no error, such as an unreadable row, may end the watch over money
            log.error("%s: %s", otherwise, type(error).__name__)

    async def _run(self) -> None:
        while True:
            try:
                pause = await self.poll()
            except Failure as failure:
                log.warning("the leases could not be checked: %s", failure.message)
                pause = self._poll_seconds / 4
            except Exception as error:  # no error in one round may end the watch over money
                log.error("the leases could not be checked: %s", type(error).__name__)
                pause = self._poll_seconds / 4
            await asyncio.sleep(pause)


class Chore(Protocol):
    """One kind of work in a round."""

    what: str
    """Its name in the log, as in "the watches"."""

    async def left(self, account: str) -> bool:
        """Return whether it needs rounds even if no order has an end to enforce."""

    async def round(self, account: str, current: Orders) -> None:
        """Do the work that is due. `current` holds the orders that run at Clore."""


class Chores:
    """Runs each chore in its own task, one round at a time. A chore whose last round still runs is skipped."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        self._chores = tuple(chores)
        self._running: dict[Chore, asyncio.Task[None]] = {}

    async def left(self, account: str) -> bool:
        return any([await chore.left(account) for chore in self._chores])

    def begin(self, account: str, current: Orders) -> None:
        for chore in self._chores:
            if chore not in self._running or self._running[chore].done():
                self._running[chore] = asyncio.ensure_future(_guarded(chore, account, current))

    async def finish(self) -> None:
        if self._running:
            await asyncio.wait(list(self._running.values()))

    async def stop(self) -> None:
        """Cancel the running rounds. Spending that has begun is completed elsewhere (context.py)."""
        for task in self._running.values():
            task.cancel()
        await self.finish()


async def _guarded(chore: Chore, account: str, current: Orders) -> None:
    try:
        await chore.round(account, current)
    except Failure as failure:
        log.warning("a round of %s failed: %s", chore.what, failure.message)
    except Exception as error:  # no error, such as an unreadable row, may end the watchdog
        log.error("a round of %s failed: %s", chore.what, type(error).__name__)

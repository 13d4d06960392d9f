"""Ends leases while this process runs: its heartbeat says so, and its absence makes every reservation longer.

Lease time is Clore's time. A round begins with a look at the orders, and what is due is cancelled before anything else
is done. Nothing that fails holds up an end: not the state (leases are remembered), not a list that can't be read, not
what else there is to settle. A heartbeat is written only after a round that could end leases.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from clore_mcp.errors import CloreError, Failure, InvalidApiKey, NoApiKey
from clore_mcp.rental.desk import Desk
from clore_mcp.rental.ends import cancels
from clore_mcp.rental.ends.cancels import Sent
from clore_mcp.rental.ends.chores import Chore, Chores
from clore_mcp.rental.ends.closing import Closing
from clore_mcp.rental.readings import Orders
from clore_mcp.rental.settling import Settling
from clore_mcp.rental.terms import POLL_SECONDS
from clore_mcp.state import ends, ledger, orders, quotes
from clore_mcp.state.database import Tx
from clore_mcp.state.ends import End

log = logging.getLogger(__name__)

_BACK_WITHIN_SECONDS: Final = 86_400.0  # so long an order that vanished without a trace is looked for


@dataclass(frozen=True, slots=True)
class Round:
    """What one round found: whether anything is left to keep, what stands in the way of Clore's list of orders, and why
    orders (by id) run on beyond their end."""

    left: bool = True
    blind: CloreError | None = None
    overdue: Mapping[int, str] = field(default_factory=dict)


class Keeper:
    """Cancels what has reached its end, beats, and settles what is open. `last` is what the last round found."""

    def __init__(
        self,
        desk: Desk,
        closing: Closing,
        settling: Settling,
        chores: Sequence[Chore] = (),
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._desk = desk
        self._closing = closing
        self._settling = settling
        self._chores = Chores(chores)
        self._poll_seconds = poll_seconds
        self._task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._at_work = asyncio.Lock()  # rounds share what follows: one at a time
        self.last = Round()
        self._blind: CloreError | None = None
        self._leases: list[End] = []  # as last read: what counts while the state can't be
        self._held_back = False  # a cancel of the last round, for somebody else's that is on its way

    async def start(self) -> None:
        """Beat once and go on in the background; called again, nothing happens. Without a key there is nothing to keep;
        what else fails is tried again in the background, and no call waits for it: a cancel needs neither."""
        async with self._starting:
            if self._task is None:
                try:
                    # For the call that starts this. It lasts three polls; only a round that could end leases renews it.
                    await self._beat(await self._desk.readings.account())
                except (NoApiKey, InvalidApiKey):
                    raise
                except Failure as failure:
                    log.warning("the leases are not watched yet: %s", failure.message)
                self._task = asyncio.ensure_future(self._run())

    async def finish(self) -> None:
        """Wait for what the last round has begun."""
        await self._chores.finish()

    async def stop(self) -> None:
        """End the work and take the heartbeat back."""
        await self._chores.stop()
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None
        try:
            account = await self._desk.readings.account()
            await self._desk.state.write(lambda tx: ledger.rest(tx, account, self._desk.owner))
        except Failure as failure:  # then it runs out by itself
            log.warning("the heartbeat could not be taken back: %s", failure.message)

    async def poll(self) -> float:
        """One round; how many seconds until the next. Raises CloreError while nobody knows whose account this is."""
        async with self._at_work:
            return await self._round()

    async def _round(self) -> float:
        try:
            account = await self._desk.readings.account()
        except CloreError as error:
            self.last = Round(blind=error)
            raise
        if not await self._anything(account):
            self.last = Round(left=await self._asked(account))
            await self._try("the heartbeat could not be written", self._beat(account))
            return self._poll_seconds
        current = await self._look()
        sent = await self._end_due(current)
        await asyncio.to_thread(self._desk.wake_watchdog)
        overdue = {one.order_id: one.said for one in sent} if current else self._overdue_unseen(sent)
        if current is not None:
            if not any(one.trouble for one in sent):
                await self._try("the heartbeat could not be written", self._beat(account))
            await self._try("what is open could not be settled", self._settling.settle_open(account, current))
            await self._try("ended orders could not be closed", self._closing.reconcile(account, current, None))
            self._chores.begin(account, current)
        if sent:
            await self._try("ended leases could not be told", self._tell_ended(sent, overdue))
        self.last = Round(blind=self._blind, overdue=overdue)
        if current is None or self._held_back or any(one.trouble for one in sent):
            return self._poll_seconds / 4
        return await self._until_next(account)

    async def _anything(self, account: str) -> bool:
        """Whether there is anything to keep: leases, orders that may come back, creates that may still show, chores."""
        since = self._desk.clock() - _BACK_WITHIN_SECONDS

        def read(tx: Tx) -> tuple[list[End], bool]:
            return ends.active(tx, account), orders.may_come_back(tx, account, since)

        try:
            self._leases, back = await self._desk.state.read(read)
            open_still = bool(self._leases) or back or await self._settling.to_settle(account)
            return open_still or await self._chores.left(account)
        except Exception as error:  # then leases end as they were last read
            log.warning("the leases could not be read: %s", error)
            return bool(self._leases)

    async def _asked(self, account: str) -> bool:
        """Whether a question waits or has its yes: who makes that order has found the watchdog at work, and may be
        killed over it."""
        now = self._desk.clock()
        try:
            held = await self._desk.state.read(lambda tx: quotes.waiting(tx, account))
        except Exception as error:  # then there may be one
            log.warning("the questions could not be read: %s", error)
            return True
        return any(quote.in_time(now) for quote in held)

    async def _look(self) -> Orders | None:
        self._blind = None
        try:
            return await self._desk.readings.look(completed=False)
        except CloreError as error:
            self._blind = error
            log.warning("leases end without the list of orders: %s", error.message)
            return None

    async def _end_due(self, current: Orders | None) -> list[Sent]:
        """Cancel all that are due, at once, while Clore's time is certain; a jump of either clock forces the next look.
        Without the list, an order counts as running."""
        readings = self._desk.readings
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
        by = cancels.Over(None if current is None else current.at, self._poll_seconds / 2)
        sent = await cancels.send(self._desk, due, caller="clore-mcp", why=cancels.LEASE_OVER, over=by) if due else []
        self._held_back = len(sent) < len(due)
        for lease in over:
            if lease.on_end == "notify" and listed is not None and lease.order_id in listed:
                await self._try("the end of a lease could not be told", self._tell(lease, "lease_over"))
        return sent

    def _overdue_unseen(self, sent: Sequence[Sent]) -> dict[int, str]:
        """Why orders run on while Clore's list can't be read."""
        api_now = self._desk.readings.api_now()
        over = (lease for lease in self._leases if lease.on_end == "cancel" and api_now >= lease.ends_api_at)
        why = "" if self._blind is None else self._blind.message
        return {lease.order_id: why for lease in over} | {one.order_id: one.said for one in sent}

    async def _tell_ended(self, sent: Sequence[Sent], overdue: dict[int, str]) -> None:
        """Prove what was cancelled; what is not proven gone stays overdue, and is tried again in the next round."""
        for one in await self._closing.prove(sent):
            if one["status"] == "cancelled":
                overdue.pop(one["order_id"], None)
        for lease in self._leases:
            if lease.order_id in {one.order_id for one in sent}:
                await self._tell(lease, "still_billing" if lease.order_id in overdue else "lease_ended")

    async def _tell(self, lease: End, step: str) -> None:
        """Leave an event for get_account, once for each end: the ledger's own row says that it was left. An order ends
        once, and whoever closes it first says so (closing.py)."""

        def write(tx: Tx) -> None:
            told = orders.steps(tx, lease.account, lease.order_id, step)
            if not any(step == "lease_ended" or one["ends_api_at"] == lease.ends_api_at for one in told):
                self._desk.note(
                    tx, step, "clore-mcp", lease.account, order_id=lease.order_id, ends_api_at=lease.ends_api_at
                )

        await self._desk.state.write(write)

    async def _until_next(self, account: str) -> float:
        """Seconds to the next end, or to the next poll."""
        await self._anything(account)  # the round may have brought leases
        api_now = self._desk.readings.api_now()
        left = [lease.ends_api_at - api_now for lease in self._leases if lease.ends_api_at > api_now]
        return max(1.0, min([self._poll_seconds, *left]))

    async def _beat(self, account: str) -> None:
        desk = self._desk
        await desk.state.write(lambda tx: ledger.beat(tx, account, desk.owner, desk.host, desk.clock()))

    async def _try(self, otherwise: str, work: Awaitable[None]) -> None:
        """Do one part of a round; whatever it fails with holds up no other part."""
        try:
            await work
        except Failure as failure:
            log.warning("%s: %s", otherwise, failure.message)
        except Exception as error:  # a row that nobody can read, too, must not end the watch over money
            log.error("%s: %s", otherwise, type(error).__name__)

    async def _run(self) -> None:
        while True:
            try:
                pause = await self.poll()
            except Failure as failure:
                log.warning("the leases could not be checked: %s", failure.message)
                pause = self._poll_seconds / 4
            except Exception as error:  # whatever else breaks in one round must not end the watch over money
                log.error("the leases could not be checked: %s", type(error).__name__)
                pause = self._poll_seconds / 4
            await asyncio.sleep(pause)

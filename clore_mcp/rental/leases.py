"""Ends leases while this process runs: its heartbeat says so, and its absence makes every reservation longer.

Lease time is Clore's time. A local clock that jumps moves nothing: the end is compared with the date of a reply read
just before the cancel.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from clore_mcp.errors import Failure, InvalidApiKey, NoApiKey
from clore_mcp.rental.closing import Closing
from clore_mcp.rental.desk import Desk
from clore_mcp.rental.settling import Settling
from clore_mcp.rental.terms import POLL_SECONDS
from clore_mcp.state import ledger, orders
from clore_mcp.state.database import Tx
from clore_mcp.state.orders import Lease

log = logging.getLogger(__name__)

_BACK_WITHIN_SECONDS: Final = 86_400.0  # so long an order that vanished without a trace is looked for


class Keeper:
    """Beats, settles what is open, and cancels what has reached its end."""

    def __init__(self, desk: Desk, closing: Closing, settling: Settling, poll_seconds: float = POLL_SECONDS) -> None:
        self._desk = desk
        self._closing = closing
        self._settling = settling
        self._poll_seconds = poll_seconds
        self._task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Beat once and go on in the background; called again, nothing happens. Without a key there is nothing to keep;
        what else fails is tried again in the background, and no call waits for it: a cancel needs neither."""
        async with self._starting:
            if self._task is None:
                try:
                    await self._beat()
                except (NoApiKey, InvalidApiKey):
                    raise
                except Failure as failure:
                    log.warning("the leases are not watched yet: %s", failure.message)
                self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """End the work and take the heartbeat back."""
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
        """One round; how many seconds until the next."""
        desk = self._desk
        account = await self._beat()
        since = desk.clock() - _BACK_WITHIN_SECONDS
        kept = await desk.state.read(
            lambda tx: bool(orders.active(tx, account)) or orders.may_come_back(tx, account, since)
        )
        if not kept and not await self._settling.to_settle(account):
            return self._poll_seconds
        current = await desk.readings.look(completed=False)
        await self._settling.settle_open(account, current)
        await self._closing.reconcile(account, current, None)
        listed = {row.id for row in current.rows if not row.expired}
        api_now = desk.readings.api_now()
        leases = await desk.state.read(lambda tx: orders.active(tx, account))
        for lease in leases:
            if api_now < lease.ends_api_at:
                continue
            if lease.on_end == "cancel" and (lease.order_id in listed or current.unreadable):
                await self._end(lease)
            elif lease.on_end == "notify" and lease.order_id in listed:
                await self._tell(lease, "lease_over")
        left = [lease.ends_api_at - api_now for lease in leases if lease.ends_api_at > api_now]
        return max(1.0, min([self._poll_seconds, *left]))

    async def _end(self, lease: Lease) -> None:
        """Cancel; what fails here is tried again in the next round, and holds up no other lease."""
        try:
            gone = await self._closing.cancel(lease.order_id, issue=None, caller="clore-mcp", why="its lease is over")
            if gone["status"] == "cancelled":
                await self._tell(lease, "lease_ended")
        except Failure as failure:
            log.warning("order %s could not be cancelled at its end: %s", lease.order_id, failure.message)

    async def _tell(self, lease: Lease, step: str) -> None:
        """Leave an event for get_account, once: the ledger's own row says that it was left."""

        def write(tx: Tx) -> None:
            if not orders.has_step(tx, lease.account, lease.order_id, step):
                self._desk.note(
                    tx, step, "clore-mcp", lease.account, order_id=lease.order_id, ends_api_at=lease.ends_api_at
                )

        await self._desk.state.write(write)

    async def _beat(self) -> str:
        desk = self._desk
        account = await desk.readings.account()
        await desk.state.write(lambda tx: ledger.beat(tx, account, desk.owner, desk.host, desk.clock()))
        return account

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

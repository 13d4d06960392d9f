"""Ending an order and proving that it is gone, with what it cost.

Proven gone is `expired: true` in Clore's list of completed orders, or absence from two valid replies a minute apart;
one empty list proves nothing. Until then the reservation stays, and the answer says `unverified` and still billing.
"""

from __future__ import annotations

from decimal import Decimal
from math import ceil
from typing import Any, Final

import anyio

from clore_mcp.clore import OrderRow
from clore_mcp.errors import CloreError, Refused
from clore_mcp.market.rates import Rates
from clore_mcp.money import ZERO, shown
from clore_mcp.rental.desk import Desk
from clore_mcp.rental.exposure import Bill, bill, usd_per_hour
from clore_mcp.rental.readings import BROWSING_AGE, Orders
from clore_mcp.state import intents, orders
from clore_mcp.state.database import Tx
from clore_mcp.state.orders import Lease
from clore_mcp.text import clean

_LOOK_PAUSES: Final = (0.5, 1.0, 2.0, 3.0, 5.0)
_AGAIN_AFTER_LOOKS: Final = 3  # still listed as running after so many looks: ask again


class Closing:
    """Cancels orders and keeps the record of ended ones."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def cancel(self, order_id: int, *, issue: str | None, caller: str, why: str) -> dict[str, Any]:
        """Cancel an order and look until it is proven gone: `cancelled` with the receipt, or `unverified`."""
        desk = self._desk
        account = await desk.readings.account()
        api_now = int(desk.readings.api_now())

        def write(tx: Tx) -> None:
            orders.cut(tx, account, order_id, api_now)
            desk.note(tx, "cancel_sent", caller, account, order_id=order_id, why=why, issue=clean(issue or "", 200))

        await desk.state.write(write)
        trouble = await self._send(order_id, issue)
        row = await self._prove(order_id, issue)
        desk.readings.changed()
        if row is None:
            return await self._unverified(account, order_id, caller, trouble)
        return await self._gone(account, row, caller)

    async def reconcile(self, account: str, current: Orders, completed: Orders | None) -> None:
        """Hold the orders made here against what Clore lists; those proven gone are closed with their cost."""
        desk = self._desk
        leases = await desk.state.read(lambda tx: orders.active(tx, account))
        listed = {row.id for row in current.rows if not row.expired}
        missing = [lease for lease in leases if lease.order_id not in listed]
        back = [lease.order_id for lease in leases if lease.order_id in listed and lease.missed_at is not None]
        if back:
            await desk.state.write(lambda tx: orders.seen_again(tx, account, back))
        if not missing or current.unreadable:
            return
        completed = completed or await desk.readings.completed(BROWSING_AGE)
        for lease in missing:
            row = completed.find(lease.order_id)
            if row is not None or not completed.unreadable:
                await self._reconcile_missing(account, lease, current, row)

    async def _reconcile_missing(self, account: str, lease: Lease, seen: Orders, row: OrderRow | None) -> None:
        desk = self._desk
        at = seen.at if seen.api_at is None else seen.api_at  # Clore's clock where it told: ours may jump
        if row is not None and row.expired:
            await self._close(account, lease, await self._bill(row, lease), "ended")
        elif row is None and lease.missed_at is None:
            await desk.state.write(lambda tx: orders.miss(tx, account, lease.order_id, at))
        elif row is None and lease.missed_at is not None and at - lease.missed_at >= desk.patience.absence:
            await self._close(account, lease, self._bill_unseen(lease), "ended_unseen")

    async def _send(self, order_id: int, issue: str | None) -> CloreError | None:
        try:
            await self._desk.client.cancel_order(order_id, issue)
        except Refused as error:
            return error  # also Clore's answer for an order that has ended: the look decides
        except CloreError as error:
            return error
        return None

    async def _prove(self, order_id: int, issue: str | None) -> OrderRow | None:
        """The order's row once it is expired, or None when the patience runs out first."""
        desk = self._desk
        give_up_at = desk.monotonic() + desk.patience.proof
        looks = 0
        while True:
            try:
                seen = await desk.readings.look(completed=True)
            except CloreError:
                row = None
            else:
                row = seen.find(order_id)
                looks += 1
            if row is not None and row.expired:
                return row
            pause = _LOOK_PAUSES[min(looks, len(_LOOK_PAUSES) - 1)]
            if desk.monotonic() + pause > give_up_at:
                return None
            if row is not None and looks % _AGAIN_AFTER_LOOKS == 0:
                await self._send(order_id, issue)
            await anyio.sleep(pause)

    async def _gone(self, account: str, row: OrderRow, caller: str) -> dict[str, Any]:
        desk = self._desk
        lease = await desk.state.read(lambda tx: orders.get(tx, account, row.id))
        final = await self._bill(row, lease)
        if lease is not None:
            await self._close(account, lease, final, "cancelled")
        else:
            await desk.state.write(
                lambda tx: desk.note(tx, "cancelled", caller, account, order_id=row.id, receipt=final.as_dict())
            )
        return {
            "status": "cancelled",
            "order_id": row.id,
            "receipt": final.as_dict(),
            "still_running": await self.still_running(),
            "next": "The meter has stopped; nothing more to do.",
        }

    async def _unverified(self, account: str, order_id: int, caller: str, trouble: CloreError | None) -> dict[str, Any]:
        desk = self._desk
        said = trouble.message if trouble else "Clore took the cancel"
        await desk.state.write(
            lambda tx: desk.note(tx, "cancel_unverified", caller, account, order_id=order_id, said=said)
        )
        return {
            "status": "unverified",
            "order_id": order_id,
            "still_running": await self.still_running(),
            "next": f"Still billing as far as is known: {said}, but the order does not show as ended. Call"
            " cancel_order again in a minute; if it stays, ask the person to cancel it on clore.ai.",
        }

    async def still_running(self) -> list[dict[str, Any]]:
        """What else costs money now; empty when Clore can't be asked."""
        readings = self._desk.readings
        try:
            seen = await readings.orders()
            fees, rates = await readings.fees(), (await readings.snapshot()).rates
        except CloreError:
            return []
        return [
            {"order_id": row.id, "usd_per_hour": shown(usd_per_hour(row, fees, rates) or ZERO)}
            for row in seen.rows
            if not row.expired
        ]

    async def _bill(self, row: OrderRow, lease: Lease | None) -> Bill:
        readings = self._desk.readings
        try:
            rates = (await readings.snapshot(float("inf"))).rates
        except CloreError:  # no market was ever read: an order made here keeps its own rate
            rates = Rates()
        return bill(row, await readings.fees(), rates, api_now=readings.api_now(), lease=lease)

    def _bill_unseen(self, lease: Lease) -> Bill:
        """The most that an order can have cost that left without a trace: its whole lease, or until it was missed."""
        until = max(lease.ends_api_at, ceil(lease.missed_at or 0))
        hours = Decimal(until - lease.started_api_at) / 3600
        rent = lease.price_native * lease.usd_per_coin * hours / 24
        return Bill(hours, rent, rent * lease.fee_fraction, lease.creation_fee_usd)

    async def _close(self, account: str, lease: Lease, final: Bill, step: str) -> None:
        desk, now = self._desk, self._desk.clock()
        # The limits count the creation fee also within the ten minutes in which one document waives it.
        counted = final.rent_usd + final.fee_usd + max(final.creation_fee_usd, lease.creation_fee_usd)

        def write(tx: Tx) -> None:
            if orders.end(tx, account, lease.order_id, now, final.as_dict()):
                intents.release(tx, lease.intent_id, counted, now)
                desk.note(
                    tx, step, "clore-mcp", account,
                    order_id=lease.order_id, intent_id=lease.intent_id, receipt=final.as_dict(),
                )  # fmt: skip

        await desk.state.write(write)

"""Cancels an order, proves that it is gone and reports what it cost.

Proof is `expired: true` in Clore's list of completed orders, or absence from two valid replies a minute apart. One
empty list proves nothing. Until then the reservation stays, and the answer says `unverified` and still billing. The
proof is only what Clore said, so an order of ours that is listed as running again gets its lease back.

Orders made elsewhere that got an end or a higher bid here have a reservation and no lease. A process ends them only if
they were given an end, and their cost is what Clore's row says. If one disappears without a trace, its whole
reservation counts for another day, because that is the most that it can have cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from math import ceil
from typing import Final, TypeVar

import anyio

from clore_mcp.clore import OrderRow
from clore_mcp.errors import CloreError, InvalidApiKey, NoApiKey, OrderNotActive, StateUnavailable
from clore_mcp.market.pricing import Fees, Rates
from clore_mcp.money import Coin
from clore_mcp.rental.account.reading import BROWSING_AGE, Orders
from clore_mcp.rental.context import Context
from clore_mcp.rental.ends import cancels
from clore_mcp.rental.ends.cancels import RemainingOrders, SentCancel
from clore_mcp.rental.results import Outcome, Status
from clore_mcp.rental.rules import bid_record
from clore_mcp.rental.rules.bid_record import Books
from clore_mcp.rental.rules.billing import Bill, above, began_of, bill, never_won, usd_per_hour
from clore_mcp.store import Lease, Reservation, Tx, intents, ledger, orders

T = TypeVar("T")
log = logging.getLogger(__name__)

UNKNOWN_ACCOUNT: Final = "unknown"  # the account of a cancel while Clore does not say which account the key opens
_READING_SECONDS: Final = 8.0  # a cancel's answer does not wait longer for the account, prices or what is left
_COST_UNKNOWN: Final = " Its cost is unknown, because its coin has no known USD rate."
NEVER_WON: Final = (
    "The bid never won as far as Clore shows, so nothing was billed while it waited. No creation fee is"
    " counted, because Clore is not known to charge one if nothing ran."
)


async def account_for(context: Context, order_id: int) -> str:
    """Return the account for an order's cancel, or another one that may be this one and has the order's lease. If Clore
    does not identify it soon, return the order's account in the state, or else `UNKNOWN_ACCOUNT`."""
    with anyio.move_on_after(_READING_SECONDS):
        try:
            account = await context.readings.account()
            return await context.readings.identity.owner(account, order_id) or account
        except (NoApiKey, InvalidApiKey):
            raise
        except CloreError as error:
            log.warning("the account can't be read: %s", error.message)
    with contextlib.suppress(StateUnavailable):
        return await context.state.read(lambda tx: orders.account_of(tx, order_id)) or UNKNOWN_ACCOUNT
    return UNKNOWN_ACCOUNT


class Closer:
    """Cancels orders and keeps the record of ended ones."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.books = Books(context)

    async def cancel(self, order_id: int, *, issue: str | None, caller: str, why: str) -> Outcome:
        """Cancel an order and prove it, as `prove` does. Raises NotSent if no cancel can be sent at all, because of the
        environment's proxy or certificates."""
        await self._context.client.open()
        account = await account_for(self._context, order_id)
        sent = await cancels.send(self._context, [(account, order_id)], issue=issue, caller=caller, why=why)
        [outcome] = await self.prove(sent)
        left = await self.remaining()
        told = str(left) if outcome.status is Status.CANCELLED else ""
        dropped = "" if sent[0].whole else "Clore did not take the comment, so it was left out."
        return left.told_in(outcome).also(told).also(dropped)

    async def prove(self, sent: Sequence[SentCancel]) -> list[Outcome]:
        """Look until each is proven gone (`cancelled`, with the receipt) or the patience is over (`unverified`)."""
        self._context.readings.changed()
        gone = await cancels.look_until_gone(self._context, sent)
        return [
            await (self._gone(one, gone[one.order_id]) if one.order_id in gone else self._unverified(one))
            for one in sent
        ]

    async def reconcile(self, account: str, current: Orders, completed: Orders | None) -> None:
        """Compare the reservations with Clore's lists, and close orders that are proven gone with their cost."""
        context = self._context
        if await context.state.read(lambda tx: self.agrees(tx, account, current)):
            return
        await self.reopen_listed(account, current)
        await self._reconcile_elsewhere(account, current, completed)
        leases = await context.state.read(lambda tx: orders.active(tx, account))
        listed = {row.id for row in current.rows if not row.expired}
        missing = [lease for lease in leases if lease.order_id not in listed]
        back = [lease.order_id for lease in leases if lease.order_id in listed and lease.missed_at is not None]
        if back:
            await context.state.write(lambda tx: orders.seen_again(tx, account, back))
        await self._end_dearer(leases, current)
        if not missing or current.unreadable:
            return
        completed = completed or await context.readings.completed(BROWSING_AGE)
        for lease in missing:
            row = completed.find(lease.order_id)
            if row is not None or not completed.unreadable:
                await self._reconcile_missing(lease, current, row)

    def agrees(self, tx: Tx, account: str, current: Orders) -> bool:
        """Return whether there is nothing to reconcile, by the rows of the caller's transaction. Clore must list every
        order that has a reservation, and no other of ours, at no higher price than was approved."""
        leases, listed = orders.active(tx, account), {row.id for row in current.rows if not row.expired}
        return (
            all(lease.order_id in listed and lease.missed_at is None for lease in leases)
            and not self._dearer(leases, current)
            and not self._back(tx, account, current)
            and _agrees_elsewhere(tx, self._context, account, current)
        )

    def _dearer(self, leases: Sequence[Lease], current: Orders) -> list[Lease]:
        """Return the orders whose price is above what was approved, and whose end is not under way."""
        api_now = self._context.readings.api_now()
        rows = {row.id: row for row in current.rows if not row.expired and not row.spot}
        return [
            lease
            for lease in leases
            if lease.order_id in rows
            and (lease.ends_api_at > api_now or lease.on_end != "cancel")  # else its end is under way
            and above(rows[lease.order_id], Coin(lease.coin), lease.ceiling_native)
        ]

    async def _end_dearer(self, leases: Sequence[Lease], current: Orders) -> None:
        """End orders whose price is above what was approved. Clore may report a price late, after the order was
        adopted. A read-only server only ends the lease, and a process that ends leases sends the cancel."""
        context, api_now = self._context, self._context.readings.api_now()
        rows = {row.id: row for row in current.rows}
        dearer = self._dearer(leases, current)
        if not dearer:
            return

        def write(tx: Tx) -> None:
            for lease in dearer:
                row = rows[lease.order_id]
                orders.cut(tx, lease.account, lease.order_id, int(api_now))
                context.note(
                    tx, "above_ceiling", "clore-mcp", lease.account, order_id=lease.order_id, intent_id=lease.intent_id,
                    price_per_day=str(row.price), coin=row.currency, ceiling_per_day=str(lease.ceiling_native),
                )  # fmt: skip

        await cancels.try_write(context, write)
        if not context.settings.read_only:
            targets = [(lease.account, lease.order_id) for lease in dearer]
            await self.prove(await cancels.send(context, targets, caller="clore-mcp", why="above_ceiling"))

    async def reopen_listed(self, account: str, current: Orders) -> None:
        """Restore the reservation and end of each order that counted as gone and is listed as running."""
        for lease in await self.back(account, current):
            await self.reopen(lease)
        await _reopen_elsewhere(self._context, account, current)

    async def back(self, account: str, current: Orders) -> list[Lease]:
        """Return the leases of orders that count as gone but were listed as running since."""
        return await self._context.state.read(lambda tx: self._back(tx, account, current))

    def _back(self, tx: Tx, account: str, current: Orders) -> list[Lease]:
        now = self._context.clock()
        found = (orders.get(tx, account, row.id) for row in current.rows if not row.expired)
        return [
            lease for lease in found if lease is not None and came_back(lease.ended_at, seen_at=current.at, now=now)
        ]

    async def reopen(self, lease: Lease) -> None:
        """Record that an order that counted as gone runs again."""

        def write(tx: Tx) -> None:
            if orders.reopen(tx, lease.account, lease.order_id):
                intents.bind(tx, lease.intent_id, lease.order_id)
                self._context.note(
                    tx, "order_seen_again", "clore-mcp", lease.account,
                    order_id=lease.order_id, intent_id=lease.intent_id,
                )  # fmt: skip

        await self._context.state.write(write)

    async def _reconcile_missing(self, lease: Lease, seen: Orders, row: OrderRow | None) -> None:
        if row is not None and row.expired:
            final = await self.bill(row, lease)
            await self._close(lease, final or _bill_unseen(lease), "ended")
        elif row is None and lease.missed_at is None:
            await self._context.state.write(
                lambda tx: orders.miss(tx, lease.account, lease.order_id, seen.at, seen.api_at)
            )
        elif row is None and await self._absent_long_enough(lease, seen):
            await self._close(lease, _bill_unseen(lease), "ended_unseen")

    async def _reconcile_elsewhere(self, account: str, current: Orders, completed: Orders | None) -> None:
        context = self._context
        held = await context.state.read(lambda tx: intents.reservations_elsewhere(tx, account))
        listed = {row.id for row in current.rows if not row.expired}
        await _reopen_elsewhere(context, account, current)
        missing = [one for one in held if one.order_id not in listed]
        if not missing or current.unreadable:
            return
        try:
            completed = completed or await context.readings.completed(BROWSING_AGE)
        except CloreError:  # the reservations stay; the ends of leases, which come next, must not wait
            return
        for one in missing:
            row = completed.find(one.order_id or 0)
            if row is not None and row.expired:
                final = await self.bill(row, None)
                if final is not None:
                    await _close_elsewhere(context, one, final)
            elif row is None and not completed.unreadable:
                await _miss_elsewhere(context, one, current)

    async def _absent_long_enough(self, lease: Lease, seen: Orders) -> bool:
        """Return whether every known clock says that a minute has passed. Each is compared with itself, because any of
        them may jump or be wrong."""
        absence = self._context.patience.absence
        missed = await self._context.state.read(lambda tx: orders.missed_api_at(tx, lease.account, lease.order_id))
        by_clore = seen.api_at - missed if seen.api_at is not None and missed is not None else absence
        return seen.at - (lease.missed_at or 0) >= absence and by_clore >= absence

    async def _gone(self, one: SentCancel, row: OrderRow) -> Outcome:
        account = one.account
        lease = await self._try_read(lambda tx: orders.get(tx, account, row.id))
        final = await self.bill(row, lease)

        def write(tx: Tx) -> None:
            if final is not None:
                intents.release_elsewhere(tx, account, row.id, final.total_usd, self._context.clock())
            receipt = {} if final is None else {"receipt": final.receipt().as_json()}
            self._context.note(tx, "cancelled", one.caller, account, order_id=row.id, **receipt)

        if lease is not None and final is not None:
            await self.close(lease, final, "cancelled")
        else:
            await cancels.try_write(self._context, write)
        stopped = f"The bid is withdrawn. {NEVER_WON}" if never_won(row) else "Billing has stopped."
        said = f"{stopped}{'' if final else _COST_UNKNOWN}"
        return Outcome(Status.CANCELLED, said, order_id=row.id, receipt=None if final is None else final.receipt())

    async def close(self, lease: Lease, final: Bill, step: str) -> None:
        """Record that an order is proven gone. If the state fails, the next look records it."""
        try:
            await self._close(lease, final, step)
        except StateUnavailable as error:
            log.warning("the end of order %s could not be recorded: %s", lease.order_id, error.message)

    async def _unverified(self, one: SentCancel) -> Outcome:
        def write(tx: Tx) -> None:
            self._context.note(tx, "cancel_unverified", one.caller, one.account, order_id=one.order_id, said=one.said)

        await cancels.try_write(self._context, write)
        known = f"Still billing as far as is known. {one.unproven}"
        if isinstance(one.trouble, OrderNotActive):
            known = "Clore says that the order is already over, but its lists do not show it as ended yet."
        said = (
            f"{known} Call cancel_order again in a minute. If that does not help, ask the person to cancel it on"
            " clore.ai."
        )
        return Outcome(Status.UNVERIFIED, said, order_id=one.order_id, said=one.unproven)

    async def remaining(self) -> RemainingOrders:
        """Return what else costs money now or may soon. Anything that can't be read soon is reported as unknown."""
        fees, rates = await self.prices()
        hourly: Mapping[int, Decimal | None] | None = None
        waiting: Mapping[int, str] = {}
        standing: int | None = None
        with anyio.move_on_after(_READING_SECONDS), contextlib.suppress(CloreError):
            rows = [row for row in (await self._context.readings.orders()).rows if not row.expired]
            hourly = {row.id: usd_per_hour(row, fees, rates) for row in rows}
            waiting = await self.books.waiting(rows)
        with anyio.move_on_after(_READING_SECONDS):
            standing = await cancels.watches_waiting(self._context)
        return RemainingOrders(hourly, waiting, standing)

    async def prices(self) -> tuple[Fees, Rates]:
        """Return the renter's fees and the market's rates, read at the same time."""
        return await asyncio.gather(self._fees(), self._rates())

    async def _fees(self) -> Fees:
        """Return the fees, or the highest documented ones if Clore does not answer soon."""
        with anyio.move_on_after(_READING_SECONDS):
            return await self._context.readings.fees()
        return Fees.highest_documented()

    async def _rates(self) -> Rates:
        """Return the present rates, older ones if Clore does not answer, or only USD if no market was ever read."""
        with anyio.move_on_after(_READING_SECONDS), contextlib.suppress(CloreError):
            return (await self._context.readings.snapshot()).rates
        return Rates({Coin.USD: Decimal(1)})

    async def bill(self, row: OrderRow, lease: Lease | None) -> Bill | None:
        """Return what an order has cost, or None if it is not ours and its coin's rate is unknown."""
        api_now = self._context.readings.api_now()
        history = None
        if row.spot and lease is not None:
            began = began_of(row, lease, api_now)
            # If Clore reports no cost, it counts as winning from its start, because the limits count the receipt too.
            history = await self._try_read(lambda tx: bid_record.read(tx, lease.account, row, began, won_from=began))
        fees, rates = await self.prices()
        found = bill(row, fees, rates, api_now=api_now, lease=lease, history=history)
        return found if found.priced else None

    async def _try_read(self, work: Callable[[Tx], T | None]) -> T | None:
        with contextlib.suppress(StateUnavailable):
            return await self._context.state.read(work)
        return None

    async def _close(self, lease: Lease, final: Bill, step: str) -> None:
        context, account, now = self._context, lease.account, self._context.clock()
        # The limits count the creation fee also within the ten minutes in which one document waives it.
        counted = final.rent_usd + final.fee_usd + max(final.creation_fee_usd, lease.creation_fee_usd)

        def write(tx: Tx) -> None:
            unseen = step == "ended_unseen"
            if orders.end(tx, account, lease.order_id, now, final.receipt(), unseen=unseen):
                intents.release(tx, lease.intent_id, counted, now)
                if final.never_won:
                    context.note(tx, "never_won_nothing_billed", "clore-mcp", account, order_id=lease.order_id)
                at_its_end = step == "ended" and _cancelled_at_its_end(tx, lease)
                context.note(
                    tx, "lease_ended" if at_its_end else step, "clore-mcp", account, order_id=lease.order_id,
                    intent_id=lease.intent_id, receipt=final.receipt().as_json(),
                )  # fmt: skip

        await context.state.write(write)


def _bill_unseen(lease: Lease) -> Bill:
    """Return the most that an order without a trace can have cost: its whole lease, or the time until it was missed if
    that is longer."""
    until = max(lease.ends_api_at, ceil(lease.missed_at or 0))
    hours = Decimal(until - lease.started_api_at) / 3600
    rent = lease.price_native * lease.usd_per_coin * hours / 24
    return Bill(hours, rent, rent * lease.fee_fraction, lease.creation_fee_usd)


def _cancelled_at_its_end(tx: Tx, lease: Lease) -> bool:
    """Return whether a process has sent the cancel at the lease's end. It may have been killed after that."""
    sent = ledger.last_of_order(tx, lease.account, lease.order_id, ("cancel_sent",))
    return sent is not None and (sent.data or {}).get("why") == cancels.LEASE_OVER


async def _reopen_elsewhere(context: Context, account: str, current: Orders) -> None:
    def write(tx: Tx) -> None:
        for one in _back_elsewhere(tx, context, account, current):
            intents.reservations_seen_again(tx, [one.id])
            if one.released_at is not None:
                context.note(tx, "order_seen_again", "clore-mcp", account, order_id=one.order_id)

    if await context.state.read(lambda tx: _back_elsewhere(tx, context, account, current)):
        await context.state.write(write)


def _agrees_elsewhere(tx: Tx, context: Context, account: str, current: Orders) -> bool:
    """Return whether Clore lists every order made elsewhere that has a reservation, and none that has lost it."""
    listed = {row.id for row in current.rows if not row.expired}
    held = intents.reservations_elsewhere(tx, account)
    return all(one.order_id in listed for one in held) and not _back_elsewhere(tx, context, account, current)


def _back_elsewhere(tx: Tx, context: Context, account: str, current: Orders) -> list[Reservation]:
    listed = {row.id for row in current.rows if not row.expired}
    return [
        one
        for one in intents.reservations_listed(tx, account, listed)
        if one.missed_at is not None or came_back(one.released_at, seen_at=current.at, now=context.clock())
    ]


def came_back(ended_at: float | None, *, seen_at: float, now: float) -> bool:
    """Return whether a list that was requested at `seen_at` is later than an end. An end in the future was recorded
    before this machine's clock went back, so an order that is listed then counts as running."""
    return ended_at is not None and (seen_at > ended_at or ended_at > now)


async def _miss_elsewhere(context: Context, one: Reservation, seen: Orders) -> None:
    if one.missed_at is None:
        await context.state.write(lambda tx: intents.reservation_missed(tx, one.id, seen.at))
    elif seen.at - one.missed_at >= context.patience.absence:
        await _close_elsewhere(context, one, None)


async def _close_elsewhere(context: Context, one: Reservation, final: Bill | None) -> None:
    cost, step = (one.worst_usd, "ended_unseen") if final is None else (final.total_usd, "ended")

    def write(tx: Tx) -> None:
        intents.release_elsewhere(tx, one.account, one.order_id or 0, cost, context.clock())
        receipt = {} if final is None else {"receipt": final.receipt().as_json()}
        context.note(tx, step, "clore-mcp", one.account, order_id=one.order_id, **receipt)

    await context.state.write(write)

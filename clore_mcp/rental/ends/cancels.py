"""Sends cancels: records them, sends all due ones at once, looks until each is proven gone, and reports what is left.

Sending a cancel twice does no harm. It needs only `/cancel_order`. If the state can't be written, the record is
missing, but the cancel is still sent.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

import anyio

from clore_mcp.clore import OrderRow
from clore_mcp.errors import CloreError, Failure, Spent, StateUnavailable, Unclear
from clore_mcp.money import shown
from clore_mcp.rental.account.reading import Orders
from clore_mcp.rental.context import Context
from clore_mcp.rental.results import BillingOrder, Outcome
from clore_mcp.store import Tx, ledger, orders, watches
from clore_mcp.text import clean

log = logging.getLogger(__name__)

LEASE_OVER: Final = "its lease is over"  # the reason for most cancels
_LOOK_PAUSES: Final = (0.5, 1.0, 2.0, 3.0, 5.0)
_AGAIN_AFTER_LOOKS: Final = 3  # after this many looks without proof, the cancel is sent again
_ISSUE_NOTED: Final = 200  # characters of the issue, in the ledger
_NAMED: Final = 5  # orders in a sentence


@dataclass(frozen=True, slots=True)
class LeaseOver:
    """The evidence that leases are over: a list of orders requested at `looked_at` (this machine's clock; None if none
    could be read). Another process's cancel without an answer yet counts for `answer_seconds`."""

    looked_at: float | None
    answer_seconds: float


@dataclass(slots=True)
class SentCancel:
    """A sent cancel, its failure, if any, and whether Clore accepted its comment. It may be sent again."""

    account: str
    order_id: int
    issue: str | None
    caller: str
    trouble: Failure | None = None
    whole: bool = True

    @property
    def said(self) -> str:
        """The reply, in words for the record."""
        return self.trouble.message if self.trouble else "Clore took the cancel"

    @property
    def unproven(self) -> str:
        """A sentence about a cancel whose order is not proven gone."""
        return self.trouble.message if self.trouble else f"{self.said}, but does not show the order as ended."


async def send(
    context: Context,
    targets: Iterable[tuple[str, int]],
    *,
    issue: str | None = None,
    caller: str,
    why: str,
    over: LeaseOver | None = None,
) -> list[SentCancel]:
    """Cancel orders (account, order id) without waiting for proof or for each other's reply. Returns those that were
    sent. With `over`, orders whose end was moved or that another process has cancelled since are skipped."""
    sent = [SentCancel(account, order_id, issue, caller) for account, order_id in targets]
    await _send(context, sent, why, over)
    return sent


async def look_until_gone(context: Context, sent: Sequence[SentCancel]) -> dict[int, OrderRow]:
    """Wait until all orders have expired or the patience is over, and return the expired rows. An order that the
    current list shows as running has not expired. A cancel is sent again unless there is evidence that it worked."""
    give_up_at = context.monotonic() + context.patience.proof
    gone: dict[int, OrderRow] = {}
    looks = 0
    while True:
        seen, running = await _look(context, {one.order_id for one in sent})
        looks += 1
        pause = _LOOK_PAUSES[min(looks, len(_LOOK_PAUSES)) - 1]
        over = context.monotonic() + pause > give_up_at
        rows = {row.id: row for row in seen.rows} if seen else {}
        gone.update({row.id: row for row in rows.values() if row.expired})
        gone = {order_id: row for order_id, row in gone.items() if order_id not in running}
        left = [one for one in sent if one.order_id not in gone]
        shown = rows.keys() | running
        doubtful = [one for one in left if one.trouble or one.order_id in shown or not seen or seen.unreadable]
        if doubtful and (looks % _AGAIN_AFTER_LOOKS == 0 or (seen is None and any(one.trouble for one in left))):
            await _send(context, doubtful, "it is not proven gone")
        if not left or over:
            return gone
        await anyio.sleep(pause)


async def try_write(context: Context, work: Callable[[Tx], None]) -> None:
    """Record something about an end, if the state can be used."""
    try:
        await context.state.write(work)
    except StateUnavailable as error:
        log.warning("a cancel goes on without its record: %s", error.message)


async def _send(context: Context, sent: list[SentCancel], why: str, over: LeaseOver | None = None) -> None:
    """Record each cancel in the ledger and end its lease, then send it and record the reply. Once the first row is
    written, no process moves the end."""
    api_now = int(context.readings.api_now())

    def leaving(tx: Tx) -> None:
        if over is not None:
            sent[:] = [one for one in sent if not _in_other_hands(tx, context, one, over, api_now)]
        for one in sent:
            orders.cut(tx, one.account, one.order_id, api_now)
            issue = clean(one.issue or "", _ISSUE_NOTED)
            context.note(tx, "cancel_sent", one.caller, one.account, order_id=one.order_id, why=why, issue=issue)

    def answered(tx: Tx) -> None:
        for one in sent:
            context.note(tx, "cancel_answered", one.caller, one.account, order_id=one.order_id, said=one.said)

    await try_write(context, leaving)
    async with anyio.create_task_group() as tasks:
        for one in sent:
            tasks.start_soon(_send_one, context, one)
    await try_write(context, answered)


def _in_other_hands(tx: Tx, context: Context, one: SentCancel, over: LeaseOver, api_now: int) -> bool:
    """Return whether to skip this cancel, because the end was moved or another process cancelled first. Servers and a
    watchdog wake at the same end, and our list may be older than that cancel. A cancel without an answer counts only
    for a while, because its sender may have been killed."""
    end = orders.end_of(tx, one.account, one.order_id)
    if end is not None and end.ends_api_at > api_now:
        return True
    last = ledger.last_of_order(tx, one.account, one.order_id, ("cancel_sent", "cancel_answered"))
    now = context.clock()
    if last is None or last.at > now:  # written before this machine's clock went back, so its age is unknown
        return False
    if last.step == "cancel_sent":
        return now - last.at < over.answer_seconds
    return over.looked_at is not None and last.at > over.looked_at


async def _send_one(context: Context, one: SentCancel) -> None:
    try:
        one.whole = await context.client.cancel_order(one.order_id, one.issue)
    except Failure as error:  # a refusal counts too: it is also Clore's answer for an order that has ended
        one.trouble = error
    except Exception as error:  # no error here may stop the other cancels
        one.trouble = Unclear(f"The cancel broke off ({type(error).__name__}).", spent=Spent.UNKNOWN)
    else:
        one.trouble = None


async def _look(context: Context, order_ids: Set[int]) -> tuple[Orders | None, Set[int]]:
    """Return a list that can prove orders gone, or None if it can't be read, and the orders listed as running. If all
    of these orders are running, the list of current orders is enough."""
    running: Set[int] = set()
    with contextlib.suppress(CloreError):
        current = await context.readings.look(completed=False)
        running = {row.id for row in current.rows if not row.expired}
        if order_ids <= running:
            return current, running
    with contextlib.suppress(CloreError):
        return await context.readings.look(completed=True), running
    return None, running


@dataclass(frozen=True, slots=True)
class RemainingOrders:
    """The orders and watches that are left. `hourly` is each order's cost in USD per hour, None if unknown. It is None
    as a whole if Clore can't be asked. `waiting` holds those orders that have no server now. `watches` is None if the
    account or the state can't be read."""

    hourly: Mapping[int, Decimal | None] | None
    waiting: Mapping[int, str]
    watches: int | None

    def told_in(self, outcome: Outcome) -> Outcome:
        """Return the outcome with what is left, if that is known."""
        running = None
        if self.hourly is not None:
            running = tuple(
                BillingOrder(order_id, self.waiting.get(order_id), None if usd is None else shown(usd))
                for order_id, usd in self.hourly.items()
            )
        return replace(outcome, still_running=running, watches_waiting=self.watches)

    def __str__(self) -> str:
        if self.hourly is None:
            return "What else runs can't be seen now. Call list_orders."
        bills = [order_id for order_id in self.hourly if order_id not in self.waiting]
        told = []
        if bills:
            told.append(f"Still billing: {_orders(bills)}.")
        if self.waiting:
            told.append(f"Waiting, and billing as soon as a bid wins: {_orders(list(self.waiting))}.")
        if self.watches is None:
            told.append("Whether a watch may still rent can't be seen now. Call list_watches.")
        elif self.watches:
            told.append(f"{self.watches} {'watch' if self.watches == 1 else 'watches'} may still rent (list_watches).")
        return " ".join(told) or "Nothing more to do."


def _orders(ids: list[int]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"order {', '.join(map(str, ids[:_NAMED]))}{more}"


async def watches_waiting(context: Context) -> int | None:
    """Return how many watches may still rent, or None if that is unknown."""
    with contextlib.suppress(CloreError, StateUnavailable):
        account = await context.readings.account()
        return len(await context.state.read(lambda tx: watches.standing(tx, account, context.clock())))
    return None

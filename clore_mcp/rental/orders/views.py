"""Builds the views of orders: what is running, what it costs, how to connect and what is unclear."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import anyio.to_thread

from clore_mcp.clore import OrderRow
from clore_mcp.errors import Failure, NotFound
from clore_mcp.market.gpus import of_server
from clore_mcp.market.listing import country_code
from clore_mcp.market.pricing import Fees, Rates
from clore_mcp.money import ZERO, coin_name, shown
from clore_mcp.rental.account.reading import BROWSING_AGE, EXECUTION_AGE, Orders
from clore_mcp.rental.context import Context
from clore_mcp.rental.create.settle import Settler
from clore_mcp.rental.ends.cancels import watches_waiting
from clore_mcp.rental.ends.closure import Closer
from clore_mcp.rental.monitoring import monitor
from clore_mcp.rental.orders.order_view import OpenCreate, OrderList, OrderNow, OrderView
from clore_mcp.rental.rules import bid_record
from clore_mcp.rental.rules.bid_record import BidHistory
from clore_mcp.rental.rules.billing import began_of, bill, free_cancel_until, order_type_of, usd_per_hour, why_unpriced
from clore_mcp.rental.ssh import access
from clore_mcp.rental.ssh.access import Access
from clore_mcp.rental.ssh.keys import SshKey
from clore_mcp.store import End, Lease, Tx, intents, orders
from clore_mcp.text import clean, iso

_SOON_SECONDS: Final = 1800
_ENDS_TOLD: Final = 3
_UNSETTLED_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class RowPrices:
    """The fees, exchange rates and time that convert a row to USD."""

    fees: Fees
    rates: Rates
    api_now: float


class Overview:
    """Reads orders together with what this state knows about them."""

    def __init__(self, context: Context, closer: Closer, settler: Settler) -> None:
        self._context = context
        self._closer = closer
        self._settler = settler
        self.books = closer.books

    async def orders(
        self, *, include_ended: bool = False, max_age_seconds: float = EXECUTION_AGE, urgent: bool = False
    ) -> OrderList:
        """Return every order, their total cost per hour, and creates with an unknown outcome. Ended orders come last,
        otherwise the newest come first. `urgent` means that an order is about to be ended, so the lists are read first,
        and prices may be missing."""
        readings, acts = self._context.readings, not self._context.settings.read_only
        await readings.account()
        current = await (readings.look(completed=False) if urgent else readings.orders(max_age_seconds))
        account = await readings.account()  # the list may have shown that it is another account
        completed = None
        if include_ended:
            completed = await (readings.look(completed=True) if urgent else readings.completed(BROWSING_AGE))
        await self._settler.settle_open(account, current)
        await self._closer.reconcile(account, current, completed)
        rows = {row.id: row for row in [*(completed.rows if completed else []), *current.rows]}
        leases, agreed = await self._known(account, rows)
        priced = await self._priced(urgent=urgent)
        views = [
            await self._view(row, leases.get(row.id), agreed.get(row.id), priced)
            for row in sorted(rows.values(), key=lambda row: (bool(row.expired), -row.id))
            if include_ended or not row.expired
        ]
        unclear = await self._context.state.read(lambda tx: intents.in_state(tx, account, "uncertain", "sending"))
        unsettled = [OpenCreate(one.id, one.server_id, iso(one.created_at), one.state) for one in unclear]
        spent = [Decimal(str(view.spent_usd)) for view in views if view.spent_usd is not None]
        return OrderList(
            orders=tuple(views),
            usd_per_hour=shown(self._burn(current, priced, views)),
            spent_usd=shown(sum(spent, ZERO)),
            watches_waiting=await watches_waiting(self._context),
            unsettled=tuple(unsettled[:_UNSETTLED_SHOWN]),
            next=_after_listing(unsettled) or (_about_ends(views, agreed, priced.api_now) if acts else None),
        )

    async def one(self, order_id: int) -> OrderNow:
        """Return one order as of now. Raises NotFound."""
        context = self._context
        await context.readings.account()
        row = (await context.readings.orders(EXECUTION_AGE)).find(order_id)
        if row is None:
            row = (await context.readings.completed(BROWSING_AGE)).find(order_id)
        account = await context.readings.account()  # the list may have shown that it is another account
        if row is None:
            raise NotFound(f"This account has no order {order_id}.", hint="list_orders shows the orders.")
        leases, agreed = await self._known(account, [order_id])
        lease, priced = leases.get(order_id), await self._priced()
        view = await self._view(row, lease, agreed.get(order_id), priced)
        began = lease.started_api_at if lease else row.created_at
        minutes = None if began is None or row.expired else max(0, int(priced.api_now - began) // 60)
        free = free_cancel_until(row, priced.fees, priced.rates, lease, api_now=priced.api_now) if view.up else None
        return OrderNow(view, iso(priced.api_now), minutes, None if free is None else iso(free))

    def _burn(self, current: Orders, priced: RowPrices, views: Sequence[OrderView]) -> Decimal:
        """Return the USD billed per hour now. Queued and outbid orders are not billed."""
        waiting = {view.order_id for view in views if view.status in ("queued", "outbid")}
        billing = [row for row in current.rows if not row.expired and row.id not in waiting]
        hourly = (usd_per_hour(row, priced.fees, priced.rates) for row in billing)
        return sum((usd for usd in hourly if usd is not None), ZERO)

    async def _known(self, account: str, listed: Iterable[int]) -> tuple[Mapping[int, Lease], Mapping[int, End]]:
        """Return which of these orders were made here, and the ends of all running orders, by id."""

        def read(tx: Tx) -> tuple[Mapping[int, Lease], Mapping[int, End]]:
            return orders.of_ids(tx, account, listed), {end.order_id: end for end in orders.ends(tx, account)}

        return await self._context.state.read(read)

    async def _priced(self, *, urgent: bool = False) -> RowPrices:
        readings = self._context.readings
        if urgent:
            return RowPrices(*await self._closer.prices(), readings.api_now())
        return RowPrices(await readings.fees(), (await readings.snapshot()).rates, readings.api_now())

    async def _view(self, row: OrderRow, lease: Lease | None, end: End | None, priced: RowPrices) -> OrderView:
        cards = of_server(row.gpu, tuple(row.gpu_array or ()), None)
        history = await self._history(row, lease, priced.api_now) if row.spot else None
        cost = bill(row, priced.fees, priced.rates, api_now=priced.api_now, lease=lease, history=history)
        hourly, status = usd_per_hour(row, priced.fees, priced.rates), await self.books.status(row)
        spent = shown(cost.total_usd) if cost.priced and _says_spent(row, status, end, history) else None
        reach = Access() if row.expired else access.access_of(row, await self.key() if lease else None)
        return OrderView(
            order_id=row.id,
            server_id=row.server_id,
            currency=coin_name(row.currency) or None,
            country=country_code(row.country),
            status=status,
            order_type=order_type_of(row).value,
            gpu=cards.model,
            gpu_count=cards.count,
            image=clean(row.image or "", 120),
            usd_per_hour=None if hourly is None else shown(hourly),
            spent_usd=spent,
            estimated=bool(cost.unsure),
            started_at=None if row.created_at is None else iso(row.created_at),
            ends_at=iso(end.ends_api_at) if end and not row.expired else None,
            made_here=lease is not None,
            ssh=reach.ssh,
            http_url=reach.http_url,
            warning=" ".join(filter(None, (_unpriced(row, lease, hourly, spent), reach.warning))) or None,
        )

    async def _history(self, row: OrderRow, lease: Lease | None, api_now: float) -> BidHistory:
        """Return the known bids of a spot order. If Clore does not report its cost, it counts as winning since it was
        first seen winning."""
        account, began = await self._context.readings.account(), began_of(row, lease, api_now)
        return await self._context.state.read(
            lambda tx: bid_record.read(tx, account, row, began, won_from=monitor.first_won(tx, account).get(row.id))
        )

    async def key(self) -> SshKey | None:
        """Return the key for the SSH command. If it can't be read, return None; the command then names no key file."""
        with contextlib.suppress(Failure):
            return await anyio.to_thread.run_sync(self._context.ssh_key)
        return None


def _says_spent(row: OrderRow, status: str, end: End | None, history: BidHistory | None) -> bool:
    """Return whether an order's cost is known: from Clore, or because its bid was seen winning or has not won yet."""
    if row.spend is not None or history is None:
        return row.spend is not None
    return history.won_from is not None or (end is not None and status == "queued")


def _unpriced(row: OrderRow, lease: Lease | None, hourly: Decimal | None, spent_usd: float | None) -> str | None:
    if hourly is None and not row.expired:
        counts = "its reservation" if lease else "its highest known price, or else the whole cap"
        return f"Cost unknown: {why_unpriced(row)}. It is still billed, and the limits count {counts}."
    return "Its cost so far is unknown, because Clore reports no usable figure." if spent_usd is None else None


def _after_listing(unsettled: Sequence[OpenCreate]) -> str | None:
    if not unsettled:
        return None
    servers = ", ".join(str(one.server_id) for one in unsettled[:_UNSETTLED_SHOWN])
    unshown = len(unsettled) - _UNSETTLED_SHOWN
    servers += f" and {unshown} more" if unshown > 0 else ""
    return (
        f"An order on server {servers} may be running and billing without being listed. Rent nothing elsewhere while"
        " `unsettled` is not empty, and call list_orders again in 30 seconds."
    )


def _about_ends(views: Sequence[OrderView], agreed: Mapping[int, End], api_now: float) -> str | None:
    told = []
    for view in views:
        end = agreed.get(view.order_id)
        if not view.over and end is None:
            told.append(f"Order {view.order_id} has no end here. To give it one, use extend_order.")
        elif end is not None and 0 < end.ends_api_at - api_now < _SOON_SECONDS:
            told.append(f"Order {view.order_id} is about to end. To move its end, use extend_order.")
    return " ".join(told[:_ENDS_TOLD]) or None

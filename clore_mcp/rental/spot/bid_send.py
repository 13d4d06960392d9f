"""A bid leaves once: the reply, or a look at the order where there is none, says what became of it, and the record
keeps it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from clore_mcp.errors import CloreError, Failure, Refused, Spent
from clore_mcp.money import dollars, shown, shown_up
from clore_mcp.rental import outcomes
from clore_mcp.rental.context import Desk
from clore_mcp.rental.create.send import Abandoned
from clore_mcp.rental.results import Outcome, Status
from clore_mcp.rental.spot.bids import Bid, refusal_of
from clore_mcp.store import bids, ends, orders
from clore_mcp.store.bids import Change
from clore_mcp.store.database import Tx
from clore_mcp.store.quotes import Quote

_LOOK_PAUSES: Final = (0.3, 1.0, 2.0, 4.0)


async def send(desk: Desk, quote: Quote, bid: Bid, change: Change | None) -> Outcome:
    """Send a claimed bid and report what Clore made of it. `change` is the reservation that it has begun to change."""
    order_id = bid.row.id
    try:
        before_send = _may_still_leave(desk) if bid.raises else None
        await desk.client.set_spot_price(order_id, bid.day, before_send=before_send)
    except Refused as error:
        await _record_refusal(desk, quote, bid, change)
        return refusal_of(order_id, bid, error)
    except Failure as error:
        if error.spent is Spent.NO:
            if change is not None:
                await desk.state.write(lambda tx: bids.undo(tx, change, desk.clock()))
            return outcomes.bid_refused(order_id, error.code, f"{error.message} {error.hint}")
        if not await _arrived(desk, bid):
            said = f"{error.message} The bid may or may not have changed; list_orders shows the price."
            usd = shown(bid.usd_per_hour)
            return Outcome(Status.UNCERTAIN, said, order_id=order_id, bid_usd_per_hour=usd)
    await _record(desk, quote, bid, change)
    desk.readings.changed()
    return await answer(desk, Status.UPDATED, bid)


async def answer(desk: Desk, status: Status, bid: Bid) -> Outcome:
    """The bid as it stands now, with its rank and what would win where it does not."""
    view = await desk.readings.spot_view_if_known(bid.row.server_id or 0)
    rank = view.our_rank if view else None
    winning = view.winning.get(bid.coin) if view else None
    wins = view is not None and any(offer.mine and offer.active for offer in view.offers)
    beaten = rank is not None and rank > 1 and not wins
    needed = bid.usd_to_ask(winning.value) if beaten and winning is not None else None
    said = "list_orders shows whether it runs."
    if wins:
        said = "It wins: the order runs, or starts now, and is billed."
    elif rank == 1:
        said = "It is the highest bid, not shown as winning yet; none wins while the server is rented on demand."
    elif beaten:
        least = "" if needed is None else f" {dollars(needed)} per hour would win now."
        said = f"It does not win: it waits and costs nothing, and its hours run.{least}"
    return Outcome(
        status,
        said,
        order_id=bid.row.id,
        bid_usd_per_hour=shown(bid.usd_per_hour),
        was_usd_per_hour=None if bid.row.price is None else shown(bid.usd(bid.row.price)),
        on_demand_usd_per_hour=None if bid.on_demand_usd is None else shown_up(bid.on_demand_usd),
        to_win_usd_per_hour=None if needed is None else shown_up(needed),
        price_per_day=float(bid.day.value),
        currency=bid.coin.ticker,
        rank=rank,
    )


def being_ended(tx: Tx, desk: Desk, account: str, order_id: int) -> bool:
    """Whether its lease is over or was cut by a cancel: until that is proven, its end says nothing of its cost."""
    end = ends.of(tx, account, order_id)
    return end is not None and end.on_end == "cancel" and end.ends_api_at <= desk.readings.api_now()


def _may_still_leave(desk: Desk) -> Callable[[], Awaitable[None]]:
    """The check right before a raise leaves: not after a freeze of spending, and not by a process that was held up
    since its claim."""
    not_after = desk.clock() + desk.patience.answer
    deadline = desk.monotonic() + desk.patience.answer

    async def refuse() -> None:
        await desk.require_unfrozen()
        if desk.clock() >= not_after or desk.monotonic() >= deadline:
            raise Abandoned("The process was held up before sending, so nothing was sent.", hint="Call again.")

    return refuse


async def _arrived(desk: Desk, bid: Bid) -> bool:
    for pause in _LOOK_PAUSES:
        await anyio.sleep(pause)
        try:
            row = (await desk.readings.look(completed=False)).find(bid.row.id)
        except CloreError:
            continue
        if row is not None and row.price is not None and abs(row.price - bid.day.value) <= bid.day.value / 10**9:
            return True
    return False


async def _record(desk: Desk, quote: Quote, bid: Bid, change: Change | None) -> None:
    def write(tx: Tx) -> None:
        orders.bid(tx, quote.account, bid.row.id, bid.day.value, bid.day.value)
        if change is not None:
            reserved = change.before.worst_usd if change.before and not bid.raises else bid.worst_usd
            least = reserved if being_ended(tx, desk, quote.account, bid.row.id) else bid.worst_usd
            bids.end(tx, change, min(reserved, least), bid.usd_per_hour)
        _note(tx, desk, "bid_set", quote, bid)

    await desk.state.write(write)


async def _record_refusal(desk: Desk, quote: Quote, bid: Bid, change: Change | None) -> None:
    """The bid stayed as it was: so does what it may cost, which the claim raised."""

    def write(tx: Tx) -> None:
        if change is not None:
            bids.undo(tx, change, desk.clock())
        _note(tx, desk, "bid_refused", quote, bid)

    await desk.state.write(write)


def _note(tx: Tx, desk: Desk, step: str, quote: Quote, bid: Bid) -> None:
    desk.note(tx, step, quote.caller, quote.account, quote_id=quote.id, order_id=bid.row.id,
              bid_per_day=str(bid.day.value), coin=bid.coin.value, api_at=desk.readings.api_now(),
              was_per_day=str(bid.row.price))  # fmt: skip

"""What a new bid comes to: in the order's coin, within what was asked for, with the worst that the order may cost."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from clore_mcp.clore import OrderRow
from clore_mcp.errors import ArgumentInvalid, NotFound
from clore_mcp.market.pricing import on_demand_usd_per_hour
from clore_mcp.market.rates import OrderType
from clore_mcp.money import ZERO, Coin, DayPrice, dollars, shown_up
from clore_mcp.rental import outcomes
from clore_mcp.rental.context import Desk
from clore_mcp.rental.requests import SetSpotPrice
from clore_mcp.rental.results import Settled
from clore_mcp.rental.rules.billing import spent_of
from clore_mcp.rental.rules.terms import bid_within, reservation_margin
from clore_mcp.rental.spot import bids
from clore_mcp.rental.spot.bids import SLACK_HOURS, Bid, hours_left
from clore_mcp.store import ends


async def price(desk: Desk, ask: SetSpotPrice, row: OrderRow | None, account: str, *, asked_at: float) -> Bid:
    """The bid. `row` is the order as Clore lists it, `asked_at` when the question was put. Raises Settled where it is
    under the host's minimum or in a coin without a rate; NotFound and ArgumentInvalid."""
    readings = desk.readings
    api_now = readings.api_now()  # of the row: what it has cost, and what is left to run, belong to one moment
    if row is None or row.expired:
        raise NotFound(f"No order {ask.order_id} is running.", hint="list_orders shows what runs.")
    if not row.spot:
        raise ArgumentInvalid(f"Order {ask.order_id} is on-demand: its price is fixed.", hint="Only spot has bids.")
    coin = Coin.parse(row.currency or "")
    snapshot, fees = await readings.snapshot(), await readings.fees()
    rate = snapshot.rates.usd_per(coin) if coin else None
    if coin is None or rate is None:
        raise Settled(
            outcomes.bid_refused(ask.order_id, "unknown_rate", "No rate to USD is known for the order's coin.")
        )
    fee = fees.fraction(OrderType.SPOT, coin)
    listing = snapshot.by_id.get(row.server_id or 0)
    minimum = listing.spot.get(coin) if listing else None
    day = bid_within(ask.exact_bid, coin, rate, fee, minimum)
    if day is None:
        raise Settled(bids.too_low(ask.order_id, bids.usd_to_ask(minimum or ZERO, coin, rate, fee)))
    if ask.to_win:
        day = await _winning_bid(desk, ask, row, coin, rate, fee)
    usd_per_hour = day.usd_per_hour(rate) * (1 + fee)
    end = await desk.state.read(lambda tx: ends.of(tx, account, ask.order_id))
    enforced_by = await desk.enforced_by() if end is not None and end.on_end == "cancel" else None
    enforced_end = end.ends_api_at if end is not None and enforced_by else None
    worst_hours = hours_left(enforced_end, api_now, desk.clock() - asked_at)
    spent = (spent_of(row, None, api_now) or ZERO) * rate * (1 + fee)
    creation = fees.creation_usd(OrderType.SPOT, coin, rate)
    worst_usd = spent + (usd_per_hour * worst_hours + creation) * reservation_margin(coin)
    due_usd = spent + usd_per_hour * (worst_hours - SLACK_HOURS) + creation
    left = ZERO if end is None else Decimal(str(end.ends_api_at - api_now)) / 3600
    hours = min(left, worst_hours) if left > 0 else worst_hours
    on_demand = on_demand_usd_per_hour(listing, coin, fees, snapshot.rates) if listing else None
    return Bid(row, coin, rate, fee, day, usd_per_hour, worst_usd, due_usd, hours, end, enforced_by, minimum, on_demand)


async def _winning_bid(
    desk: Desk, ask: SetSpotPrice, row: OrderRow, coin: Coin, rate: Decimal, fee: Decimal
) -> DayPrice:
    """The lowest bid that wins now, the present one where no rival beats it. Raises Settled where nobody can say or it
    is above the most that was named."""
    view = await desk.readings.spot_view_if_known(row.server_id or 0)
    winning = view.winning.get(coin) if view is not None else None
    if view is None or winning is None:
        why = "The bids of its server can't be read now, so nobody knows which one wins. Call again, or name a bid."
        raise Settled(outcomes.bid_refused(ask.order_id, "book_unreadable", why))
    present = None if row.price is None else DayPrice(row.price, coin)
    runs = any(offer.mine and offer.active for offer in view.offers)
    if present is not None and (runs or not view.beaten(present)):
        return present
    if winning.usd_per_hour(rate) * (1 + fee) <= ask.exact_bid:
        return winning
    needed = bids.usd_to_ask(winning.value, coin, rate, fee)
    why = f"Winning takes {dollars(needed)} per hour now, more than max_usd_per_hour."
    refused = outcomes.bid_refused(ask.order_id, "above_max", why)
    raise Settled(replace(refused, to_win_usd_per_hour=shown_up(needed)))


async def to_win_usd(desk: Desk, bid: Bid) -> Decimal | None:
    """USD per hour that would win in the order's coin now; None where the bid wins, or nobody can say."""
    view = await desk.readings.spot_view_if_known(bid.row.server_id or 0)
    winning = view.winning.get(bid.coin) if view is not None and view.beaten(bid.day) else None
    return None if winning is None else bid.usd_to_ask(winning.value)

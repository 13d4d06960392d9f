"""Checks that enough is reserved for each order, and that all orders together are within the operator's limits."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from tests.machine.consents import STALE
from tests.machine.market import FEES, tags_of
from tests.machine.memory import Memory
from tests.machine.names import CAPS, PAID, RESERVED, UNCOVERED, require
from tests.machine.oracle import DAY, Order, Truth, usd

_MICRO: Final = Decimal("1e-6")


def reserved(memory: Memory, truth: Truth, order: Order) -> None:
    """Require that the worst case is reserved from the order's request to its end. Afterwards its cost must be
    counted."""
    if order.id in memory.market.doubted:  # a list said that it had ended, so its reservation may be released
        return
    held = [truth.rows.held[row["id"]] for row in truth.intents(order) if row["id"] in truth.rows.held]
    asked = truth.asked(order)
    since = [
        one
        for one in held
        if one["created_at"] <= asked + 0.1
        and memory.released.get(one["intent_id"], one["released_at"] or asked) >= asked - 0.1
    ]
    require(bool(since), RESERVED, f"nothing was reserved when {order} was asked for at {asked}: {held}")
    lease = truth.rows.leases.get(order.id)
    if lease is not None and lease["ended_at"] is not None and not order.open:
        actual = usd(truth.rows.held[lease["intent_id"]]["actual_micros"] or 0)
        paid = order.total * min(memory.rates[order.id], memory.market.lowest_rate(order.coin, asked, truth.now))
        require(actual + _MICRO >= paid, PAID, f"{actual} for {order}")
    over = order.ct + float(truth.ends(order)) + 180 < truth.now  # then no process was there to end the lease
    if not order.open or (lease is None and truth.lost(order)) or over or truth.dear(order):
        return
    open_ = [one for one in held if one["released_at"] is None]
    if lease is not None:
        open_ = [one for one in open_ if one["intent_id"] == lease["intent_id"]]
    worst = truth.worst(order, repriced=memory.was_repriced(order)) * memory.rates[order.id]
    enough = any(usd(one["worst_micros"]) >= worst for one in open_)
    require(enough, RESERVED, f"{order} may cost {worst} USD: {held}, {lease}")


def within_bounds(memory: Memory, truth: Truth, order: Order) -> None:
    """Require that a watch's approval covers the worst case of the order made under it."""
    fits = truth.fitting(order)
    if order.id in memory.judged or not fits or any(one.most_usd is None for one in fits):
        return
    if all(one.watch for one in fits) and truth.dear(order):  # costs more than was approved, so it has to end
        return
    worst = _worst_usd(memory, truth, order, truth.asked(order))
    most = max(one.most_usd or Decimal(0) for one in fits)
    require(worst <= most, UNCOVERED, f"{order} may cost {worst} USD: {fits}")


def within_ceilings(memory: Memory, now: float) -> None:
    """Require that a watch asks for no more than was approved, and only while the approval is valid."""
    market = memory.market
    for number in market.creates.keys() - memory.priced:
        entry = market.creates[number]
        body, at = entry["body"], entry["at"]
        given = [one for tag in tags_of(body) for one in memory.consents.of(tag) if one.watch]
        if given:
            coin = body["currency"]
            rate = market.lowest_rate(coin, at - STALE, now)
            usd = Decimal(str(body["required_price"])) * (1 + FEES[body["type"]]) / 24 * rate
            fits = [one.usd_per_hour.get(body["renting_server"]) for one in given if one.stood(at)]
            within = any(most is not None and usd <= most + _MICRO for most in fits)
            require(within, UNCOVERED, f"{usd} USD per hour asked for at {at}: {entry}, {given}")
    memory.priced |= market.creates.keys()


def within_caps(memory: Memory, truth: Truth, ours: Sequence[Order]) -> None:
    """Require that everything is within the caps each time an order is made or its bid is raised."""
    for order in ours:
        raised = order.spot and order.price > memory.prices.get(order.id, order.price)
        if (order.id in memory.judged and not raised) or truth.dear(order):
            continue
        memory.judged.add(order.id)
        others = [one for one in truth.orders if one.id != order.id and _counts(memory, truth, one, order, raised)]
        _fits(memory, truth, order, others, at=truth.now if raised else truth.asked(order))


def _counts(memory: Memory, truth: Truth, other: Order, order: Order, raised: bool) -> bool:
    if other.id in memory.market.doubted:  # what Clore says is all that is known of a stranger's order
        return False
    if other.id in memory.market.elsewhere:
        return other.ct < truth.asked(order) - STALE
    return (raised or other.id < order.id) and other.id not in memory.lost and not truth.lost(other)


def _fits(memory: Memory, truth: Truth, order: Order, others: Sequence[Order], *, at: float) -> None:
    caps, elsewhere = memory.caps, memory.market.elsewhere
    running = [one for one in others if one.ended_at is None or one.ended_at > at]
    running = [one for one in running if one.id in elsewhere or not truth.dear(one)]
    hourly = sum((one.rent(3600) * memory.lowest_rate(truth, one, at) for one in [order, *running]), Decimal(0))
    require(hourly <= caps.usd_per_hour, CAPS, f"{hourly} USD per hour with {order}: {running}")
    count = len(running) + 1
    require(count <= caps.active_orders, CAPS, f"{count} orders with {order}: {running}")
    cost = _worst_usd(memory, truth, order, at)
    require(cost <= caps.usd_per_order, CAPS, f"{cost} USD for {order}")
    for one in others:
        if one.ended_at is not None and one.ended_at <= at - DAY + 60:
            continue
        rate = memory.lowest_rate(truth, one, at)
        if one.id in elsewhere or not one.open:
            cost += min(one.total, one.rent(DAY)) * rate
            cost -= one.rent(180) * rate if one.open else 0
        elif one in running:
            cost += _worst_usd(memory, truth, one, at)
    require(cost <= caps.usd_per_day, CAPS, f"{cost} USD in a day with {order}: {others}")


def _worst_usd(memory: Memory, truth: Truth, order: Order, at: float) -> Decimal:
    return truth.worst(order, repriced=memory.was_repriced(order)) * memory.lowest_rate(truth, order, at)

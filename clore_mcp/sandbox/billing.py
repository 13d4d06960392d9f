"""The meter. It bills every order up to a moment, minute by minute, and ends orders that can't be paid or are over."""

import math
from collections.abc import Callable, Iterable

from .options import Live
from .orders import DAY, SimulatedOrder


class Meter:
    """Bills orders. `ended` is called after the meter ends an order, so that the market can pass its server on."""

    def __init__(self, live: Live, ended: Callable[[SimulatedOrder, float], None]) -> None:
        self._live = live
        self._ended = ended

    def run_to(self, orders: Iterable[SimulatedOrder], now: float) -> None:
        """Bill everything up to `now`, in the order in which it happens."""
        open_orders = [o for o in orders if o.ended_at is None]
        while open_orders:
            until = min([now, *(moment for o in open_orders for moment in o.milestones())])
            if not self._affordable(open_orders, until):
                self._one_minute(open_orders, until)
            elif not self._to_milestone(open_orders, until):
                return
            open_orders = [o for o in open_orders if o.ended_at is None]

    def end(self, order: SimulatedOrder, at: float, reason: str) -> None:
        """Bill the last, unfinished minute and `overrun_seconds`, and close the order."""
        if order.running:
            overrun = self._live.options.overrun_seconds
            self._bill(order, max(0, int(at) - order.billed_until) + overrun, final=True)
        self._close(order, at, reason)

    def pause(self, order: SimulatedOrder, at: float) -> None:
        """Take the server from the order and leave it in the queue, where it costs nothing."""
        self._bill(order, max(0, int(at) - order.billed_until))
        if order.ended_at is None:
            order.close_stretch()

    def reprice(self, order: SimulatedOrder, price: float, at: float) -> None:
        """Charge `price` a day from now on. What was billed keeps its price."""
        running = order.running
        if running:
            self.pause(order, at)
        if order.ended_at is not None:
            return
        order.close_stretch()
        order.price = price
        if running:
            order.begin_stretch(at)

    def _to_milestone(self, orders: list[SimulatedOrder], until: float) -> bool:
        """Bill whole minutes up to `until` and do what is due then. Returns False if nothing was due."""
        for order in orders:
            self._bill(order, order.whole_minutes(until))
        due = [o for o in orders if o.ended_at is None and any(moment <= until for moment in o.milestones())]
        for order in due:
            if not order.spot and order.ct + order.mrl_s <= until:
                self.end(order, order.ct + order.mrl_s, "mrl")
            else:
                self._take_creation_fee(order, until)
        return bool(due)

    def _affordable(self, orders: list[SimulatedOrder], until: float) -> bool:
        if self._live.options.on_empty == "negative":
            return True
        needs: dict[int, float] = {}
        for order in orders:
            cost = order.whole_minutes(until) * order.cost_per_second
            needs[id(order.wallet)] = needs.get(id(order.wallet), 0.0) + cost
        return all(needs[id(o.wallet)] <= (o.wallet.balance or 0.0) for o in orders)

    def _one_minute(self, orders: list[SimulatedOrder], until: float) -> None:
        """Bill the next minute that falls due. This is slow, and used only if a wallet runs dry."""
        waiting = [o for o in orders if o.whole_minutes(until) > 0]
        if waiting:
            self._bill(min(waiting, key=lambda o: (o.billed_until, o.id)), 60)
            return
        broke = min((o for o in orders if (o.wallet.balance or 0.0) < 0), key=lambda o: o.id)
        self._close(broke, until, "empty")

    def _bill(self, order: SimulatedOrder, seconds: int, final: bool = False) -> None:
        """Bill up to `seconds` seconds, as far as the wallet covers them. An order that can't be paid ends there."""
        balance = order.wallet.balance or 0.0
        short = order.cost_per_second * seconds > balance and self._live.options.on_empty == "end"
        if short:
            seconds = min(seconds, max(0, math.floor(balance / order.cost_per_second)))
        if seconds:
            before = order.spend
            order.stretch_s += seconds
            fee = order.price * seconds / DAY * order.fee_rate
            order.fee_paid += fee
            order.wallet.take(order.spend - before + fee)
        if short and not final:
            self._close(order, float(order.billed_until), "empty")

    def _take_creation_fee(self, order: SimulatedOrder, at: float) -> None:
        fee = order.creation_fee
        balance = order.wallet.balance or 0.0
        order.creation_due = None
        if fee > balance and self._live.options.on_empty == "end":
            order.creation_paid = max(balance, 0.0)
            order.wallet.take(order.creation_paid)
            self._close(order, at, "empty")
        else:
            order.creation_paid = fee
            order.wallet.take(fee)

    def _close(self, order: SimulatedOrder, at: float, reason: str) -> None:
        order.ended_at, order.end_reason = at, reason
        self._ended(order, at)

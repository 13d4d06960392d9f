"""Servers, bids, wallets and orders of the market, and the meter that bills the orders."""

import hashlib
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from .images import ContainerState
from .intake import COINS
from .options import Live, Options

DAY = 86_400
_FEES = {"bitcoin": 0.00005, "CLORE-Blockchain": 1, "USD-Blockchain": 0.5}
SEEMINGS = ("as_it_is", "expired", "vanished", "both")
"""What my_orders may report of an order: the truth, that it has ended, nothing, or both. "both" means that the list of
current orders shows it as running, and the list of completed ones as ended."""


@dataclass(slots=True)
class SimulatedBid:
    """One bid on a server. `order_id` is set if it belongs to an order of an account here."""

    offer_id: int
    bid: float
    currency: str
    placed_at: float
    order_id: int | None = None


@dataclass(slots=True)
class Server:
    """A listed server. `row` is its listing. `elsewhere`: someone outside this sandbox rents it."""

    id: int
    row: dict[str, Any]
    elsewhere: bool
    online: bool = True
    listed: bool = True
    rivals: list[SimulatedBid] = field(default_factory=list)


@dataclass(slots=True)
class SimulatedWallet:
    """One coin of an account. A legacy wallet has neither address nor balance."""

    name: str
    deposit: str | None
    balance: float | None
    withdrawal_fee: float

    @property
    def funds(self) -> float:
        """Return the balance, or 0 for a legacy wallet."""
        return self.balance or 0.0


@dataclass(slots=True)
class Account:
    """What one API key owns."""

    key: str
    wallets: dict[str, SimulatedWallet]


def wallets_of(key: str, options: Options) -> dict[str, SimulatedWallet]:
    """Return wallets whose addresses are stable for a key and obviously not real."""
    balances = dict(zip(COINS, (options.balance_btc, options.balance_clore, options.balance_usd), strict=True))
    wallets = {}
    for coin, balance in balances.items():
        address = "sandbox" + hashlib.sha256(f"{key} {coin}".encode()).hexdigest()[:27]
        wallets[coin] = SimulatedWallet(coin, address, balance, _FEES[coin])
    if options.legacy_wallet:
        wallets["bitcoin"] = SimulatedWallet("bitcoin", None, None, _FEES["bitcoin"])
    return wallets


@dataclass(slots=True)
class SimulatedOrder:
    """An order. It is billed in stretches: from `stretch_from`, `stretch_s` seconds at `price` a day so far.

    `up_since` is when its container started on its present server. A new price doesn't restart it.
    """

    id: int
    key: str
    server_id: int
    image: str
    currency: str
    price: float
    spot: bool
    ct: int
    mrl_s: float
    fee_rate: float
    creation_fee: float
    creation_fee_after: float
    wallet: SimulatedWallet
    ports: dict[str, str]
    visible_at: float
    deploy_after: float
    http_pub: str
    inside: ContainerState
    ssh: str = "ssh_answers"  # or one of faults.SSH_FAULTS: how its port 22 behaves
    public_ports: dict[str, int] = field(default_factory=dict)
    up_since: float | None = None
    stretch_from: int | None = None
    stretch_s: int = 0
    spent_before: float = 0.0
    fee_paid: float = 0.0
    creation_paid: float = 0.0
    creation_due: float | None = None
    lowered_at: float | None = None
    ended_at: float | None = None
    end_reason: str | None = None
    seeming: str = "as_it_is"  # what my_orders reports of it until `seeming_until`, true or not
    seeming_until: float = 0.0
    row: dict[str, Any] = field(default_factory=dict)  # keys that my_orders shows instead of the true ones
    twin: dict[str, Any] | None = None  # the same for a second row of it

    def listed_in(self, completed: bool, now: float) -> bool:
        """Return whether my_orders lists it. `completed`: completed orders are requested too."""
        if now < self.seeming_until and self.seeming != "as_it_is":
            return {"vanished": False, "expired": completed, "both": True}[self.seeming]
        return completed or self.ended_at is None

    def seems_expired(self, completed: bool, now: float) -> bool:
        """Return whether its row shows it as ended."""
        if now < self.seeming_until and self.seeming in ("expired", "both"):
            return completed or self.seeming == "expired"
        return self.ended_at is not None

    @property
    def running(self) -> bool:
        """Return whether it has the server and costs money."""
        return self.stretch_from is not None and self.ended_at is None

    @property
    def spend(self) -> float:
        """Return the rent so far without any fees, as `my_orders` shows it."""
        return self.spent_before + self.price * self.stretch_s / DAY

    @property
    def total(self) -> float:
        """Return everything that the wallet has paid for it."""
        return self.spend + self.fee_paid + self.creation_paid

    @property
    def cost_per_second(self) -> float:
        """Return the rent and fee per second."""
        return self.price / DAY * (1 + self.fee_rate)

    @property
    def billed_until(self) -> int:
        """Return the moment up to which the present stretch is billed. It is meaningful only while the order runs."""
        return (self.stretch_from or 0) + self.stretch_s

    def whole_minutes(self, until: float) -> int:
        """Return the seconds of whole minutes up to `until` that are not billed yet."""
        return max(0, int((until - self.billed_until) // 60) * 60) if self.running else 0

    def milestones(self) -> list[float]:
        """Return the moments at which more than a minute's billing happens."""
        moments = [self.creation_due] if self.running and self.creation_due is not None else []
        return moments if self.spot else [*moments, self.ct + self.mrl_s]

    def begin_stretch(self, at: float) -> None:
        """Give it the server from now on."""
        self.spent_before, self.stretch_s = self.spend, 0
        self.stretch_from = int(at)
        self.up_since = at if self.up_since is None else self.up_since
        if self.creation_paid == 0.0 and self.creation_due is None:
            self.creation_due = self.stretch_from + self.creation_fee_after

    def deployed_at(self) -> float:
        """Return when `mon_container` becomes 2, or infinity while it has no server or can't start."""
        if self.up_since is None or not self.inside.starts:
            return math.inf
        return self.up_since + self.deploy_after

    def has_endpoints(self, now: float, options: Options) -> bool:
        """Return whether host and ports are known by now."""
        return self.running and self.up_since is not None and now >= self.up_since + options.endpoints_after

    def public_port(self, inner: str) -> int:
        """Return the public port of a container's port: the real listener's, or an invented one."""
        return self.public_ports.get(inner) or random.Random(f"{self.id} {inner}").randrange(1211, 2672)


class Meter:
    """Bills orders. `ended` is called after the meter ends an order, so that the market can pass its server on."""

    def __init__(self, live: Live, ended: Callable[[SimulatedOrder, float], None]) -> None:
        self._live = live
        self._ended = ended

    def run_to(self, orders: Iterable[SimulatedOrder], now: float) -> None:
        """Bill everything up to `now`, in the order in which it happens."""
        open_orders = list(orders)
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
            order.spent_before, order.stretch_s, order.stretch_from = order.spend, 0, None

    def reprice(self, order: SimulatedOrder, price: float, at: float) -> None:
        """Charge `price` a day from now on. What was billed keeps its price."""
        running = order.running
        if running:
            self.pause(order, at)
        if order.ended_at is None:
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
        return all(needs[id(o.wallet)] <= o.wallet.funds for o in orders)

    def _one_minute(self, orders: list[SimulatedOrder], until: float) -> None:
        """Bill the next minute that falls due. This is slow, and used only if a wallet runs dry."""
        waiting = [o for o in orders if o.whole_minutes(until) > 0]
        if waiting:
            self._bill(min(waiting, key=lambda o: (o.billed_until, o.id)), 60)
            return
        broke = min((o for o in orders if o.wallet.funds < 0), key=lambda o: o.id)
        self._close(broke, until, "empty")

    def _bill(self, order: SimulatedOrder, seconds: int, final: bool = False) -> None:
        """Bill up to `seconds` seconds, as far as the wallet covers them. An order that can't be paid ends there."""
        balance = order.wallet.funds
        short = order.cost_per_second * seconds > balance and self._live.options.on_empty == "end"
        if short:
            seconds = min(seconds, max(0, math.floor(balance / order.cost_per_second)))
        if seconds:
            before = order.spend
            order.stretch_s += seconds
            fee = order.price * seconds / DAY * order.fee_rate
            order.fee_paid += fee
            order.wallet.balance = balance - (order.spend - before + fee)
        if short and not final:
            self._close(order, float(order.billed_until), "empty")

    def _take_creation_fee(self, order: SimulatedOrder, at: float) -> None:
        balance = order.wallet.funds
        broke = order.creation_fee > balance and self._live.options.on_empty == "end"
        order.creation_paid = max(balance, 0.0) if broke else order.creation_fee
        order.creation_due = None
        order.wallet.balance = balance - order.creation_paid
        if broke:
            self._close(order, at, "empty")

    def _close(self, order: SimulatedOrder, at: float, reason: str) -> None:
        order.ended_at, order.end_reason = at, reason
        self._ended(order, at)

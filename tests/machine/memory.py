"""What the oracle remembers between looks: who has approved what, and the state of the orders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from tests.machine.consents import STALE, Consents
from tests.machine.market import Market
from tests.machine.oracle import Caps, Order, Rows, Truth, read_order

_SLIP = 2.0


@dataclass(slots=True)
class Freeze:
    """When a freeze began to hold, and when it ended."""

    since: float
    until: float = float("inf")


@dataclass(slots=True)
class Memory:
    """The record. Rates are the least that an order's coin was worth when its price was agreed."""

    market: Market
    folder: Path
    caps: Caps
    hear: Callable[[], None] = lambda: None  # take in the answers that people have given by now
    consents: Consents = field(default_factory=Consents)
    callers: dict[int, str] = field(default_factory=dict)
    rates: dict[int, Decimal] = field(default_factory=dict)
    prices: dict[int, Decimal] = field(default_factory=dict)
    repriced: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    released: dict[str, float] = field(default_factory=dict)  # when a reservation was first seen released
    judged: set[int] = field(default_factory=set)
    freezes: list[Freeze] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)  # where a secret was shown
    searched: dict[Path, tuple[int, int, int]] = field(default_factory=dict)  # files without a secret, as written then
    priced: set[int] = field(default_factory=set)  # the create requests whose price was judged
    raises: set[int] = field(default_factory=set)  # the bid requests that were judged
    unwanted: set[int] = field(default_factory=set)  # not adopted when spending was frozen, so they must end at once

    def look(self) -> Truth:
        """Return everything as it is now."""
        before = Rows.read(self.folder)
        orders = [read_order(row, self.market) for row in self.market.orders()]
        rows = Rows.read(self.folder)
        rows.intents = {**before.intents, **rows.intents}
        self.hear()  # after the orders were read, because their approvals came before them
        now = self.market.clock.now()
        truth = Truth(self.market, self.consents, self.callers, orders, rows, now, self._requests(orders), self.rates)
        for order in orders:
            if self.prices.get(order.id) != order.price:
                at = now if order.id in self.prices else truth.asked(order)
                self.rates[order.id] = self.market.lowest_rate(order.coin, at - STALE, now)
        return truth

    def keep(self, truth: Truth, ours: list[Order]) -> None:
        """Store what the next look needs from this one."""
        for row in truth.rows.held.values():
            if row["released_at"] is not None:
                self.released.setdefault(row["intent_id"], row["released_at"])
        self.lost |= {order.id for order in ours if truth.lost(order)}
        if self.frozen:
            self.unwanted |= {order.id for order in ours if order.id not in truth.rows.leases}
        for order in truth.orders:
            if self.was_repriced(order):
                self.repriced.add(order.id)
            self.prices[order.id] = order.price

    @property
    def frozen(self) -> bool:
        """Return whether spending is frozen now."""
        return bool(self.freezes) and self.freezes[-1].until == float("inf")

    def freeze(self, *, moving: bool) -> None:
        """Record that spending was frozen just now. `moving`: a create may have been on its way."""
        now = self.market.clock.now()
        if not self.frozen:
            self.freezes.append(Freeze(now + STALE if moving else now))
        self.consents.void(now, moving=moving)

    def lift(self) -> None:
        """Record that spending is about to be allowed again."""
        if self.frozen:
            self.freezes[-1].until = self.market.clock.now()

    def was_repriced(self, order: Order) -> bool:
        """Return whether its bid has changed since it was made."""
        return order.id in self.repriced or self.prices.get(order.id, order.price) != order.price

    def lowest_rate(self, truth: Truth, order: Order, at: float) -> Decimal:
        """Return the least that its coin was worth for a process that judged then."""
        agreed = self.rates.get(order.id, Decimal("Infinity"))
        return min(agreed, self.market.lowest_rate(order.coin, at - STALE, truth.now))

    def _requests(self, orders: list[Order]) -> dict[int, float]:
        """Return when each order was requested: the last request with its tag and server before it was made."""
        found: dict[int, float] = {}
        for order in orders:
            for entry in self.market.creates.values():
                body = entry["body"]
                if (
                    entry["effect"]
                    and body.get("renting_server") == order.server_id
                    and str(order.tag) in (body.get("ports") or {})
                    and entry["at"] <= order.ct + 1 + _SLIP
                ):
                    found[order.id] = entry["at"]
        return found

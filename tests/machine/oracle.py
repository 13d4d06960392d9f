"""The invariants, judged by the machine's own record of approvals and by the true state of the marketplace.

Amounts are exact and in the order's own coin. The state's rows are read only for what is reserved and which orders are
known. What the product believes it may spend is not used.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from clore_mcp.store.database import FILE_NAME
from tests.machine.consents import Consent, Consents
from tests.machine.market import CREATION_USD, FEES, Json, Market, tags_of

DAY: Final = 86_400
_POLLS: Final = 120  # seconds after a lease's end by which the orders have been checked
_SLIP: Final = 2.0
_OLDER: Final = 120  # seconds by Clore's clock: an order may be this much older than its create and still count as ours
_YOUNGER: Final = 900  # and this much younger


@dataclass(frozen=True, slots=True)
class Caps:
    """The limits that the operator of every process has set."""

    usd_per_hour: Decimal = Decimal("1.2")
    usd_per_order: Decimal = Decimal("6")
    usd_per_day: Decimal = Decimal("9")
    active_orders: int = 4

    def environment(self) -> dict[str, str]:
        return {
            "CLORE_MAX_USD_PER_HOUR": str(self.usd_per_hour),
            "CLORE_MAX_USD_PER_ORDER": str(self.usd_per_order),
            "CLORE_MAX_USD_PER_DAY": str(self.usd_per_day),
            "CLORE_MAX_ACTIVE_ORDERS": str(self.active_orders),
        }


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it truly is."""

    id: int
    server_id: int
    tag: int | None
    spot: bool
    coin: str
    image: str
    price: Decimal
    ct: int
    total: Decimal
    creation_paid: bool
    ended_at: float | None
    reason: str | None
    visible: bool
    mrl_seconds: int

    @property
    def open(self) -> bool:
        return self.ended_at is None

    @property
    def fee(self) -> Decimal:
        return FEES["spot" if self.spot else "on-demand"]

    def rent(self, seconds: Decimal | float) -> Decimal:
        """Return the cost of that many seconds at its price, including the fee."""
        return self.price * Decimal(str(max(0, seconds))) / DAY * (1 + self.fee)


def read_order(row: Json, market: Market) -> Order:
    tags = tags_of(row)
    return Order(
        id=row["id"],
        server_id=row["server_id"],
        tag=tags[0] if tags else None,
        spot=row["type"] == "spot",
        coin=row["currency"],
        image=row["image"],
        price=Decimal(str(row["price"])),
        ct=row["ct"],
        total=Decimal(str(row["total"])),
        creation_paid=row["creation_fee_paid"] > 0,
        ended_at=row["ended_at"],
        reason=row["end_reason"],
        visible=row["visible"],
        mrl_seconds=market.mrl_hours[row["server_id"]] * 3600,
    )


@dataclass(slots=True)
class Rows:
    """The parts of the state that the oracle reads."""

    leases: dict[int, Json] = field(default_factory=dict)
    intents: dict[str, Json] = field(default_factory=dict)
    held: dict[str, Json] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Rows:
        path = folder / "state" / FILE_NAME
        if not path.exists():
            return cls()
        with closing(sqlite3.connect(path, timeout=60)) as db:
            db.row_factory = sqlite3.Row
            try:
                orders = db.execute("SELECT order_id, intent_id, ended_at FROM orders").fetchall()
                intents = db.execute(
                    "SELECT i.id, COALESCE(w.quote_id, i.quote_id) AS quote_id, i.server_id, i.state,"
                    " COALESCE(asked.caller, q.caller) AS caller FROM intents i JOIN quotes q ON q.id = i.quote_id"
                    " LEFT JOIN watches w ON w.id = q.watch_id LEFT JOIN quotes asked ON asked.id = w.quote_id"
                ).fetchall()
                held = db.execute("SELECT * FROM reservations").fetchall()
            except sqlite3.OperationalError:  # the tables are being created just now
                return cls()
        return cls(
            {row["order_id"]: dict(row) for row in orders},
            {row["id"]: dict(row) for row in intents},
            {row["intent_id"]: dict(row) for row in held},
        )


@dataclass(slots=True)
class Truth:
    """One look at everything, and what follows from it."""

    market: Market
    consents: Consents
    callers: dict[int, str]  # the caller for each tag
    orders: Sequence[Order]
    rows: Rows
    now: float
    requests: dict[int, float]  # when an order was requested, by the shared clock
    rates: dict[int, Decimal]  # the least an order's coin was worth when its price was agreed

    def asked(self, order: Order) -> float:
        return self.requests.get(order.id, float(order.ct))

    def fitting(self, order: Order) -> list[Consent]:
        """Return the approvals that may have led to an order, ignoring its price."""
        return [
            one
            for one in self.consents.of(order.tag or 0)
            if order.server_id in one.usd_per_hour
            and one.spot == order.spot
            and one.takes(order.coin, order.server_id)
            and one.stood(self.asked(order))
        ]

    def dear(self, order: Order) -> bool:
        """Return whether it costs more than any approval covers."""
        bid = self.consents.bids.get(order.id)
        if order.spot and bid is not None and order.price <= bid:
            return False
        return not any(self._affords(one, order) for one in self.fitting(order))

    def _affords(self, consent: Consent, order: Order) -> bool:
        most = consent.usd_per_hour[order.server_id]
        if most is None:
            return True
        if order.server_id == consent.first and consent.native_per_day is not None:
            return order.price <= consent.native_per_day
        return order.price * (1 + order.fee) / 24 * self.rates[order.id] <= most

    def ends(self, order: Order) -> Decimal:
        """Return the seconds from its creation to the earliest agreed end."""
        return min(one.hours for one in self.fitting(order)) * 3600

    def over(self, order: Order) -> float:
        """Return for how many seconds it has run past the latest agreed end."""
        hours = max(one.hours for one in self.fitting(order)) + self.consents.more_hours.get(order.id, 0)
        return self.now - max(order.ct + float(hours) * 3600, self.consents.ends.get(order.id, 0.0))

    def alike(self, order: Order) -> bool:
        """Return whether an order made elsewhere matches a create of ours that made none: the same server, image, type
        and coin, and a time that fits. Such orders can't be told apart."""
        return order.id in self.market.elsewhere and any(
            not entry["effect"]
            and entry["body"].get("renting_server") == order.server_id
            and entry["body"].get("image") == order.image
            and entry["body"].get("currency") == order.coin
            and (entry["body"].get("type") == "spot") == order.spot
            and -_OLDER - _SLIP <= order.ct - entry["at"] <= _YOUNGER + _SLIP
            for entry in self.market.creates.values()
        )

    def worst_seconds(self, order: Order) -> Decimal:
        longest = Decimal(order.mrl_seconds)
        return min(
            min(one.hours * 3600 + _POLLS, longest) if one.ends_enforced else longest for one in self.fitting(order)
        )

    def worst(self, order: Order, *, repriced: bool) -> Decimal:
        """Return the most that it will have cost, in its coin."""
        creation = CREATION_USD / self.market.rates[order.coin]
        seconds = self.worst_seconds(order)
        if not order.spot:
            return order.rent(seconds) + creation
        slack = _POLLS if repriced else 0  # a changed bid is counted from what is billed by then
        left = order.ct + float(seconds) - slack - self.now
        return order.total + order.rent(left) + (0 if order.creation_paid else creation)

    def intents(self, order: Order) -> list[Json]:
        """Return the rows that may be an order's intent, whatever the product believes."""
        keys = {one.key for one in self.consents.of(order.tag or 0)}
        caller = self.callers.get(order.tag or 0)
        others = any(one.key.startswith("call") for one in self.consents.of(order.tag or 0))
        return [
            row
            for row in self.rows.intents.values()
            if row["server_id"] == order.server_id
            and row["state"] not in ("refused", "abandoned")
            and (row["quote_id"] in keys or (others and _named(row["caller"], caller)))
        ]

    def lost(self, order: Order) -> bool:
        """Return whether its create was given up as failed. A later look that shows the order finds it again."""
        rows = self.intents(order)
        return order.id not in self.rows.leases and bool(rows) and all(row["state"] == "failed" for row in rows)


def pairs(orders: Iterable[Order], fits: dict[int, list[str]]) -> int:
    """Return how many of the orders can have an approval each of their own."""
    owner: dict[str, int] = {}

    def give(order_id: int, tried: set[str]) -> bool:
        for key in fits[order_id]:
            if key not in tried:
                tried.add(key)
                if key not in owner or give(owner[key], tried):
                    owner[key] = order_id
                    return True
        return False

    return sum(give(order.id, set()) for order in orders)


def usd(micros: Any) -> Decimal:
    return Decimal(int(micros)) / 10**6


def _named(caller: str, name: str | None) -> bool:
    """Return whether that client made the call. A caller is the client's name, with or without its protocol era."""
    return caller.split(",")[0] == name

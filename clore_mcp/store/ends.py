"""The agreed ends of orders: of one made here in its lease, of one made elsewhere beside what is reserved for it.

An end and what the order may cost until then are written together: never a new end with an old reservation.
"""

from __future__ import annotations

from dataclasses import dataclass

from clore_mcp.money import to_micros
from clore_mcp.store import intents, orders
from clore_mcp.store.database import Row, Tx
from clore_mcp.store.intents import Reservation
from clore_mcp.store.orders import Lease


@dataclass(frozen=True, slots=True)
class End:
    """When an order ends, in unix seconds of Clore's clock, and what happens then (`cancel` or `notify`)."""

    account: str
    order_id: int
    ends_api_at: int
    on_end: str
    made_here: bool


def of(tx: Tx, account: str, order_id: int) -> End | None:
    """The end of an order: of one made here, gone or not, or of one made elsewhere to which an end was given."""
    lease = orders.get(tx, account, order_id)
    if lease is not None:
        return _of_lease(lease)
    row = tx.one(
        "SELECT account, order_id, ends_api_at FROM reservations WHERE account = ? AND order_id = ?"
        " AND intent_id IS NULL AND released_at IS NULL AND ends_api_at IS NOT NULL",
        account, order_id,
    )  # fmt: skip
    return None if row is None else _given(row)


def active(tx: Tx, account: str) -> list[End]:
    """The ends of every order that is not proven gone, by order id."""
    rows = tx.all(
        "SELECT account, order_id, ends_api_at FROM reservations WHERE account = ?"
        " AND intent_id IS NULL AND released_at IS NULL AND ends_api_at IS NOT NULL",
        account,
    )
    found = [*map(_of_lease, orders.active(tx, account)), *map(_given, rows)]
    return sorted(found, key=lambda end: end.order_id)


def move(tx: Tx, end: End, reserved: Reservation) -> None:
    """Set an order's end and what it may cost until then. A bid that is on its way was reserved for the end of before:
    what it would replace stays as it is from now on."""
    if intents.reservation_of_order(tx, end.account, end.order_id) is None:
        intents.reserve(tx, reserved)
    tx.run(
        "UPDATE reservations SET worst_micros = ?, hourly_micros = ?,"
        " bidding = CASE WHEN bidding IS NULL THEN NULL ELSE 'several' END"
        " WHERE account = ? AND order_id = ? AND released_at IS NULL",
        to_micros(reserved.worst_usd), to_micros(reserved.usd_per_hour), end.account, end.order_id,
    )  # fmt: skip
    tx.run(
        "UPDATE orders SET ends_api_at = ? WHERE account = ? AND order_id = ? AND ended_at IS NULL"
        if end.made_here
        else "UPDATE reservations SET ends_api_at = ? WHERE account = ? AND order_id = ? AND intent_id IS NULL"
        " AND released_at IS NULL",
        end.ends_api_at, end.account, end.order_id,
    )  # fmt: skip


def moved_beyond(tx: Tx, account: str, order_id: int, api_now: float) -> bool:
    """Whether the order has an end, and that lies in the future."""
    end = of(tx, account, order_id)
    return end is not None and end.ends_api_at > api_now


def _of_lease(lease: Lease) -> End:
    return End(lease.account, lease.order_id, lease.ends_api_at, lease.on_end, made_here=True)


def _given(row: Row) -> End:
    return End(row["account"], row["order_id"], row["ends_api_at"], "cancel", made_here=False)

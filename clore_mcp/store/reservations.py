"""Reservations for an order while its bid changes, for an order made elsewhere, and until an extended end.

A change of a bid starts in the transaction that uses the yes and ends when Clore has answered. Until then the
reservation covers the old bid and the new one. Concurrent changes by several processes may reach Clore in any order, so
from then on the reservation only grows. An end and what the order may cost until then are written together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from clore_mcp.money import to_micros
from clore_mcp.store import intents, orders
from clore_mcp.store.database import Row, Tx
from clore_mcp.store.intents import Reservation
from clore_mcp.store.orders import Lease


@dataclass(frozen=True, slots=True)
class Change:
    """A bid on its way: its quote, the order's reservation, and the reservation as it was before (None if there was
    none)."""

    quote_id: str
    reservation_id: int
    before: Reservation | None


def begin_bid(tx: Tx, quote_id: str, wanted: Reservation) -> Change | None:
    """Reserve enough for both the old bid and the new one: at least `wanted.worst_usd` and `wanted.usd_per_hour`.
    Returns None if nothing is wanted and nothing is reserved, as when the bid of an order made elsewhere is lowered."""
    order_id = wanted.order_id or 0
    before = intents.reservation_of_order(tx, wanted.account, order_id)
    if before is None and not wanted.worst_usd:
        return None
    if before is None:
        intents.reserve(tx, wanted)
    held = before or intents.reservation_of_order(tx, wanted.account, order_id) or wanted
    tx.run(
        "UPDATE reservations SET worst_micros = MAX(worst_micros, ?), hourly_micros = MAX(hourly_micros, ?),"
        " bidding = CASE WHEN bidding IS NULL THEN ? ELSE 'several' END WHERE id = ?",
        to_micros(wanted.worst_usd), to_micros(wanted.usd_per_hour), quote_id, held.id,
    )  # fmt: skip
    return Change(quote_id, held.id, before)


def end_bid(tx: Tx, change: Change, worst_usd: Decimal, usd_per_hour: Decimal) -> None:
    """Set the reservation to the known cost, unless another change began in the meantime."""
    tx.run(
        "UPDATE reservations SET worst_micros = ?, hourly_micros = ?, bidding = NULL WHERE id = ? AND bidding = ?",
        to_micros(worst_usd), to_micros(usd_per_hour), change.reservation_id, change.quote_id,
    )  # fmt: skip


def undo_bid(tx: Tx, change: Change, now: float) -> None:
    """Restore the reservation because the bid did not change, unless another change began in the meantime."""
    if change.before is not None:
        end_bid(tx, change, change.before.worst_usd, change.before.usd_per_hour)
        return
    tx.run(
        "UPDATE reservations SET released_at = ?, actual_micros = 0, bidding = NULL WHERE id = ? AND bidding = ?",
        now, change.reservation_id, change.quote_id,
    )  # fmt: skip


def elsewhere(tx: Tx, account: str) -> list[Reservation]:
    """Return reservations of orders made elsewhere that are not proven gone."""
    rows = tx.all(
        "SELECT * FROM reservations WHERE account = ? AND intent_id IS NULL AND released_at IS NULL",
        account,
    )
    return [intents.reservation(row) for row in rows]


def listed_elsewhere(tx: Tx, account: str, order_ids: Iterable[int]) -> list[Reservation]:
    """Return the reservations of listed orders that were made elsewhere and count, or count again because they are
    listed: they are not released, were released only because no reply listed them, or have an end that applies
    again."""
    found = []
    for order_id in order_ids:
        rows = tx.all(
            "SELECT * FROM reservations WHERE account = ? AND order_id = ? ORDER BY id DESC", account, order_id
        )
        for at, row in enumerate(rows):
            newest_of_known_end = at == 0 and (row["missed_at"] is not None or row["ends_api_at"] is not None)
            if row["intent_id"] is None and (row["released_at"] is None or newest_of_known_end):
                found.append(intents.reservation(row))
    return found


def miss(tx: Tx, reservation_id: int, at: float) -> None:
    """Record the first valid reply in which an order made elsewhere was missing."""
    tx.run("UPDATE reservations SET missed_at = ? WHERE id = ? AND missed_at IS NULL", at, reservation_id)


def seen_again(tx: Tx, reservation_ids: Iterable[int]) -> None:
    """Reopen the reservations of orders made elsewhere that were missing and are listed again."""
    for reservation_id in reservation_ids:
        tx.run(
            "UPDATE reservations SET missed_at = NULL, released_at = NULL, actual_micros = NULL WHERE id = ?",
            reservation_id,
        )


def close_elsewhere(tx: Tx, account: str, order_id: int, actual_usd: Decimal, now: float) -> None:
    """Release the reservation of an order made elsewhere, if it has one, and record what was actually paid."""
    tx.run(
        "UPDATE reservations SET released_at = ?, actual_micros = ?"
        " WHERE account = ? AND order_id = ? AND intent_id IS NULL AND released_at IS NULL",
        now, to_micros(actual_usd), account, order_id,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class End:
    """When an order ends, in unix seconds of Clore's clock, and what happens then (`cancel` or `notify`)."""

    account: str
    order_id: int
    ends_api_at: int
    on_end: str
    made_here: bool


def end_of(tx: Tx, account: str, order_id: int) -> End | None:
    """Return the end of an order made here, gone or not, or the end given to an order made elsewhere."""
    lease = orders.get(tx, account, order_id)
    if lease is not None:
        return _of_lease(lease)
    row = tx.one(
        "SELECT account, order_id, ends_api_at FROM reservations WHERE account = ? AND order_id = ?"
        " AND intent_id IS NULL AND released_at IS NULL AND ends_api_at IS NOT NULL",
        account, order_id,
    )  # fmt: skip
    return None if row is None else _given(row)


def ends(tx: Tx, account: str) -> list[End]:
    """Return the ends of all orders that are not proven gone, sorted by order id."""
    rows = tx.all(
        "SELECT account, order_id, ends_api_at FROM reservations WHERE account = ?"
        " AND intent_id IS NULL AND released_at IS NULL AND ends_api_at IS NOT NULL",
        account,
    )
    found = [*map(_of_lease, orders.active(tx, account)), *map(_given, rows)]
    return sorted(found, key=lambda end: end.order_id)


def move_end(tx: Tx, end: End, reserved: Reservation) -> None:
    """Set an order's end and its cost until then. A bid on its way was reserved for the old end, so it no longer lowers
    the reservation when it completes."""
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
    """Return whether the order has an end in the future."""
    end = end_of(tx, account, order_id)
    return end is not None and end.ends_api_at > api_now


def _of_lease(lease: Lease) -> End:
    return End(lease.account, lease.order_id, lease.ends_api_at, lease.on_end, made_here=True)


def _given(row: Row) -> End:
    return End(row["account"], row["order_id"], row["ends_api_at"], "cancel", made_here=False)

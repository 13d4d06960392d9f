"""Rows of orders made here: the lease, the approved terms, how the order ended, and the secrets that `connect` shows.

An end, also of an order made elsewhere, and what the order may cost until then are written together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Final

from clore_mcp.money import from_micros, plain, to_micros
from clore_mcp.store import intents
from clore_mcp.store.database import Row, Tx, columns_of, drop_value, keep_value, marks, value_of
from clore_mcp.store.intents import Reservation


@dataclass(frozen=True, slots=True)
class OrderReceipt:
    """Hours, and costs in USD by part and in total, rounded for display. `estimated`: the fees come from tables."""

    hours: float
    rent_usd: float
    fee_usd: float
    creation_fee_usd: float
    total_usd: float
    estimated: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return JSON for a row or a reply."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> OrderReceipt:
        """Return the receipt that `as_json` wrote."""
        return cls(**row)


@dataclass(frozen=True, slots=True)
class Lease:
    """An order made here and its agreed end. `…_api_at` is in Clore's unix seconds. Prices are per day in `coin`."""

    account: str
    order_id: int
    intent_id: str
    digest: str
    server_id: int
    order_type: str
    image: str
    coin: str
    price_native: Decimal
    ceiling_native: Decimal
    fee_fraction: Decimal
    creation_fee_usd: Decimal
    usd_per_coin: Decimal
    started_api_at: int
    ends_api_at: int
    on_end: str
    missed_at: float | None = None
    ended_at: float | None = None
    receipt: OrderReceipt | None = None

    @property
    def usd_per_hour(self) -> Decimal:
        """The price in USD per hour including the fee, at the exchange rate that was approved."""
        return self.price_native * self.usd_per_coin / 24 * (1 + self.fee_fraction)


@dataclass(frozen=True, slots=True)
class EndedOrder:
    """An order that counts as gone since `ended_at` (this machine's clock)."""

    server_id: int
    order_id: int
    ended_at: float


_DECIMALS: Final = ("price_native", "ceiling_native", "fee_fraction", "usd_per_coin")


def _lease(row: Row) -> Lease:
    values = dict(row)
    values["creation_fee_usd"] = from_micros(values.pop("creation_fee_micros"))
    for name in _DECIMALS:
        values[name] = Decimal(values[name])
    values["receipt"] = OrderReceipt.from_json(json.loads(values["receipt"])) if values["receipt"] else None
    return Lease(**values)


def add(tx: Tx, lease: Lease) -> None:
    """Adopt an order. Raises Duplicate if it is adopted already."""
    values = columns_of(lease) | {name: plain(getattr(lease, name)) for name in _DECIMALS}
    values["creation_fee_micros"] = to_micros(values.pop("creation_fee_usd"))
    tx.insert("orders", **values | {"receipt": None})


def get(tx: Tx, account: str, order_id: int) -> Lease | None:
    """Return the order made here with that id, or None."""
    return tx.one_as(_lease, "SELECT * FROM orders WHERE account = ? AND order_id = ?", account, order_id)


def account_of(tx: Tx, order_id: int) -> str | None:
    """Return the account that made an order with that id here, or None unless exactly one did."""
    rows = tx.all("SELECT account FROM orders WHERE order_id = ?", order_id)
    return str(rows[0]["account"]) if len(rows) == 1 else None


def active(tx: Tx, account: str) -> list[Lease]:
    """Return the orders made here that are not proven gone."""
    return tx.all_as(_lease, "SELECT * FROM orders WHERE account = ? AND ended_at IS NULL ORDER BY order_id", account)


def active_anywhere(tx: Tx) -> list[Lease]:
    """Return the orders made here that are not proven gone, for every account."""
    return tx.all_as(_lease, "SELECT * FROM orders WHERE ended_at IS NULL ORDER BY account, order_id")


def of_ids(tx: Tx, account: str, order_ids: Iterable[int]) -> dict[int, Lease]:
    """Return those of these orders that were made here, gone or not, by id."""
    found = ((order_id, get(tx, account, order_id)) for order_id in order_ids)
    return {order_id: lease for order_id, lease in found if lease is not None}


def ended_early(
    tx: Tx, account: str, *, since: float, by_seconds: int, limit: int, servers: Sequence[int] | None = None
) -> list[EndedOrder]:
    """Return on-demand orders that Clore listed as ended more than `by_seconds` before their end. Only the newest
    `limit` orders gone since then are checked, at these servers only if given."""
    on = "" if servers is None else f" AND server_id IN ({marks(servers)})"
    rows = tx.all(
        "SELECT server_id, order_id, ended_at FROM"
        " (SELECT server_id, order_id, ended_at, order_type, missed_at, receipt, started_api_at, ends_api_at"
        f" FROM orders WHERE account = ? AND ended_at >= ?{on} ORDER BY ended_at DESC LIMIT ?)"
        " WHERE order_type = 'on-demand' AND missed_at IS NULL AND receipt IS NOT NULL"
        " AND started_api_at + COALESCE(json_extract(receipt, '$.hours'), 0) * 3600 < ends_api_at - ?",
        account, since, *(servers or ()), limit, by_seconds,
    )  # fmt: skip
    return [EndedOrder(row["server_id"], row["order_id"], row["ended_at"]) for row in rows]


def of_digest(tx: Tx, account: str, digest: str) -> Lease | None:
    """Return the order that the same call made, if it is not proven gone."""
    return tx.one_as(
        _lease,
        "SELECT * FROM orders WHERE account = ? AND digest = ? AND ended_at IS NULL ORDER BY order_id DESC LIMIT 1",
        account, digest,
    )  # fmt: skip


def made_here(tx: Tx, account: str, order_ids: Iterable[int]) -> set[int]:
    """Return which of these orders were made here, gone or not."""
    sql = "SELECT 1 FROM orders WHERE account = ? AND order_id = ?"
    return {order_id for order_id in order_ids if tx.one(sql, account, order_id) is not None}


def miss(tx: Tx, account: str, order_id: int, at: float, api_at: float | None) -> None:
    """Record the first valid reply in which an order was missing: its time by our clock and, if known, by Clore's."""
    tx.run("UPDATE orders SET missed_at = ? WHERE account = ? AND order_id = ?", at, account, order_id)
    keep_value(tx, _missed_name(account, order_id), "" if api_at is None else repr(api_at))


def missed_api_at(tx: Tx, account: str, order_id: int) -> float | None:
    """Return the time of that first reply by Clore's clock, or None if it is unknown."""
    told = value_of(tx, _missed_name(account, order_id))
    return float(told) if told else None


def _missed_name(account: str, order_id: int) -> str:
    return f"missed_api_at {account} {order_id}"


def seen_again(tx: Tx, account: str, order_ids: Iterable[int]) -> None:
    """Forget that orders were missing from a reply."""
    for order_id in order_ids:
        tx.run("UPDATE orders SET missed_at = NULL WHERE account = ? AND order_id = ?", account, order_id)
        drop_value(tx, _missed_name(account, order_id))


def made_any(tx: Tx) -> bool:
    """Return whether any order was ever made or tried here, for any account."""
    return tx.one("SELECT 1 FROM (SELECT 1 FROM orders UNION ALL SELECT 1 FROM intents) LIMIT 1") is not None


def ended_since(tx: Tx, account: str, since: float, *, unlisted: bool = False) -> bool:
    """Return whether an order with an end has counted as gone since then or later. `unlisted`: only because no reply
    listed it, so that it may come back."""
    missed = " AND missed_at IS NOT NULL" if unlisted else ""
    row = tx.one(
        f"SELECT order_id FROM orders WHERE account = ?1{missed} AND ended_at >= ?2"
        f" UNION ALL SELECT order_id FROM reservations WHERE account = ?1 AND intent_id IS NULL{missed}"
        " AND released_at >= ?2 AND ends_api_at IS NOT NULL LIMIT 1",
        account, since,
    )  # fmt: skip
    return row is not None


def receipts_since(tx: Tx, account: str, since: float) -> dict[int, Decimal]:
    """Return the receipts' totals in USD, by order, of orders made here that count as gone since then (our clock)."""
    rows = tx.all(
        "SELECT order_id, json_extract(receipt, '$.total_usd') AS usd FROM orders"
        " WHERE account = ? AND ended_at >= ? AND receipt IS NOT NULL",
        account, since,
    )  # fmt: skip
    return {row["order_id"]: Decimal(str(row["usd"] or 0)) for row in rows}


def reopen(tx: Tx, account: str, order_id: int) -> bool:
    """Undo the record that an order is gone. Return whether there was one."""
    changed = tx.run(
        "UPDATE orders SET ended_at = NULL, missed_at = NULL, receipt = NULL"
        " WHERE account = ? AND order_id = ? AND ended_at IS NOT NULL",
        account, order_id,
    )  # fmt: skip
    return changed == 1


def bid(tx: Tx, account: str, order_id: int, price_native: Decimal, ceiling_native: Decimal) -> None:
    """Record a changed spot bid and the ceiling that was approved with it."""
    tx.run(
        "UPDATE orders SET price_native = ?, ceiling_native = ? WHERE account = ? AND order_id = ?",
        plain(price_native), plain(ceiling_native), account, order_id,
    )  # fmt: skip


def cut(tx: Tx, account: str, order_id: int, api_now: int) -> None:
    """End the lease now, because a cancel was decided. Processes that end leases then keep trying until the order is
    gone. The same goes for an end given to an order made elsewhere."""
    tx.run(
        "UPDATE orders SET ends_api_at = MIN(ends_api_at, ?), on_end = 'cancel'"
        " WHERE account = ? AND order_id = ? AND ended_at IS NULL",
        api_now, account, order_id,
    )  # fmt: skip
    tx.run(
        "UPDATE reservations SET ends_api_at = MIN(ends_api_at, ?)"
        " WHERE account = ? AND order_id = ? AND intent_id IS NULL AND released_at IS NULL",
        api_now, account, order_id,
    )  # fmt: skip


def end(tx: Tx, account: str, order_id: int, at: float, receipt: OrderReceipt, *, unseen: bool = False) -> bool:
    """Record that an order is gone. Return False if that was recorded already. `unseen`: it is gone only because no
    reply lists it. `missed_at` is then kept, because the order may come back."""
    changed = tx.run(
        "UPDATE orders SET ended_at = ?, receipt = ?, missed_at = CASE WHEN ? THEN missed_at END"
        " WHERE account = ? AND order_id = ? AND ended_at IS NULL",
        at, json.dumps(receipt.as_json()), unseen, account, order_id,
    )  # fmt: skip
    drop_value(tx, _missed_name(account, order_id))
    return changed == 1


def keep_secrets(tx: Tx, intent_id: str, values: Mapping[str, str]) -> None:
    """Store generated passwords and tokens for `connect`."""
    for name, value in values.items():
        tx.insert("secrets", intent_id=intent_id, name=name, value=value)


def secrets_of(tx: Tx, intent_id: str) -> dict[str, str]:
    """Return the generated passwords and tokens of one create."""
    return {row["name"]: row["value"] for row in tx.all("SELECT * FROM secrets WHERE intent_id = ?", intent_id)}


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
    lease = get(tx, account, order_id)
    if lease is not None:
        return _of_lease(lease)
    return tx.one_as(
        _given, "SELECT account, order_id, ends_api_at FROM reservations WHERE account = ? AND order_id = ?"
        " AND intent_id IS NULL AND released_at IS NULL AND ends_api_at IS NOT NULL",
        account, order_id,
    )  # fmt: skip


def ends(tx: Tx, account: str) -> list[End]:
    """Return the ends of all orders that are not proven gone, sorted by order id."""
    rows = tx.all(
        "SELECT account, order_id, ends_api_at FROM reservations WHERE account = ?"
        " AND intent_id IS NULL AND released_at IS NULL AND ends_api_at IS NOT NULL",
        account,
    )
    found = [*map(_of_lease, active(tx, account)), *map(_given, rows)]
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


def _of_lease(lease: Lease) -> End:
    return End(lease.account, lease.order_id, lease.ends_api_at, lease.on_end, made_here=True)


def _given(row: Row) -> End:
    return End(row["account"], row["order_id"], row["ends_api_at"], "cancel", made_here=False)

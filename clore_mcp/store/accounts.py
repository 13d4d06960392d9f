"""Rows that map deposit addresses and keys, stored as digests, to accounts. An account may gain and lose addresses.

Each account belongs to one API (`api` is a digest of its URL). Orders of one API are never looked up at another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from clore_mcp.store.database import Tx, keep_value, marks, value_of


def of_addresses(tx: Tx, addresses: Iterable[str]) -> list[str]:
    """Return the accounts that these addresses are known to belong to, the one known longest first."""
    names = list(addresses)
    rows = tx.all(
        f"SELECT account FROM accounts WHERE kind = 'address' AND name IN ({marks(names)})"
        " GROUP BY account ORDER BY MIN(seq)",
        *names,
    )
    return [str(row["account"]) for row in rows]


def of_key(tx: Tx, key: str) -> str | None:
    """Return the account that this key was last used for."""
    row = tx.one("SELECT account FROM accounts WHERE kind = 'key' AND name = ? ORDER BY seq DESC LIMIT 1", key)
    return None if row is None else str(row["account"])


def has_addresses(tx: Tx, account: str) -> bool:
    """Return whether any address of the account is known."""
    return tx.one("SELECT seq FROM accounts WHERE kind = 'address' AND account = ? LIMIT 1", account) is not None


def unknown(tx: Tx, account: str, addresses: Iterable[str], key: str, api: str) -> list[tuple[str, str]]:
    """Return what is not stored yet, as (kind, digest). An address stays with the first account it was seen for."""
    new = [("address", name) for name in addresses if not of_addresses(tx, [name])]
    new += [] if of_key(tx, key) == account else [("key", key)]
    return new if value_of(tx, _api_name(account)) == api else [*new, ("api", api)]


def remember(tx: Tx, account: str, names: Iterable[tuple[str, str]]) -> None:
    """Store addresses, a key or an API for an account, as (kind, digest)."""
    for kind, name in names:
        if kind == "api":
            keep_value(tx, _api_name(account), name)
        else:
            tx.insert("accounts", kind=kind, name=name, account=account)


def of_api(tx: Tx, api: str) -> list[str]:
    """Return the accounts of one API, the one known longest first."""
    rows = tx.all(
        "SELECT account FROM accounts JOIN meta ON meta.name = 'api_of ' || account"
        " WHERE meta.value = ? GROUP BY account ORDER BY MIN(seq)",
        api.encode(),
    )
    return [str(row["account"]) for row in rows]


def without_api(tx: Tx) -> list[str]:
    """Return the accounts that have orders not proven gone and no recorded API."""
    rows = tx.all(
        "SELECT DISTINCT account FROM orders WHERE ended_at IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM meta WHERE name = 'api_of ' || account)"
    )
    return [str(row["account"]) for row in rows]


def made_anything(tx: Tx, api: str) -> bool:
    """Return whether an account of this API has an order, or a create whose outcome may be an order."""
    row = tx.one(
        "SELECT 1 FROM meta WHERE value = ? AND name GLOB 'api_of *' AND (EXISTS (SELECT 1 FROM orders WHERE account ="
        " substr(name, 8)) OR EXISTS (SELECT 1 FROM intents WHERE account = substr(name, 8))) LIMIT 1",
        api.encode(),
    )
    return row is not None


def of_orders(tx: Tx, api: str, order_ids: Collection[int]) -> list[str]:
    """Return the accounts of this API for which these orders were made or given an end, the one known longest first."""
    found, ids = [], list(order_ids)
    listed = f"order_id IN ({marks(ids)})"
    for account in of_api(tx, api):
        row = tx.one(
            f"SELECT 1 FROM orders WHERE account = ? AND {listed} UNION ALL SELECT 1 FROM reservations"
            f" WHERE account = ? AND ends_api_at IS NOT NULL AND {listed} LIMIT 1",
            account, *ids, account, *ids,
        )  # fmt: skip
        if row is not None:
            found.append(account)
    return found


def bring_orders(tx: Tx, account: str, others: Iterable[str], order_ids: Collection[int]) -> None:
    """Move orders, with their intents and reservations, from other accounts to this one."""
    ids, listed = list(order_ids), f"order_id IN ({marks(order_ids)})"
    for other in others:
        tx.run(
            f"UPDATE intents SET account = ? WHERE account = ? AND {listed} AND NOT EXISTS (SELECT 1 FROM"
            " orders WHERE orders.account = ? AND orders.order_id = intents.order_id)",
            account, other, *ids, account,
        )  # fmt: skip
        for table in ("reservations", "orders"):  # an order that this account already has stays as it is
            tx.run(
                f"UPDATE {table} SET account = ? WHERE account = ? AND {listed} AND NOT EXISTS (SELECT 1"
                f" FROM orders own WHERE own.account = ? AND own.order_id = {table}.order_id)",
                account, other, *ids, account,
            )  # fmt: skip


def bring_intent(tx: Tx, account: str, intent_id: str) -> None:
    """Move a create and its reservation to this account."""
    for table, column in (("intents", "id"), ("reservations", "intent_id")):
        tx.run(f"UPDATE {table} SET account = ? WHERE {column} = ?", account, intent_id)


def _api_name(account: str) -> str:
    return f"api_of {account}"

"""Which account a deposit address or a key stands for, as digests: an account may get more addresses, and lose some."""

from __future__ import annotations

from collections.abc import Iterable

from clore_mcp.state.database import Tx


def of_addresses(tx: Tx, addresses: Iterable[str]) -> list[str]:
    """The accounts that these addresses are known to stand for, the one known longest first."""
    names = list(addresses)
    marks = ", ".join("?" for _ in names)
    rows = tx.all(
        f"SELECT account FROM accounts WHERE kind = 'address' AND name IN ({marks}) GROUP BY account ORDER BY MIN(seq)",
        *names,
    )
    return [str(row["account"]) for row in rows]


def of_key(tx: Tx, key: str) -> str | None:
    """The account for which this key was last used."""
    row = tx.one("SELECT account FROM accounts WHERE kind = 'key' AND name = ? ORDER BY seq DESC LIMIT 1", key)
    return None if row is None else str(row["account"])


def has_addresses(tx: Tx, account: str) -> bool:
    """Whether an address of the account is known."""
    return tx.one("SELECT seq FROM accounts WHERE kind = 'address' AND account = ? LIMIT 1", account) is not None


def unknown(tx: Tx, account: str, addresses: Iterable[str], key: str) -> list[tuple[str, str]]:
    """What is not remembered yet, as (kind, digest). An address stays with the account for which it was seen first."""
    new = [("address", name) for name in addresses if not of_addresses(tx, [name])]
    return new if of_key(tx, key) == account else [*new, ("key", key)]


def remember(tx: Tx, account: str, names: Iterable[tuple[str, str]]) -> None:
    """Keep what stands for an account."""
    for kind, name in names:
        tx.insert("accounts", kind=kind, name=name, account=account)

"""The append-only record of every spending step, the heartbeats of processes that end leases, and the freeze."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from clore_mcp.money import with_coin_names
from clore_mcp.store.database import Row, Tx, columns_of, drop_value, fits, keep_value, marks, value_of

_SILENT_SECONDS: Final = 86_400.0
EVERY_ACCOUNT: Final = "*"  # for a step that is about the state itself


@dataclass(frozen=True, slots=True)
class Entry:
    """One step: who asked, what it was about, and the outcome. It never contains secrets or env values. It is kept for
    people to read, so coins have their display names."""

    at: float
    account: str
    step: str
    caller: str
    quote_id: str | None = None
    intent_id: str | None = None
    order_id: int | None = None
    server_id: int | None = None
    data: dict[str, Any] | None = None
    seq: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", with_coin_names(self.data))


@dataclass(frozen=True, slots=True)
class Beat:
    """A process that has reported that it ends leases: its owner name and its machine."""

    host: str
    owner: str


def write(tx: Tx, entry: Entry) -> None:
    """Append one step. An order id that is too large for the column is kept in the data."""
    data, order_id = entry.data or {}, entry.order_id
    if order_id is not None and not fits(order_id):
        data, order_id = {**data, "order_id": str(order_id)}, None
    tx.insert("ledger", **columns_of(entry) | {"order_id": order_id, "data": json.dumps(data), "seq": None})


def read(tx: Tx, *, account: str | None = None, limit: int = 200) -> list[Entry]:
    """Return the newest steps, newest first. With `account`, only those of that account and of the state itself."""
    if account is None:
        return tx.all_as(_entry, "SELECT * FROM ledger ORDER BY seq DESC LIMIT ?", limit)
    return _newest_first(
        [
            row
            for one in {account, EVERY_ACCOUNT}
            for row in tx.all("SELECT * FROM ledger WHERE account = ? ORDER BY seq DESC LIMIT ?", one, limit)
        ],
        limit,
    )


def of_steps(tx: Tx, account: str, steps: Iterable[str], *, since: float, limit: int) -> list[Entry]:
    """Return the newest steps of these kinds since then, for an account or for the state itself, newest first."""
    return _newest_first(
        [
            row
            for one in {account, EVERY_ACCOUNT}
            for step in steps
            for row in tx.all(
                "SELECT * FROM ledger WHERE account = ? AND step = ? AND at >= ? ORDER BY at DESC LIMIT ?",
                one, step, since, limit,
            )
        ],
        limit,
    )  # fmt: skip


def at_servers(
    tx: Tx, account: str, step: str, *, since: float, limit: int, servers: Sequence[int] | None
) -> list[tuple[int | None, int | None, float]]:
    """Return server, order and time of the newest steps of one kind since then, at these servers only if given."""
    on = "" if servers is None else f" AND server_id IN ({marks(servers)})"
    rows = tx.all(
        f"SELECT server_id, order_id, at FROM ledger WHERE account = ? AND step = ? AND at >= ?{on}"
        " ORDER BY at DESC LIMIT ?",
        account, step, since, *(servers or ()), limit,
    )  # fmt: skip
    return [(row["server_id"], row["order_id"], row["at"]) for row in rows]


def of_order(tx: Tx, account: str, order_id: int, steps: tuple[str, ...], *, since: float) -> list[Entry]:
    """Return an order's steps of these kinds since then, newest first."""
    return tx.all_as(
        _entry, "SELECT * FROM ledger INDEXED BY ledger_of_orders"
        f" WHERE account = ? AND order_id = ? AND at >= ? AND step IN ({marks(steps)}) ORDER BY seq DESC",
        account, order_id, since, *steps,
    )  # fmt: skip


def last_of_order(tx: Tx, account: str, order_id: int, steps: tuple[str, ...]) -> Entry | None:
    """Return the newest step of these kinds for an order."""
    rows = [
        row
        for step in steps
        for row in tx.all(
            "SELECT * FROM ledger WHERE account = ? AND order_id = ? AND step = ? ORDER BY seq DESC LIMIT 1",
            account, order_id, step,
        )
    ]  # fmt: skip
    return next(iter(_newest_first(rows, 1)), None)


def newest(tx: Tx) -> int:
    """Return the number of the newest step, or 0 if there is none."""
    return int(tx.value("SELECT MAX(seq) FROM ledger") or 0)


def newest_before(tx: Tx, before: float, limit: int) -> int:
    """Return the number of the newest step that was written before then, or 0 if there is none. Only the newest `limit`
    steps are read. If all of them are younger, the number before the oldest of them is returned."""
    row = tx.one(
        "SELECT MAX(CASE WHEN at < ? THEN seq ELSE 0 END) AS seq, COUNT(*) AS n, MIN(seq) AS first"
        " FROM (SELECT seq, at FROM ledger ORDER BY seq DESC LIMIT ?)",
        before, limit,
    )  # fmt: skip
    if row is None or not row["n"]:
        return 0
    return int(row["seq"]) or (int(row["first"]) - 1 if row["n"] == limit else 0)


def after(tx: Tx, seq: int, limit: int) -> list[Entry]:
    """Return up to `limit` steps after that number, of every account, oldest first."""
    return tx.all_as(_entry, "SELECT * FROM ledger WHERE seq > ? ORDER BY seq LIMIT ?", seq, limit)


def beat(tx: Tx, account: str, owner: str, host: str, now: float) -> None:
    """Record that `owner` is alive and ends leases. Delete owners that have been silent for a day: they were killed."""
    tx.run("DELETE FROM heartbeats WHERE account = ? AND at < ?", account, now - _SILENT_SECONDS)
    tx.run(
        "INSERT INTO heartbeats (account, owner, host, at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (account, owner) DO UPDATE SET at = excluded.at",
        account, owner, host, now,
    )  # fmt: skip


def rest(tx: Tx, account: str, owner: str) -> None:
    """Delete a heartbeat at a clean exit."""
    tx.run("DELETE FROM heartbeats WHERE account = ? AND owner = ?", account, owner)


def beats(tx: Tx, account: str, *, first: str, since: float, until: float) -> list[Beat]:
    """Return the processes whose last heartbeat lies between the two instants, the latest first. Owners whose name
    starts with `first` come before the others."""
    rows = tx.all(
        "SELECT host, owner FROM heartbeats WHERE account = ? AND at BETWEEN ? AND ?"
        " ORDER BY substr(owner, 1, ?) = ? DESC, at DESC",
        account, since, until, len(first), first,
    )  # fmt: skip
    return [Beat(str(row["host"]), str(row["owner"])) for row in rows]


def _newest_first(rows: list[Row], limit: int) -> list[Entry]:
    rows.sort(key=lambda row: row["seq"], reverse=True)
    return [_entry(row) for row in rows[:limit]]


def _entry(row: Row) -> Entry:
    return Entry(**{**dict(row), "data": json.loads(row["data"])})


_FROZEN: Final = "frozen"


@dataclass(frozen=True, slots=True)
class Freeze:
    """Who stopped all spending and when, in unix seconds of this machine."""

    by: str
    at: float


def freeze(tx: Tx, by: str, now: float) -> bool:
    """Stop all spending. Return False if it was stopped already; the first freeze then stays in force."""
    if frozen(tx) is not None:
        return False
    keep_value(tx, _FROZEN, json.dumps(asdict(Freeze(by, now))))
    return True


def frozen(tx: Tx) -> Freeze | None:
    """Return the freeze in force, or None."""
    told = value_of(tx, _FROZEN)
    return None if told is None else Freeze(**json.loads(told))


def lift(tx: Tx) -> bool:
    """Allow spending again. Return False if it was not stopped."""
    return drop_value(tx, _FROZEN)


def steps(tx: Tx, account: str, order_id: int, step: str) -> list[dict[str, Any]]:
    """Return the data of each such step of an order in the ledger."""
    rows = tx.all("SELECT data FROM ledger WHERE account = ? AND order_id = ? AND step = ?", account, order_id, step)
    return [json.loads(row["data"]) for row in rows]

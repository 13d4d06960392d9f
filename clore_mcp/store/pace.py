"""Rows of the schedule that processes share for each key: what has happened on it, and who waits, stands at the gate or
is in flight.

In a file of its own, without waiting for the disk: it is worth nothing after a power cut, for its instants are those of
a clock that starts anew with the machine, and no purchase may wait behind somebody's turn. A key appears as a digest.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from clore_mcp.store.database import Database, Row, Tx

T = TypeVar("T")
FILE_NAME: Final = "pace.sqlite3"
MIGRATIONS: Final = (
    """
    CREATE TABLE marks (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL                   -- JSON: instants in ns by name
    ) STRICT;
    CREATE TABLE turns (
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- the order in which they came
        key TEXT NOT NULL,
        owner TEXT NOT NULL,
        lane TEXT NOT NULL,
        urgent INTEGER NOT NULL,
        deadline_ns INTEGER NOT NULL,
        round INTEGER NOT NULL,
        stage TEXT NOT NULL CHECK (stage IN ('waiting', 'gate', 'flying')),
        seen_ns INTEGER NOT NULL              -- its process was alive then
    ) STRICT;
    CREATE INDEX turns_by_key ON turns (key, id);
    """,
)


def open_pace(folder: Path) -> Database:
    """The file of the schedule in that folder; opened at first use."""
    return Database(folder, FILE_NAME, MIGRATIONS, durable=False)


class PaceMemory:
    """The same rows for one process alone, gone with it. To be used on one thread; never fails and never waits."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Run `work`; as of a Database."""
        if self._connection is None:
            self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            self._connection.executescript(MIGRATIONS[0])
        return work(Tx(self._connection))

    def close(self) -> None:
        """Forget everything."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass(frozen=True, slots=True)
class PacePlace:
    """One request that waits, stands at the gate or is in flight."""

    id: int
    owner: str
    lane: str
    urgent: bool
    deadline_ns: int
    round: int
    stage: str
    seen_ns: int


def marks(tx: Tx, key: str) -> dict[str, Any] | None:
    """What has happened on a key, if anything has."""
    row = tx.one("SELECT value FROM marks WHERE key = ?", key)
    return None if row is None else dict(json.loads(row["value"]))


def keep_marks(tx: Tx, key: str, values: Mapping[str, int]) -> None:
    """Record what has happened on a key."""
    tx.run(
        "INSERT INTO marks (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        key,
        json.dumps(values),
    )


def places(tx: Tx, key: str) -> list[PacePlace]:
    """Everyone on a key, in the order in which they came."""
    return [_place(row) for row in tx.all("SELECT * FROM turns WHERE key = ? ORDER BY id", key)]


def _place(row: Row) -> PacePlace:
    values = {name: row[name] for name in PacePlace.__dataclass_fields__}
    return PacePlace(**{**values, "urgent": bool(row["urgent"])})


def join(tx: Tx, key: str, owner: str, lane: str, *, urgent: bool, deadline_ns: int, round: int, now_ns: int) -> int:
    """Stand in the queue, in that round or in the one after the owner's last; the number of the place."""
    last = tx.one("SELECT max(round) AS round FROM turns WHERE key = ? AND owner = ?", key, owner)
    if last is not None and last["round"] is not None:
        round = max(round, int(last["round"]) + 1)
    tx.insert(
        "turns", key=key, owner=owner, lane=lane, urgent=int(urgent), deadline_ns=deadline_ns, round=round,
        stage="waiting", seen_ns=now_ns,
    )  # fmt: skip
    row = tx.one("SELECT last_insert_rowid() AS id")
    return 0 if row is None else int(row["id"])


def move(tx: Tx, place_id: int, stage: str) -> None:
    """A place goes on: to the gate, or through it."""
    tx.run("UPDATE turns SET stage = ? WHERE id = ?", stage, place_id)


def drop(tx: Tx, place_id: int) -> None:
    """Whoever stood there is done or has given up."""
    tx.run("DELETE FROM turns WHERE id = ?", place_id)


def touch(tx: Tx, owner: str, now_ns: int) -> None:
    """The process of these places is alive."""
    tx.run("UPDATE turns SET seen_ns = ? WHERE owner = ?", now_ns, owner)


def forget(tx: Tx, key: str) -> None:
    """Begin anew: the clock of what is kept was another one."""
    tx.run("DELETE FROM marks WHERE key = ?", key)
    tx.run("DELETE FROM turns WHERE key = ?", key)

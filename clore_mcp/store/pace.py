"""Rows of the schedule that processes share for each key: past events, and which requests wait, are at the gate or are
in flight.

They have their own file, which is written without waiting for the disk. The rows are worthless after a power cut,
because their instants come from a clock that restarts with the machine. A purchase must not wait behind these writes.
Keys are stored as digests.
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
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- in order of arrival
        key TEXT NOT NULL,
        owner TEXT NOT NULL,
        lane TEXT NOT NULL,
        urgent INTEGER NOT NULL,
        deadline_ns INTEGER NOT NULL,
        round INTEGER NOT NULL,
        stage TEXT NOT NULL CHECK (stage IN ('waiting', 'gate', 'flying')),
        seen_ns INTEGER NOT NULL              -- when its process was last known to be alive
    ) STRICT;
    CREATE INDEX turns_by_key ON turns (key, id);
    """,
)


def open_pace(folder: Path) -> Database:
    """Return the schedule's database in that folder. It is opened at first use."""
    return Database(folder, FILE_NAME, MIGRATIONS, durable=False)


class PaceMemory:
    """The same rows in memory, for this process only. Use it on one thread. It never fails and never waits."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Run `work`, as `Database.write` does."""
        if self._connection is None:
            self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            self._connection.executescript(MIGRATIONS[0])
        return work(Tx(self._connection))

    def close(self) -> None:
        """Delete everything."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass(frozen=True, slots=True)
class PacePlace:
    """One request that waits, is at the gate or is in flight."""

    id: int
    owner: str
    lane: str
    urgent: bool
    deadline_ns: int
    round: int
    stage: str
    seen_ns: int


def marks(tx: Tx, key: str) -> dict[str, Any] | None:
    """Return what has been recorded for a key, or None."""
    return tx.one_as(lambda row: dict(json.loads(row["value"])), "SELECT value FROM marks WHERE key = ?", key)


def keep_marks(tx: Tx, key: str, values: Mapping[str, int]) -> None:
    """Record what has happened on a key."""
    tx.run(
        "INSERT INTO marks (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        key,
        json.dumps(values),
    )


def places(tx: Tx, key: str) -> list[PacePlace]:
    """Return all requests on a key, in order of arrival."""
    return tx.all_as(_place, "SELECT * FROM turns WHERE key = ? ORDER BY id", key)


def _place(row: Row) -> PacePlace:
    values = {name: row[name] for name in PacePlace.__dataclass_fields__}
    return PacePlace(**{**values, "urgent": bool(row["urgent"])})


def join(tx: Tx, key: str, owner: str, lane: str, *, urgent: bool, deadline_ns: int, round: int, now_ns: int) -> int:
    """Add a request to the queue and return the number of its place. Its round is the given one, or the one after the
    owner's last if that is later."""
    last = tx.value("SELECT max(round) FROM turns WHERE key = ? AND owner = ?", key, owner)
    if last is not None:
        round = max(round, int(last) + 1)
    tx.insert(
        "turns", key=key, owner=owner, lane=lane, urgent=int(urgent), deadline_ns=deadline_ns, round=round,
        stage="waiting", seen_ns=now_ns,
    )  # fmt: skip
    return int(tx.value("SELECT last_insert_rowid()"))


def move(tx: Tx, place_id: int, stage: str) -> None:
    """Move a request to its next stage."""
    tx.run("UPDATE turns SET stage = ? WHERE id = ?", stage, place_id)


def drop(tx: Tx, place_id: int) -> None:
    """Remove a request that is done or was given up."""
    tx.run("DELETE FROM turns WHERE id = ?", place_id)


def withdraw(tx: Tx, key: str, owner: str) -> None:
    """Remove the requests of a process that still wait."""
    tx.run("DELETE FROM turns WHERE key = ? AND owner = ? AND stage = 'waiting'", key, owner)


def touch(tx: Tx, owner: str, now_ns: int) -> None:
    """Record that the process that owns these requests is alive."""
    tx.run("UPDATE turns SET seen_ns = ? WHERE owner = ?", now_ns, owner)


def forget(tx: Tx, key: str) -> None:
    """Delete the rows of a key, because their instants come from another clock."""
    tx.run("DELETE FROM marks WHERE key = ?", key)
    tx.run("DELETE FROM turns WHERE key = ?", key)

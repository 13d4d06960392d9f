"""Durable rows in one SQLite file that many processes share. The only module that imports a database driver.

`write` runs a function inside one `BEGIN IMMEDIATE`: what it read is still true when its writes land.
Functions run on a worker thread, so the event loop never waits for the disk. WAL with `synchronous=FULL`: an
acknowledged row survives kill -9 and a power cut. Not for network file systems.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio.to_thread

from clore_mcp.errors import StateNewer, StateUnavailable
from clore_mcp.store.folder import HighWater
from clore_mcp.store.schema import MIGRATIONS

T = TypeVar("T")

_WRITES: Final = "BEGIN IMMEDIATE"
_BUSY_SECONDS: Final = 5.0
_OPEN_TRIES: Final = 40  # eight processes switching a new file to WAL at once: 3 of 200 opens failed without a retry
FILE_NAME: Final = "state.sqlite3"
CLOCK_SLACK_SECONDS: Final = 5.0  # clocks are slewed slightly all the time; anything further ahead is from the future
_YESES_ENDED: Final = "yeses_used"
_NO_WAL: Final = (
    "it has no write-ahead log (SQLite says: {mode}), as on network folders; set CLORE_STATE_DIR to a folder on a local"
    " disk"
)

Row = sqlite3.Row


class Duplicate(Exception):
    """A row that must be unique already exists."""


def fits(number: int) -> bool:
    """Return whether a column can hold this whole number."""
    return -(2**63) <= number < 2**63


def _bound(values: Sequence[object]) -> list[object]:
    """Return values for SQLite. A number that is too large for a column becomes text, which equals no row's value. The
    driver would fail on it, and Clore may show an order with such an id."""
    return [str(value) if isinstance(value, int) and not fits(value) else value for value in values]


class Tx:
    """One transaction: all of it is committed, or nothing."""

    def __init__(self, connection: sqlite3.Connection, mark: HighWater | None = None) -> None:
        self._connection = connection
        self._mark = mark
        self.afterwards: list[Callable[[], object]] = []  # called after the commit, on the same thread; must not raise

    def end_yes(self) -> None:
        """Count a person's yes as used or revoked. A copy of the state from before this must not bring it back."""
        ended = int(value_of(self, _YESES_ENDED) or 0) + 1
        keep_value(self, _YESES_ENDED, str(ended))
        if self._mark is not None:
            self.afterwards.append(partial(self._mark.raise_to, ended))

    def all(self, sql: str, *values: object) -> list[Row]:
        """Return all rows of a query."""
        return self._connection.execute(sql, _bound(values)).fetchall()

    def one(self, sql: str, *values: object) -> Row | None:
        """Return the first row of a query, or None."""
        row: Row | None = self._connection.execute(sql, _bound(values)).fetchone()
        return row

    def all_as(self, build: Callable[[Row], T], sql: str, *values: object) -> list[T]:
        """Return what `build` makes of each row of a query."""
        return [build(row) for row in self.all(sql, *values)]

    def one_as(self, build: Callable[[Row], T], sql: str, *values: object) -> T | None:
        """Return what `build` makes of the first row of a query, or None without a row."""
        row = self.one(sql, *values)
        return None if row is None else build(row)

    def value(self, sql: str, *values: object) -> Any:
        """Return the first column of the first row of a query, or None without a row."""
        row = self.one(sql, *values)
        return None if row is None else row[0]

    def run(self, sql: str, *values: object) -> int:
        """Change rows and return how many were changed. Raises Duplicate if a unique row exists."""
        try:
            return self._connection.execute(sql, _bound(values)).rowcount
        except sqlite3.IntegrityError as error:
            if "UNIQUE" in str(error):
                raise Duplicate(str(error)) from error
            raise

    def insert(self, table: str, **columns: object) -> None:
        """Insert one row. Raises Duplicate if it exists."""
        self.run(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks(columns)})", *columns.values())


def marks(values: Collection[object]) -> str:
    """Return the placeholders for that many values of a statement."""
    return ", ".join("?" * len(values))


def columns_of(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass whose names are the columns of its row."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


class Database:
    """One file of the state folder, opened at first use. The constructor touches no files. Rows of a database that is
    not `durable` survive kill -9 but may be lost in a power cut."""

    def __init__(
        self,
        folder: Path,
        file_name: str = FILE_NAME,
        migrations: Sequence[str] = MIGRATIONS,
        *,
        durable: bool = True,
        mark: HighWater | None = None,
        when_restored: Callable[[Tx], object] = lambda tx: None,
    ) -> None:
        """`when_restored` runs if, by `mark`, the file is an older copy of itself."""
        self.folder = folder
        self.path = folder / file_name
        self._migrations = migrations
        self._durable = durable
        self._mark = mark
        self._when_restored = when_restored
        self.may_begin = True  # False for a detached watchdog: it must not recreate a deleted state
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # the device and inode of the open file
        self._loss: StateUnavailable | None = None  # seen, but not yet reported to a caller that spends
        self._lock = threading.Lock()

    @property
    def exists(self) -> bool:
        """Whether a file exists here."""
        return os.path.lexists(self.path)  # a dangling link counts: it is refused by name later

    async def write(self, work: Callable[[Tx], T], *, unbroken: bool = False) -> T:
        """Run `work` in one transaction that excludes every other writer. Raises StateUnavailable. With `unbroken` it
        also raises once each time the file was deleted or replaced in use, even if another call noticed it first.
        Otherwise only background work might learn that the record of spending is gone."""
        return await anyio.to_thread.run_sync(partial(self.write_now, work, unbroken=unbroken))

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Run `work` on one consistent view. Raises StateUnavailable."""
        return await anyio.to_thread.run_sync(self.read_now, work)

    def write_now(self, work: Callable[[Tx], T], *, unbroken: bool = False) -> T:
        """Do what `write` does, for a caller that is not a coroutine."""
        return self._transact(_WRITES, work, unbroken=unbroken)

    def read_now(self, work: Callable[[Tx], T]) -> T:
        """Do what `read` does, for a caller that is not a coroutine."""
        return self._transact("BEGIN", work)

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        with self._lock:
            self._close()

    def _transact(self, begin: str, work: Callable[[Tx], T], *, unbroken: bool = False) -> T:
        with self._lock, self._failures_named():
            connection = self._open()
            self._require_same_file(unbroken=unbroken)
            connection.execute(begin)
            tx = Tx(connection, self._mark)
            try:
                self._schema_version(connection)
                if self._mark is not None and begin == _WRITES:
                    self._lapse_if_restored(tx, self._mark)
                result = work(tx)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        for then in tx.afterwards:
            then()
        return result

    @contextlib.contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except (sqlite3.DatabaseError, OSError) as error:
            raise StateUnavailable(f"The state in {self.folder} can't be used: {error}.") from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if self.may_begin:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            link = link_in(self.folder)
            if link is not None:
                raise sqlite3.OperationalError(f"{link} is a link; remove it")
            if self.may_begin:  # before SQLite opens it, so that other users can't read it even for a moment
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            self._connection = self._connect_with_patience()
            self._file = self._on_disk()
        return self._connection

    def _lapse_if_restored(self, tx: Tx, mark: HighWater) -> None:
        """Run `when_restored` if the state counts fewer ended yeses than the mark: then it is an older copy of itself.
        This is checked in each writing transaction, because the file may be overwritten while it is open."""
        known, marked = int(value_of(tx, _YESES_ENDED) or 0), mark.read()
        if known < marked:
            self._when_restored(tx)
            keep_value(tx, _YESES_ENDED, str(marked))
        elif known > marked:  # the process that counted was killed before it could raise the mark
            tx.afterwards.append(partial(mark.raise_to, known))

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _require_same_file(self, *, unbroken: bool) -> None:
        """Raise StateUnavailable if the open file was deleted or replaced. SQLite would keep writing to a deleted file,
        and no other process would see those rows."""
        now, opened = self._on_disk(), self._file
        same = now is not None and opened is not None and (now == opened or 0 in (now[1], opened[1]))
        if not same:
            self._close()
            self._loss = StateUnavailable(
                f"The state in {self.folder} was deleted or replaced while in use; nothing was recorded.",
                hint="If it was moved, put it back and restart. Otherwise call again, and a new state is made. The"
                " limits then count what Clore shows. The orders made before no longer have a lease end; list_orders"
                " shows them.",
            )
        loss = self._loss
        if unbroken:
            self._loss = None
        if loss is not None and (unbroken or not same):
            raise loss

    def _on_disk(self) -> tuple[int, int] | None:
        """Return the device and inode of the file at the path, or None. On some Windows file systems the inode is 0."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _connect_with_patience(self) -> sqlite3.Connection:
        for attempt in range(_OPEN_TRIES):
            where = f"{self.path.absolute().as_uri()}?mode={'rwc' if self.may_begin else 'rw'}"
            connection = sqlite3.connect(
                where, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True
            )
            connection.row_factory = sqlite3.Row
            try:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                if mode != "wal":  # processes could not share it
                    raise sqlite3.OperationalError(_NO_WAL.format(mode=mode))
                connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'OFF'}")
                connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves rows in the drive's own cache
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA recursive_triggers = ON")  # else INSERT OR REPLACE bypasses its triggers
                self._migrate(connection)
            except sqlite3.OperationalError:
                connection.close()
                if attempt == _OPEN_TRIES - 1:
                    raise
                time.sleep(0.02 + secrets.randbelow(50) / 1000)
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise AssertionError("unreachable")

    def _migrate(self, connection: sqlite3.Connection) -> None:
        newest = len(self._migrations)
        if connection.execute("PRAGMA user_version").fetchone()[0] == newest:
            return
        connection.execute(_WRITES)
        try:
            for script in self._migrations[self._schema_version(connection) :]:
                for statement in _statements(script):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {newest}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def _schema_version(self, connection: sqlite3.Connection) -> int:
        """Return the version of the tables. Raises StateNewer if this code does not know it. It is checked in each
        transaction, because another process may have migrated the open file."""
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(self._migrations):
            why = "it was written by a newer clore-mcp; upgrade this one, or restart it if that is done"
            raise StateNewer(f"The state in {self.folder} can't be used: {why}.")
        return version


def link_in(folder: Path) -> str | None:
    """Return the path of a link in the state's folder, or None. Writes through a link would land where it points."""
    with os.scandir(folder) as entries:
        return next((entry.path for entry in entries if entry.is_symlink()), None)


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script. sqlite3's own executescript would commit the surrounding transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def state_key(tx: Tx) -> bytes:
    """Return the secret of this state, which keys the digests of quotes. It is created at first use."""
    known = tx.value("SELECT value FROM meta WHERE name = 'key'")
    if known is not None:
        return bytes(known)
    key = secrets.token_bytes(32)
    tx.insert("meta", name="key", value=key)
    return key


def value_of(tx: Tx, name: str) -> str | None:
    """Return a named value of the state, or None."""
    return tx.one_as(lambda row: bytes(row["value"]).decode(), "SELECT value FROM meta WHERE name = ?", name)


def keep_value(tx: Tx, name: str, value: str) -> None:
    """Set a named value of the state."""
    tx.run(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        name,
        value.encode(),
    )


def drop_value(tx: Tx, name: str) -> bool:
    """Delete a named value of the state. Return False if there was none."""
    return tx.run("DELETE FROM meta WHERE name = ?", name) == 1

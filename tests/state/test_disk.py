"""What the state asks of its disk: rows that are really on it, and files that processes can share."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from clore_mcp.errors import StateUnavailable
from clore_mcp.store import database
from clore_mcp.store.database import Database


def test_a_row_that_was_acknowledged_is_on_the_disk_itself(tmp_path: Path) -> None:
    wanted = {"journal_mode": "wal", "synchronous": 2, "fullfsync": 1, "foreign_keys": 1, "recursive_triggers": 1}
    state = Database(tmp_path)
    rows = {name: state.read_now(lambda tx, name=name: tx.one(f"PRAGMA {name}")) for name in wanted}  # type: ignore[misc]
    assert {name: row[0] for name, row in rows.items() if row} == wanted
    state.close()


@pytest.mark.skipif(sys.platform == "win32", reason="a way of locking that unix has")
def test_a_disk_that_processes_cannot_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def over_a_network(where: str, **more: Any) -> sqlite3.Connection:
        """Locks, but no shared memory."""
        made: sqlite3.Connection = connect(f"{where}&vfs=unix-dotfile", **more)
        return made

    monkeypatch.setattr(database, "_OPEN_TRIES", 2)
    monkeypatch.setattr(sqlite3, "connect", over_a_network)
    with pytest.raises(StateUnavailable, match="network folders; set CLORE_STATE_DIR to a folder on a local disk"):
        Database(tmp_path).read_now(lambda tx: None)

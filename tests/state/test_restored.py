"""A state that comes back from a backup holds no yes that was used since; nothing is written through a link."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from clore_mcp.cli import doctor
from clore_mcp.errors import StateUnavailable
from clore_mcp.rental.orders.stop import freeze, lapse_restored
from clore_mcp.store import ledger, quotes, watches
from clore_mcp.store.database import FILE_NAME, Database
from clore_mcp.store.folder import HighWater, try_turn
from clore_mcp.store.quotes import Quote
from clore_mcp.store.watches import Watch
from clore_mcp.watchdog_process import LOG_NAME, shorten_log, start_apart

NOW = 1_800_000_000.0


def state(folder: Path) -> Database:
    return Database(
        folder / "state",
        mark=HighWater(folder / "cache", folder / "state"),
        when_restored=lambda tx: lapse_restored(tx, now=NOW),
    )


def hold(database: Database, quote_id: str) -> None:
    quote = Quote(
        id=quote_id, account="a", digest=quote_id, verb="create_order", caller="c", question="Rent?", terms={},
        state="pending", created_at=NOW, expires_at=NOW + 600,
    )  # fmt: skip
    database.write_now(lambda tx: quotes.add(tx, quote))
    assert database.write_now(lambda tx: quotes.decide(tx, quote_id, yes=True, by="ann", now=NOW, until=NOW + 1_800))


def use(database: Database, quote_id: str) -> bool:
    return database.write_now(
        lambda tx: quotes.consume(tx, quote_id, from_state="approved", owner="o", by="ann", now=NOW)
    )


def watch() -> Watch:
    return Watch(
        id="w1", account="a", digest="w1", quote_id="q1", approved_by="ann", ask={"max_orders": 1}, env=None,
        models=frozenset({"NVIDIA RTX 4090"}), ssh_key="k", worst_usd=Decimal(1), state="waiting", created_at=NOW,
        expires_at=NOW + 1_800,
    )  # fmt: skip


def take_back(database: Database) -> None:
    assert database.write_now(lambda tx: quotes.decide(tx, "q1", yes=False, by="ann", now=NOW, until=NOW + 9))


def cancel_watch(database: Database) -> None:
    assert database.write_now(lambda tx: watches.end(tx, "w1", "cancelled"))


def stop(database: Database) -> None:
    database.write_now(lambda tx: freeze(tx, by="ann", now=NOW))


def in_its_place(backup: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)


def over_it(backup: Path, folder: Path) -> None:
    for path in folder.glob(f"{FILE_NAME}-*"):
        path.unlink()
    shutil.copyfile(backup / FILE_NAME, folder / FILE_NAME)


@pytest.mark.parametrize("restore", [in_its_place, over_it])
def test_a_yes_that_was_used_is_not_in_a_restored_state(tmp_path: Path, restore: Callable[[Path, Path], None]) -> None:
    first = state(tmp_path)
    hold(first, "q1")
    first.close()
    shutil.copytree(tmp_path / "state", tmp_path / "backup")
    again = state(tmp_path)
    assert use(again, "q1")
    again.close()
    restore(tmp_path / "backup", tmp_path / "state")
    restored = state(tmp_path)
    assert not use(restored, "q1")
    assert restored.read_now(lambda tx: [entry.step for entry in ledger.read(tx)]) == ["state_restored"]
    hold(restored, "q2")
    assert use(restored, "q2"), "what is approved from now on counts"
    restored.close()


@pytest.mark.parametrize("restore", [in_its_place, over_it])
@pytest.mark.parametrize("back", [take_back, cancel_watch, stop])
def test_a_yes_that_was_taken_back_is_not_in_a_restored_state(
    tmp_path: Path, restore: Callable[[Path, Path], None], back: Callable[[Database], object]
) -> None:
    first = state(tmp_path)
    hold(first, "q1")
    first.write_now(lambda tx: watches.add(tx, watch()))
    first.close()
    shutil.copytree(tmp_path / "state", tmp_path / "backup")
    again = state(tmp_path)
    back(again)
    again.close()
    restore(tmp_path / "backup", tmp_path / "state")
    restored = state(tmp_path)
    assert not use(restored, "q1")
    assert restored.read_now(lambda tx: watches.standing(tx, None, NOW)) == []
    restored.close()


def test_a_process_that_was_open_all_the_time_uses_no_yes_of_a_restored_state(tmp_path: Path) -> None:
    first = state(tmp_path)
    hold(first, "q1")
    first.close()
    shutil.copytree(tmp_path / "state", tmp_path / "backup")
    long_open, other = state(tmp_path), state(tmp_path)
    long_open.read_now(lambda tx: None)
    assert use(other, "q1")
    other.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / FILE_NAME)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / "state" / FILE_NAME).open("r+b") as file:  # the same file, as `cp` writes over one
        file.write((tmp_path / "backup" / FILE_NAME).read_bytes())
        file.truncate()
    assert not use(long_open, "q1")
    long_open.close()


def test_a_process_that_is_killed_before_the_mark_is_written_leaves_it_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = state(tmp_path)
    hold(first, "q1")
    first.close()
    shutil.copytree(tmp_path / "state", tmp_path / "backup")
    killed = state(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(HighWater, "raise_to", lambda mark, used: None)
        assert use(killed, "q1")
    killed.close()
    after = state(tmp_path)
    after.write_now(lambda tx: None)
    after.close()
    in_its_place(tmp_path / "backup", tmp_path / "state")
    restored = state(tmp_path)
    assert not use(restored, "q1")
    restored.close()


def test_a_state_that_is_moved_or_copied_forward_keeps_its_yes(tmp_path: Path) -> None:
    first = state(tmp_path)
    hold(first, "q1")
    assert use(first, "q1")
    hold(first, "q2")
    first.close()
    same = state(tmp_path)
    assert use(same, "q2")
    same.close()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
@pytest.mark.parametrize("name", [FILE_NAME, f"{FILE_NAME}-wal", "watchdog.log", "copies", "pulse"])
@pytest.mark.parametrize("leads", ["nowhere", "elsewhere"])
def test_a_link_in_the_state_folder_is_refused_and_not_followed(tmp_path: Path, name: str, leads: str) -> None:
    target = tmp_path / "target"
    if leads == "elsewhere":
        target.write_text("somebody's file", encoding="utf-8")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / name).symlink_to(target)
    with pytest.raises(StateUnavailable, match=f"{name} is a link; remove it"):
        state(tmp_path).write_now(lambda tx: None)
    assert target.exists() is (leads == "elsewhere")
    assert leads == "nowhere" or target.read_text(encoding="utf-8") == "somebody's file"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
@pytest.mark.parametrize("leads", ["nowhere", "elsewhere"])
def test_a_lock_and_a_log_are_not_written_through_a_link(tmp_path: Path, leads: str) -> None:
    target = tmp_path / "target"
    if leads == "elsewhere":
        target.write_text("x" * 300_000, encoding="utf-8")
    before = target.read_bytes() if target.exists() else None
    (tmp_path / "one.lock").symlink_to(target)
    (tmp_path / LOG_NAME).symlink_to(target)
    with pytest.raises(OSError, match="it is a link; remove it"):
        try_turn(tmp_path / "one.lock", 1.0)
    with pytest.raises(OSError, match="it is a link; remove it"):
        start_apart(["watchdog", "--detached"], tmp_path, LOG_NAME)
    shorten_log(tmp_path)
    assert (target.read_bytes() if target.exists() else None) == before


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
@pytest.mark.parametrize("name", [FILE_NAME, "watchdog.log"])
def test_the_doctor_names_a_link_in_the_state_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    tmp_path.chmod(0o700)
    found = doctor._state(tmp_path)
    assert found.kind == "fault"
    assert f"{tmp_path / name} is a link" in found.said
    assert not (tmp_path / "nowhere").exists()

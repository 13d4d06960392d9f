"""A state that comes back from a backup holds no yes that was used since; nothing is written through a link."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clore_mcp.errors import StateUnavailable
from clore_mcp.rental.ends.stopping import lapse_restored
from clore_mcp.state import ledger, quotes
from clore_mcp.state.database import FILE_NAME, Database
from clore_mcp.state.highwater import HighWater
from clore_mcp.state.quotes import Quote

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

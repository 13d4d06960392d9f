"""The state's file: shared by processes, whole after a kill, for its owner alone, and its ledger only grows."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clore_mcp.errors import StateUnavailable
from clore_mcp.store import intents, ledger, quotes
from clore_mcp.store.database import FILE_NAME, Database, Duplicate, Tx, keep_value, state_key, value_of
from clore_mcp.store.ledger import Entry
from tests.state.rows import ACCOUNT, intent, quote, reservation

_PATIENCE = 90.0

OPEN_AT_ONCE = """
import sys, time
from pathlib import Path
from clore_mcp.store.database import Database, state_key
state = Database(Path(sys.argv[1]))
while time.time() < float(sys.argv[2]): pass
print(state.write_now(state_key).hex())
"""

SPEND_UNTIL_FULL = """
import sys, time
from decimal import Decimal
from pathlib import Path
from clore_mcp.settings import Caps
from clore_mcp.rental.rules.check import AddedUsage, over_caps, usage
from clore_mcp.store import intents
from clore_mcp.store.database import Database
from tests.state.rows import ACCOUNT, intent, reservation

state, me = Database(Path(sys.argv[1])), sys.argv[3]
caps = Caps(Decimal(1000), Decimal(1000), Decimal(25), 1000)
wanted = AddedUsage(Decimal(1), Decimal(1), Decimal(1))

def spend(tx):
    if over_caps(caps, usage(intents.reservations_open(tx, ACCOUNT), [], []), wanted, {}):
        return False
    count = tx.one("SELECT count(*) AS n FROM intents")["n"]
    intents.add(tx, intent(f"{me}-{count}"), reservation(f"{me}-{count}", "1", "1"))
    return True

while time.time() < float(sys.argv[2]): pass
made = 0
while state.write_now(spend):
    made += 1
print(made)
"""

HALF_DONE = """
import sys, time
from pathlib import Path
from clore_mcp.store import intents
from clore_mcp.store.database import Database
from tests.state.rows import intent, reservation

def half(tx):
    intents.add(tx, intent(), reservation())
    tx.run("UPDATE quotes SET state = 'committing'")
    print("half", flush=True)
    time.sleep(60)

Database(Path(sys.argv[1])).write_now(half)
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "state")
    yield database
    database.close()


def script(code: str, folder: Path, *arguments: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", code, str(folder), *map(str, arguments)]
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        words, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def answers(processes: list[subprocess.Popen[str]]) -> list[str]:
    told = []
    for process in processes:
        out, trouble = process.communicate(timeout=_PATIENCE)
        assert process.returncode == 0, trouble
        told.append(out.strip())
    return told


def test_eight_processes_that_open_a_new_state_at_once_agree_on_it(tmp_path: Path) -> None:
    start = time.time() + 2.0
    keys = answers([script(OPEN_AT_ONCE, tmp_path / "state", start) for _ in range(8)])
    assert len(set(keys)) == 1
    assert len(keys[0]) == 64


def test_processes_that_race_for_a_budget_never_overspend_it(state: Database) -> None:
    state.write_now(lambda tx: quotes.add(tx, quote()))
    start = time.time() + 1.5
    made = answers([script(SPEND_UNTIL_FULL, state.folder, start, name) for name in ("one", "other")])
    assert sum(map(int, made)) == 25
    held = state.read_now(lambda tx: intents.reservations_open(tx, ACCOUNT))
    assert sum(one.worst_usd for one in held) == 25


def test_a_process_killed_inside_a_transaction_leaves_no_half_of_it(state: Database) -> None:
    state.write_now(lambda tx: quotes.add(tx, quote()))
    process = script(HALF_DONE, state.folder)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "half"
    process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    process.communicate(timeout=_PATIENCE)
    assert state.write_now(lambda tx: (intents.get(tx, "i1"), intents.reservations_open(tx, ACCOUNT))) == (None, [])
    kept = state.read_now(lambda tx: quotes.get(tx, "q1"))
    assert kept is not None and kept.state == "pending"


def test_what_fails_in_the_middle_never_happened(state: Database) -> None:
    def half(tx: Tx) -> None:
        quotes.add(tx, quote())
        raise KeyError("in the middle")

    with pytest.raises(KeyError):
        state.write_now(half)
    assert state.read_now(lambda tx: quotes.get(tx, "q1")) is None


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM ledger",
        "UPDATE ledger SET step = 'other'",
        "INSERT OR REPLACE INTO ledger (seq, at, account, step, caller, data) VALUES (1, 1, 'a', 'forged', 'c', '{}')",
        "REPLACE INTO ledger (seq, at, account, step, caller, data) VALUES (1, 1, 'a', 'forged', 'c', '{}')",
        "INSERT INTO ledger (seq, at, account, step, caller, data) VALUES (1, 1, 'a', 'forged', 'c', '{}')"
        " ON CONFLICT (seq) DO UPDATE SET step = 'forged'",
    ],
)
def test_the_ledger_takes_no_change_and_loses_nothing(state: Database, sql: str) -> None:
    state.write_now(lambda tx: ledger.write(tx, Entry(1.0, ACCOUNT, "created", "test", order_id=5, data={"usd": 1})))
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        state.write_now(lambda tx: tx.run(sql))
    (kept,) = state.read_now(lambda tx: ledger.read(tx))
    assert (kept.step, kept.order_id, kept.data) == ("created", 5, {"usd": 1})


def test_the_ledger_is_read_newest_first_by_account_step_and_time(state: Database) -> None:
    def write(tx: Tx) -> None:
        for at, account, step in ((1, "a", "quoted"), (2, "b", "quoted"), (3, "a", "created"), (4, "a", "quoted")):
            ledger.write(tx, Entry(float(at), account, step, "test"))

    state.write_now(write)
    read = state.read_now(lambda tx: ledger.of_steps(tx, "a", ("quoted", "declined"), since=1, limit=200))
    assert [(one.at, one.step) for one in read] == [(4, "quoted"), (1, "quoted")]
    assert [one.at for one in state.read_now(lambda tx: ledger.read(tx, limit=2))] == [4, 3]


def test_a_state_of_a_newer_version_is_left_alone_and_says_what_to_do(state: Database) -> None:
    state.write_now(state_key)
    state.close()
    other = sqlite3.connect(state.path)
    other.execute("PRAGMA user_version = 999")
    other.close()
    with pytest.raises(StateUnavailable, match="newer clore-mcp; upgrade this one") as caught:
        state.read_now(state_key)
    assert caught.value.hint


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StateUnavailable, match="state"):
            Database(tmp_path / "state").write_now(state_key)
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnavailable, match="file"):
        Database(tmp_path / "file" / "state").write_now(state_key)


def test_a_file_that_is_no_state_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text("somebody's diary, much longer than a header of sixteen bytes\n" * 40)
    before = path.read_bytes()
    with pytest.raises(StateUnavailable, match="can't be used"):
        Database(tmp_path).write_now(state_key)
    assert path.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
def test_the_state_is_for_its_owner_alone_whatever_the_umask(state: Database) -> None:
    before = os.umask(0)
    try:
        state.write_now(state_key)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.folder.iterdir()}
    finally:
        os.umask(before)
    assert stat.S_IMODE(state.folder.stat().st_mode) == 0o700
    assert modes[FILE_NAME] == 0o600
    assert set(modes.values()) == {0o600}


def test_building_a_database_touches_nothing(state: Database) -> None:
    assert not state.exists
    assert not state.folder.exists()


def test_named_values_are_kept_and_the_key_stays_the_same(state: Database) -> None:
    key = state.write_now(state_key)
    state.write_now(lambda tx: keep_value(tx, "stop", "1"))
    state.write_now(lambda tx: keep_value(tx, "stop", "2"))
    state.close()
    assert state.write_now(state_key) == key
    assert state.read_now(lambda tx: (value_of(tx, "stop"), value_of(tx, "none"))) == ("2", None)


def test_a_second_row_where_one_is_allowed_is_a_duplicate(state: Database) -> None:
    state.write_now(lambda tx: quotes.add(tx, quote()))
    with pytest.raises(Duplicate):
        state.write_now(lambda tx: quotes.add(tx, quote()))


def alive(tx: Tx, account: str, since: float, until: float) -> str | None:
    found = next(iter(ledger.beats(tx, account, first="watchdog-", since=since, until=until)), None)
    return None if found is None else f"{found.host} {found.owner}"


def test_a_heartbeat_counts_while_it_is_young_and_can_be_taken_back(state: Database) -> None:
    state.write_now(lambda tx: ledger.beat(tx, ACCOUNT, "me", "desk", 100.0))
    state.write_now(lambda tx: ledger.beat(tx, ACCOUNT, "me", "desk", 110.0))
    assert state.read_now(lambda tx: alive(tx, ACCOUNT, since=105.0, until=112.0)) == "desk me"
    assert state.read_now(lambda tx: alive(tx, ACCOUNT, since=111.0, until=112.0)) is None
    assert state.read_now(lambda tx: alive(tx, "other", since=0.0, until=112.0)) is None
    state.write_now(lambda tx: ledger.rest(tx, ACCOUNT, "me"))
    assert state.read_now(lambda tx: alive(tx, ACCOUNT, since=0.0, until=112.0)) is None


def test_a_heartbeat_from_the_future_does_not_count(state: Database) -> None:
    state.write_now(lambda tx: ledger.beat(tx, ACCOUNT, "dead", "desk", 4000.0))
    assert state.read_now(lambda tx: alive(tx, ACCOUNT, since=0.0, until=400.0)) is None
    state.write_now(lambda tx: ledger.beat(tx, ACCOUNT, "me", "other desk", 395.0))
    assert state.read_now(lambda tx: alive(tx, ACCOUNT, since=0.0, until=400.0)) == "other desk me"


def test_a_watchdog_goes_before_a_server_that_beat_later(state: Database) -> None:
    state.write_now(lambda tx: ledger.beat(tx, ACCOUNT, "watchdog-1", "desk", 100.0))
    state.write_now(lambda tx: ledger.beat(tx, ACCOUNT, "me", "desk", 110.0))
    assert state.read_now(lambda tx: alive(tx, ACCOUNT, since=95.0, until=112.0)) == "desk watchdog-1"
    assert state.read_now(lambda tx: alive(tx, ACCOUNT, since=105.0, until=112.0)) == "desk me"


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no open file")
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_state_that_vanishes_while_it_is_open_takes_nothing_more_and_is_begun_anew(state: Database, how: str) -> None:
    state.write_now(lambda tx: quotes.add(tx, quote()))
    shutil.rmtree(state.folder)
    if how == "replaced":
        other = Database(state.folder)
        other.write_now(lambda tx: quotes.add(tx, quote("another's")))
        other.close()
    ran: list[str] = []
    with pytest.raises(StateUnavailable, match="deleted or replaced") as caught:
        state.write_now(lambda tx: ran.append("spent"))
    assert not ran
    assert "restart" in caught.value.hint
    state.write_now(lambda tx: quotes.add(tx, quote("q2")))
    fresh = Database(state.folder)
    kept = [one.id for one in fresh.read_now(lambda tx: quotes.waiting(tx))]
    fresh.close()
    assert kept == (["another's", "q2"] if how == "replaced" else ["q2"])


def test_a_file_system_that_numbers_no_files_still_tells_a_missing_one(
    state: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = iter([(1, 0), (1, 5), None])
    monkeypatch.setattr(Database, "_on_disk", lambda self: next(numbers))
    state.write_now(state_key)
    with pytest.raises(StateUnavailable):
        state.write_now(state_key)


def test_an_intent_is_never_without_what_it_may_cost(state: Database) -> None:
    state.write_now(lambda tx: quotes.add(tx, quote()))
    with pytest.raises(sqlite3.IntegrityError):
        state.write_now(lambda tx: intents.add(tx, intent(), reservation(worst="-1")))
    assert state.read_now(lambda tx: intents.get(tx, "i1")) is None

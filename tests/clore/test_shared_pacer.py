"""One schedule for a key in many processes: their departures over the real file, faults and deaths included."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from clore_mcp.clore import Gaps, Lane
from clore_mcp.clore import pacer as module
from clore_mcp.clore.pacer import SECOND_NS, Pacer
from clore_mcp.errors import QueueFull
from clore_mcp.store import database
from clore_mcp.store.pace import FILE_NAME, open_pace
from tests.clore.conftest import MS
from tests.clore.turns import Turns

pytestmark = pytest.mark.anyio

GAP = Gaps.scaled(0.05)


class Shared(Turns):
    """The turns of pacers as of several processes, on one schedule."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.pacers: list[Pacer] = []

    def process(self, gaps: Gaps = GAP, patience_seconds: float = 30) -> Pacer:
        self.pacers.append(Pacer(gaps, state=open_pace(self.folder), key="key", patience_seconds=patience_seconds))
        return self.pacers[-1]

    def rows(self, sql: str = "SELECT stage FROM turns ORDER BY id") -> list[str]:
        with contextlib.closing(sqlite3.connect(self.folder / FILE_NAME)) as connection:
            return [row[0] for row in connection.execute(sql)]

    async def until_rows(self, count: int) -> None:
        await until(lambda: len(self.rows()) == count)

    async def crowd(self, pacer: Pacer, count: int) -> list[asyncio.Task[None]]:
        """So many callers that wait; they joined in one transaction, so all stand there when the first has left."""
        tasks = [asyncio.create_task(self.go(pacer, ".")) for _ in range(count)]
        await until(lambda: bool(self.left))
        return tasks


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not met():  # noqa: ASYNC110 - what changes is another process's row
            await asyncio.sleep(0.005)


async def give_up(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def shared(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Shared]:
    made = Shared(tmp_path)
    yield made
    for pacer in made.pacers:
        await pacer.aclose()


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        child.communicate()


def spawn(
    children: list[subprocess.Popen[str]], folder: Path, calls: int, gap: float, how: str
) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.clore.pacing_child", str(folder), str(calls), str(gap), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    children.append(child)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def begin(*started: subprocess.Popen[str]) -> None:
    for child in started:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()


# Many processes


@pytest.mark.parametrize("how", ["all", "queue"])
def test_four_processes_keep_the_gap_and_take_turns(
    tmp_path: Path, children: list[subprocess.Popen[str]], how: str
) -> None:
    # A gap that a busy machine keeps up with: whoever comes too late for a turn has fewer than its share.
    started = [spawn(children, tmp_path, 10, 0.25, how) for _ in range(4)]
    begin(*started)
    printed = [child.communicate(timeout=60)[0].split() for child in started]
    left = sorted((int(at), number) for number, lines in enumerate(printed) for at in lines)
    assert len(left) == 40
    assert min(later - earlier for (earlier, _), (later, _) in pairwise(left)) >= 249 * MS
    half = [number for _, number in left[:20]]
    shares = [half.count(number) for number in range(4)]
    assert sum(shares) ** 2 / (4 * sum(share**2 for share in shares)) >= 0.95, shares


def test_a_process_killed_at_the_gate_holds_nothing(tmp_path: Path, children: list[subprocess.Popen[str]]) -> None:
    holder, waiter = spawn(children, tmp_path, 1, 0.1, "gate"), spawn(children, tmp_path, 3, 0.1, "all")
    begin(holder)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "at the gate\n"
    begin(waiter)
    holder.kill()
    killed = time.monotonic_ns()
    left = [int(at) for at in waiter.communicate(timeout=60)[0].split()]
    assert len(left) == 3
    assert left[0] - killed < module.SILENT_NS + 20 * SECOND_NS, "no longer than its silence, on a busy machine too"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows stops no process")
def test_a_process_that_is_stopped_holds_nothing_and_goes_on_later(
    tmp_path: Path, children: list[subprocess.Popen[str]]
) -> None:
    stopped, other = spawn(children, tmp_path, 12, 0.1, "all"), spawn(children, tmp_path, 6, 0.1, "all")
    begin(stopped)
    assert stopped.stdout is not None
    first = stopped.stdout.readline()
    os.kill(stopped.pid, signal.SIGSTOP)
    begin(other)
    assert len(other.communicate(timeout=60)[0].split()) == 6, "whoever is awake goes on"
    os.kill(stopped.pid, signal.SIGCONT)
    rest = stopped.communicate(timeout=60)[0].split()
    assert len([first, *rest]) == 12, "and a process that wakes takes its turns again"


# The order of departure


async def test_an_urgent_call_behind_fifty_queued_ones_leaves_within_two_slots(shared: Shared) -> None:
    script, desktop = shared.process(), shared.process()
    queued = await shared.crowd(script, 50)
    before = len(shared.left)
    await shared.go(desktop, "!", urgent=True)
    assert shared.names().index("!") - before <= 2
    await give_up(queued)


async def test_whoever_queues_little_waits_for_no_crowd(shared: Shared) -> None:
    script, desktop = shared.process(), shared.process()
    queued = await shared.crowd(script, 12)
    before = len(shared.left)
    await asyncio.gather(*(shared.go(desktop, "d") for _ in range(3)))
    await asyncio.gather(*queued)
    among = shared.names()[before : before + 8]
    assert among.count("d") == 3, f"every other turn is the desktop's: {shared.names()}"
    assert shared.smallest_gap() >= 0.0495


async def test_a_create_keeps_its_own_distance_in_all_processes(shared: Shared) -> None:
    gaps = Gaps(general_ns=20 * MS, create_ns=700 * MS)
    await asyncio.gather(*(shared.go(shared.process(gaps), "c", Lane.CREATE) for _ in range(2)))
    assert shared.smallest_gap() >= 0.699


async def test_nobody_leaves_before_the_one_at_the_gate(shared: Shared) -> None:
    slow, quick = shared.process(), shared.process()
    async with slow.turn(Lane.GENERAL) as turn:
        other = asyncio.create_task(shared.go(quick, "q"))
        await shared.until_rows(2)
        await asyncio.sleep(0.3)  # several gaps and ticks
        assert not shared.left
        left = time.monotonic()
        turn.leaving()
        await other
    assert shared.left[0][1] - left >= 0.0495


# Giving up


async def test_a_wait_beyond_the_callers_patience_is_refused_at_once(shared: Shared) -> None:
    crowd, guest = shared.process(), shared.process(patience_seconds=0.2)
    queued = await shared.crowd(crowd, 40)
    many = [shared.go(guest, "g") for _ in range(12)]
    outcomes = await asyncio.gather(*many, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, QueueFull)]
    assert refused
    assert all(one.retry_after_seconds and one.retry_after_seconds > 0 for one in refused)
    assert "nothing was sent" in refused[0].message
    await give_up(queued)


async def test_who_gives_up_leaves_no_trace_wherever_it_stands(shared: Shared) -> None:
    first, second = shared.process(), shared.process()
    entered = asyncio.Event()

    async def stand_at_the_gate() -> None:
        async with first.turn(Lane.GENERAL):
            entered.set()
            await asyncio.sleep(60)

    gate = asyncio.create_task(stand_at_the_gate())
    await asyncio.wait_for(entered.wait(), 20)
    queued, last = asyncio.create_task(shared.go(first, "q")), asyncio.create_task(shared.go(second, "l"))
    await shared.until_rows(3)
    for task in (queued, gate):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.wait_for(last, 20)
    assert shared.names() == "l"
    await shared.until_rows(0)


async def test_closing_records_what_left_last(shared: Shared) -> None:
    pacer = shared.process()
    await shared.go(pacer, "a")
    await pacer.aclose()
    assert shared.rows() == []
    await shared.go(shared.process(), "b")
    assert shared.smallest_gap() >= 0.0495


# What Clore says to one, all hear


async def test_a_refusal_in_one_process_makes_one_call_fly_at_a_time_in_all(shared: Shared) -> None:
    first, second = shared.process(), shared.process()
    async with first.turn(Lane.GENERAL) as turn:
        turn.leaving()
        told = time.monotonic()
        assert turn.refused(0.4) >= 0.39
    await shared.until_rows(0)
    await asyncio.gather(*(shared.go(pacer, name, takes=0.1) for pacer in (first, second) for name in "ab"))
    assert shared.left[0][1] - told >= 0.39, "Retry-After is kept by everyone"
    assert shared.smallest_gap() >= 0.1 + GAP.reply_ns / SECOND_NS - 0.001, "counted from the end of the one before"


# The state and the clock


async def test_where_the_state_cannot_be_used_a_process_paces_itself(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("not a folder")
    shared = Shared(tmp_path / "state")
    await asyncio.gather(*(shared.go(pacer, "a") for pacer in [shared.process()] * 4))
    assert len(shared.left) == 4
    assert shared.smallest_gap() >= 0.0495


async def test_a_file_held_up_by_a_frozen_process_stalls_no_loop_and_delays_a_call_by_seconds(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 1.5)
    pacer = shared.process()
    await shared.go(pacer, "a")
    stalls = [0.0]

    async def tick() -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.005)
            stalls.append(time.monotonic() - begun)

    ticking = asyncio.create_task(tick())
    with contextlib.closing(sqlite3.connect(shared.folder / FILE_NAME, isolation_level=None)) as frozen:
        frozen.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(30):
            await shared.go(pacer, "b", urgent=True)
    ticking.cancel()
    assert shared.names() == "ab"
    assert shared.smallest_gap() >= 0.0495, "what is known of the schedule is kept"
    assert max(stalls) < 1.2, "a loop that waited for the file would have stood for 1.5 s"
    await shared.go(pacer, "c")
    assert shared.names() == "abc"


async def test_a_call_that_went_on_alone_does_not_stand_in_line_once_the_file_can_be_used_again(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.2)
    first, second = shared.process(Gaps.scaled(0.5)), shared.process(Gaps.scaled(0.5))
    await shared.go(first, "a")
    alone = asyncio.create_task(shared.go(first, "b"))
    await until(lambda: "waiting" in shared.rows())
    with contextlib.closing(sqlite3.connect(shared.folder / FILE_NAME, isolation_level=None)) as frozen:
        frozen.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(20):
            await alone
    async with asyncio.timeout(20):  # the row of b, if it were left, would be kept alive by c and go nowhere
        await asyncio.gather(shared.go(first, "c"), shared.go(second, "d"))
    assert sorted(shared.names()) == ["a", "b", "c", "d"]


async def test_after_a_restart_of_the_machine_the_old_instants_count_no_more(tmp_path: Path) -> None:
    before = Pacer(GAP, state=open_pace(tmp_path), key="key", clock_ns=lambda: 10**15)
    async with before.turn(Lane.GENERAL) as turn:
        turn.leaving()
        turn.refused(None)
    await before.aclose()
    now = Pacer(GAP, state=open_pace(tmp_path), key="key", patience_seconds=1)
    async with asyncio.timeout(10), now.turn(Lane.GENERAL) as turn:
        turn.leaving()
    await now.aclose()


async def test_a_process_taken_for_dead_stands_at_the_end_again(shared: Shared) -> None:
    first, second = shared.process(Gaps.scaled(0.6)), shared.process(Gaps.scaled(0.6))
    await shared.go(first, "a")
    waiting = asyncio.create_task(shared.go(second, "b"))
    await shared.until_rows(1)
    with contextlib.closing(sqlite3.connect(shared.folder / FILE_NAME)) as other, other:
        other.execute("DELETE FROM turns")
    await asyncio.wait_for(waiting, 20)
    assert shared.names() == "ab"


async def test_two_keys_do_not_wait_for_each_other(tmp_path: Path) -> None:
    hour = Gaps.scaled(3600)
    pacers = [Pacer(hour, state=open_pace(tmp_path), key=key, patience_seconds=1) for key in ("one", "two")]
    for pacer in pacers:
        async with asyncio.timeout(20), pacer.turn(Lane.GENERAL) as turn:
            turn.leaving()
        await pacer.aclose()

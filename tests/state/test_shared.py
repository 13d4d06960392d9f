"""One fetches and the others wait or take its copy, in one process and in many, and nobody waits for the dead."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clore_mcp.errors import TimedOut
from clore_mcp.store.shared import Copies, Departure, Shared, owner_of

pytestmark = pytest.mark.anyio
WHAT = "orders"
LONG = 30.0

FETCHER = """
import asyncio, sys, time
from pathlib import Path
from clore_mcp.store.shared import Copies
from clore_mcp.store.shared import Shared

async def ask(departure):
    print("asking", flush=True)
    await asyncio.sleep(600)

copies = Copies(Path(sys.argv[1]), "owner", time.time, time.monotonic)
asyncio.run(Shared(copies, "orders", ask, bytes.decode, marked=True).get(60))
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clore:
    """What is asked: answers with how often it was, when the gate is open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = 0
        self.failing = False
        self.came = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.ahead = 0.0  # of the real clocks

    def copies(self, owner: str = "owner") -> Copies:
        return Copies(self.folder, owner, lambda: time.time() + self.ahead, lambda: time.monotonic() + self.ahead)

    def process(self, *, marked: bool = True, patience_seconds: float = LONG, owner: str = "owner") -> Shared[str]:
        """One process's part: no lock and no copy knows that it is the same process."""
        return Shared(self.copies(owner), WHAT, self.ask, load, marked=marked, patience_seconds=patience_seconds)

    async def ask(self, departure: Departure) -> tuple[str, bytes]:
        await departure()
        self.asked += 1
        self.came.set()
        answer = f"answer {self.asked}"
        await self.gate.wait()
        if self.failing:
            raise TimedOut("no reply")
        return answer, answer.encode()

    async def await_asked(self, times: int) -> None:
        async with asyncio.timeout(LONG):
            while self.asked < times:
                self.came.clear()
                await self.came.wait()


def load(body: bytes) -> str:
    if not body.startswith(b"answer"):
        raise ValueError("no answer")
    return body.decode()


@pytest.fixture
def clore(tmp_path: Path, anyio_backend: str) -> Clore:
    return Clore(tmp_path / "copies")


async def values(*processes: Shared[str], max_age_seconds: float = 60) -> list[str]:
    got = await asyncio.gather(*(one.get(max_age_seconds) for one in processes))
    return [one.value for one in got]


@pytest.fixture
def fetcher(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, in the middle of its fetch."""
    words = [sys.executable, "-c", FETCHER, str(tmp_path / "copies")]
    with subprocess.Popen(words, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
        yield process
        process.kill()


async def test_many_processes_with_many_tasks_that_want_it_at_once_ask_once(clore: Clore) -> None:
    clore.gate.clear()
    processes = [clore.process() for _ in range(4)]
    getting = [asyncio.create_task(values(one)) for one in processes for _ in range(20)]
    await clore.await_asked(1)
    clore.gate.set()
    assert await asyncio.gather(*getting) == [["answer 1"]] * 80
    assert await values(clore.process()) == ["answer 1"], "and who comes later takes it"
    assert clore.asked == 1


async def test_another_owner_asks_for_itself(clore: Clore) -> None:
    owners = [owner_of("https://api.invalid/v1", key) for key in ("one", "two")]
    assert await values(*(clore.process(owner=one) for one in owners)) in (
        ["answer 1", "answer 2"],
        ["answer 2", "answer 1"],
    )


async def test_what_is_too_old_for_a_caller_is_asked_for_again(clore: Clore) -> None:
    one, two = clore.process(), clore.process()
    assert await values(one) == ["answer 1"]
    clore.ahead = 30.0
    got = await two.get(60)
    assert (got.value, round(time.time() + clore.ahead - got.at)) == ("answer 1", 30), "with its age"
    assert await values(two, max_age_seconds=10) == ["answer 2"]
    assert await values(one, max_age_seconds=10) == ["answer 2"]
    clore.ahead = 0.0  # both clocks are behind what was written: as after a restart
    assert await values(one) == ["answer 3"]


async def test_who_wants_it_younger_does_not_take_what_a_task_beside_it_waits_for(
    clore: Clore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shield, joined = asyncio.shield, asyncio.Queue[object]()

    def join(task: asyncio.Future[object]) -> asyncio.Future[object]:
        joined.put_nowait(task)
        return shield(task)

    monkeypatch.setattr(asyncio, "shield", join)
    clore.gate.clear()
    one, two = clore.process(), clore.process()
    getting = []
    for process, age in ((one, 60), (two, 60), (two, 10)):
        getting.append(asyncio.create_task(values(process, max_age_seconds=age)))
        await asyncio.wait_for(joined.get(), LONG)
        await clore.await_asked(1)
        clore.ahead = 20.0
    clore.gate.set()
    assert await asyncio.gather(*getting) == [["answer 1"], ["answer 1"], ["answer 2"]]


async def test_a_failure_is_its_own_and_the_next_asks(clore: Clore) -> None:
    clore.gate.clear()
    clore.failing = True
    one, two = (asyncio.create_task(values(clore.process())) for _ in range(2))
    await clore.await_asked(1)
    clore.gate.set()
    for getting in (one, two):
        with pytest.raises(TimedOut):
            await getting
    assert clore.asked == 2
    clore.failing = False
    assert await values(clore.process()) == ["answer 3"]


async def test_a_change_in_one_process_makes_every_process_ask_again(clore: Clore) -> None:
    one, two = clore.process(), clore.process()
    assert await values(one, two) == ["answer 1", "answer 1"]
    clore.copies("another key of the same account").change()
    assert await values(one) == ["answer 2"]
    assert await values(two) == ["answer 2"]


async def test_a_change_reaches_a_fetch_under_way_elsewhere(clore: Clore) -> None:
    one, two = clore.process(), clore.process()
    clore.gate.clear()
    before = asyncio.create_task(values(two))
    await clore.await_asked(1)
    clore.copies().change()
    after = asyncio.create_task(values(one))
    clore.gate.set()
    assert (await before, await after) == (["answer 1"], ["answer 2"]), "only who asked before it gets that one"
    assert await values(two) == ["answer 2"]
    assert clore.asked == 2


async def test_a_market_does_not_change_by_what_we_write(clore: Clore) -> None:
    assert await values(clore.process(marked=False)) == ["answer 1"]
    clore.copies().change()
    assert await values(clore.process(marked=False)) == ["answer 1"]


async def test_what_is_forgotten_is_asked_for_after_now(clore: Clore) -> None:
    one, two = clore.process(), clore.process()
    assert await values(one, two) == ["answer 1", "answer 1"]
    clore.gate.clear()
    before = asyncio.create_task(values(one, max_age_seconds=0))
    await clore.await_asked(2)
    one.forget()
    after = asyncio.create_task(values(one))
    clore.gate.set()
    assert (await before, await after) == (["answer 2"], ["answer 3"])
    assert await values(two) == ["answer 3"], "others may have what is young enough"


async def test_who_must_ask_asks_though_there_is_a_copy_and_the_others_take_that(clore: Clore) -> None:
    one, two = clore.process(), clore.process()
    assert await values(one) == ["answer 1"]
    assert (await one.fetch()).value == "answer 2"
    assert await values(two) == ["answer 2"]


async def test_a_copy_that_can_not_be_read_is_asked_for_again(clore: Clore) -> None:
    async def odd(departure: Departure) -> tuple[str, bytes]:
        return "odd", b"of another version"

    assert (await clore.process().fetch(odd)).value == "odd"
    assert await values(clore.process()) == ["answer 1"]


async def test_where_nothing_can_be_kept_each_process_asks_and_uses_its_own(clore: Clore) -> None:
    clore.folder.write_text("no folder")
    one, two = clore.process(), clore.process()
    assert await values(one, one, one) == ["answer 1"] * 3
    assert await values(one) == ["answer 1"]
    assert await values(two) == ["answer 2"]
    clore.ahead = 61.0
    assert await values(one) == ["answer 3"]
    one.forget()
    assert await values(one) == ["answer 4"]


async def test_a_caller_who_leaves_hurts_nobody(clore: Clore) -> None:
    clore.gate.clear()
    one = clore.process()
    leaver, stayer = asyncio.create_task(values(one)), asyncio.create_task(values(one))
    await clore.await_asked(1)
    leaver.cancel()
    await asyncio.wait([leaver])
    clore.gate.set()
    assert await stayer == ["answer 1"]
    assert clore.asked == 1


async def test_closing_gives_the_turn_to_another(clore: Clore) -> None:
    clore.gate.clear()
    one, two = clore.process(), clore.process()
    getting = asyncio.create_task(values(one))
    await clore.await_asked(1)
    other = asyncio.create_task(values(two))
    await one.aclose()
    await asyncio.wait([getting])
    assert getting.cancelled()
    await clore.await_asked(2)
    clore.gate.set()
    assert await other == ["answer 2"]
    await one.aclose()


async def test_no_file_is_touched_on_the_event_loop(clore: Clore, monkeypatch: pytest.MonkeyPatch) -> None:
    in_loop: list[str] = []

    def watched(real: Callable[..., object]) -> Callable[..., object]:
        def work(*args: object) -> object:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return real(*args)
            in_loop.append(real.__name__)
            return real(*args)

        return work

    for name in ("find", "keep", "mark", "turn"):
        monkeypatch.setattr(Copies, name, watched(getattr(Copies, name)))
    assert await values(clore.process()) == ["answer 1"]
    assert in_loop == []


async def test_a_fetcher_that_is_killed_is_followed_at_once(clore: Clore, fetcher: subprocess.Popen[str]) -> None:
    getting = asyncio.create_task(values(clore.process(patience_seconds=600)))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(getting), 0.5)
    assert clore.asked == 0, "it waits while the other may still answer"
    fetcher.kill()
    async with asyncio.timeout(LONG):
        assert await getting == ["answer 1"]


@pytest.mark.skipif(os.name != "posix", reason="Windows stops no process")
async def test_a_fetcher_that_is_frozen_holds_nobody_longer_than_the_patience(
    clore: Clore, fetcher: subprocess.Popen[str]
) -> None:
    fetcher.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert await values(clore.process(patience_seconds=2.0)) == ["answer 1"]
    clore.ahead = 600.0
    assert await values(clore.process(patience_seconds=60.0)) == ["answer 2"], "who comes later knows since when"
    assert time.monotonic() - began < LONG


async def test_a_turn_whose_beginning_nobody_knows_is_waited_for_no_longer(clore: Clore) -> None:
    turn = clore.copies().turn(WHAT)
    assert turn is not None and turn.mine
    [lock] = clore.folder.glob("*.lock")
    lock.write_bytes(b"garbage")
    assert await values(clore.process(patience_seconds=0.3)) == ["answer 1"]
    turn.end()


async def test_a_fetch_that_is_over_but_too_old_is_not_waited_for_again(tmp_path: Path) -> None:
    clore = Clore(tmp_path)
    one = clore.process()
    over = asyncio.ensure_future(one._renew(clore.copies().now().before(60)))
    await over
    one.forget()
    one._running = over  # as in the instant before its callback has run
    await asyncio.wait_for(one.get(60), LONG)
    assert clore.asked == 2

"""The operator's command: run for each event once, after it is in the ledger, without secrets, holding nothing up."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clore_mcp.rental.monitoring.notifier import Notifier, without_secrets
from clore_mcp.sandbox import SANDBOX_KEY
from clore_mcp.store.ledger import Entry
from tests.guard.calls import rent
from tests.guard.conftest import Processes
from tests.guard.test_events import QUARTER, account, elsewhere, look
from tests.world import Json, World

pytestmark = pytest.mark.anyio
PATIENCE = 60.0
WRITES = """
import json, os, pathlib, sys
told = {"event": json.load(sys.stdin), "env": dict(os.environ), "cwd": os.getcwd(), "words": sys.argv[2:]}
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(told) + "\\n")
print("this goes nowhere")
"""


class Listener:
    """A program that keeps what it is told, and the command line that runs it."""

    def __init__(self, folder: Path, program: str = WRITES) -> None:
        self.script, self._heard = folder / "a listener.py", folder / "heard"
        self.script.write_text(program, encoding="utf-8")

    @property
    def command(self) -> str:
        quote: Callable[[str], str] = shlex.quote if os.name != "nt" else '"{}"'.format
        return " ".join(map(quote, (sys.executable, str(self.script), str(self._heard), "two words; $HOME")))

    @property
    def words(self) -> tuple[str, ...]:
        return (sys.executable, str(self.script), str(self._heard))

    @property
    def heard(self) -> list[Json]:
        return (
            [json.loads(line) for line in self._heard.read_text("utf-8").splitlines()] if self._heard.exists() else []
        )

    async def hears(self, count: int) -> list[Json]:
        until = time.monotonic() + PATIENCE
        while len(self.heard) < count:
            assert time.monotonic() < until, f"{self.heard} within {PATIENCE:.0f} s"
            await asyncio.sleep(0.05)
        return self.heard


def real(path: Path) -> str:
    return os.path.realpath(path)


@pytest.fixture
def listener(tmp_path: Path) -> Listener:
    return Listener(tmp_path)


def event(step: str = "outbid", **data: object) -> Entry:
    return Entry(1_800_000_000.0, "a", step, "clore-mcp", order_id=7, server_id=5, data=data)


async def test_an_event_is_told_once_by_whoever_wrote_it(world: World, process: Processes, listener: Listener) -> None:
    env = {"CLORE_NOTIFY_COMMAND": listener.command}
    first, second = await process(env=env), await process(env=env)
    world.fault("never_deploys")
    made = await rent(first, world.free()[0])
    world.advance(QUARTER)
    for _ in range(2):
        await look(first, second)
    [heard] = await listener.hears(1)
    assert heard["event"] | {"at": "", "figures": {}} == {
        "at": "", "what": "never_deployed", "order_id": made.order_id, "server_id": made.server_id,
        "note": heard["event"]["note"], "figures": {},
    }  # fmt: skip
    assert heard["event"]["figures"]["minutes"] >= 15 and "cancel_order" in heard["event"]["note"]
    assert heard["words"] == ["two words; $HOME"], "no shell has read it"
    assert heard["cwd"] == real(world.state)
    world.advance(2 * 3600)
    await look(first, second)  # its lease ends
    heard_all = [one["event"]["what"] for one in await listener.hears(2)]
    assert heard_all == ["never_deployed", "lease_ended"]
    assert {"never_deployed", "lease_ended"} <= set(world.steps())


@pytest.mark.parametrize("setting", [{"CLORE_READ_ONLY": "1"}, {"CLORE_WATCHDOG": "off"}], ids=str)
async def test_nothing_is_told_where_nothing_is_done_unasked(
    world: World, process: Processes, listener: Listener, setting: dict[str, str]
) -> None:
    elsewhere(world)
    services = await process(env=setting | {"CLORE_NOTIFY_COMMAND": listener.command})
    assert (await account(services)).events
    await services.aclose()
    assert listener.heard == []


async def test_what_is_rolled_back_is_not_told(world: World, process: Processes, listener: Listener) -> None:
    services = await process(env={"CLORE_NOTIFY_COMMAND": listener.command})

    def fails(tx: object) -> None:
        services.context.note(tx, "outbid", "clore-mcp", "a", order_id=1)  # type: ignore[arg-type]
        raise RuntimeError("before it is written")

    with pytest.raises(RuntimeError):
        await services.context.state.write(fails)
    await services.context.state.write(lambda tx: services.context.note(tx, "outbid", "clore-mcp", "a", order_id=2))
    await services.context.state.write(
        lambda tx: services.context.note(tx, "cancel_sent", "clore-mcp", "a", order_id=3)
    )
    await services.aclose()
    assert [one["event"]["order_id"] for one in listener.heard] == [2], "told before the process ends"


def test_the_command_never_sees_the_key(listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLORE_API_KEY", "CLORE_API_KEY_FILE", "clore_api_key_2", "ELSEWHERE"):
        monkeypatch.setenv(name, f"x {SANDBOX_KEY}")
    monkeypatch.setenv("KEPT", "yes")
    notifier = Notifier(listener.words, tmp_path, SANDBOX_KEY)
    notifier.tell(event())
    notifier.close()
    [heard] = listener.heard
    assert SANDBOX_KEY not in json.dumps(heard) and heard["env"]["KEPT"] == "yes"
    assert not any(name.upper().startswith("CLORE_API_KEY") for name in heard["env"])
    assert without_secrets({"CLORE_API_KEY_FILE": "/x", "A": "b"}, None) == {"A": "b"}


def test_strangers_words_reach_it_clean_and_clamped(listener: Listener, tmp_path: Path) -> None:
    notifier = Notifier(listener.words, tmp_path, None)
    notifier.tell(event("wallet_short", coin="USD\u202e\n\x1b[2J" + "x" * 9_999, hours_left=2))
    notifier.tell(event("above_ceiling", coin="{0.__class__}", extra={"a": "b"}))
    notifier.close()
    first, second = (one["event"] for one in listener.heard)
    assert first["figures"]["coin"].startswith("USD [2Jxxx") and len(first["figures"]["coin"]) == 80
    assert first["note"].isprintable() and len(first["note"]) < 200
    assert second["figures"] == {"coin": "{0.__class__}"}


@pytest.mark.parametrize(
    ("program", "said"),
    [
        pytest.param("raise SystemExit(3)", "exit code 3", id="fails"),
        pytest.param("import sys; sys.stdin.close(); raise SystemExit(4)", "exit code 4", id="does not listen"),
        pytest.param(
            "import subprocess, sys, time\n"
            "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\ntime.sleep(600)",
            "did not end within 1 s",
            id="hangs",
        ),
    ],
)
def test_a_command_that_goes_wrong_is_logged_and_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, program: str, said: str
) -> None:
    caplog.set_level(logging.WARNING)
    notifier = Notifier(Listener(tmp_path, program).words, tmp_path, None, seconds=1.0 if "sleep" in program else 60.0)
    began = time.monotonic()
    notifier.tell(event())
    assert time.monotonic() - began < 0.5
    until = time.monotonic() + PATIENCE
    while said not in caplog.text:
        assert time.monotonic() < until, caplog.text
        time.sleep(0.05)
    notifier.close()


def test_a_program_that_is_gone_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier((str(tmp_path / "gone"),), tmp_path, None)
    notifier.tell(event())
    notifier.close()
    assert "could not be run (FileNotFoundError)" in caplog.text


def test_events_beyond_what_can_wait_are_left_to_the_ledger(
    listener: Listener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener.script.write_text("import time; time.sleep(600)", encoding="utf-8")
    notifier = Notifier(listener.words, tmp_path, None, seconds=1.0)
    for _ in range(150):
        notifier.tell(event())
    assert "too many events wait" in caplog.text
    notifier.close()
    assert "not run for every event" in caplog.text
    for _ in range(200):  # the rest of them is not this test's to wait for
        if notifier._waiting.empty():
            break
        notifier._waiting.get_nowait()

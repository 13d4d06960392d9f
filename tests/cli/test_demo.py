"""The tour: it shows what happened, leaves nothing behind, and stops where a step does not do what it shows."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.types import CallToolResult, ElicitRequestFormParams

from clore_mcp.demo.guide import Guide, StepFailed
from clore_mcp.demo.screen import Screen
from clore_mcp.demo.tour import rent_and_cancel
from tests import picture
from tests.conftest import processes_that_know
from tests.terminal import Terminal

DEMO = [sys.executable, "-W", "error", "-m", "clore_mcp", "demo"]
PROMPT = "leave the tour: "


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A user's environment in which every CLORE_ variable would spoil the tour, if it were read."""
    (tmp_path / "tmp").mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "SYSTEMROOT", "LANG") if name in os.environ}
    return kept | {
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path / "tmp"),
        "TEMP": str(tmp_path / "tmp"),
        "PYTHONUTF8": "1",
        "CLORE_API_KEY": "not a key",
        "CLORE_APPROVAL": "outside",
        "CLORE_MAX_USD_PER_DAY": "0",
        "CLORE_STATE_DIR": str(tmp_path / "state of the user"),
    }


class Tourist(Terminal):
    """Somebody at a terminal who may press Ctrl-C."""

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)  # the test's terminal controls nobody, so its ^C would be a letter


def assert_nothing_left(folder: Path) -> None:
    """No file in the temporary folder, no state of the user touched, no process that knows the folder."""
    assert list((folder / "tmp").iterdir()) == []
    assert sorted(path.name for path in folder.iterdir()) == ["tmp"]
    assert processes_that_know(folder) == []


def test_the_tour_runs_by_itself_and_its_numbers_add_up(env: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run([*DEMO, "--yes"], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=90)
    shown = done.stdout.decode("utf-8")
    assert (done.returncode, done.stderr) == (0, b""), shown
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "\x1b" not in shown
    assert re.search(r"^ +ssh -p \d+ root@127\.0\.0\.1$", shown, re.MULTILINE)
    assert shown.count("The server asks you") == shown.count("(given by --yes)") == 2
    assert shown.count("  total  ") == 2
    for at in re.finditer("  rent  ", shown):
        rent, fee, creation, total = (
            float(re.search(rf"{name} +\$(\d+\.\d+)", shown[at.start() :])[1])  # type: ignore[index]
            for name in ("rent", "Clore's fee", "creation fee", "total")
        )
        assert round(rent + fee + creation, 6) == total > 0
    assert "< ready " in shown and "< no orders  nothing is left behind: $0.00 per hour" in shown
    for part in picture.words_of_parts():
        assert part in picture.words(shown), "`python -m tests.picture` draws the README's picture anew"
    assert_nothing_left(tmp_path)


BROWSER = """#!{python}
import http.cookiejar, pathlib, re, sys, urllib.request
jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
read = lambda url: urllib.request.build_opener(jar, urllib.request.ProxyHandler({{}})).open(url).read().decode()
read(sys.argv[1])
room = re.match("http://localhost:[0-9]+/[0-9a-f]+/", sys.argv[1])[0]
pathlib.Path({shown!r}).write_text(read(room))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the browser here is a script")
def test_the_page_is_shown_beside_the_tour_and_goes_with_it(
    env: dict[str, str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    browser = tmp_path_factory.mktemp("browser") / "browser"
    shown = browser.with_name("shown.html")
    browser.write_text(BROWSER.format(python=sys.executable, shown=str(shown)))
    browser.chmod(0o700)
    env |= {"DISPLAY": ":9", "BROWSER": f"{browser} %s"}
    done = subprocess.run(
        [*DEMO, "--yes", "--page"], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=90
    )
    said = done.stdout.decode("utf-8")
    assert (done.returncode, done.stderr) == (0, b""), said
    assert "Your page is open in the browser" in said and "http://localhost" not in said, "its address is nobody else's"
    assert "Waits for you" in shown.read_text() and "No orders." in shown.read_text()
    assert_nothing_left(tmp_path)


def test_without_a_display_the_page_is_named(env: dict[str, str], tmp_path: Path) -> None:
    with Terminal([*DEMO, "--page"], env) as terminal:
        terminal.expect(PROMPT)
        told = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.seen)
        assert re.search(r"once:\s+http://localhost:[0-9]+/[0-9a-f]+/enter/[\w-]{43}\s", told), told
        terminal.type("q")
        assert terminal.end().code == 0
    assert_nothing_left(tmp_path)


def test_a_no_rents_nothing_and_leaving_is_no_failure(env: dict[str, str], tmp_path: Path) -> None:
    with Terminal(DEMO, env) as terminal:
        terminal.expect(PROMPT)
        terminal.type("what?")
        terminal.expect(f"what?\r\n\r\n\x1b[1m Your answer? y = yes, n = no, q = {PROMPT}")
        terminal.type("n")
        terminal.expect(PROMPT, after="same question again")
        terminal.type("q")
        done = terminal.end()
    assert done.code == 0, done.out
    assert "Nothing was rented and nothing was spent." in done.out
    assert "The tour ends here." in done.out
    assert "created" not in done.out
    assert_nothing_left(tmp_path)


def test_leaving_at_a_later_question_leaves_no_order_and_no_process_behind(env: dict[str, str], tmp_path: Path) -> None:
    with Terminal(DEMO, env | {"NO_COLOR": "1"}) as terminal:
        terminal.expect("Rent 1x")
        terminal.expect(PROMPT)
        terminal.type("y")
        terminal.expect("Cancel order")
        terminal.expect(PROMPT)
        terminal.type("q")
        done = terminal.end()
    assert done.code == 0, done.out
    assert "The order keeps running and billing." in done.out
    assert "The tour ends here." in done.out and "Receipt" not in done.out
    assert not re.search("\x1b\\[[0-9;]*3[0-7]", done.out), "no colour where none is wanted"
    assert_nothing_left(tmp_path)


def test_ctrl_c_at_the_question_is_130_and_no_yes(env: dict[str, str], tmp_path: Path) -> None:
    with Tourist(DEMO, env) as terminal:
        terminal.expect(PROMPT)
        terminal.interrupt()
        done = terminal.end()
    assert done.code == 130, done.out
    assert "created" not in done.out
    assert_nothing_left(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="there input() notices it by itself")
def test_ctrl_c_in_the_instant_before_the_wait_for_an_answer_ends_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    wait, woken = select.select, []

    def wait_a_moment_late(reads: Any, writes: Any, others: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        woken.append(wait(reads, writes, others, 60)[0])
        raise KeyboardInterrupt

    silent, never = os.pipe()
    monkeypatch.setattr(select, "select", wait_a_moment_late)
    monkeypatch.setattr(sys, "stdin", os.fdopen(silent))
    before = signal.signal(signal.SIGINT, lambda *_: None)  # noticed, as by a process on its way into the wait
    try:
        with sys.stdin, pytest.raises(KeyboardInterrupt):
            Screen().ask()
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(never)
    assert [len(files) for files in woken] == [1]


IGNORED: list[str] = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]  # as a script starts what it puts into the background


def test_ctrl_c_while_waiting_is_130_though_a_parent_ignored_it(env: dict[str, str], tmp_path: Path) -> None:
    with Tourist([*IGNORED, *DEMO], env) as terminal:
        terminal.expect(PROMPT)
        terminal.type("y")
        terminal.expect("being deployed")
        terminal.interrupt()
        done = terminal.end()
    assert done.code == 130, done.out
    assert_nothing_left(tmp_path)


def test_without_a_terminal_nobody_can_answer(env: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(DEMO, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--yes" in done.stderr
    assert_nothing_left(tmp_path)


SERVER: dict[str, Any] = {"server_id": 7, "gpu": "RTX 4090", "gpu_count": 1, "usd_per_hour": 0.105, "rented": False}
BILL = {"rent_usd": 0.2, "fee_usd": 0.01, "creation_fee_usd": 0.1, "total_usd": 0.31}
ANSWERS: Mapping[str, dict[str, Any]] = {
    "search_servers": {"servers": [SERVER], "total_matches": 1, "snapshot_age_seconds": 1},
    "quote_order": {"allowed": True, "usd_per_hour": 0.105, "worst_case_usd": 0.4, **BILL},
    "create_order": {
        "status": "created", "order_id": 1, "server_id": 7, "usd_per_hour": 0.105, "reserved_usd": 0.4,
        "ends_at": "2026-11-24T06:00:00Z",
    },
    "wait_for_order": {"status": "running", "ready": True, "ssh": {"command": "ssh -p 1 root@host"}},
    "cancel_order": {"status": "cancelled", "receipt": {"hours": 0.025, **BILL}},
    "list_orders": {"orders": [], "total_usd_per_hour": 0.0},
}  # fmt: skip


class Server:
    """Stands in for the connection: canned answers, and a question before each that `asks`."""

    def __init__(self, guide: Guide, asks: Collection[str], answers: Mapping[str, dict[str, Any]]) -> None:
        self._guide, self._asks, self._answers = guide, asks, answers

    async def call_tool(self, tool: str, *_: Any, **__: Any) -> CallToolResult:
        if tool in self._asks:
            await self._guide.answer(None, ElicitRequestFormParams(message="Really?", requested_schema={}))  # type: ignore[arg-type]
        return CallToolResult(content=[], structured_content=self._answers[tool])


def tell(answers: Mapping[str, dict[str, Any]], asks: Collection[str]) -> None:
    """The tour, against canned answers."""
    guide = Guide(Screen(), yes=True)
    client: Any = Server(guide, asks, {**ANSWERS, **answers})
    guide.client = client
    anyio.run(rent_and_cancel, guide)


@pytest.mark.parametrize(
    ("tool", "changes", "told"),
    [
        ("search_servers", {"servers": []}, r"Step 1 \(Search\): it found no server"),
        ("search_servers", {"servers": [SERVER | {"usd_per_hour": 0.5}]}, "Step 1 .*not what was asked for"),
        ("quote_order", {"total_usd": 0.3}, r"Step 2 \(Quote\): the parts do not add up"),
        ("quote_order", {"allowed": False}, "Step 2 .*limits refuse"),
        ("create_order", {"server_id": 8}, "Step 3 .*another server"),
        ("wait_for_order", {"ready": False}, "Step 4 .*not ready"),
        ("wait_for_order", {"ssh": {}}, "Step 4 .*no SSH command"),
        ("cancel_order", {"status": "unverified"}, "Step 5 .*answered unverified"),
        ("cancel_order", {"receipt": {}}, "Step 6 .*no receipt"),
        ("cancel_order", {"receipt": {**BILL, "total_usd": 0.3}}, "Step 6 .*do not add up"),
        ("list_orders", {"orders": [{"order_id": 1}]}, "Step 6 .*something still runs"),
    ],
)
def test_a_step_that_does_not_do_what_it_shows_is_named(tool: str, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(StepFailed, match=told):
        tell({tool: ANSWERS[tool] | changes}, asks=("create_order", "cancel_order"))


def test_a_rental_that_asked_nobody_is_named() -> None:
    tell({}, asks=("create_order", "cancel_order"))
    with pytest.raises(StepFailed, match=r"Step 3 .*create_order asked 0 times"):
        tell({}, asks=())


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_every_console_gets_what_it_can_show(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    screen = Screen()
    screen.heading("1/6 Search")
    screen.frame("The server asks you", "Rent 1× RTX 4090 → now… \U0001f600?")
    screen.say("a – b — c · d", "bold")
    sys.stdout.flush()
    shown = raw.getvalue().decode(encoding)
    assert "RTX 4090" in shown
    assert ("─" in shown) == (encoding == "utf-8")
    assert encoding == "utf-8" or "-> now" in shown
    assert encoding != "ascii" or "now... ??" in shown

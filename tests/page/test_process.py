"""The page's process: started once, found, opened once for a question, small, gone with its state. Real processes."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clore_mcp.page import serve
from clore_mcp.page_process import LOG_NAME, PageOpener, PageRequest, ask, has_display, is_running, requests_folder
from clore_mcp.sandbox import Running
from clore_mcp.settings import Settings
from tests.conftest import delete_state, environment, processes_that_know, settings_for
from tests.page.conftest import KEYS, House, Visitor, until
from tests.preforked import python
from tests.terminal import Terminal

MOST_MEGABYTES = 60
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="the browser here is a shell script"),
]


@pytest.fixture
def env(running: Running, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A machine with a display, whose browser writes down what it is asked to show."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >>{tmp_path}/opened\n')
    browser.chmod(0o700)
    usual = {"PATH": os.environ["PATH"], "DISPLAY": ":9", "BROWSER": f"{browser} %s"}
    made = {**usual, **environment(running, tmp_path, CLORE_API_KEY=KEYS[-1])}
    (tmp_path / "state").mkdir()
    yield made
    delete_state(tmp_path / "state")
    until(lambda: not processes_that_know(tmp_path), "no process is left")


def page(env: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [python(), "-m", "clore_mcp", "page", *words], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def opened(folder: Path) -> list[str]:
    path = folder / "opened"
    return path.read_text().split() if path.exists() else []


def pages(folder: Path) -> list[str]:
    return [line for line in processes_that_know(folder) if "--detached" in line]


def test_only_a_person_at_a_terminal_reads_an_address(env: dict[str, str], tmp_path: Path) -> None:
    """It lets whoever reads it say yes, as `approve` does at a terminal alone."""
    command = [python(), "-m", "clore_mcp", "page"]
    for words, seat in ((["--no-open"], env), ([], env | {"SSH_TTY": "/dev/pts/7"})):
        done = subprocess.run([*command, *words], env=seat, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "needs a person at a terminal" in done.stderr
        assert "http" not in done.stdout + done.stderr
    assert not opened(tmp_path)
    with Terminal([*command, "--no-open"], env) as terminal:
        assert re.search(r"http://localhost:[0-9]+/\w+/enter/", terminal.end().out)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the processes of a test")
def test_one_process_is_started_found_and_gone_with_its_state(env: dict[str, str], tmp_path: Path) -> None:
    assert "is open in the browser" in page(env)
    until(lambda: len(opened(tmp_path)) == 1, "the browser was asked once")
    visitor = Visitor(opened(tmp_path)[0])
    asked = ask(settings_for(env, tmp_path), PageRequest(opens=False))
    assert asked is not None
    again = Visitor(asked.address)
    try:
        assert again.origin == visitor.origin, "the same process"
        assert "Waits for you" in visitor.get("approvals/q1").text or visitor.get("static/style.css").status_code == 200
        (line,) = pages(tmp_path)
        assert "--detached" in line and KEYS[-1] not in line, "nothing secret on its command line"
        pid = next(int(p.name) for p in Path("/proc").glob("[0-9]*") if _is(p, line))
        resident = int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024
        assert resident <= MOST_MEGABYTES, f"{resident:.0f} MB"
        assert (tmp_path / "state" / LOG_NAME).read_text() == ""
    finally:
        visitor.http.close()
        again.http.close()


def _is(process: Path, line: str) -> bool:
    try:
        own = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return False
    return own != "" and line.startswith(own)


def test_the_server_opens_a_question_once_and_never_a_second_tab(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    wanted = settings_for(env, tmp_path)
    show = PageOpener(wanted).show
    assert show("q1aaaaaa") and show("q1aaaaaa") and is_running(wanted)
    assert show("q2bbbbbb"), "a tab has just been opened: it shows that too"
    until(lambda: len(opened(tmp_path)) == 1, "one tab")
    first = Visitor(opened(tmp_path)[0])
    first.http.close()
    assert "approvals/q1aaaaaa" in first.first.text, "it leads to the question"


@pytest.mark.parametrize(
    ("env", "is_there"),
    [
        ({"DISPLAY": ":0"}, True), ({"WAYLAND_DISPLAY": "wayland-0"}, True), ({}, False),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"}, False),
        ({"DISPLAY": ":0", "SSH_TTY": "/x"}, False),
    ],
)  # fmt: skip
def test_a_display_is_known_by_its_variables(
    env: dict[str, str], is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert has_display(env) is is_there


@pytest.mark.parametrize("setting", [{"CLORE_PAGE": "off"}, {"CLORE_READ_ONLY": "1"}])
def test_where_the_operator_says_no_nothing_opens(
    setting: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":9")
    wanted: Settings = settings_for(
        {"CLORE_API_KEY": KEYS[0], "CLORE_STATE_DIR": str(tmp_path / "s"), **setting}, tmp_path
    )
    assert PageOpener(wanted).show("q1") is False and not (tmp_path / "s").exists()


async def test_it_ends_when_nobody_looks_and_nothing_waits(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house.assistant() as us:
        quote_id = (await us.rent(await us.wish()))["approval_id"]
        monkeypatch.setattr(serve, "_IDLE_SECONDS", 0.3)
        await asyncio.sleep(2)
        assert is_running(house.wanted), "a question waits"
        visitor = house.visitor()
        answer = f"approvals/{quote_id}"
        assert (await asyncio.to_thread(visitor.submit, answer, f"{answer}/no")).status_code == 303
        await asyncio.to_thread(until, lambda: not is_running(house.wanted), "it has ended")
        assert not requests_folder(house.wanted).exists(), "and left nothing to answer"
        again = await us.rent(await us.wish(1))
    assert again["status"] == "approval_required", "the assistant goes on without it"

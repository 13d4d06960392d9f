"""Lines that are no message, and a client that has died while something else holds the server's stdin open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from clore_mcp.sandbox import Running
from tests.cli.watchdogs import lives
from tests.conftest import environment
from tests.story.records import creates, orders, rows
from tests.story.wire import MODERN

PATIENCE: Final = 60.0
INITIALIZE: Final = {
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "pipes", "version": "1"}},
}
# What starts the server with its own stdin and stdout, says its number, and lives until it is killed.
PARENT: Final = """
import subprocess, sys, time
server = subprocess.Popen([sys.executable, "-m", "clore_mcp"])
print(server.pid, file=sys.stderr, flush=True)
time.sleep(600)
"""


class Piped:
    """A process whose stdin and stdout are pipes of ours."""

    def __init__(self, env: dict[str, str], *command: str) -> None:
        self.process = subprocess.Popen(
            command or (sys.executable, "-m", "clore_mcp"),
            env=os.environ | env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def say(self, number: int, message: dict[str, Any], before: bytes = b"") -> None:
        self.write(before + json.dumps({"jsonrpc": "2.0", "id": number, **message}).encode() + b"\n")

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def close(self) -> str:
        """What it said on stderr to its end."""
        assert self.process.stdin is not None and self.process.stderr is not None
        self.process.stdin.close()
        said = self.process.stderr.read().decode()
        assert self.process.wait(PATIENCE) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.stderr.close()
        return said


NO_MESSAGES: Final = [
    (b"\xff\xfe{\x00}\x00\n", -32700, None),  # UTF-16
    (b"hello\n", -32700, None),
    (b'{"jsonrpc":"2.0","id":1,\n', -32700, None),
    (b"\xef\xbb\xbfhello\n", -32700, None),
    (b"Content-Length: 58\r\n", -32700, None),  # a header of another protocol
    (b"42\n", -32600, None),
    (b"[]\n", -32600, None),
    (b'{"id":7,"method":"ping"}\n', -32600, 7),
    (b'{"jsonrpc":"2.0","id":"a","method":5}\n', -32600, "a"),
]


def test_a_line_that_is_no_message_is_answered_and_the_server_lives_on(market: Running, tmp_path: Path) -> None:
    server = Piped(environment(market, tmp_path))

    def passed_over() -> None:
        for line, code, number in NO_MESSAGES:
            server.write(line)
            told = server.read()
            assert (told["error"]["code"], told["id"]) == (code, number), line

    passed_over()
    server.say(1, INITIALIZE)
    assert server.read()["result"]["serverInfo"]["name"] == "clore-mcp"
    passed_over()
    server.say(2, {"method": "ping"})
    assert server.read() == {"jsonrpc": "2.0", "id": 2, "result": {}}
    said = server.close()
    assert said.count("was ignored") == 2 * len(NO_MESSAGES)
    assert "hello" not in said, "what stood there may be anything"


def test_a_byte_order_mark_and_empty_lines_are_read_over(market: Running, tmp_path: Path) -> None:
    server = Piped(environment(market, tmp_path))
    server.say(1, INITIALIZE, before=b"\xef\xbb\xbf")
    assert server.read()["id"] == 1
    server.write(b"\n\r\n  \n")
    server.say(2, {"method": "ping"}, before=b"\xef\xbb\xbf")
    assert server.read() == {"jsonrpc": "2.0", "id": 2, "result": {}}
    assert server.close() == ""


def until(happened: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    give_up_at = time.monotonic() + patience
    while not happened():
        assert time.monotonic() < give_up_at, what
        time.sleep(0.1)


class Launched(Piped):
    """The server below a parent that can be killed, while its pipes stay open here."""

    def __init__(self, env: dict[str, str]) -> None:
        super().__init__(env, sys.executable, "-c", PARENT)
        assert self.process.stderr is not None
        self.server = int(self.process.stderr.readline())

    def kill_the_parent(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def gone(self) -> bool:
        return not lives(self.server) or state_of(self.server) == "Z"


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@pytest.fixture
def launched(market: Running, tmp_path: Path) -> Iterator[Launched]:
    made = Launched(environment(market, tmp_path, CLORE_APPROVAL="limits"))
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait(PATIENCE)
        for stream in (made.process.stdin, made.process.stdout):
            assert stream is not None
            stream.close()
        until(made.gone, "the server ends with its stdin")
        assert made.process.stderr is not None
        made.process.stderr.close()


POSIX = pytest.mark.skipif(os.name != "posix", reason="an orphan is told by its new parent, which POSIX has")


def greet(launched: Launched, era: str) -> None:
    if era != MODERN:
        launched.say(1, INITIALIZE)
        assert launched.read()["id"] == 1
        return
    known = "io.modelcontextprotocol/"
    meta = {f"{known}protocolVersion": MODERN, f"{known}clientCapabilities": {}}
    launched.say(1, {"method": "tools/list", "params": {"_meta": meta}})
    assert launched.read()["id"] == 1


@POSIX
@pytest.mark.parametrize("era", ["2025-06-18", MODERN, "nothing said"])
def test_a_server_whose_parent_died_ends_though_its_stdin_stays_open(launched: Launched, era: str) -> None:
    if era != "nothing said":
        greet(launched, era)
    else:
        time.sleep(6)  # as long as Python may take to start on a busy machine
    launched.kill_the_parent()
    until(launched.gone, "the server ends")
    assert launched.process.stderr is not None
    assert b"no client answers" in launched.process.stderr.read()


@POSIX
def test_a_launcher_that_goes_takes_no_server_from_a_client_that_answers(launched: Launched) -> None:
    greet(launched, "2025-06-18")
    launched.kill_the_parent()
    asked = launched.read()
    assert asked["method"] == "ping"
    launched.say(0, {"id": asked["id"], "result": {}})
    time.sleep(8)
    launched.say(5, {"method": "ping"})
    assert launched.read() == {"jsonrpc": "2.0", "id": 5, "result": {}}


@POSIX
def test_nor_from_one_that_goes_on_asking(launched: Launched) -> None:
    launched.kill_the_parent()
    time.sleep(2)
    greet(launched, MODERN)
    time.sleep(8)
    launched.say(5, INITIALIZE)
    assert launched.read()["id"] == 5


@POSIX
def test_a_rental_on_its_way_is_seen_through_first(launched: Launched, market: Running, tmp_path: Path) -> None:
    greet(launched, "2025-06-18")
    call = {"method": "tools/call"}
    launched.say(2, call | {"params": {"name": "search_servers", "arguments": {"gpu": "3060"}}})
    server_id = launched.read()["result"]["structuredContent"]["servers"][0]["server_id"]
    wish = {"server_id": server_id, "image": "cloreai/jupyter:ubuntu24.04-v2", "hours": 1}
    with httpx2.Client(verify=False) as http:
        http.post(f"{market.control_url}/options", json={"latency": 2.0}).raise_for_status()
    launched.say(3, call | {"params": {"name": "create_order", "arguments": wish}})
    until(lambda: bool(creates(market)), "the create leaves")
    launched.kill_the_parent()
    until(launched.gone, "the server ends")
    assert [row["state"] for row in rows(tmp_path, "intents")] == ["adopted"]
    assert len(orders(market)) == 1

"""The server process as clients start and end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import httpx2
import pytest

from clore_mcp.sandbox import Running
from tests.conftest import environment, watchdogs_started
from tests.story.people import IMAGE, Person, assistant

HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "a test", "version": "1"},
    },
}
PATIENCE_SECONDS = 60


def started(env: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    """A server that has answered its first request."""
    process = subprocess.Popen(
        [sys.executable, "-m", "clore_mcp", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(HELLO).encode() + b"\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "clore-mcp"
    return process


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Its exit code and what it said on stderr; a server that stays is killed and fails the test."""
    with process:
        try:
            code = process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
        assert process.stderr is not None
        return code, process.stderr.read()


@pytest.mark.parametrize("arguments", [(), ("--sandbox",)], ids=["real", "sandbox"])
def test_it_ends_quietly_when_its_client_goes_away(market: Running, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    process = started(environment(market, tmp_path), *arguments)
    assert process.stdin is not None
    process.stdin.close()
    assert ended(process) == (0, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows clients end a server by closing its input")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_it_ends_quietly_on_a_signal_while_its_input_stays_open(market: Running, tmp_path: Path, name: str) -> None:
    process = started(environment(market, tmp_path))
    process.send_signal(getattr(signal, name))
    assert ended(process) == (0, b"")


def test_nothing_is_kept_or_sent_before_the_first_call(market: Running, tmp_path: Path) -> None:
    process = started(environment(market, tmp_path))
    assert process.stdin is not None
    process.stdin.close()
    ended(process)
    assert not (tmp_path / "state").exists(), "listing tools opens no state"


def test_a_malformed_setting_stops_the_start_with_one_line(market: Running, tmp_path: Path) -> None:
    env = environment(market, tmp_path, CLORE_MAX_USD_PER_DAY="a lot")
    done = subprocess.run(
        [sys.executable, "-m", "clore_mcp"], env=env, input=b"", capture_output=True, timeout=PATIENCE_SECONDS
    )
    said = done.stderr.decode()
    assert done.returncode == 2 and done.stdout == b""
    assert said.count("\n") == 1 and "CLORE_MAX_USD_PER_DAY" in said and "a lot" in said


@pytest.mark.anyio
async def test_a_new_server_ends_the_lease_of_an_earlier_one_without_being_asked(
    market: Running, tmp_path: Path
) -> None:
    async with assistant(market, tmp_path, "auto", Person(True)) as us:
        found = await us.call("search_servers", gpu="3060")
        made = await us.call("create_order", server_id=found["servers"][0]["server_id"], image=IMAGE, hours=1)
        assert made["status"] == "created"
    for _ in range(PATIENCE_SECONDS * 4):
        if watchdogs := watchdogs_started(tmp_path / "state"):
            break
        await anyio.sleep(0.25)
    os.kill(watchdogs[0], signal.SIGTERM)
    httpx2.post(f"{market.control_url}/clock", json={"advance": 4000}, verify=False).raise_for_status()
    process = started(environment(market, tmp_path))
    try:
        for _ in range(PATIENCE_SECONDS * 4):
            (order,) = httpx2.get(f"{market.control_url}/state", verify=False).json()["orders"]
            if order["ended_at"]:
                break
            await anyio.sleep(0.25)
    finally:
        process.terminate()
        ended(process)
    assert order["end_reason"] == "cancelled" and order["id"] == made["order_id"]

"""Watchdogs and servers as real processes on one world, and what the simulated market saw of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clore_mcp.sandbox.engine import digest
from tests import preforked
from tests.terminal import PATIENCE
from tests.world import World


def until(happened: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
    give_up_at = time.monotonic() + patience
    while not happened():
        assert time.monotonic() < give_up_at, f"not within {patience:.0f} s: {what}"
        time.sleep(0.1)


REAL = (sys.executable, "-m", "clore_mcp")  # started as a client starts it


class Kennel:
    """Watchdogs of one world, each with a file for what it says. `python` is what runs them."""

    def __init__(self, world: World, python: str | None = None) -> None:
        self.world = world
        self.python = python or preforked.python()
        self.all: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start(self, *words: str, **env: str) -> subprocess.Popen[bytes]:
        said = self.world.folder / f"said-{len(self.all)}"
        command = [self.python, "-W", "error", "-m", "clore_mcp", "watchdog", *words]
        with said.open("wb") as out:
            process = subprocess.Popen(command, env=self.world.env | env, stdout=out, stderr=out)
        self.all.append((process, said))
        return process

    def said(self, process: subprocess.Popen[bytes]) -> str:
        return next(said for one, said in self.all if one is process).read_text(encoding="utf-8")

    def hears(self, process: subprocess.Popen[bytes], text: str) -> None:
        until(lambda: text in self.said(process), f"{text!r} in {self.said(process)!r}")

    def end(self) -> None:
        for process, said in self.all:
            process.kill()
            process.wait(PATIENCE)
            assert "Traceback" not in said.read_text(encoding="utf-8")


def requests(world: World, endpoint: str) -> int:
    return sum(row["key"] == digest(world.key) for row in world.sent(endpoint))


def active(world: World, order_id: int) -> bool:
    return any(row["id"] == order_id for row in world.active())


class Server:
    """The real server on pipes, where limits alone decide."""

    def __init__(self, world: World, command: Sequence[str] = (), **env: str) -> None:
        self.world = world
        self.process = subprocess.Popen(
            command or (preforked.python(), "-m", "clore_mcp"),
            env=world.env | {"CLORE_APPROVAL": "limits"} | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "tester", "version": "1"}}
        self.ask("initialize", about)
        self._say({"method": "notifications/initialized"})

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._send(method, params)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told: dict[str, Any] = json.loads(line)
            if "id" in told:
                return told
        raise AssertionError("the server has ended")

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        told = self.ask("tools/call", {"name": tool, "arguments": arguments})
        answer: dict[str, Any] = json.loads(told["result"]["content"][0]["text"])
        return answer

    def rent(self, place: int = 0, **changes: Any) -> dict[str, Any]:
        made = self.call("create_order", **self._wish(place, changes))
        assert made["status"] == "created", made
        return made

    def send_rent(self, **changes: Any) -> None:
        """Call create_order and wait for no answer."""
        self._send("tools/call", {"name": "create_order", "arguments": self._wish(0, changes)})

    def kill(self) -> None:
        with self.process:
            self.process.kill()

    def _wish(self, place: int, changes: dict[str, Any]) -> dict[str, Any]:
        return self.world.ask(place, **changes).model_dump(exclude_defaults=True, mode="json")

    def _send(self, method: str, params: dict[str, Any]) -> None:
        self._say({"id": 1, "method": method, "params": params})

    def _say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # killed and not yet collected by whoever is its parent now: ended all the same
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")

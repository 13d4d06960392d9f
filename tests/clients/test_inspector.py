"""The Inspector's command line, which starts a server for each call: its strict lint, and the story in both eras.

It passes no question on, so a person decides in a terminal; what waits for them outlives the process that asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import pytest

from clore_mcp.sandbox import Running
from tests.clients.environments import node_of, packages_of
from tests.clients.page import hold_row
from tests.clients.story import Json, Person, go_through, protocols
from tests.conftest import environment
from tests.tools.test_schemas import STORED

pytestmark = pytest.mark.timeout(300)
SERVER: Final = (sys.executable, "-m", "clore_mcp")
ERAS: Final = {"legacy": "2025-11-25", "modern": "2026-07-28"}
PATIENCE_SECONDS: Final = 100
# A server whose one tool takes anything for an argument, which Claude's and Gemini's interfaces refuse.
CARELESS: Final = """
import json, sys
tool = {"name": "rent", "inputSchema": {"type": "object", "properties": {"gpu": True}}}
about = {"serverInfo": {"name": "careless", "version": "1"}, "capabilities": {"tools": {}}}
hello = {"protocolVersion": "2025-11-25"} | about
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        result = {"initialize": hello, "tools/list": {"tools": [tool]}}.get(asked["method"], {})
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


class Inspector:
    """`mcp-inspector --cli`, with a server's environment."""

    def __init__(self, home: Path, folder: Path, env: dict[str, str]) -> None:
        program = packages_of(home) / "node_modules" / ".bin" / "mcp-inspector"
        self._words = [node_of(home), str(program), "--cli"]
        self._given = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
        self._env = {"HOME": str(folder), "PATH": str(Path(node_of(home)).parent)}
        self._eras = cycle(ERAS)
        found = packages_of(home) / "node_modules" / "@modelcontextprotocol" / "inspector" / "package.json"
        self.version: str = json.loads(found.read_text("utf-8"))["version"]

    def run(self, method: str, *more: str, server: tuple[str, ...] = SERVER) -> subprocess.CompletedProcess[str]:
        """One method of a server of its own."""
        patient = ["--connect-timeout", f"{PATIENCE_SECONDS * 1000}"]  # its own 15 s are short on a busy machine
        words = [*self._words, *server, *self._given, *patient, "--method", method, "--format", "json", *more]
        return subprocess.run(
            words, env=self._env, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE_SECONDS
        )

    def call(self, tool: str, *answers: bool, **arguments: Any) -> Json:
        """What a model would read; one call is made in the older era, the next in the newer."""
        assert not answers, "the Inspector passes no question on"
        chosen = ["--tool-name", tool, "--tool-args-json", json.dumps(arguments), "--protocol-era", next(self._eras)]
        done = self.run("tools/call", *chosen)
        assert done.stdout, (done.returncode, done.stderr)
        result = json.loads(done.stdout)["result"]
        assert done.returncode == (5 if result.get("isError") else 0), done.stderr
        told: Json = json.loads(result["content"][0]["text"])
        return told


@pytest.fixture
def inspector(market: Running, tmp_path: Path, home_of: Callable[[str], Path]) -> Inspector:
    return Inspector(home_of("node"), tmp_path, environment(market, tmp_path))


def test_its_strict_lint_finds_nothing_and_would_find_something(inspector: Inspector) -> None:
    for era in ERAS:
        done = inspector.run("tools/list", "--strict", "--protocol-era", era)
        assert (done.returncode, done.stderr) == (0, "")
        names = [tool["name"] for tool in json.loads(done.stdout)["result"]["tools"]]
        assert sorted(names) == sorted(path.stem for path in STORED.glob("*.json"))
    done = inspector.run("tools/list", "--strict", server=(sys.executable, "-u", "-c", CARELESS))
    assert done.returncode == 6 and "gpu" in done.stderr


def test_a_server_is_found_priced_declined_rented_listed_and_returned(
    inspector: Inspector, market: Running, tmp_path: Path, at_terminal: Callable[[str, str], str]
) -> None:
    go_through(inspector.call, Person(at_terminal), market, tmp_path)
    assert protocols(tmp_path) == set(ERAS.values())
    how = "`clore-mcp approve` in a terminal"
    hold_row("Inspector", inspector.version, ", ".join(ERAS.values()), how, "declined, rented, listed, cancelled")

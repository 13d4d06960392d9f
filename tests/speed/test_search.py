"""How fast the market is, measured on real processes and sockets so that a loaded machine changes no verdict."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clore_mcp.sandbox import SANDBOX_KEY
from tests.story.wire import MODERN, Json, told, wired

pytestmark = pytest.mark.anyio

LONGEST_STALL_SECONDS = 0.3  # once a minute: the parser of JSON lets no other thread run
MOST_TIMES_A_CONSTANT = 8  # a constant takes one to two milliseconds
ROUNDS, CALLS = 6, 20  # the first round that is good enough is the last: a busy machine makes single ones dearer
SEARCHES: list[dict[str, Any]] = [{}, {"gpu": "4090", "countries": ["europe"], "max_usd_per_hour": 2}, {"limit": 50}]

CONSTANT = """
import json, sys
from mcp.server.mcpserver import MCPServer
from mcp.types import CallToolResult, TextContent
answers = [(text, json.loads(text)) for text in sys.argv[1:]]
server = MCPServer("constant")
@server.tool()
def constant(which: int) -> CallToolResult:
    text, answer = answers[which]
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=answer)
server.run("stdio")
"""


@contextmanager
def marketplace(servers: int) -> Iterator[str]:
    """The URL of a simulated marketplace in a process of its own."""
    command = [sys.executable, "-m", "clore_mcp", "sandbox", "--servers", str(servers), "--rate-limit", "off"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        try:
            yield child.stdout.readline().strip()
        finally:
            child.kill()


def test_the_event_loop_keeps_turning_while_a_market_is_read_and_searched(tmp_path: Path) -> None:
    with marketplace(3500) as url:
        command = [sys.executable, "-m", "tests.speed.ticking", url, str(tmp_path), "3"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["servers"] == 3500
    # What stands still by itself does so each time; what a busy machine adds, it adds now and then.
    assert min(measured["longest_seconds"]) <= LONGEST_STALL_SECONDS, measured


async def test_a_search_of_a_market_at_hand_costs_a_few_times_a_constant(tmp_path: Path) -> None:
    with marketplace(3500) as url:
        env = {
            "CLORE_API_URL": url,
            "CLORE_API_KEY": SANDBOX_KEY,
            "CLORE_REQUEST_GAP_SECONDS": "0.01",
            "CLORE_STATE_DIR": str(tmp_path / "state"),
            "HOME": str(tmp_path),
            "PYTHONUTF8": "1",
        }
        async with wired(env, MODERN, {}, refuse) as ours:
            found = [await ours.request("tools/call", {"name": "search_servers", "arguments": one}) for one in SEARCHES]
            assert all(told(one)["total_matches"] > 0 for one in found)
            texts = [one["result"]["content"][0]["text"] for one in found]
            async with wired(env, MODERN, {}, refuse, (sys.executable, "-c", CONSTANT, *texts)) as theirs:
                for which, arguments in enumerate(SEARCHES):
                    same = {"which": which}
                    constant = await theirs.request("tools/call", {"name": "constant", "arguments": same})
                    assert constant["result"]["structuredContent"] == found[which]["result"]["structuredContent"]
                    ratios: list[float] = []
                    while len(ratios) < ROUNDS and min(ratios, default=99.0) > MOST_TIMES_A_CONSTANT:
                        one, other = [], []
                        for _ in range(CALLS):
                            one.append(await seconds(ours.request, "search_servers", arguments))
                            other.append(await seconds(theirs.request, "constant", same))
                        ratios.append(statistics.median(one) / statistics.median(other))
                    assert min(ratios) <= MOST_TIMES_A_CONSTANT, (arguments, ratios)


async def seconds(request: Callable[[str, Json], Any], tool: str, arguments: dict[str, Any]) -> float:
    began = time.perf_counter()
    reply = await request("tools/call", {"name": tool, "arguments": arguments})
    took = time.perf_counter() - began
    assert "result" in reply, reply
    return took


def refuse(question: Json) -> None:
    raise AssertionError(question)

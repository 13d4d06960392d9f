"""Several assistants on one machine that search at the same time: the requests that reach the marketplace."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from typing import Final

from mcp import Client, StdioServerParameters

from benchmarks import canned
from benchmarks.bench import Bench, environment
from benchmarks.gate import Gate
from benchmarks.searching import WISHES
from benchmarks.table import Goal, Row

_SERVERS: Final = 2_600


async def run(bench: Bench) -> list[Row]:
    """Run real MCP clients, each with its own server process, on one state and a service that takes one call a
    second."""
    processes, searches = (2, 5) if bench.quick else (4, 20)
    replies = canned.replies(_SERVERS)
    async with Gate(replies) as gate:
        env = environment(bench.fresh("sharing"), gate.url)
        began = time.monotonic()
        failed = sum(await asyncio.gather(*(_assistant(env, searches) for _ in range(processes))))
        seconds = time.monotonic() - began
    asked = Counter(one.endpoint for one in gate.arrivals)
    topic = f"Sharing: {processes} assistants × {searches} searches at once, within a minute"
    others = ", ".join(f"{count} {name}" for name, count in asked.most_common() if name != "marketplace")
    each = f"one a search: {processes * searches} (the official SDK keeps none)"
    fetched = asked["marketplace"]
    return [
        Row(topic, "requests for the marketplace", str(fetched), each, fetched, Goal(1), "count"),
        Row(topic, "requests in all", str(asked.total()), f"of which {others}", asked.total(), None, "count"),
        Row(topic, "searches without an answer", str(failed), "", failed, Goal(0), "count"),
        Row(topic, "all searches over", f"{seconds:.1f} s", "with the start of the servers", seconds, Goal(60)),
    ]  # fmt: skip


async def _assistant(env: dict[str, str], searches: int) -> int:
    """Return how many of its searches failed."""
    server = StdioServerParameters(command=sys.executable, args=["-m", "clore_mcp"], env=env)
    async with Client(server, mode="auto") as client:
        wishes = [dict(WISHES[which % len(WISHES)]) for which in range(searches)]
        return sum([(await client.call_tool("search_servers", wish)).is_error or False for wish in wishes])

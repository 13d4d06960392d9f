"""Searching a market of the real one's size: the first time, the next times, beside the SDK and beside a constant."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import canned
from benchmarks.bench import Bench, environment, milliseconds, program, ratio, resident_bytes, started
from benchmarks.gate import Gate, Rule
from benchmarks.searching import WISHES, search, searcher
from benchmarks.table import Goal, Row
from benchmarks.wire import Json, Line

_SERVERS: Final = 3_500
_PAIRS: Final = 60
_NO_MORE: Final = Goal(1.0)


@dataclass(slots=True)
class Times:
    """Seconds, measured in turns, and the bytes that the processes came to hold."""

    first: list[float] = field(default_factory=list)
    cached: list[float] = field(default_factory=list)
    constant: list[float] = field(default_factory=list)
    sdk: list[float] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    sdk_held: list[int] = field(default_factory=list)


async def run(bench: Bench) -> list[Row]:
    """A new server of ours in each round; in between the SDK, and a server that answers the same without looking."""
    replies = canned.replies(_SERVERS)
    async with Gate(replies, Rule("nothing")) as gate:
        times = await asyncio.to_thread(_rounds, bench, gate.url)
    return list(_rows(times, len(replies["marketplace"])))


def _rounds(bench: Bench, url: str) -> Times:
    times, folder = Times(), bench.fresh("search")
    with searcher(url, folder) as (line, _):
        search(line, 0)
        results = [search(line, which)[0] for which in range(len(WISHES))]
    with _constant(folder, results) as constant, _sdk(bench, folder, url) as sdk:
        for _ in range(1 if bench.quick else 7):
            _round(bench, url, times, constant, sdk)
    return times


def _round(bench: Bench, url: str, times: Times, constant: Line, sdk: subprocess.Popen[bytes] | None) -> None:
    with searcher(url, bench.fresh("search")) as (line, pid):
        before = resident_bytes(pid)
        times.first.append(search(line, 0)[1])
        times.held.append(resident_bytes(pid) - before)
        if sdk is not None:
            before = resident_bytes(sdk.pid)
            times.sdk.append(_ask(sdk))
            times.sdk_held.append(resident_bytes(sdk.pid) - before)
        for which in range(len(WISHES)):  # what is worked out once for a snapshot
            search(line, which)
        for which in range(_PAIRS):
            times.cached.append(search(line, which)[1])
            times.constant.append(constant.call("constant", {"which": which % len(WISHES)})[1])


def _rows(times: Times, body_bytes: int) -> Iterator[Row]:
    topic = f"Search: {_SERVERS:,} servers ({body_bytes / 1e6:.1f} MB), over stdio"
    held = f"{statistics.median(times.held) / 1e6:.0f} MB"
    if times.sdk:
        theirs = milliseconds(times.sdk)
        next_ = statistics.median(times.cached) / statistics.median(times.sdk)
        more = statistics.median(times.held) / max(times.sdk_held[0], 1)
        yield Row(topic, "the first search: fetch, read, search", milliseconds(times.first),
                  f"official SDK, `marketplace(gpu=…)`: {theirs}", ratio(times.first, times.sdk), _NO_MORE)  # fmt: skip
        yield Row(topic, "memory held after the first", held,
                  f"official SDK, its first: {times.sdk_held[0] / 1e6:.0f} MB", more, _NO_MORE)  # fmt: skip
        yield Row(topic, "a next search", milliseconds(times.cached),
                  f"official SDK, which fetches each time: {theirs}", next_, _NO_MORE)  # fmt: skip
    else:
        yield Row(topic, "the first search: fetch, read, search", milliseconds(times.first))
        yield Row(topic, "memory held after the first", held)
    yield Row(topic, "a next search", milliseconds(times.cached),
              f"a tool that returns the same as a constant, bare `mcp`: {milliseconds(times.constant)}",
              ratio(times.cached, times.constant), Goal(1.5))  # fmt: skip


@contextmanager
def _constant(folder: Path, results: Sequence[Json]) -> Iterator[Line]:
    file = folder / "results.json"
    file.write_text(json.dumps(results), encoding="utf-8")
    with started([*program("constant_server"), str(file)], environment(folder)) as child:
        line = Line(child)
        line.list_tools()
        yield line


@contextmanager
def _sdk(bench: Bench, folder: Path, url: str) -> Iterator[subprocess.Popen[bytes] | None]:
    if bench.peers.python is None:
        yield None
        return
    with started([*program("sdk_search", bench.peers.python), url], environment(folder)) as child:
        assert child.stdout is not None
        if child.stdout.readline() != b"ready\n":
            raise RuntimeError("the official SDK did not start")
        yield child


def _ask(sdk: subprocess.Popen[bytes]) -> float:
    """The seconds of one search, as the SDK's process took them."""
    assert sdk.stdin is not None and sdk.stdout is not None
    sdk.stdin.write(b"\n")
    sdk.stdin.flush()
    return float(sdk.stdout.readline().split()[1])

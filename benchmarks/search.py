"""A search in a market of the real one's size: the first and the later ones, compared with the SDK and with a
constant."""

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
from benchmarks.bench import Bench, environment, less, megabytes, milliseconds, program, ratio, resident_bytes, started
from benchmarks.gate import Gate, Rule
from benchmarks.searching import WISHES, Cost, First, first, search, searcher
from benchmarks.table import Goal, Row
from benchmarks.wire import Json, Line

_SERVERS: Final = 3_500
_PAIRS: Final = 60
_QUICK_PAIRS: Final = 3
_NO_MORE: Final = Goal(1.0)
_IN_THE_SERVER: Final = Goal(8.0)  # 5 ms where a constant takes 0.6 ms


@dataclass(slots=True)
class Times:
    """Seconds, measured in turns, and the bytes that the processes hold."""

    first: list[First] = field(default_factory=list)
    cached: list[float] = field(default_factory=list)
    constant: list[float] = field(default_factory=list)
    sdk: list[Cost] = field(default_factory=list)
    sdk_held: list[int | None] = field(default_factory=list)


async def run(bench: Bench) -> list[Row]:
    """Measure rounds, each with a new server of ours and a new process with the SDK, beside a server that answers from
    a constant."""
    replies = canned.replies(_SERVERS)
    async with Gate(replies, Rule("nothing")) as gate:
        times = await asyncio.to_thread(_rounds, bench, gate.url)
    return list(_rows(times, len(replies["marketplace"])))


def _rounds(bench: Bench, url: str) -> Times:
    times, folder = Times(), bench.fresh("search")
    with searcher(url, folder) as (line, _):
        search(line, 0)
        results = [search(line, which)[0] for which in range(len(WISHES))]
    with _constant(folder, results) as constant:
        for _ in range(1 if bench.quick else 7):
            _round(bench, url, times, constant)
    return times


def _round(bench: Bench, url: str, times: Times, constant: Line) -> None:
    folder = bench.fresh("search")
    with searcher(url, folder) as (line, pid), _sdk(bench, folder, url) as sdk:
        times.first.append(first(line, pid))
        if sdk is not None:
            before = resident_bytes(sdk.pid)
            times.sdk.append(_ask(sdk))
            times.sdk_held.append(less(resident_bytes(sdk.pid), before))
        for which in range(_QUICK_PAIRS if bench.quick else _PAIRS):
            times.cached.append(search(line, which)[1])
            times.constant.append(constant.call("constant", {"which": which % len(WISHES)})[1])


def _rows(times: Times, body_bytes: int) -> Iterator[Row]:
    topic = f"Search: {_SERVERS:,} servers ({body_bytes / 1e6:.1f} MB), over stdio"
    for name, attribute in (("wall clock", "wall"), ("processor time", "cpu")):
        ours = [getattr(one.cost, attribute) for one in times.first]
        theirs = [getattr(one, attribute) for one in times.sdk]
        if None not in ours:
            yield Row(topic, f"the first search: fetch, read, search; {name}", milliseconds(ours),
                      f"official SDK, `marketplace(gpu=…)`: {milliseconds(theirs)}" if theirs else "",
                      ratio(ours, theirs) if theirs else None, _NO_MORE)  # fmt: skip
    held, sdk_held = (
        [one for one in found if one] for found in ([one.held_bytes for one in times.first], times.sdk_held)
    )
    if held:
        yield Row(topic, "memory held after the first", megabytes(held),
                  f"official SDK: {megabytes(sdk_held)}" if sdk_held else "",
                  ratio(held, sdk_held) if sdk_held else None, _NO_MORE)  # fmt: skip
    if times.sdk:
        theirs = [one.wall for one in times.sdk]
        yield Row(topic, "a next search, wall clock", milliseconds(times.cached),
                  f"official SDK, which fetches each time: {milliseconds(theirs)}",
                  statistics.median(times.cached) / statistics.median(theirs), _NO_MORE)  # fmt: skip
    yield Row(topic, "a next search, against a constant, wall clock", milliseconds(times.cached),
              f"a tool that returns the same as a constant, bare `mcp`: {milliseconds(times.constant)}",
              ratio(times.cached, times.constant), _IN_THE_SERVER)  # fmt: skip


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


def _ask(sdk: subprocess.Popen[bytes]) -> Cost:
    """Return the cost of one search, as the SDK's process reports it."""
    assert sdk.stdin is not None and sdk.stdout is not None
    sdk.stdin.write(b"\n")
    sdk.stdin.flush()
    _, wall, cpu = sdk.stdout.readline().split()
    return Cost(float(wall), float(cpu))

"""What a larger market costs: a straight line, or less."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks import canned
from benchmarks.bench import Bench, milliseconds
from benchmarks.gate import Gate, Rule
from benchmarks.searching import First, first, searcher
from benchmarks.table import Goal, Row

_SIZES: Final = (1_000, 10_000, 30_000)
_QUICK_SIZES: Final = (300, 1_000, 3_000)
_ROUNDS: Final = 5
_STRAIGHT: Final = Goal(1.15)


async def run(bench: Bench) -> list[Row]:
    """The first search of a new server for each size in turn, some rounds of it."""
    sizes = _QUICK_SIZES if bench.quick else _SIZES
    replies = {size: canned.replies(size) for size in sizes}
    found: dict[int, list[First]] = {size: [] for size in sizes}
    for _ in range(1 if bench.quick else _ROUNDS):
        for size in sizes:
            async with Gate(replies[size], Rule("nothing")) as gate:
                found[size].append(await asyncio.to_thread(_search, bench, gate.url))
    return _rows(found)


def _search(bench: Bench, url: str) -> First:
    with searcher(url, bench.fresh("growth")) as (line, pid):
        return first(line, pid)


def _rows(found: Mapping[int, Sequence[First]]) -> list[Row]:
    sizes = list(found)
    topic = f"Growth: a market of {', '.join(f'{size:,}' for size in sizes)} servers"
    seconds = [statistics.median(one.seconds for one in found[size]) for size in sizes]
    held = [statistics.median(one.held_bytes for one in found[size]) for size in sizes]
    cached = [statistics.median(second for one in found[size] for second in one.cached_seconds) for size in sizes]
    bend = "the cost of each further server, last step against first"
    return [
        Row(topic, f"the first search: {bend}", _listed(seconds), "", _bend(sizes, seconds), _STRAIGHT),
        Row(topic, f"memory held: {bend}", ", ".join(f"{one / 1e6:.0f} MB" for one in held), "",
            _bend(sizes, held), _STRAIGHT),
        Row(topic, f"a next search: {bend}", _listed(cached), "", _bend(sizes, cached), _STRAIGHT),
    ]  # fmt: skip


def _bend(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """The slope of the last step over the slope of the first: 1 is a straight line."""
    steps = [(costs[at + 1] - costs[at]) / (sizes[at + 1] - sizes[at]) for at in (0, len(sizes) - 2)]
    return max(steps[1], 0.0) / max(steps[0], 1e-12)


def _listed(seconds: Sequence[float]) -> str:
    return ", ".join(milliseconds([one]) for one in seconds)

"""One of our servers with a market of some size, and the cost of its searches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import SERVER, environment, less, processor_seconds, resident_bytes, started
from benchmarks.wire import Json, Line

WISHES: Final[Sequence[Mapping[str, Any]]] = (
    {"gpu": "4090"},
    {"gpu": "rtx 3090", "countries": ["europe"], "sort_by": "reliability"},
    {"min_gpus": 4, "order_type": "spot", "max_usd_per_hour": 3},
)
_NO_GAP: Final = "0.001"  # to measure the search, not the wait for a turn


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of wall clock, and of the server's processor time if known."""

    wall: float
    cpu: float | None


@dataclass(frozen=True, slots=True)
class First:
    """The first search of a process, which fetches and reads the marketplace."""

    cost: Cost
    held_bytes: int | None  # bytes more than before, if known


@contextmanager
def searcher(api_url: str, folder: Path) -> Iterator[tuple[Line, int]]:
    """Yield a server that has listed its tools and not searched yet, and its process id."""
    with started(SERVER, environment(folder, api_url, CLORE_REQUEST_GAP_SECONDS=_NO_GAP)) as child:
        line = Line(child)
        line.list_tools()
        yield line, child.pid


def search(line: Line, which: int) -> tuple[Json, float]:
    """Search for one of the wishes. Returns the result and its seconds."""
    return line.call("search_servers", WISHES[which % len(WISHES)])


def first(line: Line, pid: int) -> First:
    """Measure the first search of that server."""
    before = resident_bytes(pid)
    cost = cost_of(pid, lambda: search(line, 0))
    held = less(resident_bytes(pid), before)
    for which in range(len(WISHES)):  # warm up: some results are computed once per snapshot
        search(line, which)
    return First(cost, held)


def cost_of(pid: int, work: Callable[[], object]) -> Cost:
    """Return the cost of some work to the process with that id."""
    began, used = time.perf_counter(), processor_seconds(pid)
    work()
    return Cost(time.perf_counter() - began, less(processor_seconds(pid), used))

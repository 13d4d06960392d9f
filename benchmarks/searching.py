"""A server of ours with a market of some size behind it, and what its searches take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import SERVER, environment, resident_bytes, started
from benchmarks.wire import Json, Line

WISHES: Final[Sequence[Mapping[str, Any]]] = (
    {"gpu": "4090"},
    {"gpu": "rtx 3090", "countries": ["europe"], "sort_by": "reliability"},
    {"min_gpus": 4, "order_type": "spot", "max_usd_per_hour": 3},
)
_NO_GAP: Final = "0.001"  # the search is measured here, not the wait for a turn


@dataclass(frozen=True, slots=True)
class First:
    """The first search of a process: the marketplace fetched, read and searched."""

    seconds: float
    held_bytes: int  # what the process holds more than before
    cached_seconds: Sequence[float]


@contextmanager
def searcher(api_url: str, folder: Path) -> Iterator[tuple[Line, int]]:
    """A server that has listed its tools and searched nothing yet, and its process id."""
    with started(SERVER, environment(folder, api_url, CLORE_REQUEST_GAP_SECONDS=_NO_GAP)) as child:
        line = Line(child)
        line.list_tools()
        yield line, child.pid


def search(line: Line, which: int) -> tuple[Json, float]:
    """One of the wishes: the result and its seconds."""
    return line.call("search_servers", WISHES[which % len(WISHES)])


def first(line: Line, pid: int, cached: int = 12) -> First:
    """The first search of that server, and some more that need no fetch."""
    before = resident_bytes(pid)
    began = time.perf_counter()
    search(line, 0)
    seconds = time.perf_counter() - began
    held = resident_bytes(pid) - before
    for which in range(len(WISHES)):  # what is worked out once for a snapshot
        search(line, which)
    return First(seconds, held, [search(line, which)[1] for which in range(cached)])

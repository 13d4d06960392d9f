"""The cost of a larger market, which should grow in a straight line or less."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from benchmarks import canned
from benchmarks.bench import Bench, megabytes, milliseconds, processor_seconds
from benchmarks.gate import Gate, Rule
from benchmarks.searching import Cost, cost_of, first, search, searcher
from benchmarks.table import Goal, Row
from clore_mcp.clore import ServerRow, read_marketplace
from clore_mcp.market.pricing import Fees, OrderType
from clore_mcp.market.query import Query, SortBy
from clore_mcp.market.search import search as search_market
from clore_mcp.market.snapshot import build_snapshot

_SIZES: Final = (1_000, 8_000, 24_000)  # a reply with more than 25,000 servers or 32 MB is refused
_QUICK_SIZES: Final = (300, 1_000, 3_000)
_ALONE: Final = (3_500, 30_000, 100_000)
_QUICK_ALONE: Final = (300, 1_000, 3_000)
_WISHES: Final = (
    Query(gpu="4090"),
    Query(gpu="rtx 3090", countries=("europe",), sort_by=SortBy.RELIABILITY),
    Query(min_gpus=4, order_type=OrderType.SPOT, max_usd_per_hour=Decimal(3)),
)
_ROUNDS: Final = 5
_NEXT: Final = 30
_STRAIGHT: Final = Goal(1.15)


@dataclass(frozen=True, slots=True)
class Searched:
    """One server's time for its first search and for a later one, and the memory it holds after the first."""

    first_seconds: float
    held_bytes: int | None
    next_seconds: float


async def run(bench: Bench) -> list[Row]:
    """Measure each size in turn with a new server, for several rounds."""
    sizes = _QUICK_SIZES if bench.quick else _SIZES
    replies = {size: canned.replies(size) for size in sizes}
    found: dict[int, list[Searched]] = {size: [] for size in sizes}
    for _ in range(1 if bench.quick else _ROUNDS):
        for size in sizes:
            async with Gate(replies[size], Rule("nothing")) as gate:
                found[size].append(await asyncio.to_thread(_search, bench, gate.url, 3 if bench.quick else _NEXT))
    return [*_rows(found), _alone(replies[sizes[0]]["marketplace"], quick=bench.quick)]


def _alone(marketplace: bytes, *, quick: bool) -> Row:
    """Measure the search alone, in this process, with its rows repeated up to sizes that no reply may have."""
    rows, fees = read_marketplace(marketplace).rows, Fees.highest_documented()
    took: dict[int, list[float]] = {}
    for size in _QUICK_ALONE if quick else _ALONE:
        snapshot = build_snapshot(tuple(_repeated(rows, size)), fetched_at=0)
        for wish in _WISHES:
            search_market(snapshot, wish, fees, None, 0)  # computes the snapshot's prices once
        took[size] = []
        for which in range(3 if quick else _NEXT):
            began = time.process_time()
            search_market(snapshot, _WISHES[which % len(_WISHES)], fees, None, 0)
            took[size].append(time.process_time() - began)
    figure = _bend(list(took), [statistics.fmean(some) for some in took.values()])
    topic = f"Growth: the search alone, of {', '.join(f'{size:,}' for size in took)} servers, processor time"
    return Row(topic, "a next search", ", ".join(map(milliseconds, took.values())), "", figure, _STRAIGHT)


def _repeated(rows: Sequence[ServerRow], size: int) -> Iterator[ServerRow]:
    for at in range(size):
        yield rows[at % len(rows)].model_copy(update={"id": at + 1})


def _search(bench: Bench, url: str, times: int) -> Searched:
    with searcher(url, bench.fresh("growth")) as (line, pid):
        found = first(line, pid)
        next_ = cost_of(pid, lambda: [search(line, which) for which in range(times)])
        return Searched(_seconds(found.cost), found.held_bytes, _seconds(next_) / times)


def _seconds(cost: Cost) -> float:
    """Return the processor time if it is known, because a busy machine affects it less than the wall clock."""
    return cost.wall if cost.cpu is None else cost.cpu


def _rows(found: Mapping[int, Sequence[Searched]]) -> list[Row]:
    sizes = list(found)
    clock = "wall clock" if processor_seconds(os.getpid()) is None else "processor time"
    topic = f"Growth: a market of {', '.join(f'{size:,}' for size in sizes)} servers, {clock}"
    rows = []
    for what, name, shown in (
        ("the first search", "first_seconds", milliseconds),
        ("memory held", "held_bytes", megabytes),
        ("a next search", "next_seconds", milliseconds),
    ):
        measured = [[getattr(one, name) for one in found[size]] for size in sizes]
        if None not in measured[0]:
            costs = [statistics.median(some) for some in measured]
            rows.append(Row(topic, what, ", ".join(map(shown, measured)), "", _bend(sizes, costs), _STRAIGHT))
    return rows


def _bend(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Return the slope of the last step divided by the slope of the first, where 1 is a straight line. If the cost
    hardly grows at first, its slope is only noise of the clock. It is then compared with a cost proportional to the
    market."""
    steps = [(costs[at + 1] - costs[at]) / (sizes[at + 1] - sizes[at]) for at in (0, len(sizes) - 2)]
    flat = costs[1] < 1.5 * costs[0]
    return max(steps[1], 0.0) / (costs[0] / sizes[0] if flat else steps[0])

"""The cost of a long past: a search, a quote and a create on states of several ages, compared with one without a
past."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import SERVER, Bench, environment, milliseconds, ratio, started
from benchmarks.past import fill
from benchmarks.searching import Cost, cost_of
from benchmarks.table import Goal, Row
from benchmarks.wire import Line
from clore_mcp.sandbox import Options, start_in_thread
from clore_mcp.store.database import FILE_NAME

_SIZES: Final = (0, 10_000, 100_000)
_QUICK_SIZES: Final = (0, 1_000)
_ROUNDS: Final = 15
_QUOTES: Final = 10  # per round, each with different hours
_FLAT: Final = Goal(1.1)
_RENTAL: Final[Mapping[str, Any]] = {"image": "cloreai/jupyter:ubuntu24.04-v2", "hours": 2}
_SETTINGS: Final[Mapping[str, str]] = {
    # A made-up public key that has no private half.
    "CLORE_SSH_PUBLIC_KEY": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNsb3JlLW1jcCBkZW1vLCBhIGtleSBvZiBub2JvZHkh demo",
    "CLORE_REQUEST_GAP_SECONDS": "0.001",  # to measure the state, not the wait for a turn
    "CLORE_WATCHDOG": "off",  # so that nothing else runs
}


@dataclass(slots=True)
class Aged:
    """A state with that many rows of the past, its market, and the cost of each call in each round."""

    rows: int
    url: str
    folder: Path
    costs: dict[str, list[Cost]] = field(default_factory=dict)


async def run(bench: Bench) -> list[Row]:
    """Measure each state in turn with a new server, for several rounds. Each state has a market of its own."""
    sizes = _QUICK_SIZES if bench.quick else _SIZES
    return await asyncio.to_thread(_measure, bench, sizes, 1 if bench.quick else _ROUNDS)


def _measure(bench: Bench, sizes: Sequence[int], rounds: int) -> list[Row]:
    with ExitStack() as stack:
        markets = [
            stack.enter_context(start_in_thread(Options(servers=300, rate_limit="off", speed=60.0))) for _ in sizes
        ]
        states = [_aged(rows, market.url, bench.fresh("age")) for rows, market in zip(sizes, markets, strict=True)]
        for turn in range(rounds):
            for at in range(len(states)):
                _rent(states[(turn + at) % len(states)])
    return _rows(states)


def _aged(rows: int, url: str, folder: Path) -> Aged:
    """Return a state with that many rows of the past. A first rental records its account."""
    state = Aged(rows, url, folder)
    _rent(state)
    state.costs.clear()
    with closing(sqlite3.connect(folder / "state" / FILE_NAME)) as connection:
        (account,) = connection.execute("SELECT account FROM accounts ORDER BY seq DESC").fetchone()
    fill(folder / "state", account, rows, time.time())
    return state


def _rent(state: Aged) -> None:
    """Start a server, search, quote, create and cancel. The server's first search opens the state and counts the hosts
    that failed here. That count is cached for half a minute."""
    with started(SERVER, environment(state.folder, state.url, **_SETTINGS)) as child:
        line = Line(child, agrees=True)
        line.list_tools()

        def call(tool: str, **arguments: Any) -> dict[str, Any]:
            told: list[dict[str, Any]] = []

            def work() -> None:
                told.append(json.loads(line.call(tool, arguments)[0]["content"][0]["text"]))

            state.costs.setdefault(tool, []).append(cost_of(child.pid, work))
            return told[0]

        server_id = call("search_servers", max_usd_per_hour=0.3)["servers"][0]["server_id"]
        for hours in range(_QUOTES):
            call("quote_order", server_id=server_id, **{**_RENTAL, "hours": 2 + hours})
        made = call("create_order", server_id=server_id, **_RENTAL)
        if made["status"] != "created":
            raise RuntimeError(f"the benchmark rented nothing: {made}")
        call("cancel_order", order_id=made["order_id"])


def _rows(states: Sequence[Aged]) -> list[Row]:
    """Return a row for each call on each older state, compared with the youngest state in the same round."""
    young, *older = states
    found = []
    for tool, what in (("search_servers", "a process's first search"), ("quote_order", "a quote"),
                       ("create_order", "a create, with the look for its order")):  # fmt: skip
        for state in older:
            ours, before = ([cost.wall for cost in one.costs[tool]] for one in (state, young))
            shown = f"{milliseconds(ours)}{_processor(state, tool)}"
            beside = f"none: {milliseconds(before)}{_processor(young, tool)}"
            found.append(Row("Age: rows of the ledger, wall clock", f"{what}, {state.rows:,} rows", shown, beside,
                             ratio(ours, before), _FLAT))  # fmt: skip
    return found


def _processor(state: Aged, tool: str) -> str:
    used = [cost.cpu for cost in state.costs[tool] if cost.cpu is not None]
    return f" ({statistics.mean(used) * 1e3:.0f} ms of processor time)" if used else ""

"""How long a client waits for the list of tools after it has started the server, and the processor time of that."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.bench import SERVER, Bench, environment, milliseconds, program, ratio, started
from benchmarks.table import Goal, Row
from benchmarks.wire import Line

_ROUNDS: Final = 15
_QUICK_ROUNDS: Final = 1
_GOAL: Final = Goal(1.15)
_NOTHING: Final = (sys.executable, "-c", "pass")
_BARE: Final = "`mcp`, one empty tool"
_FAST: Final = "`fastmcp`, as many tools"


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds from the start of the process to the answer, of wall clock and of processor time (0: not known)."""

    wall: float
    cpu: float


async def run(bench: Bench) -> list[Row]:
    """Start each program in turn, often enough that a slow moment of the machine affects them all."""
    return await asyncio.to_thread(_rounds, bench)


def _rounds(bench: Bench) -> list[Row]:
    env = environment(bench.fresh("start"))
    tools = _tools(SERVER, env)
    programs: dict[str, Sequence[str]] = {
        "ours": SERVER,
        _BARE: program("bare_server"),
        "a JSON loop": program("floor_json"),
        "`python -c pass`": _NOTHING,
    }
    if bench.peers.python:
        programs[_FAST] = [*program("fastmcp_server", bench.peers.python), str(tools)]
    costs: dict[str, list[Cost]] = {name: [] for name in programs}
    for round_ in range(1 + (_QUICK_ROUNDS if bench.quick else _ROUNDS)):
        for name, command in programs.items():
            cost = _measure(command, env)
            if round_ > 0:  # the first round compiles what was not compiled yet
                costs[name].append(cost)
    return list(_rows(costs, tools))


def _rows(costs: Mapping[str, Sequence[Cost]], tools: int) -> Sequence[Row]:
    rows = []
    for what in ("cpu", "wall"):
        seconds = {name: [getattr(cost, what) for cost in found] for name, found in costs.items()}
        if not any(seconds["ours"]):
            continue
        label = "processor time" if what == "cpu" else "wall clock"
        floor = ", ".join(f"{name} {milliseconds(seconds[name])}" for name in ("a JSON loop", "`python -c pass`"))
        for peer in (_BARE, _FAST):
            if peer in seconds:
                rows.append(
                    Row(
                        "Start: process to `tools/list` answered",
                        f"{label}, {tools} tools",
                        milliseconds(seconds["ours"]),
                        f"{peer}: {milliseconds(seconds[peer])}; floor: {floor}",
                        ratio(seconds["ours"], seconds[peer]),
                        _GOAL if peer == _BARE else Goal(1.0),
                    )
                )
    return rows


def _measure(command: Sequence[str], env: Mapping[str, str]) -> Cost:
    """Return the cost up to the answer. The process is killed then, so that its exit is not counted."""
    began = time.perf_counter()
    with started(command, env) as child:
        if command is _NOTHING:
            assert child.stdin is not None
            child.stdin.close()
            child.stdout.read()  # type: ignore[union-attr]
        else:
            Line(child).list_tools()
        wall = time.perf_counter() - began
        if sys.platform == "win32":  # it reports no child's processor time
            return Cost(wall, 0.0)
        os.kill(child.pid, signal.SIGKILL)  # not Popen's own kill, which would reap a child that has ended
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    return Cost(wall, used.ru_utime + used.ru_stime)


def _tools(command: Sequence[str], env: Mapping[str, str]) -> int:
    with started(command, env) as child:
        return Line(child).list_tools()

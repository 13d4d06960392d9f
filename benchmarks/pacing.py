"""Several processes on one key against a service that takes one call a second: what is refused, and how long it
takes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks import canned
from benchmarks.bench import Bench, environment, jain, program
from benchmarks.children import Children, Made
from benchmarks.gate import SECOND_NS, Gate, Rule
from benchmarks.table import Goal, Row

_SERVERS: Final = 50
_LONGEST_SECONDS: Final = 400.0
_WORK_SECONDS: Final = 0.45
_ADAPTING_NS: Final = 2 * SECOND_NS  # requests on their way at the first refusal have arrived by then


@dataclass(frozen=True, slots=True)
class Scene:
    """One service, the time that an ideal client would need for a call, and the goals for ours."""

    what: str
    rule: Rule
    refused: Goal | None  # in total; it must be 0 after adapting
    makespan: Goal
    libraries: bool = False

    @property
    def call_seconds(self) -> float:
        """Return the seconds per call: the interval, plus the work if the service counts from its end."""
        return self.rule.interval + self.rule.work


SCENES: Final = (
    Scene("from arrival to arrival", Rule(), Goal(0), Goal(1.15), libraries=True),
    Scene("from arrival to arrival, 20–200 ms on each way", Rule(way=(0.02, 0.2)), None, Goal(1.35)),
    Scene(
        f"from the end of the last reply, which takes {_WORK_SECONDS} s",
        Rule("completion", work=_WORK_SECONDS),
        Goal(2),
        Goal(1.2),
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of several processes' calls at one gate."""

    gate: Gate
    made: Sequence[Sequence[Made]]

    @property
    def failed(self) -> int:
        """Return the number of calls that got no answer in the end."""
        return sum(bool(one.failure) for process in self.made for one in process)

    @property
    def refused_once_adapted(self) -> int:
        """Return the number of requests refused after there was time to react to the first refusal."""
        refused = self.gate.refused
        return sum(one.at_ns > refused[0].at_ns + _ADAPTING_NS for one in refused)

    @property
    def makespan(self) -> float:
        """Return the seconds from the first call's start to the last call's end."""
        calls = [one for process in self.made for one in process]
        return (max(one.done_ns for one in calls) - min(one.called_ns for one in calls)) / SECOND_NS

    @property
    def fairness(self) -> float:
        """Return Jain's index over the calls that each process had answered when the first process was finished."""
        first = min(max(one.done_ns for one in process) for process in self.made)
        shares = [sum(one.done_ns <= first and not one.failure for one in process) for process in self.made]
        return jain(shares)

    def told(self, scene: Scene) -> str:
        """Return a short text."""
        answered = sum(map(len, self.made)) - self.failed
        rate = self.makespan / max(answered, 1) / scene.call_seconds
        lost = f", {self.failed} calls failed" if self.failed else ""
        took = f"{self.makespan:.1f} s ({rate:.2f} of ideal)"
        return f"{len(self.gate.refused)} refused{lost}, {took}, fairness {self.fairness:.2f}"


async def run(bench: Bench) -> list[Row]:
    """Run all scenes and all clients at once. They mostly wait, so they don't disturb each other, and share each slow
    moment."""
    processes, calls = (2, 4) if bench.quick else (4, 15)
    replies = canned.replies(_SERVERS)
    server = str(canned.rows(replies["marketplace"])[0]["id"])
    scenes = SCENES[:1] if bench.quick else SCENES
    parts = await asyncio.gather(*(_play(bench, scene, replies, server, processes, calls) for scene in scenes))
    return [row for part in parts for row in part]


async def _play(
    bench: Bench, scene: Scene, replies: Mapping[str, bytes], server: str, processes: int, calls: int
) -> list[Row]:
    names = ["ours"]
    if bench.peers.python:
        names += ["official SDK", *(("aiolimiter", "pyrate-limiter") if scene.libraries else ())]
    outcomes = await asyncio.gather(*(_drive(bench, name, scene, replies, server, processes, calls) for name in names))
    ours, *others = outcomes
    beside = "; ".join(f"{name}: {one.told(scene)}" for name, one in zip(names[1:], others, strict=True))
    topic = f"Pacing: {processes} processes × {calls} reads, a second counted {scene.what}"
    ideal = scene.call_seconds * max(processes * calls - ours.failed, 1)
    refused, late = len(ours.gate.refused), ours.refused_once_adapted
    fairness = "fairness (Jain's index over the calls that each had answered when the first process was through)"
    return [
        Row(topic, "refused", str(refused), beside, refused, scene.refused, "count"),
        Row(topic, "refused later than 2 s after the first refusal", str(late), "", late, Goal(0), "count"),
        Row(topic, "calls without an answer", str(ours.failed), "", ours.failed, Goal(0), "count"),
        Row(topic, "makespan", f"{ours.makespan:.1f} s", f"ideal {ideal:.1f} s", ours.makespan / ideal, scene.makespan),
        Row(topic, fairness, f"{ours.fairness:.3f}", "", ours.fairness, Goal(0.95, at_least=True)),
    ]


async def _drive(
    bench: Bench, name: str, scene: Scene, replies: Mapping[str, bytes], server: str, processes: int, calls: int
) -> Outcome:
    folder = bench.fresh("pacing")
    async with Gate(replies, scene.rule) as gate:
        env = environment(folder, gate.url)
        python = bench.peers.python or ""
        if name == "ours":
            command = [*program("our_reads"), "sequence", str(calls), server]
        elif name == "official SDK":
            command = [*program("sdk_reads", python), gate.url, str(calls), server]
        else:
            command = [*program("limited_reads", python), name, gate.url, str(calls), str(folder / "turns.db")]
        async with Children([command] * processes, env) as children:
            children.go()
            return Outcome(gate, await children.told(_LONGEST_SECONDS))

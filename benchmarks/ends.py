"""How long orders outlive their leases while servers and watchdogs are killed, stopped, doubled and misled."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from benchmarks.bench import Bench
from benchmarks.table import Goal, Row
from tests.cli.scenes import SCENES, play


async def run(bench: Bench) -> list[Row]:
    """Play the scenes of the tests at the same time, each on a market of its own."""
    scenes, folder, loop = SCENES[:1] if bench.quick else SCENES, bench.fresh("ends"), asyncio.get_running_loop()
    with ThreadPoolExecutor(len(scenes)) as pool:
        playing = [loop.run_in_executor(pool, play, scene, folder / scene.__name__) for scene in scenes]
        outcomes = await asyncio.gather(*playing)
    topic = "Ends: how long an order outlives its lease, in polls (a minute each)"
    late = [max(0.0, one.polls - one.excused) for one in outcomes]
    again = sum(one.after for one in outcomes)
    return [
        *(
            Row(topic, one.scene, f"{one.polls:.2f} polls, {one.cancels} cancels sent",
                f"{one.excused:.2f} while nobody could end it" if one.excused else "", figure, Goal(2))
            for one, figure in zip(outcomes, late, strict=True)
        ),
        Row(topic, "cancels for an order that was gone", str(again), "", again, Goal(0), "count"),
    ]  # fmt: skip

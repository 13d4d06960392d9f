"""A cancel while many reads of other processes on the same key wait for their turn."""

from __future__ import annotations

from typing import Final

from benchmarks import canned
from benchmarks.bench import Bench, environment, program
from benchmarks.children import Children
from benchmarks.gate import Gate
from benchmarks.table import Goal, Row

_QUEUED: Final = 50
_PROCESSES: Final = 2
_SERVERS: Final = 20
_LONGEST_SECONDS: Final = 70.0


async def run(bench: Bench) -> list[Row]:
    """Count the requests that arrive from the call of the cancel to its arrival."""
    replies = canned.replies(_SERVERS)
    server = str(canned.rows(replies["marketplace"])[0]["id"])
    async with Gate(replies) as gate:
        env = environment(bench.fresh("urgent"), gate.url)
        queue = [*program("our_reads"), "queue", str(_QUEUED // _PROCESSES), server]
        cancel = [*program("our_reads"), "cancel", "1", server]
        async with Children([queue] * _PROCESSES, env) as reading, Children([cancel], env) as cancelling:
            reading.go()
            await gate.until_admitted(_PROCESSES)  # the queues are full and moving
            cancelling.go()
            [[made]] = await cancelling.told(_LONGEST_SECONDS)
    during = [one for one in gate.admitted if one.at_ns >= made.called_ns]
    ends = [place for place, one in enumerate(during) if one.endpoint == "cancel_order"]
    slot = ends[0] + 1 if ends else len(during)
    waited = (made.done_ns - made.called_ns) / 1e9
    what = f"a cancel from another process, behind {_QUEUED} queued reads: the slot it leaves in"
    return [Row("Urgent calls", what, f"slot {slot}, answered after {waited:.1f} s",
                f"in its turn: slot {_QUEUED - _PROCESSES + 1}", slot, Goal(2), "count")]  # fmt: skip

"""A process that makes calls on the shared schedule and says when each turn came: `FOLDER CALLS GAP_SECONDS HOW`.

HOW: `all` at once, `queue` one after the other, or `gate`: takes one turn, says so and never leaves it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from clore_mcp.clore import Gaps, Lane, Pacer
from clore_mcp.store.pace import open_pace


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def main(folder: str, calls: str, gap: str, how: str) -> None:
    pacer = Pacer(Gaps.scaled(float(gap)), state=open_pace(Path(folder)), key="key", patience_seconds=300)

    async def call() -> None:
        async with pacer.turn(Lane.GENERAL) as turn:
            if how == "gate":
                say("at the gate")
                await asyncio.sleep(60)
            at = time.monotonic_ns()  # before it leaves: from then on the next one's gap runs
            turn.leaving()
            say(at)

    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    if how == "all":
        await asyncio.gather(*(call() for _ in range(int(calls))))
    else:
        for _ in range(int(calls)):
            await call()
    await pacer.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

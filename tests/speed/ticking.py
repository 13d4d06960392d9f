"""Runs as a process of its own: how long the event loop stands still while a market is fetched, read and searched.

`python -m tests.speed.ticking URL FOLDER TIMES` writes a line of JSON. A gap counts for no more than the processor time
that this process used in it: what a loaded machine gave to others is not ours.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from pathlib import Path

from clore_mcp.market.query import Query
from clore_mcp.market.search import find
from clore_mcp.market.summary import gpu_models_summary
from clore_mcp.sandbox import SANDBOX_KEY
from clore_mcp.server import create_server
from clore_mcp.wiring import Services, build
from tests.conftest import settings_for

TICK_SECONDS = 0.001


async def tick(gaps: list[float]) -> None:
    wall, used = time.perf_counter(), time.process_time()
    while True:
        await asyncio.sleep(TICK_SECONDS)
        before = wall, used
        wall, used = time.perf_counter(), time.process_time()
        gaps.append(min(wall - before[0], used - before[1]))


async def first_search(services: Services) -> int:
    readings = services.context.readings
    snapshot = await readings.snapshot(0.0)
    fees, balances = await readings.fees(), await readings.balances_if_known()
    found = await find(snapshot, Query(gpu="4090"), fees, balances, time.time())
    assert found.matches
    await asyncio.to_thread(gpu_models_summary, snapshot, fees)
    return len(snapshot.listings)


async def main(url: str, folder: Path, times: int) -> None:
    env = {"CLORE_API_URL": url, "CLORE_API_KEY": SANDBOX_KEY, "CLORE_REQUEST_GAP_SECONDS": "0.01"}
    settings = settings_for({**env, "CLORE_STATE_DIR": str(folder / "state")}, folder)
    create_server(settings)  # what the server holds in memory is part of the question
    gc.freeze()  # as `clore-mcp` does
    services = build(settings)
    longest: list[float] = []
    servers = 0
    for _ in range(times):
        gaps: list[float] = []
        ticking = asyncio.create_task(tick(gaps))
        await asyncio.sleep(10 * TICK_SECONDS)
        servers = await first_search(services)
        await asyncio.sleep(10 * TICK_SECONDS)
        ticking.cancel()
        longest.append(round(max(gaps), 4))
    await services.aclose()
    sys.stdout.write(json.dumps({"servers": servers, "longest_seconds": longest}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))

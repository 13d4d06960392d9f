"""Calls of clore-mcp's own client, wired as the server wires it: `our_reads.py sequence|queue|cancel COUNT SERVER`.

Says "ready", waits for a line, makes its calls, and prints when each was made and answered on the monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle, islice
from typing import Any

from clore_mcp import settings
from clore_mcp.clore import CloreClient
from clore_mcp.errors import Failure
from clore_mcp.wiring import build

Call = Callable[[], Awaitable[Any]]


def reads(client: CloreClient, server: int, count: int) -> Sequence[Call]:
    """A mix of the calls that read."""
    mix: Sequence[Call] = (
        client.my_orders,
        client.wallets,
        lambda: client.my_orders(completed=True),
        lambda: client.spot_marketplace(server),
        client.marketplace,
    )
    return list(islice(cycle(mix), count))


async def timed(call: Call) -> dict[str, Any]:
    """When the call was made, when it was answered, and what stopped it, if anything did."""
    called_ns, failure = time.monotonic_ns(), ""
    try:
        await call()
    except Failure as failed:
        failure = failed.code
    return {"called_ns": called_ns, "done_ns": time.monotonic_ns(), "failure": failure}


async def main(how: str, count: int, server: int) -> None:
    """Wait for the start, then make the calls one after another, or all at once."""
    services = build(settings.load())
    client = services.context.client
    print("ready", flush=True)
    sys.stdin.readline()  # nothing else runs yet
    calls = [lambda: client.cancel_order(1)] if how == "cancel" else reads(client, server, count)
    if how == "queue":
        done = await asyncio.gather(*map(timed, calls))
    else:
        done = [await timed(call) for call in calls]
    print(json.dumps(done), flush=True)
    await services.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))

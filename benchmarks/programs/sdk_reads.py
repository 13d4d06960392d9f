"""The same calls through the official SDK as it comes: `sdk_reads.py URL COUNT SERVER`. Runs among the peers."""

from __future__ import annotations

import json
import sys
import time
from itertools import cycle, islice
from typing import Any

from clore_ai import CloreAI


def main(url: str, count: int, server: int) -> None:
    """Wait for the start, then make the calls one after another."""
    client: Any = CloreAI(api_key="sandbox-key-0000000000000000000x", base_url=url)
    mix = (
        client.my_orders,
        client.wallets,
        lambda: client.my_orders(include_completed=True),
        lambda: client.spot_marketplace(server),
        client.marketplace,
    )
    print("ready", flush=True)
    sys.stdin.readline()
    done = []
    for call in islice(cycle(mix), count):
        called_ns, failure = time.monotonic_ns(), ""
        try:
            call()
        except Exception as failed:
            failure = type(failed).__name__
        done.append({"called_ns": called_ns, "done_ns": time.monotonic_ns(), "failure": failure})
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""The same number of calls behind a limiter's library: `limited_reads.py aiolimiter|pyrate-limiter URL COUNT DATABASE`.

A plain client that takes a turn for every attempt and tries four times, as clore-mcp does. Runs among the peers.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable

import httpx

ENDPOINTS = ("my_orders", "wallets", "my_orders", "spot_marketplace", "marketplace")
ATTEMPTS = 4


def limiter(name: str, database: str) -> Callable[[], object]:
    """What waits for a turn at one call a second; pyrate-limiter shares its schedule by a file, with its own margin."""
    if name == "aiolimiter":
        from aiolimiter import AsyncLimiter

        loop, one_a_second = asyncio.new_event_loop(), AsyncLimiter(1, 1.0)
        return lambda: loop.run_until_complete(one_a_second.acquire())
    from pyrate_limiter import Duration, limiter_factory

    shared = limiter_factory.create_sqlite_limiter(1, Duration.SECOND, db_path=database, use_file_lock=True)
    return lambda: shared.try_acquire("key")


def main(name: str, url: str, count: int, database: str) -> None:
    """Wait for the start, then make the calls one after another."""
    turn = limiter(name, database)
    print("ready", flush=True)
    sys.stdin.readline()
    done = []
    with httpx.Client(trust_env=False, timeout=30) as http:
        for number in range(count):
            called_ns, failure = time.monotonic_ns(), "rate_limited"
            for _ in range(ATTEMPTS):
                turn()
                if http.get(f"{url}/{ENDPOINTS[number % len(ENDPOINTS)]}").status_code == httpx.codes.OK:
                    failure = ""
                    break
            done.append({"called_ns": called_ns, "done_ns": time.monotonic_ns(), "failure": failure})
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])

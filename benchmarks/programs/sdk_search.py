"""The official SDK's search, once for each line that comes in: `sdk_search.py URL`. Runs among the peers."""

from __future__ import annotations

import sys
import time
from typing import Any

from clore_ai import CloreAI

client: Any = CloreAI(base_url=sys.argv[1])
client.rate_limiter.min_interval = 0.0  # the search is measured here, not the wait for a turn
print("ready", flush=True)
for _ in sys.stdin:
    began, began_cpu = time.perf_counter(), time.process_time()
    found = client.marketplace(gpu="4090")
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    print(len(found), seconds, cpu, flush=True)

"""Replies of the simulated marketplace, stored so that serving them costs the benchmark nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx2

from clore_mcp.sandbox import SANDBOX_KEY, Options, start_in_thread

READS = ("wallets", "my_orders", "marketplace", "spot_marketplace", "renter_fees", "poh_balance")


def replies(servers: int) -> Mapping[str, bytes]:
    """Return one reply for each read, from a market with that many servers."""
    with (
        start_in_thread(Options(servers=servers, rate_limit="off")) as market,
        httpx2.Client(trust_env=False, headers={"auth": SANDBOX_KEY}, timeout=60) as http,
    ):
        found = {"marketplace": http.get(f"{market.url}/marketplace").raise_for_status().content}
        one = rows(found["marketplace"])[0]["id"]
        for endpoint in READS:
            if endpoint not in found:
                params = {"market": str(one)} if endpoint == "spot_marketplace" else {}
                found[endpoint] = http.get(f"{market.url}/{endpoint}", params=params).raise_for_status().content
    return found


def rows(marketplace: bytes) -> list[dict[str, Any]]:
    """Return the servers in a reply."""
    servers: list[dict[str, Any]] = json.loads(marketplace)["servers"]
    return servers

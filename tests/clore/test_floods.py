"""Replies that are far larger than any real one: cut off, or refused, in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clore_mcp.clore.models import OrderRow, Wallet, read_rows
from clore_mcp.sandbox import Options, start_in_thread
from tests.conftest import environment

MOST_MB = 260  # beyond what the process takes before: the body twice, and what is read of it
_CHILD = """
import asyncio, resource, sys
from clore_mcp.clore import CloreClient, Gaps, Pacer
from clore_mcp.errors import CloreError

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024) / 1024 ** (
        sys.platform == "darwin")

async def main(url, call):
    async with CloreClient(api_url=url, api_key=sys.argv[3], pacer=Pacer(Gaps(10**7, 10**7))) as client:
        before = peak_mb()
        try:
            await getattr(client, call)()
        except CloreError as error:
            print(error.message)
        print(round(peak_mb() - before))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a process tells its peak by getrusage")
@pytest.mark.parametrize("megabytes", [63, 31])
@pytest.mark.parametrize("kind", ["flood_objects", "flood_rows"])
@pytest.mark.parametrize("call", ["marketplace", "my_orders", "wallets"])
def test_a_flood_is_refused_in_little_memory(call: str, kind: str, megabytes: int, tmp_path: Path) -> None:
    with start_in_thread(Options(servers=20, rate_limit="off", ssh_listener=False)) as market:
        import httpx2 as httpx

        fault = {"kind": kind, "endpoint": call, "times": 9, "factor": megabytes}
        httpx.post(f"{market.control_url}/faults", json=fault, timeout=60, trust_env=False).raise_for_status()
        env = environment(market, tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, env["CLORE_API_URL"], call, env["CLORE_API_KEY"]],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, grew = done.stdout.splitlines()
    assert said.startswith("Clore could not list"), said
    assert "larger than" in said or "more than" in said
    assert int(grew) < MOST_MB, f"{grew} MB"


def test_rows_of_one_thing_are_one_row_with_the_worst_of_both() -> None:
    twins = [
        {"id": 1, "price": 2, "expired": True, "order_end": 1_800_000_005, "spend": 3},
        {"id": 1, "price": 1, "spend": 4},
    ]
    for wires in (twins, twins[::-1]):
        (only,) = read_rows(OrderRow, wires).rows
        assert (only.expired, only.ended_at) == (None, None), "it runs if either row says so"
        assert (str(only.price), str(only.spend)) == ("2", "4")
    over = [dict(one, expired=True) for one in twins]
    (gone,) = read_rows(OrderRow, over).rows
    assert (gone.expired, gone.ended_at) == (True, 1_800_000_005)
    rivals = [{"id": 1, "currency": "bitcoin", "price": 1}, {"id": 1, "currency": "USDT", "price": 2}]
    (unknown,) = read_rows(OrderRow, rivals).rows
    assert (unknown.currency, unknown.price) == (None, None)
    (wallet,) = read_rows(Wallet, [{"name": "BTC", "balance": 2}, {"name": "bitcoin", "balance": 1}]).rows
    assert wallet.balance == 1


@pytest.mark.parametrize("id_", [True, 0, -1, "x", None, 10**40, 1.5])
def test_a_row_without_an_id_is_dropped_and_counted(id_: object) -> None:
    read = read_rows(OrderRow, [{"id": id_}, {"id": 2**63}])
    assert ([row.id for row in read.rows], read.dropped) == ([2**63], 1)

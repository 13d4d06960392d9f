"""Server processes of one state folder fetch once what they all want, and no write in one is missed in another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from clore_mcp.sandbox import SANDBOX_KEY, Running
from tests.conftest import environment
from tests.story.people import IMAGE
from tests.story.records import Row, control, rows
from tests.story.wire import MODERN, Json, Wire, accept, wired

pytestmark = pytest.mark.anyio
PROCESSES = 4
SEARCHES = 20
ENV_VALUE = "hf_env_value_that_nobody_may_keep"
FORMS: Json = {"elicitation": {"form": {}}}


@asynccontextmanager
async def servers(market: Running, folder: Path, count: int, **env: str) -> AsyncIterator[list[Wire]]:
    """So many processes, none of which looks after leases: what they ask for is what they are called for."""
    told = environment(market, folder, CLORE_WATCHDOG="off", **env)
    async with AsyncExitStack() as stack:
        starting = [wired(told, MODERN, FORMS, accept(approve=True)) for _ in range(count)]
        yield [await stack.enter_async_context(one) for one in starting]


def asked(market: Running, endpoint: str) -> list[Row]:
    return [row for row in control(market, "/requests")["requests"] if row["endpoint"] == endpoint]


async def await_asked(market: Running, endpoint: str, times: int) -> None:
    until = time.monotonic() + 30
    while len(await asyncio.to_thread(asked, market, endpoint)) < times:
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


async def test_four_assistants_that_search_twenty_times_fetch_the_market_once(market: Running, tmp_path: Path) -> None:
    async with servers(market, tmp_path, PROCESSES) as all_of_us:
        found = await asyncio.gather(
            *(us.call("search_servers", limit=1 + n, gpu="3090") for us in all_of_us for n in range(SEARCHES))
        )
    assert all(one["servers"] for one in found)
    assert len({one["total_matches"] for one in found}) == 1, "they all saw the same market"
    assert len(asked(market, "marketplace")) == 1


async def test_four_assistants_that_list_the_orders_at_once_ask_once(market: Running, tmp_path: Path) -> None:
    async with servers(market, tmp_path, PROCESSES) as all_of_us:
        listed = await asyncio.gather(*(us.call("list_orders") for us in all_of_us for _ in range(5)))
    assert all(one["orders"] == [] for one in listed)
    assert len(asked(market, "my_orders")) == 1


async def test_a_reader_shares_with_the_others_and_nobody_needs_a_key(market: Running, tmp_path: Path) -> None:
    for key in ("", SANDBOX_KEY):
        async with (
            servers(market, tmp_path, 1, CLORE_API_KEY=key) as [us],
            servers(market, tmp_path, 1, CLORE_API_KEY=key, CLORE_READ_ONLY="1") as [reader],
        ):
            assert (await us.call("search_servers", limit=1))["servers"]
            assert (await reader.call("search_servers", limit=1))["servers"]
    assert len(asked(market, "marketplace")) == 2, "one for each key: no copy is another's"


async def test_an_order_made_in_one_process_is_listed_by_all_at_once_and_one_that_ends_by_none(
    market: Running, tmp_path: Path
) -> None:
    async with servers(market, tmp_path, 2) as [us, others]:
        assert (await others.call("list_orders"))["orders"] == []
        server_id = (await us.call("search_servers", gpu="3060", limit=1))["servers"][0]["server_id"]
        made = await us.call(
            "create_order", server_id=server_id, image=IMAGE, hours=1, jupyter=True, env={"HF_TOKEN": ENV_VALUE}
        )
        assert made["status"] == "created", made
        listed = (await others.call("list_orders"))["orders"]
        assert [one["order_id"] for one in listed] == [made["order_id"]]
        gone = await others.call("cancel_order", order_id=made["order_id"])
        assert gone["status"] == "cancelled", gone
        assert (await us.call("list_orders"))["orders"] == []
    [token] = {row["value"] for row in rows(tmp_path, "secrets")} or {"-"}
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert [path.name.rpartition("-")[0] for path in sorted(files) if path.suffix == ".copy"] == [
        "marketplace",
        "my_orders",
        "my_orders_completed",
    ]
    for path in files:
        content = path.read_bytes()
        assert SANDBOX_KEY.encode() not in content and ENV_VALUE.encode() not in content, path.name
        assert path.parent.name != "copies" or token.encode() not in content or token == "-", path.name


async def test_a_process_that_is_killed_in_its_fetch_is_followed_at_once(market: Running, tmp_path: Path) -> None:
    fault = {"kind": "hang_before", "endpoint": "marketplace", "seconds": 600}
    httpx2.post(f"{market.control_url}/faults", json=fault, verify=False).raise_for_status()
    async with (
        servers(market, tmp_path, 1) as [us],
        wired(environment(market, tmp_path), MODERN, FORMS, accept(approve=True)) as dies,
    ):
        given_up = asyncio.create_task(dies.call("search_servers", limit=1))
        await await_asked(market, "marketplace", 1)
        waiting = asyncio.create_task(us.call("search_servers", limit=1))
        dies.kill()
        found = await waiting
        assert "gone" in await given_up
    assert found["servers"] and "stale" not in found
    assert len(asked(market, "marketplace")) == 2

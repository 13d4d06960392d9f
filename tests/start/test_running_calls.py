"""A client that goes away, or a signal, in the middle of a call: the server ends at once, quietly and with code 0.

Only spending that has begun is seen through (tests/guard/test_kills.py); nothing else is worth anyone's waiting.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from clore_mcp.rental.requests import LONGEST_WAIT_SECONDS
from clore_mcp.sandbox import Running
from tests.conftest import environment
from tests.story.people import IMAGE
from tests.story.wire import Wire, wired

pytestmark = pytest.mark.anyio

ERA = "2025-11-25"  # here a question goes out in the middle of the call
SILENT_SECONDS = 300  # so long does what the call waits for take
ENDS_WITHIN_SECONDS = 10  # half a second on an idle machine
ENDS = ("EOF", pytest.param("SIGTERM", marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows has EOF")))


async def waits_for_clore(market: Running, wire: Wire) -> asyncio.Task[Any]:
    """A search, while Clore says nothing."""
    await post(market, "/options", {"latency": SILENT_SECONDS})
    call = asyncio.create_task(wire.call("search_servers", gpu="4090"))
    await until(market, lambda sent: "marketplace" in sent)
    return call


async def waits_for_a_person(market: Running, wire: Wire) -> asyncio.Task[Any]:
    """A create whose question nobody answers."""
    call = asyncio.create_task(wire.call("create_order", server_id=await cheapest(wire), image=IMAGE, hours=1))
    await asyncio.wait_for(wire.question_came.wait(), 30)
    return call


async def waits_for_an_order(market: Running, wire: Wire) -> asyncio.Task[Any]:
    """A wait for a container that is not up for hours."""
    await post(market, "/options", {"deploy_after": 1e6})
    wire.answer = lambda _: {"result": {"action": "accept", "content": {"approve": True}}}
    made = await wire.call("create_order", server_id=await cheapest(wire), image=IMAGE, hours=1)
    before = len(await sent(market))
    call = asyncio.create_task(
        wire.call("wait_for_order", order_id=made["order_id"], timeout_seconds=LONGEST_WAIT_SECONDS)
    )
    await until(market, lambda sent: "my_orders" in sent[before:])
    return call


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("waits", [waits_for_clore, waits_for_a_person, waits_for_an_order])
async def test_the_server_ends_at_once_in_the_middle_of_a_call(
    market: Running,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    waits: Callable[[Running, Wire], Awaitable[asyncio.Task[Any]]],
    end: str,
) -> None:
    # `wired` closes the input when it is left, and demands code 0.
    async with wired(environment(market, tmp_path), ERA, {"elicitation": {}}, lambda _: None) as wire:
        call = await waits(market, wire)
        assert not call.done()
        began = time.monotonic()
        if end != "EOF":
            assert await wire.signal(end) == 0
    assert time.monotonic() - began < ENDS_WITHIN_SECONDS
    told = await call
    assert told == {"gone": True} or told["rpc_error"]["message"] == "Connection closed"
    assert capfd.readouterr().err == ""


async def cheapest(wire: Wire) -> int:
    found: int = (await wire.call("search_servers", gpu="3060"))["servers"][0]["server_id"]
    return found


async def post(market: Running, path: str, body: object) -> None:
    async with httpx2.AsyncClient(verify=False) as http:
        (await http.post(f"{market.control_url}{path}", json=body)).raise_for_status()


async def sent(market: Running) -> list[str]:
    """The endpoints that were asked so far."""
    async with httpx2.AsyncClient(verify=False) as http:
        told = (await http.get(f"{market.control_url}/requests")).json()
    return [entry["endpoint"] for entry in (told["requests"] if isinstance(told, dict) else told)]


async def until(market: Running, wanted: Callable[[list[str]], bool]) -> None:
    for _ in range(600):
        if wanted(await sent(market)):
            return
        await asyncio.sleep(0.05)
    pytest.fail("the call was not sent")

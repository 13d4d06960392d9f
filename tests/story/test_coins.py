"""One name for a coin, whatever Clore calls it, in everything that a model or a person reads."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.types import ElicitRequestParams, ElicitResult

from clore_mcp.sandbox import SANDBOX_KEY, Running, start_in_thread
from tests.conftest import FAST, environment
from tests.preforked import python
from tests.story.people import IMAGE
from tests.story.records import orders
from tests.story.test_spot import BTC, CLORE, USD, post, spot_prices

pytestmark = pytest.mark.anyio
OF_CLORE = re.compile(r"bitcoin|\w+-blockchain", re.IGNORECASE)
COINS = {"BTC": BTC, "CLORE": CLORE, "USD": USD}
COMMANDS = ("orders", "approvals", "ledger", "ledger --json", "doctor")


class Reader:
    """Reads everything that the server writes, and remembers by whom each coin was named as Clore names it."""

    def __init__(self) -> None:
        self.client: Client
        self.read: dict[str, str] = {}

    async def __call__(self, context: Any, params: ElicitRequestParams) -> ElicitResult:
        self.hear("question", params.message)
        return ElicitResult(action="accept", content={"approve": True})

    def hear(self, what: str, text: str) -> None:
        self.read[what] = self.read.get(what, "") + text

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self.client.call_tool(tool, arguments)
        text = result.content[0].text  # type: ignore[union-attr]
        self.hear(tool, text + json.dumps(result.structured_content))
        told: dict[str, Any] = json.loads(text)
        return told

    def wrong(self) -> dict[str, list[str]]:
        found = {what: OF_CLORE.findall(text) for what, text in self.read.items()}
        return {what: names for what, names in found.items() if names}


@asynccontextmanager
async def reader(env: dict[str, str]) -> AsyncIterator[Reader]:
    us = Reader()
    server = StdioServerParameters(command=python(), args=["-m", "clore_mcp"], env=env)
    async with Client(server, elicitation_callback=us) as us.client:
        yield us


def run(env: dict[str, str], command: str) -> str:
    done = subprocess.run(
        [python(), "-m", "clore_mcp", *command.split()], env=env, capture_output=True, text=True, timeout=120
    )
    return done.stdout + done.stderr


def accepting(market: Running, coin: str, count: int) -> list[int]:
    """Free servers that will be paid in that coin alone."""
    found = list(spot_prices(market))[:count]
    for server_id in found:
        post(market, f"servers/{server_id}", allowed_coins=[coin])
    return found


async def all_tools(us: Reader, market: Running, name: str) -> None:
    """Every tool with that coin, its refusals too."""
    first, second = await asyncio.to_thread(accepting, market, COINS[name], 2)
    await us.call("search_servers", gpu="4090 or 3090 or 3060", currency=name)
    await us.call("search_servers", gpu="4090", currency=name, max_usd_per_hour=0.0001)
    await us.call("get_server", server_id=first)
    wish = {"server_id": first, "image": IMAGE, "hours": 1, "currency": COINS[name]}
    await us.call("quote_order", **wish)
    other = next(one for one in COINS if one != name)
    await us.call("create_order", **wish | {"currency": other})
    made = await us.call("create_order", **wish)
    assert made["status"] == "created", made
    spot = await us.call("quote_order", **wish | {"server_id": second, "order_type": "spot", "bid_usd_per_hour": 0.5})
    assert spot["currency"] == name, spot
    bid = await us.call("create_order", **wish | {"server_id": second, "order_type": "spot", "bid_usd_per_hour": 0.5})
    assert bid["status"] == "created", bid
    await us.call("set_spot_price", order_id=bid["order_id"], bid_usd_per_hour=0.6)
    await us.call("set_spot_price", order_id=bid["order_id"], bid_usd_per_hour=0.01)
    await us.call("extend_order", order_id=made["order_id"], hours=0.5)
    await us.call("extend_order", order_id=made["order_id"], hours=400)
    await us.call("wait_for_order", order_id=made["order_id"], timeout_seconds=1)
    await us.call("list_orders")
    await us.call("get_account")
    watch = {"gpu": "3090", "max_usd_per_hour": 0.001, "hours": 1, "expires_hours": 1, "currency": COINS[name]}
    made_watch = await us.call("create_watch", **watch)
    await us.call("list_watches")
    await us.call("cancel_watch", watch_id=made_watch["watch_id"])
    for uri in ("clore://orders", f"clore://orders/{made['order_id']}", "clore://account", "clore://market/gpus",
                "clore://ledger", "clore://images"):  # fmt: skip
        us.hear(uri, (await us.client.read_resource(uri)).contents[0].text)  # type: ignore[union-attr]
    for order in (made, bid):
        await us.call("cancel_order", order_id=order["order_id"])
    await us.call("list_orders", include_ended=True)
    await us.call("get_account")


@pytest.mark.parametrize("name", COINS)
async def test_no_answer_no_question_and_no_command_names_a_coin_as_clore_does(
    market: Running, tmp_path: Path, name: str
) -> None:
    env = environment(market, tmp_path, CLORE_MAX_USD_PER_ORDER="9000", CLORE_MAX_USD_PER_DAY="9000")
    post(market, "wallets", balances={USD: 900, CLORE: 900_000, BTC: 0.02})
    async with reader(env) as us:
        listed = await us.client.list_tools()
        us.hear("tools/list", listed.model_dump_json())
        await all_tools(us, market, name)
        for command in COMMANDS:
            us.hear(command, await asyncio.to_thread(run, env, command))
    assert name in us.read["question"] and name in us.read["ledger --json"] and name in us.read["list_orders"]
    assert us.wrong() == {}


async def test_an_order_that_clore_makes_dearer_is_told_of_in_that_name_too(tmp_path: Path) -> None:
    with start_in_thread(replace(FAST, required_price="ignored")) as market:
        env = environment(market, tmp_path)
        post(market, "wallets", balances={CLORE: 900_000})
        server_id = (await asyncio.to_thread(accepting, market, CLORE, 1))[0]
        post(market, "faults", kind="price_moved", endpoint="create_order", factor=2)
        async with reader(env) as us:
            no = await us.call("create_order", server_id=server_id, image=IMAGE, hours=1)
            assert no["status"] == "refused" and "above the approved" in no["next"] and "CLORE" in no["next"], no
            await us.call("get_account")
            us.hear("ledger", await asyncio.to_thread(run, env, "ledger --json"))
        assert us.wrong() == {}


async def test_an_unknown_coin_keeps_clores_name(market: Running, tmp_path: Path) -> None:
    env = environment(market, tmp_path)
    server_id = next(iter(await asyncio.to_thread(spot_prices, market)))
    async with reader(env) as us:
        body = {"key": SANDBOX_KEY, "currency": USD, "image": IMAGE, "renting_server": server_id, "type": "on-demand"}
        post(market, "orders", **body, ports={"22": "tcp"})
        post(market, "clock", advance=30)
        (order,) = orders(market)
        post(market, f"orders/{order['id']}", row={"currency": "USDC-Blockchain\n"})
        listed = (await us.call("list_orders"))["orders"][0]
        assert (
            listed["currency"] == "USDC-Blockchain"
            and "paid in USDC-Blockchain, whose USD rate is unknown" in listed["warning"]
        )

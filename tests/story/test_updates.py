"""Clients of both eras are told when orders change, whoever changed them; nobody is told what they did not ask for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from mcp import Client, MCPDeprecationWarning, MCPError, StdioServerParameters
from mcp.client.subscriptions import ResourceUpdated, Subscription
from mcp.types import ResourceUpdatedNotification

from clore_mcp.sandbox import Options, Running, start_in_thread
from clore_mcp.store import ledger
from clore_mcp.store.database import Database
from clore_mcp.store.ledger import Entry
from tests.conftest import environment
from tests.preforked import python
from tests.story.people import ERAS, IMAGE, Assistant, Person

pytestmark = pytest.mark.anyio
PATIENCE = 60.0
USD = "USD-Blockchain"


class Ear:
    """What one client hears of resources."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._more = asyncio.Event()
        self.client: Client | None = None
        self._listening: list[asyncio.Task[None]] = []

    async def __call__(self, message: Any) -> None:
        """What a client of 2025 is sent."""
        if isinstance(message, ResourceUpdatedNotification):
            self._hear(str(message.params.uri))

    async def subscribe(self, mode: str, *uris: str) -> None:
        assert self.client is not None
        if mode == "legacy":
            for uri in uris:
                with pytest.warns(MCPDeprecationWarning):
                    await self.client.subscribe_resource(uri)
            return
        opened = asyncio.Event()

        async def listen(client: Client) -> None:
            async with client.listen(resource_subscriptions=uris) as subscription:
                opened.set()
                await self._follow(subscription)

        self._listening.append(asyncio.create_task(listen(self.client)))
        async with asyncio.timeout(PATIENCE):
            await opened.wait()

    async def _follow(self, subscription: Subscription) -> None:
        async for event in subscription:
            if isinstance(event, ResourceUpdated):
                self._hear(event.uri)

    def _hear(self, uri: str) -> None:
        self.heard.append(uri)
        self._more.set()

    async def hears(self, *uris: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while not set(uris) <= set(self.heard):
                self._more.clear()
                await self._more.wait()

    async def end(self) -> None:
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)


@pytest.fixture
def market() -> Any:
    """One where a container is not up before somebody moves the clock."""
    with start_in_thread(Options(rate_limit="off", ssh_listener=False, deploy_after=600.0)) as running:
        yield running


@asynccontextmanager
async def connected(market: Running, folder: Path, mode: str, **env: str) -> AsyncIterator[tuple[Assistant, Ear]]:
    ear = Ear()
    server = StdioServerParameters(command=python(), args=["-m", "clore_mcp"], env=environment(market, folder, **env))
    person = Person(True)
    async with Client(server, mode=mode, elicitation_callback=person, message_handler=ear) as client:
        ear.client = client
        try:
            yield Assistant(client), ear
        finally:
            await ear.end()


async def control(market: Running, path: str, body: Any) -> Any:
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        reply = await http.post(f"{market.control_url}{path}", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def rented(us: Assistant) -> int:
    found = await us.call("search_servers", gpu="3060")
    made = await us.call("create_order", server_id=found["servers"][0]["server_id"], image=IMAGE, hours=1)
    assert made["status"] == "created", made
    return int(made["order_id"])


def elsewhere_written(folder: Path, order_id: int) -> None:
    """Another process of this state, this one, records an event."""
    event = Entry(time.time(), "an account", "outbid", "clore-mcp", order_id=order_id)
    state = Database(folder / "state")
    state.write_now(lambda tx: ledger.write(tx, event))
    state.close()


@pytest.mark.parametrize("mode", ERAS)
async def test_what_other_processes_record_reaches_who_subscribed(market: Running, tmp_path: Path, mode: str) -> None:
    async with connected(market, tmp_path, mode) as (us, ear):
        order_id = await rented(us)
        uris = [f"clore://orders/{order_id}", "clore://orders/999", "clore://orders", "clore://account"]
        await ear.subscribe(mode, *uris)
        elsewhere_written(tmp_path, 999)
        await ear.hears("clore://orders/999", "clore://orders", "clore://account")
        ear.heard.clear()  # everything up to then has been told
        await control(market, "/clock", {"advance": 7_200})  # the watchdog, a process of its own, ends it
        await ear.hears(f"clore://orders/{order_id}", "clore://orders", "clore://account")
        assert set(ear.heard) <= set(uris)


@pytest.mark.parametrize("mode", ERAS)
async def test_what_the_server_sees_at_clore_reaches_who_subscribed(market: Running, tmp_path: Path, mode: str) -> None:
    async with connected(market, tmp_path, mode, CLORE_WATCHDOG="off") as (us, ear):
        server_id = (await us.call("search_servers", gpu="3060", currency=USD))["servers"][0]["server_id"]
        wish = {"currency": USD, "image": IMAGE, "renting_server": server_id, "type": "on-demand"}
        order_id = (await control(market, "/orders", wish))["order_id"]
        await control(market, "/clock", {"advance": 60})
        assert (await us.call("list_orders"))["orders"][0]["status"] == "deploying"
        await ear.subscribe(mode, f"clore://orders/{order_id}", "clore://orders", "clore://ledger")
        await control(market, "/clock", {"advance": 700})
        await us.call("wait_for_order", order_id=order_id, timeout_seconds=7)
        await ear.hears(f"clore://orders/{order_id}", "clore://orders")
        assert "clore://ledger" not in ear.heard, "nothing was recorded"


@pytest.mark.parametrize("mode", ERAS)
async def test_who_did_not_subscribe_hears_nothing(market: Running, tmp_path: Path, mode: str) -> None:
    async with connected(market, tmp_path, mode) as (us, ear):
        await ear.subscribe(mode, "clore://orders/999")
        await rented(us)
        elsewhere_written(tmp_path, 999)
        await ear.hears("clore://orders/999")
        await ear.subscribe(mode, "clore://orders/998")
        elsewhere_written(tmp_path, 998)
        await ear.hears("clore://orders/998")
        assert set(ear.heard) == {"clore://orders/999", "clore://orders/998"}


async def test_an_unsubscribed_client_of_2025_hears_no_more(market: Running, tmp_path: Path) -> None:
    async with connected(market, tmp_path, "legacy") as (us, ear):
        assert us.client.server_capabilities.resources is not None
        assert us.client.server_capabilities.resources.subscribe
        await ear.subscribe("legacy", "clore://orders", "clore://orders/999")
        with pytest.warns(MCPDeprecationWarning):
            await us.client.unsubscribe_resource("clore://orders")
        await rented(us)
        elsewhere_written(tmp_path, 999)
        await ear.hears("clore://orders/999")
        assert set(ear.heard) == {"clore://orders/999"}
        with pytest.warns(MCPDeprecationWarning), pytest.raises(MCPError, match="clore://"):
            await us.client.subscribe_resource("https://elsewhere.example/")

"""What tests of the page share: a market, a state with its page served for real on loopback, an assistant that can't
ask, and a browser that keeps its cookie."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx
import pytest
from mcp import Client

from clore_mcp.page import serve
from clore_mcp.page_process import PageRequest, ask, place_of
from clore_mcp.sandbox import Options, Running, start_in_thread
from clore_mcp.server import create_server
from clore_mcp.settings import Settings
from clore_mcp.store import quotes
from clore_mcp.store.database import Database
from clore_mcp.store.quotes import Quote
from clore_mcp.wiring import Services, build
from tests.conftest import delete_state, environment, settings_for

KEYS: Final = tuple(f"page-{number:027}" for number in range(200))
UNLIMITED: Final = dict.fromkeys(("CLORE_MAX_USD_PER_HOUR", "CLORE_MAX_USD_PER_ORDER", "CLORE_MAX_USD_PER_DAY"), "9000")
PATIENCE: Final = 30.0
_accounts = itertools.count()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    """A marketplace whose orders are up at once, with an account for each test."""
    options = Options(
        servers=200, rate_limit="off", visible_after=0.0, endpoints_after=0.0, deploy_after=0.0, ssh_listener=False,
        keys=KEYS,
    )  # fmt: skip
    with start_in_thread(options) as found:
        yield found


def until(true: Callable[[], Any], what: str, within: float = PATIENCE) -> Any:
    """Wait for something; what it was."""
    give_up_at = time.monotonic() + within
    while time.monotonic() < give_up_at:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {within} s")


@dataclass
class House:
    """One person's machine: a state, the page for it, and the assistants that use it."""

    running: Running
    folder: Path
    env: dict[str, str]
    wanted: Settings
    visitors: list[Visitor] = field(default_factory=list)
    _thread: threading.Thread | None = field(default=None, repr=False)

    def serve(self) -> None:
        """Serve the page from now on, in this process."""
        self._thread = threading.Thread(target=serve.run, args=(self.wanted,), daemon=True)
        self._thread.start()

    def address(self, **more: Any) -> str:
        """An address that works once."""
        reply = ask(self.wanted, PageRequest(**{"opens": False, **more}))
        assert reply is not None and not reply.shown
        return reply.address

    def visitor(self, **more: Any) -> Visitor:
        """Somebody who came by such an address."""
        return self.come(self.address(**more))

    def come(self, address: str) -> Visitor:
        """Somebody who follows that address."""
        self.visitors.append(Visitor(address))
        return self.visitors[-1]

    def services(self) -> Services:
        """The parts of another process of this state."""
        return build(self.wanted)

    def quote(self, quote_id: str) -> Quote:
        state = Database(self.wanted.state_dir)
        try:
            found = state.read_now(lambda tx: quotes.get(tx, quote_id))
        finally:
            state.close()
        assert found is not None
        return found

    @asynccontextmanager
    async def assistant(self, **env: str) -> AsyncIterator[Assistant]:
        """A client that can't be asked anything."""
        server = create_server(settings_for({**self.env, **env}, self.folder))
        async with Client(server) as client:
            yield Assistant(client)

    def end(self) -> None:
        for visitor in self.visitors:
            visitor.http.close()
        delete_state(self.wanted.state_dir)
        if self._thread is not None:
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive(), "the page ends with its state"


@dataclass
class Assistant:
    """What a model calls."""

    client: Client

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self.client.call_tool(tool, arguments)
        told: dict[str, Any] = json.loads(result.content[0].text)  # type: ignore[union-attr]
        return told

    async def wish(self, nth: int = 0, **more: Any) -> dict[str, Any]:
        """Arguments of a rental that can be had: of the nth cheapest server."""
        found = await self.call("search_servers", currency="USD", min_rental_hours=24, limit=5)
        return {"server_id": found["servers"][nth]["server_id"], "hours": 1.0, "currency": "USD", **more}

    async def rent(self, wish: dict[str, Any]) -> dict[str, Any]:
        return await self.call("create_order", **wish)


class Visitor:
    """A browser without a screen: it keeps the cookie and sends what browsers send."""

    def __init__(self, address: str) -> None:
        self.origin, self.room = re.findall(r"(http://localhost:[0-9]+)(/[0-9a-f]+/)", address)[0]
        self.http = httpx.Client(trust_env=False, base_url=self.origin + self.room, headers={"origin": self.origin})
        self.first = self.http.get(address)

    def get(self, path: str = "", **headers: str) -> httpx.Response:
        return self.http.get(self.origin + self.room + path, headers=headers)

    def token(self, page: httpx.Response, action: str) -> str:
        """The token of the form for that action."""
        form = re.search(rf'action="{re.escape(self.room + action)}".*?name="token" value="([^"]+)"', page.text, re.S)
        assert form, (action, page.text)
        return form[1]

    def post(self, action: str, fields: dict[str, str], **headers: str) -> httpx.Response:
        return self.http.post(self.origin + self.room + action, data=fields, headers=headers)

    def submit(self, path: str, action: str, **fields: str) -> httpx.Response:
        """Load a page and send a form of it."""
        return self.post(action, {"token": self.token(self.get(path), action), **fields})


@pytest.fixture
def house(running: Running, tmp_path: Path) -> Iterator[House]:
    """A house whose page is served."""
    key = KEYS[next(_accounts)]
    env = environment(running, tmp_path, CLORE_API_KEY=key, CLORE_WATCHDOG="off", **UNLIMITED)
    made = House(running, tmp_path, env, settings_for(env, tmp_path))
    made.wanted.state_dir.mkdir()
    made.serve()
    until(lambda: not _free(made.wanted), "the page's place is taken")
    try:
        yield made
    finally:
        made.end()


def _free(wanted: Settings) -> bool:
    place = place_of(wanted)
    free = place.take()
    place.release()
    return free

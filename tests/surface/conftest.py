"""What tests of prompts, resources and completion share: a marketplace where orders are up at once, and a client."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import httpx2 as httpx
import pytest
from mcp import Client
from mcp.types import ElicitResult, TextContent, TextResourceContents

from clore_mcp.sandbox import Options, Running, start_in_thread
from clore_mcp.server import create_server
from tests.conftest import environment, settings_for

Mode = Literal["legacy", "auto"]
Connect = Callable[..., AbstractAsyncContextManager[Client]]
UNLIMITED = dict.fromkeys(("CLORE_MAX_USD_PER_HOUR", "CLORE_MAX_USD_PER_ORDER", "CLORE_MAX_USD_PER_DAY"), "9000")
KEYS = tuple(f"surface-{number:024}" for number in range(500))
OPTIONS = Options(
    rate_limit="off",
    servers=300,
    visible_after=0.0,
    endpoints_after=0.0,
    deploy_after=0.0,
    ssh_listener=False,
    keys=KEYS,
)
CHANGED = ("hostile_endpoints", "latency", "endpoints_after", "deploy_after")  # by some test; put back after each
IMAGE = "cloreai/jupyter:ubuntu24.04-v2"
_accounts = itertools.count()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen


@pytest.fixture(scope="session")
def _running() -> Iterator[Running]:
    with start_in_thread(OPTIONS) as running:
        yield running


@pytest.fixture
def sandbox(_running: Running) -> Iterator[Running]:
    """A marketplace that takes any pace, whose orders are visible and up as soon as they are made."""
    control(_running, "DELETE", "/requests")
    yield _running
    control(_running, "DELETE", "/faults")
    control(_running, "POST", "/options", {name: getattr(OPTIONS, name) for name in CHANGED})


@pytest.fixture
def key() -> str:
    """The key of an account that no other test uses."""
    return KEYS[next(_accounts)]


@pytest.fixture
def connect(sandbox: Running, key: str, tmp_path: Path) -> Connect:
    """A client of a server in memory that uses that marketplace; it says yes to every question."""

    @asynccontextmanager
    async def connected(mode: Mode = "auto", **more: str) -> AsyncIterator[Client]:
        env = environment(sandbox, tmp_path, **{"CLORE_API_KEY": key, "CLORE_WATCHDOG": "off", **UNLIMITED, **more})
        server = create_server(settings_for({name: value for name, value in env.items() if value}, tmp_path))
        async with Client(server, mode=mode, elicitation_callback=yes) as client:
            yield client

    return connected


async def yes(context: Any, params: Any) -> ElicitResult:
    return ElicitResult(action="accept", content={"approve": True})


def control(sandbox: Running, method: str, path: str, json: Any = None) -> Any:
    """Call the sandbox's own path."""
    with httpx.Client(trust_env=False, verify=False) as http:
        reply = http.request(method, f"{sandbox.control_url}{path}", json=json, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


def requests_sent(sandbox: Running) -> list[str]:
    """The endpoints that were asked since the journal was last cleared."""
    told = control(sandbox, "GET", "/requests")
    return [entry["endpoint"] for entry in (told["requests"] if isinstance(told, dict) else told)]


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The tool's structured result; it must not be an error."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    told: dict[str, Any] = result.structured_content
    return told


async def rent(client: Client, server_id: int | None = None) -> int:
    """Rent that server, or the cheapest 4090, for an hour."""
    if server_id is None:
        server_id = await cheapest(client)
    made = await call(client, "create_order", server_id=server_id, image=IMAGE, hours=1)
    assert made["status"] == "created", made
    order_id: int = made["order_id"]
    return order_id


async def cheapest(client: Client) -> int:
    found = await call(client, "search_servers", gpu="RTX 4090", limit=1)
    server_id: int = found["servers"][0]["server_id"]
    return server_id


async def read(client: Client, uri: str) -> str:
    """The text of a resource, as it is now."""
    (content,) = (await client.read_resource(uri, cache_mode="bypass")).contents
    assert isinstance(content, TextResourceContents)
    return content.text


async def say(client: Client, prompt: str, **arguments: str) -> str:
    """The text of a prompt."""
    (message,) = (await client.get_prompt(prompt, arguments)).messages
    assert message.role == "user"
    assert isinstance(message.content, TextContent)
    return message.content.text

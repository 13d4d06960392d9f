"""A marketplace with rows written against their reader, beside the same one without them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import httpx2 as httpx
import pytest
from mcp import Client
from mcp.types import CallToolResult, ElicitRequestParams, ElicitResult, TextContent

from clore_mcp.sandbox import Options, Running, start_in_thread
from clore_mcp.server import create_server
from tests.conftest import environment, settings_for

Mode = Literal["legacy", "auto"]
IMAGE = "cloreai/jupyter:ubuntu24.04-v2"
PLAIN = Options(
    rate_limit="off",
    servers=150,
    seed=7,
    visible_after=0.0,
    endpoints_after=0.0,
    deploy_after=0.0,
    ssh_listener=False,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen


@pytest.fixture
def honest() -> Iterator[Running]:
    with start_in_thread(PLAIN) as running:
        yield running


@pytest.fixture
def hostile() -> Iterator[Running]:
    with start_in_thread(Options(**{**_values(PLAIN), "hostile": True})) as running:
        yield running


def _values(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in Options.__dataclass_fields__}


def control(running: Running, method: str, path: str, body: Any = None) -> Any:
    with httpx.Client(trust_env=False, verify=False) as http:
        reply = http.request(method, f"{running.control_url}{path}", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


def sent(running: Running, endpoint: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = control(running, "GET", "/requests")["requests"]
    return [entry for entry in entries if endpoint in entry["endpoint"]]


class Assistant:
    """A connected client whose person reads every question and answers no, unless told otherwise."""

    def __init__(self, yes: bool = False) -> None:
        self.yes = yes
        self.asked: list[str] = []
        self.client: Client

    async def answer(self, context: Any, params: ElicitRequestParams) -> ElicitResult:
        self.asked.append(params.message)
        return ElicitResult(action="accept", content={"approve": self.yes})

    async def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        result = await self.client.call_tool(tool, arguments)
        assert isinstance(result, CallToolResult)
        (block,) = result.content
        assert isinstance(block, TextContent)
        seen(block.text)
        told: dict[str, Any] = json.loads(block.text)
        return told

    async def market(self, **arguments: Any) -> dict[int, dict[str, Any]]:
        """Every row that search_servers shows, by id, page by page."""
        rows: dict[int, dict[str, Any]] = {}
        cursor: dict[str, Any] = {}
        while True:
            page = await self.call("search_servers", include_rented=True, limit=50, **arguments, **cursor)
            rows |= {row["server_id"]: row for row in page.get("servers", [])}
            if "next_cursor" not in page:
                return rows
            cursor = {"cursor": page["next_cursor"]}


def seen(text: str) -> None:
    """No character that hides, turns or controls what stands beside it; a question may have lines."""
    for char in text.replace("\n", ""):
        assert unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"), hex(ord(char))


@asynccontextmanager
async def assistant(running: Running, folder: Path, mode: Mode, *, yes: bool = False) -> AsyncIterator[Assistant]:
    env = environment(running, folder, CLORE_MAX_USD_PER_HOUR="900", CLORE_MAX_USD_PER_ORDER="900",
                      CLORE_MAX_USD_PER_DAY="900", CLORE_CURRENCY="USD")  # fmt: skip
    them = Assistant(yes)
    async with Client(
        create_server(settings_for(env, folder)), mode=mode, elicitation_callback=them.answer
    ) as them.client:
        yield them

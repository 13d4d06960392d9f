"""What a model has to read: the list of tools, a search, and a rental from the search to the receipt, in bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
from mcp import Client
from mcp.types import ElicitRequestParams, ElicitResult

from benchmarks.bench import Bench, environment
from benchmarks.table import Goal, Row
from clore_mcp.sandbox import Options, Running, start_in_thread
from clore_mcp.server import create_server
from clore_mcp.settings import Settings

_TOPIC: Final = "Tokens: bytes that a model reads (about four make a token)"
_IMAGE: Final = "cloreai/jupyter:ubuntu24.04-v2"
# A made-up public key that has no private half.
_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNsb3JlLW1jcCBkZW1vLCBhIGtleSBvZiBub2JvZHkh demo"
MOST_LIST_BYTES: Final = 25_000
MOST_SEARCH_BYTES: Final = 4_300
MOST_STORY_BYTES: Final = 7_500


@dataclass(slots=True)
class Story:
    """A rental as the model saw it: the bytes of each call and answer, and of the question that the person read."""

    list_bytes: int = 0
    raw_bytes: int = 0  # the same ten servers, as Clore lists them
    steps: list[tuple[str, int, int]] = field(default_factory=list)  # tool, bytes of arguments, bytes of answer
    question_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """Return the bytes of arguments and answers together."""
        return sum(asked + answered for _, asked, answered in self.steps)


async def run(bench: Bench) -> list[Row]:
    """Measure one rental. Nothing here depends on the machine."""
    with start_in_thread(Options(rate_limit="off", speed=60.0)) as market:
        story = await tell(market, bench.fresh("tokens"))
    search = story.steps[0][2]
    steps = ", ".join(f"{tool} {asked} + {answered}" for tool, asked, answered in story.steps)
    question = f"; the question, which the person reads: {story.question_bytes}"
    raw = f"the same ten as Clore lists them: {story.raw_bytes:,}"
    return [
        Row(_TOPIC, "`tools/list`, all toolsets", f"{story.list_bytes:,}", "", story.list_bytes,
            Goal(MOST_LIST_BYTES), "count"),
        Row(_TOPIC, "a search, ten rows", f"{search:,}", raw, search, Goal(MOST_SEARCH_BYTES), "count"),
        Row(_TOPIC, "a rental: arguments and answers of search, look, rent, wait, cancel", f"{story.total_bytes:,}",
            steps + question, story.total_bytes, Goal(MOST_STORY_BYTES), "count"),
    ]  # fmt: skip


async def tell(market: Running, folder: Path) -> Story:
    """Search, rent, wait and cancel, with a person who approves everything."""
    story = Story()

    async def person(context: Any, params: ElicitRequestParams) -> ElicitResult:
        story.question_bytes += _size(params.message)
        return ElicitResult(action="accept", content={"approve": True})

    env = environment(folder, market.url, CLORE_REQUEST_GAP_SECONDS="0.01", CLORE_SSH_PUBLIC_KEY=_KEY)
    ours = {name: value for name, value in env.items() if name.startswith("CLORE_")}
    settings = Settings.from_env(ours, home=folder, config_dir=folder / "config", state_dir_default=folder / "state")
    async with Client(create_server(settings), elicitation_callback=person) as client:
        tools = (await client.list_tools()).tools
        listed = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]
        story.list_bytes = _size(json.dumps({"tools": listed}, separators=(",", ":"), ensure_ascii=False))

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            result = await client.call_tool(tool, arguments)
            text: str = result.content[0].text  # type: ignore[union-attr]
            if result.is_error:
                raise RuntimeError(f"{tool} failed: {text}")
            story.steps.append((tool, _size(json.dumps(arguments, separators=(",", ":"))), _size(text)))
            told: dict[str, Any] = json.loads(text)
            return told

        found = await call("search_servers", gpu="4090", countries=["europe"], max_usd_per_hour=0.4)
        ids = [row["server_id"] for row in found["servers"]]
        await call("get_server", server_id=ids[0])
        made = await call(
            "create_order", server_id=ids[0], image=_IMAGE, hours=2, fallback_server_ids=ids[1:2], jupyter=True
        )
        await call("wait_for_order", order_id=made["order_id"])
        await call("cancel_order", order_id=made["order_id"])
    story.raw_bytes = _raw(market, ids)
    return story


def _raw(market: Running, ids: Sequence[int]) -> int:
    with httpx2.Client(trust_env=False, timeout=30) as http:
        servers = http.get(f"{market.url}/marketplace").raise_for_status().json()["servers"]
    return _size(json.dumps([one for one in servers if one["id"] in ids], separators=(",", ":")))


def _size(text: str) -> int:
    return len(text.encode())

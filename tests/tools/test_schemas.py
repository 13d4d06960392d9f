"""The tools as a client lists them: stored, compared, portable, small, and honest about what they do.

After a change that is meant: `CLORE_STORE_SCHEMAS=1 python -m pytest tests/tools/test_schemas.py`, then read the diff.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from clore_mcp.sandbox import Running
from clore_mcp.server import create_server
from tests.conftest import environment, settings_for

STORED = Path(__file__).parent / "schemas"
MOST_LIST_BYTES = 25_000
MOST_SEARCH_BYTES = 4_300
SPENDING = {"create_order", "create_watch", "extend_order", "set_spot_price"}
DESTROYING = {"cancel_order", "cancel_watch", "create_order"}  # create_order with replaces_order_id


async def listed(market: Running, folder: Path, **env: str) -> list[dict[str, Any]]:
    server = create_server(settings_for(environment(market, folder, **env), folder))
    async with Client(server) as client:
        tools = (await client.list_tools()).tools
    return [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a schema."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(inner)


@pytest.mark.anyio
async def test_every_tool_is_the_stored_one(market: Running, tmp_path: Path) -> None:
    tools = {tool["name"]: tool for tool in await listed(market, tmp_path)}
    if os.environ.get("CLORE_STORE_SCHEMAS"):
        STORED.mkdir(exist_ok=True)
        for path in STORED.glob("*.json"):
            path.unlink()
        for name, tool in tools.items():
            text = json.dumps(tool, indent=1, ensure_ascii=False, sort_keys=True)
            (STORED / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    stored = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in STORED.glob("*.json")}
    assert tools == stored


@pytest.mark.anyio
async def test_the_list_of_all_toolsets_stays_small(market: Running, tmp_path: Path) -> None:
    tools = await listed(market, tmp_path)
    size = len(json.dumps({"tools": tools}, separators=(",", ":"), ensure_ascii=False).encode())
    assert size <= MOST_LIST_BYTES


@pytest.mark.anyio
async def test_ten_rows_of_a_search_stay_small(market: Running, tmp_path: Path) -> None:
    server = create_server(settings_for(environment(market, tmp_path), tmp_path))
    async with Client(server) as client:
        for wish in ({}, {"gpu": "4090"}, {"order_type": "spot"}, {"min_gpus": 8, "sort_by": "vram"}):
            result = await client.call_tool("search_servers", {**wish, "limit": 10})
            assert len(result.structured_content["servers"]) == 10
            text = result.content[0].text  # type: ignore[union-attr]
            assert len(text.encode()) <= MOST_SEARCH_BYTES, wish


@pytest.mark.anyio
async def test_schemas_are_strict_and_portable(market: Running, tmp_path: Path) -> None:
    for tool in await listed(market, tmp_path):
        arguments = tool["inputSchema"]
        assert arguments["additionalProperties"] is False, tool["name"]
        for schema in (arguments, tool["outputSchema"]):
            assert schema["type"] == "object" and not {"anyOf", "oneOf", "allOf"} & schema.keys()
            for node in nodes(schema):
                assert "$ref" not in node and "$defs" not in node
                assert "exclusiveMinimum" not in node and "exclusiveMaximum" not in node
                assert all(isinstance(value, str) for value in node.get("enum", []))
                assert isinstance(node.get("const", ""), str)


@pytest.mark.anyio
async def test_titles_descriptions_and_all_four_annotations_tell_the_truth(market: Running, tmp_path: Path) -> None:
    for tool in await listed(market, tmp_path):
        assert tool["title"] and 40 < len(tool["description"]) <= 300, tool["name"]
        hints = tool["annotations"]
        assert set(hints) >= {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
        acts = tool["name"] in SPENDING | DESTROYING
        assert hints["readOnlyHint"] is not acts
        assert hints["destructiveHint"] is (tool["name"] in DESTROYING)


@pytest.mark.anyio
async def test_toolsets_can_be_chosen(market: Running, tmp_path: Path) -> None:
    names = {tool["name"] for tool in await listed(market, tmp_path, CLORE_TOOLSETS="market,account")}
    assert names == {"search_servers", "get_server", "price_history", "get_account"}

"""Callers that people use and that write arguments in their own way: n8n, and hosts whose schemas make all required."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from clore_mcp.sandbox import Running
from clore_mcp.server import create_server
from tests.conftest import environment, settings_for
from tests.story.people import IMAGE, Assistant, Person, assistant

pytestmark = pytest.mark.anyio


def n8n(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What n8n's client sends: numbers as text, and names of its own beside the tool's."""
    written = {name: str(value) if isinstance(value, int | float) else value for name, value in arguments.items()}
    return {"sessionId": "7f", "action": "sendMessage", "chatInput": "rent a 3060", "tool": tool, **written,
            "toolCallId": "call_0BCI"}  # fmt: skip


async def strict(us: Assistant, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a host sends whose strict schema makes every argument required and nullable."""
    schema = next(one for one in (await us.client.list_tools()).tools if one.name == tool).input_schema
    return dict.fromkeys(schema["properties"]) | arguments


@pytest.mark.parametrize("kind", ["n8n", "strict"])
async def test_such_a_caller_goes_through_the_whole_story(market: Running, tmp_path: Path, kind: str) -> None:
    async with assistant(market, tmp_path, "legacy", Person(True, True)) as us:

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            written = n8n(tool, arguments) if kind == "n8n" else await strict(us, tool, arguments)
            return await us.call(tool, **written)

        row = (await call("search_servers", gpu="3060", limit=2))["servers"][0]
        assert (await call("get_server", server_id=row["server_id"]))["server_id"] == row["server_id"]
        wish = {"server_id": row["server_id"], "image": IMAGE, "hours": 1}
        assert (await call("quote_order", **wish))["allowed"]
        made = await call("create_order", **wish)
        assert made["status"] == "created"
        assert (await call("list_orders"))["orders"][0]["order_id"] == made["order_id"]
        assert (await call("list_watches"))["watches"] == []
        assert (await call("get_account"))["watchdog"]
        assert (await call("cancel_order", order_id=made["order_id"]))["status"] == "cancelled"


# What the two APIs take of JSON Schema in a function's parameters, once their hosts have made it theirs.
OPENAI_STRICT = {"type", "description", "properties", "required", "additionalProperties", "items", "enum", "anyOf",
                 "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "pattern"}  # fmt: skip
GEMINI = {"type", "description", "properties", "required", "items", "enum", "anyOf", "default", "minimum", "maximum",
          "minItems", "maxItems", "minLength", "maxLength", "pattern"}  # fmt: skip
MAPS = {"env", "ports"}  # of names that the caller chooses: strict hosts send such a tool as not strict


async def test_the_schemas_lie_within_what_models_apis_take(market: Running, tmp_path: Path) -> None:
    server = create_server(settings_for(environment(market, tmp_path), tmp_path))
    async with Client(server) as client:
        tools = (await client.list_tools()).tools
    for tool in tools:
        assert tool.input_schema["type"] == "object" and "anyOf" not in tool.input_schema, tool.name
        for name, schema in tool.input_schema["properties"].items():
            where = (tool.name, name)
            for node in (schema, *([schema["items"]] if "items" in schema else [])):
                assert isinstance(node["type"], str), where
                assert not node.keys() - OPENAI_STRICT - {"default"}, where  # a strict host takes defaults out
                assert not node.keys() - GEMINI - {"additionalProperties"}, where  # and one for Gemini maps
                assert "enum" not in node or (node["type"] == "string" and "" not in node["enum"]), where
            assert (schema["type"] == "object") is (name in MAPS), where

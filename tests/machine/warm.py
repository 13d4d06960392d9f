"""What the fork server imports and builds before it forks, so that a client process starts in tens of milliseconds.

Only the fork server imports this. It replaces the product's builder of tools with the tools that it has built.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.client.session import ClientSession

import clore_mcp.server as server_module
import tests.guard.child as _guard_child  # noqa: F401 - what each process runs
from clore_mcp.settings import Settings
from tests.machine.child import put


def warm() -> None:
    """Import and build what each process would, so that processes forked afterwards have it."""
    for name in ("attrs", "jsonschema", "httpcore2", "anyio._backends._asyncio", "concurrent.futures.thread"):
        importlib.import_module(name)
    settings = Settings.from_env({}, home=Path(), config_dir=Path(), state_dir_default=Path())
    tools = server_module.chosen_tools(settings)
    put(server_module, "chosen_tools", lambda _: tools)
    asyncio.run(_probe(settings))
    gc.collect()
    gc.freeze()  # a collection would touch everything shared, and so copy it


async def _probe(settings: Settings) -> None:
    for era in ("auto", "legacy"):
        async with Client(server_module.create_server(settings), mode=era) as client:
            schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
            made = {name: client.session._output_schema_validator(name, one) for name, one in schemas.items() if one}
    compiled: Any = lambda self, name, schema: made[name]  # noqa: E731 - each session would compile the same schemas
    put(ClientSession, "_output_schema_validator", compiled)


warm()

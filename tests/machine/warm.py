"""What the fork server imports and builds before it forks, so that a client process starts in tens of milliseconds.

Only the fork server imports this: it puts the tools that it has built in the place of the product's own builder.
"""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path

from mcp import Client

import clore_mcp.server as server_module
import tests.guard.child as _guard_child  # noqa: F401 - what each process runs
import tests.machine.child as _child  # noqa: F401 - as above
from clore_mcp.settings import Settings
from tests.machine.patching import put


def warm() -> None:
    """Import and build what each process would: those forked after this find it there."""
    for name in ("attrs", "jsonschema", "httpcore2", "anyio._backends._asyncio", "concurrent.futures.thread"):
        importlib.import_module(name)
    settings = Settings.from_env({}, home=Path(), config_dir=Path(), state_dir_default=Path())
    tools = server_module.chosen_tools(settings)
    put(server_module, "chosen_tools", lambda _: tools)
    asyncio.run(_probe(settings))


async def _probe(settings: Settings) -> None:
    for era in ("auto", "legacy"):
        async with Client(server_module.create_server(settings), mode=era) as client:
            await client.list_tools()


warm()

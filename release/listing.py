"""The tools and prompts of a server on stdio, as a real client lists them.

`python release/listing.py COMMAND [ARGUMENT ...]` prints them, so that an installed server can be tested with only what
was installed with it. It fails if there are no tools or no prompts.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcp import Client, StdioServerParameters, stdio_client


@dataclass(frozen=True, slots=True)
class Lists:
    """Names in the server's order."""

    tools: list[str]
    prompts: list[str]


async def listed(command: Sequence[str], env: Mapping[str, str], within_seconds: float = 60) -> Lists:
    """Return the lists of the server that the command starts. Raises TimeoutError."""
    server = StdioServerParameters(command=command[0], args=list(command[1:]), env=dict(env))
    async with (
        asyncio.timeout(within_seconds),
        Client(stdio_client(server), read_timeout_seconds=within_seconds) as client,
    ):
        tools, prompts = await client.list_tools(), await client.list_prompts()
        return Lists([tool.name for tool in tools.tools], [prompt.name for prompt in prompts.prompts])


if __name__ == "__main__":
    found = asyncio.run(listed(sys.argv[1:], os.environ))
    print(f"tools: {', '.join(found.tools)}\nprompts: {', '.join(found.prompts)}")
    sys.exit(not (found.tools and found.prompts))

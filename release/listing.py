"""The tools of a server on stdio, asked for by a real client.

`python release/listing.py COMMAND [ARGUMENT ...]` prints their names, so that an installed server can be tried by what
was installed with it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence

from mcp import Client, StdioServerParameters, stdio_client


async def tools(command: Sequence[str], env: Mapping[str, str], within_seconds: float = 60) -> list[str]:
    """The names that the server tells which that command starts. Raises TimeoutError."""
    server = StdioServerParameters(command=command[0], args=list(command[1:]), env=dict(env))
    async with (
        asyncio.timeout(within_seconds),
        Client(stdio_client(server), read_timeout_seconds=within_seconds) as client,
    ):
        return [tool.name for tool in (await client.list_tools()).tools]


if __name__ == "__main__":
    print(*asyncio.run(tools(sys.argv[1:], os.environ)), sep="\n")

"""A fastmcp server with so many small tools: `fastmcp_server.py COUNT`. Runs among the peers."""

from __future__ import annotations

import sys

from fastmcp import FastMCP

server = FastMCP("many")


def small(server_id: int, hours: float = 1.0, note: str = "") -> dict[str, int]:
    """Answers what it was given."""
    return {"server_id": server_id}


for number in range(int(sys.argv[1])):
    server.tool(small, name=f"small_{number}")

server.run(transport="stdio", show_banner=False)

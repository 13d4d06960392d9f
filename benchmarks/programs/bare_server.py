"""A server of the MCP SDK with one tool that does nothing."""

from __future__ import annotations

from mcp.server import MCPServer

server: MCPServer[None] = MCPServer("bare")


@server.tool()
def nothing() -> None:
    """Does nothing."""


server.run("stdio")

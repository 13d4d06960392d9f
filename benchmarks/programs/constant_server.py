"""A server of the MCP SDK whose one tool answers what stands in a file: `constant_server.py FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mcp.server import MCPServer
from mcp.types import CallToolResult

server: MCPServer[None] = MCPServer("constant")
results = [CallToolResult.model_validate(one) for one in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))]


@server.tool()
def constant(which: int) -> CallToolResult:
    """Answers one of the stored results."""
    return results[which]


server.run("stdio")

"""A minimal MCP client that writes a line and reads a line, so that it costs almost nothing itself."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from typing import Any, Final

Json = dict[str, Any]
_HELLO: Final[Json] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "benchmark", "version": "1"},
}


_YES: Final[Json] = {"action": "accept", "content": {"approve": True}}


class Line:
    """A connection to a server's pipes, with one request at a time. `agrees`: a person approves every question at
    once."""

    def __init__(self, child: subprocess.Popen[bytes], *, agrees: bool = False) -> None:
        assert child.stdin is not None and child.stdout is not None
        self._out, self._in = child.stdin, child.stdout
        self._last = 0
        self._agrees = agrees

    def list_tools(self) -> int:
        """Initialize the connection and list the tools. Returns their number."""
        self._exchange("initialize", {**_HELLO, "capabilities": {"elicitation": {}} if self._agrees else {}})
        self._send({"method": "notifications/initialized"})
        tools = json.loads(self._exchange("tools/list", {})[0])["result"]["tools"]
        return len(tools)

    def call(self, tool: str, arguments: Mapping[str, Any]) -> tuple[Json, float]:
        """Return the result, and the seconds from the last byte sent to the last byte read. Raises ValueError on an
        error."""
        line, seconds = self._exchange("tools/call", {"name": tool, "arguments": dict(arguments)})
        reply = json.loads(line)
        result: Json = reply.get("result", {"isError": True})
        if result.get("isError"):
            raise ValueError(f"{tool} failed: {line[:400]!r}")
        return result, seconds

    def _exchange(self, method: str, params: Json) -> tuple[bytes, float]:
        self._last += 1
        began = time.perf_counter()
        self._send({"id": self._last, "method": method, "params": params})
        wanted = b'"id":%d' % self._last
        while True:
            line = self._in.readline()
            if not line:
                raise ValueError(f"the server ended before it answered {method}")
            if self._agrees and b'"elicitation/create"' in line:
                self._send({"id": json.loads(line)["id"], "result": _YES})
            elif wanted in line.replace(b" ", b""):
                return line, time.perf_counter() - began

    def _send(self, message: Json) -> None:
        self._out.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self._out.flush()

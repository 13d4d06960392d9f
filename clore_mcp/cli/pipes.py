"""The server's stdin and stdout: it answers lines that are not messages, and notices when the client has gone.

The SDK silently drops a line that is not JSON, and one that begins with a byte-order mark. It waits for the end of
stdin, which does not come while another process holds the pipe open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

import anyio
import mcp_types as types
from anyio.abc import ObjectReceiveStream
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0  # how often the parent is checked
_ANSWERS_WITHIN_SECONDS: Final = 5.0  # a live client answers within that time
_PING: Final = "clore-mcp-are-you-there"
_MARK: Final = "\ufeff"  # the byte-order mark


async def serve_pipes(server: Any, parent_lives: Callable[[], bool], client_has_gone: Callable[[], None]) -> None:
    """Serve one client on stdin and stdout until stdin ends. Calls `client_has_gone` if the client goes before that."""
    lowlevel = server._lowlevel_server  # like `run_stdio_async`, but with a check of each line
    async with stdio_server() as (read, write):
        lines = Lines(read, write)
        async with anyio.create_task_group() as group:
            group.start_soon(_until_gone, lines, parent_lives, client_has_gone)
            await lowlevel.run(lines, write, lowlevel.create_initialization_options())
            group.cancel_scope.cancel()


async def _until_gone(lines: Lines, parent_lives: Callable[[], bool], client_has_gone: Callable[[], None]) -> None:
    """Return when the process that started this one has ended and the client no longer answers.

    A launcher may end before its client does. In that case, input on stdin shows that the client is alive. A client of
    the 2025 protocol is also sent a ping. The 2026-07-28 protocol has no ping.
    """
    while parent_lives():  # noqa: ASYNC110 - no event reports the end of a parent
        await anyio.sleep(_LOOK_SECONDS)
    if await lines.hears_the_client(_ANSWERS_WITHIN_SECONDS):
        return
    log.warning("The process that started this server has ended and no client answers, so the server ends.")
    client_has_gone()


class Lines(ObjectReceiveStream[SessionMessage]):
    """The client's messages as a stream for the SDK. Lines that are not messages are answered here."""

    def __init__(self, read: Any, write: Any) -> None:
        self._read = read
        self._write = write
        self._takes_pings = False
        self._heard = anyio.Event()

    @property
    def last_context(self) -> Context | None:
        """The context in which the last item was sent, for the SDK."""
        context: Context | None = self._read.last_context
        return context

    async def aclose(self) -> None:
        """Read no more."""
        await self._read.aclose()

    async def receive(self) -> SessionMessage:
        """Return the next message. Raises EndOfStream at the end of stdin."""
        while True:
            item = await self._read.receive()
            self._heard.set()
            found = await self._message(item) if isinstance(item, Exception) else item
            if not isinstance(found, SessionMessage) or getattr(found.message, "id", None) == _PING:
                continue
            if getattr(found.message, "method", "") == "initialize":
                self._takes_pings = True
            return found

    async def hears_the_client(self, seconds: float) -> bool:
        """Return whether the client sends anything within that time, after a ping if its protocol has one."""
        self._heard = anyio.Event()
        if self._takes_pings:
            await self._say(types.JSONRPCRequest(jsonrpc="2.0", id=_PING, method="ping"))
        with anyio.move_on_after(seconds):
            await self._heard.wait()
        return self._heard.is_set()

    async def _message(self, error: Exception) -> SessionMessage | None:
        """Return the message in a line. If the line is not a message, answer it and return None."""
        wrong = error.errors(include_url=False, include_context=False) if isinstance(error, ValidationError) else []
        line = wrong[0]["input"] if wrong and wrong[0]["type"] == "json_invalid" else None
        if isinstance(line, str) and line.startswith(_MARK):
            try:
                return SessionMessage(types.jsonrpc_message_adapter.validate_json(line.lstrip(_MARK), by_name=False))
            except ValidationError as inner:
                return await self._message(inner)
        if isinstance(line, str) and not line.strip():
            return None  # some clients end a message with an empty line
        if line is not None or not wrong:
            shape = f"{len(line)} characters" if isinstance(line, str) else "unreadable"  # its text may hold secrets
            log.warning("A line on stdin is not JSON and was ignored: %s", shape)
            await self._refuse(None, types.PARSE_ERROR, "Parse error: the line is not JSON")
            return None
        whole = next((one["input"] for one in wrong if isinstance(one["input"], dict)), {})
        number = whole.get("id")
        log.warning("A line on stdin is JSON but no JSON-RPC message, and was ignored.")
        known = number if isinstance(number, str | int) and not isinstance(number, bool) else None
        await self._refuse(known, types.INVALID_REQUEST, "Invalid request: the line is no JSON-RPC 2.0 message")
        return None

    async def _refuse(self, number: str | int | None, code: int, message: str) -> None:
        await self._say(types.JSONRPCError(jsonrpc="2.0", id=number, error=types.ErrorData(code=code, message=message)))

    async def _say(self, message: types.JSONRPCMessage) -> None:
        try:
            await self._write.send(SessionMessage(message))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):  # the reader has gone
            return

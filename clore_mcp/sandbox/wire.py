"""What is sent over the socket, whole or broken: replies, silence, closed and reset connections."""

import asyncio
import contextlib
import json
import socket
import struct
from dataclasses import dataclass, replace
from typing import Any, Literal

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_TRANSPORT = "clore_mcp.sandbox.transport"  # its key in the ASGI scope


@dataclass(frozen=True, slots=True)
class WireReply:
    """One reply and how it reaches the client."""

    status: int
    body: bytes
    content_type: str = "application/json"
    code: int | None = None
    error: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    manner: Literal["whole", "closed", "reset", "truncated"] = "whole"
    silence: float = 0.0
    date_off: float = 0.0  # seconds by which its Date header is ahead

    def broken(self, manner: Literal["closed", "reset", "truncated"], silence: float = 0.0) -> "WireReply":
        """Return the same reply, lost on its way."""
        return replace(self, manner=manner, silence=silence)


def json_reply(body: dict[str, Any], status: int = 200) -> WireReply:
    text = json.dumps(body, separators=(",", ":")).encode()
    return WireReply(status, text, code=body.get("code"), error=body.get("error"))


class ExposedProtocol(H11Protocol):
    """uvicorn's HTTP protocol, with the connection's transport in the scope so that a fault can break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # narrower, as uvicorn's
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope[_TRANSPORT] = transport
            await app(scope, receive, send)

        self.app = with_transport


async def read_body(receive: Receive) -> bytes:
    """Return the whole request body. It is read first, because a break would otherwise look like a refusal to read."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)  # a client that has left sends no more
    return body


async def keep_silent(receive: Receive, seconds: float, closing: asyncio.Event) -> bool:
    """Wait, and return whether the client is still connected and the sandbox isn't stopping."""
    if seconds <= 0:
        return True
    waits = [asyncio.ensure_future(_disconnected(receive)), asyncio.ensure_future(closing.wait())]
    done, pending = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return not done


async def deliver(reply: WireReply, date: str | None, scope: Scope, receive: Receive, send: Send) -> None:
    """Send the reply, or break the connection as the reply's manner requires."""
    if reply.manner == "whole":
        await send(_start(reply, date))
        await send({"type": "http.response.body", "body": reply.body})
        return
    transport: asyncio.Transport = scope[_TRANSPORT]
    if reply.manner == "truncated":
        await send(_start(reply, date))
        await send({"type": "http.response.body", "body": reply.body[: len(reply.body) // 2], "more_body": True})
    if reply.manner == "reset":
        # With a linger time of 0, close() sends RST instead of FIN.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
    # If this returned before uvicorn knows that the connection is gone, uvicorn would log an error and send a 500.
    await _disconnected(receive)


def _start(reply: WireReply, date: str | None) -> dict[str, Any]:
    headers = [
        ("content-type", reply.content_type),
        ("content-length", str(len(reply.body))),
        *([("date", date)] if date is not None else []),
        ("server", "cloudflare"),
        *reply.headers,
    ]
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return {"type": "http.response.start", "status": reply.status, "headers": raw}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""The real server on streamable HTTP, for tests: on loopback, port of the system's choice, URL as the first line.

HTTP is no feature of the product yet. The conformance suite speaks nothing else, so it gets the product's own server,
with the settings of this process's environment, through the SDK's own transport.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys

import uvicorn

from clore_mcp import settings
from clore_mcp.server import create_server


async def serve() -> None:
    """Until a signal comes."""
    logging.basicConfig(level=logging.CRITICAL)  # the suite asks for much that isn't there, with a traceback each
    app = create_server(settings.load(sandbox=False)).streamable_http_app()
    listener = socket.create_server(("127.0.0.1", 0))  # the app may answer before uvicorn listens: the backlog waits
    sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp\n")
    sys.stdout.flush()
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(serve())

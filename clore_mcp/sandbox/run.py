"""The sandbox on loopback, served in the foreground or in a thread of the caller's process.

The API is under `/v1`, the control path under `/_sandbox`.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from .control import Control
from .engine import Engine
from .gate import Gate
from .listeners import last_guests
from .options import Options
from .wire import ExposedProtocol

_START_PATIENCE = 30.0  # s; building a market takes 0.2 s on a laptop


class _Server(uvicorn.Server):
    """uvicorn that reports when it listens and drops delayed replies when it stops."""

    def __init__(self, options: Options, listening: Callable[[], None]) -> None:
        self._engine = Engine(options)
        self._listening = listening
        self._loop: asyncio.AbstractEventLoop
        self._beat: asyncio.Task[None]
        routes = [Mount("/v1", app=Gate(self._engine)), Mount("/_sandbox", routes=Control(self._engine).routes())]
        config = uvicorn.Config(
            Starlette(routes=routes),
            http=ExposedProtocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=2,
        )
        super().__init__(config)

    def stop(self) -> None:
        """Stop it from another thread, without waiting for uvicorn's next check."""
        self.should_exit = True
        with contextlib.suppress(RuntimeError):  # the loop has already ended
            self._loop.call_soon_threadsafe(self._engine.closing.set)

    async def main_loop(self) -> None:
        while not self.should_exit:  # signal handlers set it without an event
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self._engine.closing.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._beat = asyncio.create_task(self._engine.run())
        await super().startup(sockets=sockets)
        self._listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._engine.closing.set()
        await last_guests(sockets or [])
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(0)  # idle connections are gone after one turn of the loop
        if self.server_state.connections:
            await super().shutdown(sockets=sockets)  # it gives pending replies their time and takes 0.1 s
        self._beat.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._beat
        await self._engine.listeners.close()
        await asyncio.sleep(0)  # the closed transports' callbacks run before the loop ends


class Running:
    """A sandbox in its own thread. `stop` ends the thread and closes every socket. Leaving `with` stops it."""

    def __init__(self, options: Options) -> None:
        self._listens = threading.Event()
        self._server = _Server(options, self._listens.set)
        self._socket = _loopback(0)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.control_url = f"http://127.0.0.1:{self.port}/_sandbox"
        self._thread = threading.Thread(target=self._run, name="clore-sandbox", daemon=True)
        self._thread.start()
        if not self._listens.wait(_START_PATIENCE) or not self._server.started:
            self.stop()
            raise RuntimeError("the sandbox did not start")

    def stop(self) -> None:
        """Stop it. A second call does nothing."""
        self._server.stop()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            with self._socket:
                self._server.run(sockets=[self._socket])
        finally:
            self._listens.set()


def start_in_thread(options: Options | None = None) -> Running:
    """Start a sandbox in a thread, and return it once it answers."""
    return Running(options or Options())


def serve(options: Options, port: int, announce: Callable[[str], None]) -> None:
    """Serve until interrupted. `announce` gets the base URL once the socket listens. Port 0 takes a free port."""
    listener = _loopback(port)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    with listener, contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after a clean stop
        _Server(options, lambda: announce(url)).run(sockets=[listener])


def _loopback(port: int) -> socket.socket:
    # asyncio turns Nagle's delay off only for sockets created with IPPROTO_TCP. With the delay, a small reply takes 40
    # ms (2026-11).
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener

"""`clore-mcp`: the MCP server on stdio, and its clean end at EOF, SIGTERM and Ctrl-C."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import anyio

from clore_mcp.errors import StateUnavailable
from clore_mcp.settings import Settings

SANDBOX_SPEED: Final = 10.0  # market seconds in a real one
# Twenty requests per second. Ends and watches are checked at a matching rate, every 2.7 s, so that a person who tries
# them out sees them happen.
SANDBOX_GAP_SECONDS: Final = 0.05
SANDBOX_URL_FILE: Final = "url"


def sandbox_inside(settings: Settings) -> tuple[Settings, AbstractContextManager[object]]:
    """Return settings that point at a simulated marketplace inside this process, and the context that runs it."""
    from clore_mcp.sandbox import SANDBOX_KEY, Options, start_in_thread
    from clore_mcp.store.folder import open_own  # here, because a server without a sandbox doesn't need it

    running = start_in_thread(
        # Half the gap: on a busy machine a request may leave 20 ms late, and the next one then follows it closely.
        Options(interval=SANDBOX_GAP_SECONDS * 0.5, create_interval=SANDBOX_GAP_SECONDS * 4, speed=SANDBOX_SPEED)
    )
    inside = settings.with_sandbox(running.url, SANDBOX_KEY, gap_seconds=SANDBOX_GAP_SECONDS)
    try:  # the other commands read the URL in sandbox mode
        inside.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = open_own(inside.state_dir / SANDBOX_URL_FILE, os.O_WRONLY | os.O_TRUNC)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(running.url)
    except OSError as error:
        running.stop()
        raise StateUnavailable(f"The state in {inside.state_dir} can't be used: {error}.") from error
    return inside, running


def serve(settings: Settings, *, sandbox: bool) -> int:
    """Serve until the client goes or a signal comes, and return the exit code."""
    parent_lives = watched_parent()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="clore-mcp: %(levelname)s %(message)s")
    if sys.stdin.isatty():
        print("This is an MCP server. A client starts it and sends it JSON. Ctrl-C ends it. To see it work, run"
              " `clore-mcp demo`.", file=sys.stderr)  # fmt: skip
    if not settings.trusts_network:
        for said in settings.notes:
            logging.getLogger("clore_mcp").warning(said)
    world: AbstractContextManager[object] = nullcontext()
    if sandbox:
        settings, world = sandbox_inside(settings)
    with world:
        anyio.run(_serve, settings, parent_lives)
    return 0


async def _serve(settings: Settings, parent_lives: Callable[[], bool]) -> None:
    from clore_mcp.cli.pipes import serve_pipes
    from clore_mcp.server import create_server

    before_eof = False  # a signal came, or the client has gone

    def leave() -> None:
        # The SDK's reader thread then waits for a line that may never come. Everything of ours is closed by now.
        if before_eof:
            sys.stderr.flush()
            os._exit(0)

    modules: dict[str, Any] = sys.modules
    modules["rich.console"] = None  # missing for the SDK, which would import it for its log: 25 ms at each start
    try:
        server = create_server(settings, leave, starts_watchdog=True)
    finally:
        del modules["rich.console"]
    # All of this lives as long as the process, so no collection needs to visit it again (0.2 s while a market is read).
    gc.freeze()
    gc.enable()

    async with anyio.create_task_group() as group:

        def end() -> None:
            nonlocal before_eof
            before_eof = True
            group.cancel_scope.cancel()

        async def end_on_signal() -> None:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async for _ in signals:
                    end()
                    return

        if sys.platform != "win32":  # Windows: asyncio takes no signal handlers, and clients end the server by EOF
            group.start_soon(end_on_signal)
        await serve_pipes(server, parent_lives, client_has_gone=end)
        group.cancel_scope.cancel()


def watched_parent() -> Callable[[], bool]:
    """Return a function that returns whether the process that is our parent now is still alive."""
    parent = os.getppid()
    if sys.platform != "win32":
        return lambda: os.getppid() == parent  # an orphan gets another parent
    import ctypes  # pragma: no cover - Windows, where the number of an ended parent stays

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = ctypes.c_void_p
    kernel.WaitForSingleObject.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    synchronize, timed_out = 0x00100000, 0x102
    handle = kernel.OpenProcess(synchronize, False, parent)  # kept open until we exit, so that the number is not reused
    return lambda: not handle or kernel.WaitForSingleObject(handle, 0) == timed_out

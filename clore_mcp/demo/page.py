"""The person's page beside the tour (`clore-mcp demo --page`). A child process serves it until the tour is over."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, TextIO

import anyio
import anyio.to_thread

from clore_mcp.demo.guide import Guide
from clore_mcp.page_process import FOLDER, PageReply, PageRequest, ask_running, has_display

_STARTS_WITHIN_SECONDS: Final = 20.0
_OPENS_WITHIN_SECONDS: Final = 5.0  # a browser that keeps its starter waiting has opened by then
_LOOK_SECONDS: Final = 0.05


@asynccontextmanager
async def page_beside(guide: Guide, env: Mapping[str, str], errors: TextIO) -> AsyncIterator[None]:
    """Show the page of the server with that environment until the tour ends. Raises StepFailed if it does not start."""
    guide.step = "The page"
    command = [sys.executable, "-m", "clore_mcp", "--sandbox", "page", "--detached"]
    async with await anyio.open_process(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
    ) as serving:
        try:
            await _show(guide, env)
            yield
        finally:
            guide.screen.idle()
            with suppress(ProcessLookupError):
                serving.terminate()


async def _show(guide: Guide, env: Mapping[str, str]) -> None:
    reply = await anyio.to_thread.run_sync(_asked, Path(env["CLORE_STATE_DIR"], "sandbox", FOLDER))
    guide.check(reply is not None, "it did not start")
    address = reply.address if reply else ""
    opened = has_display(os.environ) and await _opened(address)
    guide.screen.idle()
    if opened:
        guide.screen.say("Your page is open in the browser: what waits, runs and costs, as long as the tour goes on.")
    else:
        guide.screen.say("Your page shows what waits, runs and costs, as long as the tour goes on. Open it once:")
        guide.screen.line(address)


def _asked(pages: Path) -> PageReply | None:
    """Return the address of the child's page once the child takes requests, or None if it doesn't start."""
    until = time.monotonic() + _STARTS_WITHIN_SECONDS
    while time.monotonic() < until:
        for requests in pages.glob("*"):
            return ask_running(requests, PageRequest(opens=False))
        time.sleep(_LOOK_SECONDS)
    return None


async def _opened(address: str) -> bool:
    """Return whether this machine's browser was started. A separate process starts it, because it may write to the
    terminal."""
    done = None
    with anyio.move_on_after(_OPENS_WITHIN_SECONDS):
        command = [sys.executable, "-m", "webbrowser", address]
        done = await anyio.run_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return done is None or done.returncode == 0

"""Starts the watchdog beside a server, as ssh-agent starts: detached, once for a state and a key, with the first order.

It outlives the server and its client. It has the server's environment, so key, limits and state are the same; nothing
secret is on its command line, and what it says goes to a log in the state folder.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from clore_mcp.errors import StateUnavailable
from clore_mcp.settings import Settings, Watchdog
from clore_mcp.state.place import Place

log = logging.getLogger(__name__)

LOG_NAME: Final = "watchdog.log"
_LOG_BYTES: Final = 200_000  # more is begun anew with the next start
_AGAIN_SECONDS: Final = 30.0  # so long a started one may take until it holds its place
# Run by -c: with -m, a project's folder could bring modules of its own. -P keeps the working folder out of the path.
_PROGRAM: Final = "import sys; sys.path.append(sys.argv.pop(1)); from clore_mcp.cli.main import main; sys.exit(main())"


def place_of(wanted: Settings) -> Place:
    """What the one watchdog of this state and key holds while it lives."""
    return Place(wanted.state_dir / f"watchdog-{wanted.key_name[:16]}.lock")


def starter(wanted: Settings) -> Callable[[], None] | None:
    """What starts a watchdog where none works, as often as it is called; quick, and whatever fails is only logged.

    None where the operator says no, where nothing may be ended, and for a market inside this very process.
    """
    allowed = wanted.watchdog is Watchdog.AUTO and wanted.api_key is not None and not wanted.read_only
    if not allowed or wanted.api_key_source == "sandbox":
        return None
    return _Starter(wanted).start


class _Starter:
    def __init__(self, wanted: Settings) -> None:
        self._wanted = wanted
        self._child: subprocess.Popen[Any] | None = None
        self._started_at = float("-inf")

    def start(self) -> None:
        now = time.monotonic()
        if self._child is not None:
            self._child.poll()  # one that has ended is no zombie any more
        if now - self._started_at < _AGAIN_SECONDS:
            return
        place = place_of(self._wanted)
        try:
            if not place.take():
                return
            place.release()
            self._started_at = now
            self._child = _spawn(self._wanted.state_dir)
        except (OSError, StateUnavailable) as error:
            log.warning("the watchdog could not be started, so orders end only while this server runs: %s", error)


def _spawn(state_dir: Path) -> subprocess.Popen[Any]:
    """The process. Should another be faster, it finds the place taken and ends."""
    root = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-P", "-c", _PROGRAM, root, "watchdog", "--detached"]
    path = state_dir / LOG_NAME
    fresh = os.O_TRUNC if path.exists() and path.stat().st_size > _LOG_BYTES else 0
    said = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | fresh, 0o600)
    # The state of this very server, also where the variable is relative to a folder or not set.
    env = os.environ | {"CLORE_STATE_DIR": str(state_dir)}
    started: Callable[..., subprocess.Popen[Any]] = partial(
        subprocess.Popen, command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=env
    )
    try:
        if sys.platform != "win32":
            return started(start_new_session=True)
        flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
        try:  # a client that ends the server ends its whole job, where that lets none go
            return started(creationflags=flags | subprocess.CREATE_BREAKAWAY_FROM_JOB)
        except PermissionError:
            return started(creationflags=flags)
    finally:
        os.close(said)

"""Starts the watchdog for a server: detached, like ssh-agent, once per state and key, with the first order.

The watchdog outlives the server, its client, and even a client that ends all of its child processes: its parent has
exited before the call that starts it returns, so no walk from parent to child finds it. It has the server's
environment, so key, limits and state are the same. No secret is on its command line, and its output goes to a log in
the state folder.
"""

from __future__ import annotations

import contextlib
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
from clore_mcp.store.folder import Place, open_own, watchdog_place

log = logging.getLogger(__name__)

LOG_NAME: Final = "watchdog.log"
_LOG_BYTES: Final = 200_000  # beyond that, its older half is removed
_AGAIN_SECONDS: Final = 30.0  # how long a started one may take until it holds its place
_LEAVES_SECONDS: Final = 20.0  # how long the process in between may take to start Python and exit: 0.02 s when idle
# Run with -c: with -m, a project's folder could bring modules of its own. -P keeps the working folder out of the path.
_PROGRAM: Final = "import sys; sys.path.append(sys.argv.pop(1)); from clore_mcp.cli.main import main; sys.exit(main())"
# The process in between exits at once, so the watchdog, its child, has no parent in the client's process tree.
_FORKED: Final = f"import os; os.fork() and os._exit(0); {_PROGRAM}"
_STARTED: Final = (
    "import subprocess, sys; subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=1, stderr=2,"
    " creationflags=int(sys.argv[1]))"
)


def place_of(wanted: Settings) -> Place:
    """Return the place that the one watchdog of this state and key holds while it lives."""
    return Place(watchdog_place(wanted.state_dir, wanted.key_name))


def starter(wanted: Settings) -> Callable[[], bool] | None:
    """Return a function that starts a watchdog if none runs, and returns whether one did run. Failures are only logged.
    A start takes as long as Python takes to start. Otherwise the call is quick."""
    allowed = wanted.watchdog is Watchdog.AUTO and wanted.api_key is not None and not wanted.read_only
    if not allowed or wanted.api_key_source == "sandbox":
        return None
    started_at = float("-inf")

    def start() -> bool:
        nonlocal started_at
        now = time.monotonic()
        place = place_of(wanted)
        try:
            if not place.take():
                return True
            place.release()
            if now - started_at >= _AGAIN_SECONDS:
                started_at = now
                shorten_log(wanted.state_dir)
                # If another process is faster, the one started here finds the place taken and exits.
                start_apart(["watchdog", "--detached"], wanted.state_dir, LOG_NAME)
        except (OSError, StateUnavailable, subprocess.SubprocessError) as error:
            log.warning("the watchdog could not be started, so orders end only while this server runs: %s", error)
        return False

    return start


def shorten_log(state_dir: Path) -> None:
    """Keep only the newer half of a long log, because a watchdog may run for a year."""
    path = state_dir / LOG_NAME
    with contextlib.suppress(OSError):
        if path.stat().st_size <= _LOG_BYTES:
            return
        # The same file, because the watchdog has it open and appends.
        with os.fdopen(open_own(path, os.O_RDWR), "r+b") as file:
            file.seek(-_LOG_BYTES // 2, os.SEEK_END)
            newer = file.read().partition(b"\n")[2]
            file.seek(0)
            file.write(newer)
            file.truncate()


def start_apart(words: list[str], state_dir: Path, log_name: str) -> None:
    """Start a detached command of ours with that state and this environment, and wait until it is detached. Its output
    goes to that file in the state folder. Raises OSError, also if the file is a link, and SubprocessError."""
    root = str(Path(__file__).resolve().parents[1])
    said = open_own(state_dir / log_name, os.O_WRONLY | os.O_APPEND)
    try:
        between = _between([sys.executable, "-P", "-c"], [root, *words], state_dir, said)
    finally:
        os.close(said)
    code = between.wait(_LEAVES_SECONDS)
    if code:
        raise OSError(f"its process ended with {code}; {log_name} says why")


def _between(python: list[str], words: list[str], state_dir: Path, said: int) -> subprocess.Popen[Any]:
    """Start the process that starts the watchdog and exits."""
    # The state of this server, even if the variable is a relative path or unset.
    env = os.environ | {"CLORE_STATE_DIR": str(state_dir)}
    started: Callable[..., subprocess.Popen[Any]] = partial(
        subprocess.Popen, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=env
    )
    if sys.platform != "win32":
        return started([*python, _FORKED, *words], start_new_session=True)
    flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
    command = [*python, _STARTED, str(flags), *python, _PROGRAM, *words]
    try:  # otherwise a client that ends the server ends its whole job, including the watchdog
        return started(command, creationflags=flags | subprocess.CREATE_BREAKAWAY_FROM_JOB)
    except PermissionError:
        return started(command, creationflags=flags)

"""Runs the operator's command for each event that this process writes, one at a time and time-limited, without delaying
anything.

The command gets the event as JSON on its stdin, and our environment without the variables that name or hold the API
key. Its output is dropped. Failures are logged. The event is in the ledger in any case.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from clore_mcp.rental import events
from clore_mcp.store import Entry
from clore_mcp.text import clean, iso

log = logging.getLogger(__name__)

SECONDS: Final = 30.0  # for one command, and for those still waiting when this process ends
_WAITING: Final = 100  # events; any more are only in the ledger
_KEY_NAMES: Final = "CLORE_API_KEY"  # and names that start with it


class Notifier:
    """A queue of events, and the thread that runs the command for each. The command runs in `folder`, so that no
    program in a project's folder is run instead."""

    def __init__(self, command: tuple[str, ...], folder: Path, api_key: str | None, seconds: float = SECONDS) -> None:
        self._command = command
        self._folder = folder
        self._api_key = api_key
        self._seconds = seconds
        self._waiting: queue.Queue[Entry | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def tell(self, event: Entry) -> None:
        """Queue the command for this event and return at once. May be called from any thread."""
        try:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._work, name="notify", daemon=True)
                    thread.start()
                    self._thread = thread
            self._waiting.put_nowait(event)
        except queue.Full:
            log.warning("too many events wait for the notify command: %s is in the ledger only", event.step)
        except RuntimeError as error:  # no thread can be started: the event is written, and its writer gets no error
            log.warning("the notify command can't be run: %s", error)

    def close(self) -> None:
        """Wait until the command has run for every event, up to the time limit."""
        give_up_at = time.monotonic() + self._seconds
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=self._seconds)
            thread.join(max(0.0, give_up_at - time.monotonic()))
        if thread.is_alive():
            log.warning("the notify command was not run for every event: the process ends")

    def _work(self) -> None:
        while (event := self._waiting.get()) is not None:
            try:
                self._run(_line(event))
            except Exception as error:  # the next event must still be reported
                log.warning("the notify command could not be run (%s)", type(error).__name__)

    def _run(self, text: str) -> None:
        process = subprocess.Popen(  # noqa: S603 - the operator's own command
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder if self._folder.is_dir() else None,
            env=without_secrets(os.environ, self._api_key),
            start_new_session=True,  # Ctrl-C is meant for us, and the whole group can be killed
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows only
        )
        try:
            process.communicate(text.encode(), timeout=self._seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            log.warning("the notify command did not end within %.0f s and was killed", self._seconds)
        else:
            if process.returncode:
                log.warning("the notify command failed: exit code %d", process.returncode)


def without_secrets(env: Mapping[str, str], api_key: str | None) -> dict[str, str]:
    """Return the environment without the variables that name or hold the API key."""
    return {
        name: value
        for name, value in env.items()
        if not name.upper().startswith(_KEY_NAMES) and not (api_key and api_key in value)
    }


def _line(event: Entry) -> str:
    """Return the event as the command reads it: `what` as one word, figures unchanged, every text cleaned."""
    figures = {
        name: clean(value, events.FIGURE_SHOWN) if isinstance(value, str) else value
        for name, value in (event.data or {}).items()
        if isinstance(value, str | int | float | list)
    }
    about = {"order_id": event.order_id, "server_id": event.server_id, "note": events.note_of(event)}
    known = {name: value for name, value in about.items() if value is not None}
    return json.dumps({"at": iso(event.at), "what": event.step, **known, "figures": figures}) + "\n"


def _kill(process: subprocess.Popen[Any]) -> None:
    """Kill the process and, except on Windows, everything that it has started."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

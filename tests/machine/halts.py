"""Places at which a process kills or stops itself: around every write to the state and every request to Clore.

Only rows and requests show where SIGKILL and SIGSTOP hit, so the points before and after each of them are all the
places that differ. No other thread is in a transaction at a point. A process stopped there would block all other writes
until it resumes, which would show only that they time out.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clore_mcp.clore.exchange import Call, Exchange
from clore_mcp.store.database import FILE_NAME, Database, Tx

SPENDING = ("create_order", "cancel_order", "set_spot_price")


@dataclass(frozen=True, slots=True)
class Halt:
    """At the `skip`th point after `anchor` ("call", "asked" or "spend"), stop or die."""

    anchor: str
    skip: int
    kill: bool


class Halts:
    """Counts the points that this process passes."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        self._tell = tell
        self._armed: Halt | None = None
        self._reached = False
        self._left = 0
        self.files: dict[Path, contextlib.AbstractContextManager[Any]] = {}  # the locks to hold between writes

    def arm(self, halt: Halt | None) -> None:
        """Set the halt for the next call, or None for no halt."""
        self._armed, self._reached = halt, False

    def anchor(self, name: str) -> None:
        """Note that something began. If the halt names it, the points count from here."""
        if self._armed is not None and not self._reached and self._armed.anchor == name:
            self._reached, self._left = True, self._armed.skip

    def point(self, name: str) -> None:
        """Mark a place that a signal might hit."""
        if self._armed is None or not self._reached:
            return
        self._left -= 1
        if self._left >= 0:
            return
        kill, self._armed = self._armed.kill, None
        with contextlib.ExitStack() as between_writes:
            for path in sorted(self.files):
                between_writes.enter_context(self.files[path])
            self._tell("halting", name)
            # It is sent to this thread, which takes it before anything else. The process stops or dies as a whole.
            signal.pthread_kill(threading.get_ident(), signal.SIGKILL if kill else signal.SIGSTOP)
        self._tell("resumed", name)


def install(halts: Halts) -> None:
    """Put the points into this process's product."""
    write_now, attempt = Database.write_now, Exchange.attempt

    def write(self: Database, work: Callable[[Tx], Any], **how: bool) -> Any:
        halts.files[self.path] = self._lock
        if self.path.name != FILE_NAME:  # the schedule of requests, which holds nothing about money
            return write_now(self, work, **how)
        halts.point("before a write")
        done = write_now(self, work, **how)
        halts.point("after a write")
        return done

    async def send(self: Exchange, call: Call[Any]) -> Any:
        path = call.endpoint.path
        if path in SPENDING:
            halts.anchor("spend")
        halts.point(f"before {path}")
        try:
            return await attempt(self, call)
        finally:
            halts.point(f"after {path}")

    Database.write_now = write  # type: ignore[method-assign]
    Exchange.attempt = send  # type: ignore[method-assign]

"""A reading that the processes of one state folder fetch once: one asks, the others wait for it or take its copy."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from anyio.to_thread import run_sync

from clore_mcp.errors import Failure
from clore_mcp.store.copies import Copies, Copy, Instant
from clore_mcp.store.file_lock import LockTry

log = logging.getLogger(__name__)
T = TypeVar("T")

# A read's own deadline, and its turn: who fetches for longer is frozen, or has no luck that others need to share.
_PATIENCE_SECONDS: Final = 25.0
_LOOK_AGAIN_SECONDS: Final = 0.05  # and up to twice that, so that those who wait do not look all at once
_CERTAIN_SECONDS: Final = 0.5  # a turn's file may still name the one before for an instant


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """A value and when it was asked for: `at` by this machine's clock as it is set now (unix seconds)."""

    value: T
    at: float
    asked: Instant


class Departure:
    """To be called when the request leaves; what is known of it counts from the last time that it was."""

    def __init__(self, copies: Copies) -> None:
        self._copies = copies
        self.asked = copies.now()
        self.mark = ""

    async def __call__(self) -> None:
        self.asked = self._copies.now()
        self.mark = await run_sync(self._copies.mark)


Ask = Callable[[Departure], Awaitable[tuple[T, bytes]]]


class Shared(Generic[T]):
    """One reading. `ask` asks for it and returns the value and what to keep of it; `load` reads that again (on a worker
    thread; ValueError or Failure where it can't). `marked`: a write at Clore makes it untrue."""

    def __init__(
        self,
        copies: Copies,
        what: str,
        ask: Ask[T],
        load: Callable[[bytes], T],
        *,
        marked: bool,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self._copies = copies
        self._what = what
        self._ask = ask
        self._load = load
        self._marked = marked
        self._patience = patience_seconds
        self._not_before = -math.inf  # monotonic: it orders what one process does, whoever sets a clock
        self._unkept: Copy | None = None  # what the folder did not take serves this process alone
        self._running: asyncio.Task[Reading[T]] | None = None

    async def get(self, max_age_seconds: float) -> Reading[T]:
        """The value, asked for at most so long before this call. Tasks of one process share a fetch as processes do; a
        cancelled one hurts no other, a failure reaches those of its own process."""
        since = self._copies.now().before(max_age_seconds)
        since = Instant(since.wall, max(since.monotonic, self._not_before))
        found = await run_sync(self._find, since)
        if found is not None:
            return found
        while True:
            running = self._running
            joined = running is not None and not running.done()
            if running is None or running.done():  # to await what is over yields to nobody: its callback never came
                running = self._running = asyncio.ensure_future(self._renew(since))
                running.add_done_callback(self._over)
            got = await asyncio.shield(running)
            if not joined or got.asked.reaches(since):
                return got

    async def fetch(self, ask: Ask[T] | None = None) -> Reading[T]:
        """Ask now, whoever else does; the others may use it."""
        departure = Departure(self._copies)
        await departure()
        value, body = await (ask or self._ask)(departure)
        copy = Copy(body, departure.asked, departure.mark)
        kept = await run_sync(self._copies.keep, self._what, copy)
        self._unkept = None if kept else copy
        return self._reading(value, copy)

    def forget(self) -> None:
        """Use nothing that was asked for before now, also not what is under way."""
        self._not_before = math.nextafter(self._copies.now().monotonic, math.inf)  # some clocks tick in 16 ms
        self._running = None

    async def aclose(self) -> None:
        """End a fetch that is still under way; whoever waits for it is cancelled."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _renew(self, since: Instant) -> Reading[T]:
        began = self._copies.now().monotonic
        while True:
            turn = await run_sync(self._copies.turn, self._what)
            try:
                found = await run_sync(self._find, since)  # the turn may come right after another's
                if found is not None:
                    return found
                if turn is None or turn.mine or self._too_long(turn, began):
                    return await self.fetch()
            finally:
                if turn is not None:
                    turn.end()
            await asyncio.sleep(_LOOK_AGAIN_SECONDS * (1 + random.random()))  # noqa: S311 - a pause, no secret

    def _too_long(self, turn: LockTry, began: float) -> bool:
        now = self._copies.now().monotonic
        waited = now - began
        held = waited if turn.since is None else now - turn.since
        return waited >= self._patience or (held >= self._patience and waited >= _CERTAIN_SECONDS)

    def _find(self, since: Instant) -> Reading[T] | None:
        mark = self._copies.mark() if self._marked else None
        for copy in (self._copies.find(self._what), self._unkept):
            if copy is None or not copy.asked.reaches(since) or mark not in (None, copy.mark):
                continue
            if copy.asked.age(self._copies.now()) is None:
                continue
            try:
                return self._reading(self._load(copy.body), copy)
            except (ValueError, Failure) as error:
                log.debug("the copy of %s can't be read: %s", self._what, error)
        return None

    def _reading(self, value: T, copy: Copy) -> Reading[T]:
        now = self._copies.now()
        return Reading(value, now.wall - (copy.asked.age(now) or 0.0), copy.asked)

    def _over(self, task: asyncio.Task[Reading[T]]) -> None:
        if self._running is task:
            self._running = None
        if not task.cancelled():
            task.exception()  # nobody's news where all had left: reading it keeps asyncio quiet

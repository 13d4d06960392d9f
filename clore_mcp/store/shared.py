"""Shares replies between the processes of one state folder: one process fetches, and the others wait or use its copy.

Copies are private files. A copy is used only if it is complete, has the same API URL and key, and comes from an instant
that both clocks of this machine place in the past. A faulty copy counts as missing, and a copy that can't be written is
skipped; neither raises. `Copies` blocks for the disk, so call it on a worker thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import math
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from anyio.to_thread import run_sync

from clore_mcp.errors import Failure
from clore_mcp.store.folder import LockTry, replace_file, try_turn

log = logging.getLogger(__name__)

_FORMAT: Final = "clore-mcp copy 1"
_SLACK_SECONDS: Final = 1.0  # clocks are slewed slightly all the time; anything further ahead is from the future
_KEPT_SECONDS: Final = 86_400.0
_MARK: Final = "changes"
_MARK_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment on both clocks of this machine. The wall clock jumps when set; the monotonic one stops during sleep."""

    wall: float  # unix seconds
    monotonic: float  # seconds; the same clock for all processes until the machine restarts

    def before(self, seconds: float) -> Instant:
        """Return the moment that many seconds earlier."""
        return Instant(self.wall - seconds, self.monotonic - seconds)

    def reaches(self, since: Instant) -> bool:
        """Return whether neither clock places it before `since`."""
        return self.wall >= since.wall and self.monotonic >= since.monotonic

    def age(self, now: Instant) -> float | None:
        """Return the age in seconds, or None if it lies in the future. The larger of both clocks' ages counts, so
        setting a clock back or restarting the machine makes nothing younger."""
        ages = now.wall - self.wall, now.monotonic - self.monotonic
        return max(0.0, *ages) if min(ages) >= -_SLACK_SECONDS else None


@dataclass(frozen=True, slots=True)
class Copy:
    """The body of a reply, when it was requested, and the change mark at that time."""

    body: bytes
    asked: Instant
    mark: str


def owner_of(api_url: str, api_key: str | None) -> str:
    """Return the digest of API URL and key that names the owner of copies. No other form of the key is stored."""
    text = f"clore-mcp copies|{api_url.rstrip('/')}|{api_key or ''}"
    return hashlib.sha256(text.encode()).hexdigest()


class Copies:
    """The copies of one owner in one folder. The constructor touches no files. Both clocks return seconds."""

    def __init__(self, folder: Path, owner: str, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._folder = folder
        self._owner = owner
        self._wall = wall
        self._monotonic = monotonic
        self._made = False

    def now(self) -> Instant:
        """Return the current instant."""
        return Instant(self._wall(), self._monotonic())

    def find(self, what: str) -> Copy | None:
        """Return the copy with that name, or None if it is missing or faulty."""
        try:
            return self._read(what, self._path(what).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.debug("no copy of %s: %s", what, error)
            return None

    def keep(self, what: str, copy: Copy) -> bool:
        """Replace the copy with that name atomically. Return whether it was written."""
        header = {"what": what, "owner": self._owner, **asdict(copy.asked), "mark": copy.mark}
        signed = json.dumps(header).encode() + b"\n" + copy.body
        kept = self._replace(self._path(what), f"{_FORMAT} {hashlib.sha256(signed).hexdigest()}\n".encode() + signed)
        self._sweep()
        return kept

    def mark(self) -> str:
        """Return what `change` last wrote. A copy with another mark was requested before a change."""
        try:
            with self._folder.joinpath(_MARK).open("rb") as file:
                return file.read(_MARK_LENGTH).hex()
        except OSError:
            return ""

    def change(self) -> None:
        """Record that something was written at Clore, for any account. Copies requested before now are out of date."""
        if not self._replace(self._folder / _MARK, secrets.token_bytes(16)):
            for path in self._files():  # files can be deleted even when the disk is full
                if path.name == _MARK or path.suffix == ".copy":
                    with contextlib.suppress(OSError):
                        path.unlink()

    def turn(self, what: str) -> LockTry | None:
        """Try to take the turn to fetch. Returns None if turns can't be used here."""
        try:
            self._make()
            return try_turn(self._path(what).with_suffix(".lock"), self._monotonic())
        except OSError as error:
            log.debug("no turns for %s: %s", what, error)
            return None

    def _path(self, what: str) -> Path:
        return self._folder / f"{what}-{self._owner[:16]}.copy"

    def _read(self, what: str, content: bytes) -> Copy:
        title, _, signed = content.partition(b"\n")
        if title != f"{_FORMAT} {hashlib.sha256(signed).hexdigest()}".encode():
            raise ValueError("it is damaged, or of another version")
        line, _, body = signed.partition(b"\n")
        header: dict[str, Any] = json.loads(line)
        if (header["what"], header["owner"]) != (what, self._owner):
            raise ValueError("it is another's")
        return Copy(body, Instant(float(header["wall"]), float(header["monotonic"])), str(header["mark"]))

    def _replace(self, path: Path, content: bytes) -> bool:
        try:
            self._make()
            replace_file(path, content)
        except OSError as error:
            log.debug("%s can't be kept: %s", path.name, error)
            return False
        return True

    def _make(self) -> None:
        """Create the folders, private to this user. A state folder that is deleted while in use is not made again."""
        if not self._made:
            self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._made = True
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def _sweep(self) -> None:
        """Delete files untouched for a day: copies of other keys, and leftovers of killed processes."""
        for path in self._files():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _KEPT_SECONDS:  # the clock that dates files
                    path.unlink()

    def _files(self) -> list[Path]:
        try:
            return list(self._folder.iterdir())
        except OSError:
            return []


T = TypeVar("T")

# A read's own deadline, and the limit on another's turn. A process that fetches for longer is frozen or in trouble that
# the others need not share.
_PATIENCE_SECONDS: Final = 25.0
_LOOK_AGAIN_SECONDS: Final = 0.05  # up to twice that, so that waiting processes do not all look at the same time
_CERTAIN_SECONDS: Final = 0.5  # a turn's file may name the previous holder for an instant


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """A value and when it was requested. `at` is in unix seconds by this machine's clock as it is set now."""

    value: T
    at: float
    asked: Instant


class Departure:
    """Called when the request leaves. The value's age counts from the last call."""

    def __init__(self, copies: Copies) -> None:
        self._copies = copies
        self.asked = copies.now()
        self.mark = ""

    async def __call__(self) -> None:
        self.asked = self._copies.now()
        self.mark = await run_sync(self._copies.mark)


Ask = Callable[[Departure], Awaitable[tuple[T, bytes]]]


class Shared(Generic[T]):
    """One shared reading. `ask` fetches it and returns the value and the bytes to keep. `load` reads those bytes again
    on a worker thread, and raises ValueError or Failure if it can't. `marked`: a write at Clore makes copies out of
    date."""

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
        self._not_before = -math.inf  # monotonic, so that setting the wall clock does not matter
        self._unkept: Copy | None = None  # a copy that could not be written serves only this process
        self._running: asyncio.Task[Reading[T]] | None = None

    async def get(self, max_age_seconds: float) -> Reading[T]:
        """Return the value, requested no earlier than `max_age_seconds` before this call. Concurrent calls in one
        process share a fetch. Cancelling one does not affect the others. A failed fetch fails all of them."""
        since = self._copies.now().before(max_age_seconds)
        since = Instant(since.wall, max(since.monotonic, self._not_before))
        found = await run_sync(self._find, since)
        if found is not None:
            return found
        while True:
            running = self._running
            joined = running is not None and not running.done()
            if running is None or running.done():  # awaiting a finished task would never let its callback run
                running = self._running = asyncio.ensure_future(self._renew(since))
                running.add_done_callback(self._over)
            got = await asyncio.shield(running)
            if not joined or got.asked.reaches(since):
                return got

    async def fetch(self, ask: Ask[T] | None = None) -> Reading[T]:
        """Fetch now, even if another fetch is running. Other processes may use the copy."""
        departure = Departure(self._copies)
        await departure()
        value, body = await (ask or self._ask)(departure)
        copy = Copy(body, departure.asked, departure.mark)
        kept = await run_sync(self._copies.keep, self._what, copy)
        self._unkept = None if kept else copy
        return self._reading(value, copy)

    def forget(self) -> None:
        """Ignore everything requested before now, including a fetch under way."""
        self._not_before = math.nextafter(self._copies.now().monotonic, math.inf)  # some clocks tick in 16 ms
        self._running = None

    async def aclose(self) -> None:
        """Cancel a fetch that is under way, and with it the tasks that wait for it."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _renew(self, since: Instant) -> Reading[T]:
        began = self._copies.now().monotonic
        while True:
            turn = await run_sync(self._copies.turn, self._what)
            try:
                found = await run_sync(self._find, since)  # another process may just have finished its turn
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
            task.exception()  # retrieve it: all waiters may have left, and asyncio would log it

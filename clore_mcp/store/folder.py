"""Files beside the state through which its processes coordinate: locks, the watchdog's place, pulse questions and the
high-water mark of approvals.

A lock is the operating system's lock on a file. A process that dies releases it at once. A suspended process keeps it.
The file therefore says when the lock was taken, so that others need not wait forever.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

from clore_mcp.errors import StateUnavailable

_FAR: Final = 1 << 30  # Windows lets no process read a locked byte, so the lock is on a byte that the file never has
_DIGITS: Final = 24
_BINARY: Final = getattr(os, "O_BINARY", 0)  # Windows would change line ends

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class LockTry:
    """One attempt to take a lock. `mine`: it was taken. `since`: when another process took it, in this machine's
    monotonic seconds (None if unknown)."""

    def __init__(self, descriptor: int | None, since: float | None = None) -> None:
        self._descriptor = descriptor
        self.mine = descriptor is not None
        self.since = since

    def stands(self, path: Path) -> bool:
        """Return whether we hold the lock and `path` still leads to the locked file."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def end(self) -> None:
        """Release the lock. Does nothing if another process holds it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    __del__ = end  # a caller may be cancelled before it gets the result


def open_own(path: Path, flags: int) -> int:
    """Open a private file of the state, and create it if it is missing. Raises OSError, also if it is a link: what is
    written through it would land where it points."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link; remove it", str(path))
    return os.open(path, flags | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | _BINARY, 0o600)


def try_turn(path: Path, now: float) -> LockTry:
    """Take the lock if it is free, without waiting. Raises OSError if the file or lock can't be made."""
    descriptor = open_own(path, os.O_RDWR)
    try:
        if _lock(descriptor):
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, f"{now:{_DIGITS}.6f}".encode())
            turn, descriptor = LockTry(descriptor), -1
            return turn
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            return LockTry(None, float(os.read(descriptor, _DIGITS)))
        except ValueError:
            return LockTry(None)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Give a private file this content at once, so that no reader sees a part of it. Raises OSError."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600), "wb") as file:
            file.write(content)
        draft.replace(path)  # Windows refuses while another process reads the old one
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def watchdog_place(folder: Path, key_name: str) -> Path:
    """Return the file that the watchdog for this state and key locks while it works. There is one watchdog for each."""
    return folder / f"watchdog-{key_name[:16]}.lock"


class Place:
    """A lock that is held until it is released. Its file stays after that. Deleting the file ends the hold."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn: LockTry | None = None

    def take(self) -> bool:
        """Take the lock now. Returns False if another process holds it. Raises StateUnavailable."""
        try:
            turn = try_turn(self._path, time.monotonic())
        except OSError as error:
            raise StateUnavailable(f"The state in {self._path.parent} can't be used: {error}.") from error
        self._turn = turn if turn.stands(self._path) else None  # deleted before the lock: no other process would see it
        return self._turn is not None

    @property
    def held(self) -> bool:
        """Whether we took the lock and have not released it."""
        return self._turn is not None

    @property
    def stands(self) -> bool:
        """Whether we hold the lock and the path still leads to the locked file."""
        return self._turn is not None and self._turn.stands(self._path)

    def release(self) -> None:
        """Release the lock."""
        if self._turn is not None:
            self._turn.end()
            self._turn = None


PULSE_FOLDER: Final = "pulse"
_TICK_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.05
_LOOKS: Final = 60  # three seconds, or six ticks: on a busy machine an event loop runs late
_COUNTS_SECONDS: Final = 30.0  # how long an answer counts: longer than from the evidence to the claim of a send
_FRESH_SECONDS: Final = 5.0  # a process that has answered is not asked again within this time
_SILENT_SECONDS: Final = 10.0  # nor is one that was silent, so a frozen one costs a call its wait only once
_LEFT_SECONDS: Final = 86_400.0  # an older question belongs to a process that was killed while asking


class Pulse:
    """Answers for the process named `owner`, and asks other processes whether they are alive."""

    def __init__(self, folder: Path, owner: str, monotonic: Callable[[], float]) -> None:
        self._folder = folder / PULSE_FOLDER
        self._owner = owner
        self._monotonic = monotonic
        self._answers: dict[str, float] = {}
        self._silences: dict[str, float] = {}

    def answered(self, owner: str) -> bool:
        """Return whether that process, or this one itself, has answered within half a minute. Never waits."""
        return owner == self._owner or self._since(self._answers, owner) < _COUNTS_SECONDS

    async def ask(self, owners: Iterable[str]) -> None:
        """Ask the processes that have not just answered or been silent. Takes up to three seconds."""
        wanted = [
            owner
            for owner in owners
            if owner != self._owner
            and self._since(self._answers, owner) > _FRESH_SECONDS
            and self._since(self._silences, owner) > _SILENT_SECONDS
        ]
        await asyncio.gather(*map(self._ask, wanted))

    async def keep(self, able: Callable[[], Awaitable[bool]]) -> None:
        """Answer questions for as long as this process lives and is `able` to do its work."""
        while True:
            with contextlib.suppress(OSError):
                asked = self._questions()
                if asked and await able():
                    for question in asked:
                        question.unlink(missing_ok=True)
            await asyncio.sleep(_TICK_SECONDS)

    def _since(self, when: dict[str, float], owner: str) -> float:
        return self._monotonic() - when.get(owner, float("-inf"))

    async def _ask(self, owner: str) -> None:
        question = self._folder / f"{owner}.{secrets.token_hex(4)}"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            question.touch(mode=0o600, exist_ok=False)
        except OSError:  # no state, or the disk is full: no process can be asked, so none has answered
            self._silences[owner] = self._monotonic()
            return
        try:
            for _ in range(_LOOKS):
                if not question.exists():
                    break
                await asyncio.sleep(_LOOK_SECONDS)
            silent = question.exists()
        finally:
            with contextlib.suppress(OSError):
                question.unlink()
        (self._silences if silent else self._answers)[owner] = self._monotonic()
        if silent:
            self._answers.pop(owner, None)

    def _questions(self) -> list[Path]:
        """Return the questions for this process. Delete other questions that are a day old."""
        mine = []
        for question in self._folder.iterdir():
            if question.stem == self._owner:
                mine.append(question)
            elif time.time() - question.stat().st_mtime > _LEFT_SECONDS:
                question.unlink(missing_ok=True)
        return mine


log = logging.getLogger(__name__)


class HighWater:
    """The high-water mark of one state folder. The constructor touches no files. An unreadable mark counts as none."""

    def __init__(self, cache_dir: Path, state_dir: Path) -> None:
        name = hashlib.sha256(os.fsencode(state_dir.absolute())).hexdigest()[:32]
        self._path = cache_dir / "used" / name

    def read(self) -> int:
        """Return the number of ended yeses that the mark knows of. It is 0 if there is no mark."""
        try:
            return int(self._path.read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def raise_to(self, ended: int) -> None:
        """Raise the mark to that number of ended yeses. It never goes down."""
        if ended <= self.read():
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path, str(ended).encode())
        except OSError as error:
            log.warning("the number of used approvals can't be kept apart from the state: %s", error.strerror)

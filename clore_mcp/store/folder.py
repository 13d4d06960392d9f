"""The files beside the state through which its processes coordinate: a lock, a place held for life, a pulse and the
count of approvals.

A lock is the operating system's lock on a file. A process that dies releases it at once. A suspended process keeps it,
so the file says since when, and others need not wait forever.
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

_FAR: Final = 1 << 30  # Windows lets nobody read a locked byte: the lock is on one that the file never has
_DIGITS: Final = 24

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
    """One try for the lock: `mine`, or another's `since` then (this machine's monotonic seconds; None if unknown)."""

    def __init__(self, descriptor: int | None, since: float | None = None) -> None:
        self._descriptor = descriptor
        self.mine = descriptor is not None
        self.since = since

    def stands(self, path: Path) -> bool:
        """Whether it is ours, and `path` still leads to the file that it is held on."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def end(self) -> None:
        """Give it back; a turn that is another's stays theirs."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    __del__ = end  # whoever asked may have been cancelled before the answer came


def open_own(path: Path, flags: int) -> int:
    """Open a private file of the state, made if it is not there. Raises OSError, also where a link is: what is written
    through it would land where it points."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link; remove it", str(path))
    return os.open(path, flags | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0), 0o600)


def try_turn(path: Path, now: float) -> LockTry:
    """Take the turn if it is free; never waits for it. Raises OSError where there can be no such file or lock."""
    descriptor = open_own(path, os.O_RDWR)
    try:
        if _lock(descriptor):
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, f"{now:{_DIGITS}.6f}".encode())
            turn, descriptor = LockTry(descriptor), -1
            return turn
        return LockTry(None, _since(descriptor))
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _since(descriptor: int) -> float | None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with contextlib.suppress(ValueError):
        return float(os.read(descriptor, _DIGITS))
    return None


def watchdog_place(folder: Path, key_name: str) -> Path:
    """The file that the one watchdog of the state in that folder and of a key holds while it works."""
    return folder / f"watchdog-{key_name[:16]}.lock"


class Place:
    """A turn for good. Its file stays when it is given back: whoever deletes the file, ends it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn: LockTry | None = None

    def take(self) -> bool:
        """Hold it now; False when another process does. Raises StateUnavailable where there can be no such file."""
        try:
            turn = try_turn(self._path, time.monotonic())
        except OSError as error:
            raise StateUnavailable(f"The state in {self._path.parent} can't be used: {error}.") from error
        self._turn = turn if turn.stands(self._path) else None  # deleted between the two: nobody would ever meet it
        return self._turn is not None

    @property
    def held(self) -> bool:
        """Whether we took it and have not given it back."""
        return self._turn is not None

    @property
    def stands(self) -> bool:
        """Whether we hold it and the path still leads to the file that we hold."""
        return self._turn is not None and self._turn.stands(self._path)

    def release(self) -> None:
        """Give it back."""
        if self._turn is not None:
            self._turn.end()
            self._turn = None


PULSE_FOLDER: Final = "pulse"
_TICK_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.05
_LOOKS: Final = 60  # three seconds, or six ticks: on a busy machine an event loop comes late
_COUNTS_SECONDS: Final = 30.0  # so long an answer counts: longer than from the evidence to the claim of a send
_FRESH_SECONDS: Final = 5.0  # so long nobody is asked again who has answered
_SILENT_SECONDS: Final = 10.0  # and who has not: a frozen one costs a call its wait once
_LEFT_SECONDS: Final = 86_400.0  # a question that old is that of a process which was killed over it


class Pulse:
    """The pulse of the process named `owner`, and what it felt of others."""

    def __init__(self, folder: Path, owner: str, monotonic: Callable[[], float]) -> None:
        self._folder = folder / PULSE_FOLDER
        self._owner = owner
        self._monotonic = monotonic
        self._answers: dict[str, float] = {}
        self._silences: dict[str, float] = {}

    def answered(self, owner: str) -> bool:
        """Whether that process has answered within half a minute. Never waits; this one need not be asked."""
        return owner == self._owner or self._since(self._answers, owner) < _COUNTS_SECONDS

    async def ask(self, owners: Iterable[str]) -> None:
        """Ask those who have not just answered, or been silent; takes seconds where one does not answer."""
        wanted = [
            owner
            for owner in owners
            if owner != self._owner
            and self._since(self._answers, owner) > _FRESH_SECONDS
            and self._since(self._silences, owner) > _SILENT_SECONDS
        ]
        await asyncio.gather(*map(self._ask, wanted))

    async def keep(self, able: Callable[[], Awaitable[bool]]) -> None:
        """Answer for as long as this process lives and is `able` to do what it is asked for."""
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
        except OSError:  # no state, or no room: nobody can be asked, so nobody has answered
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
        """Those for this process; what has lain there for a day is swept away."""
        mine = []
        for question in self._folder.iterdir():
            if question.stem == self._owner:
                mine.append(question)
            elif time.time() - question.stat().st_mtime > _LEFT_SECONDS:
                question.unlink(missing_ok=True)
        return mine


log = logging.getLogger(__name__)


class HighWater:
    """The mark of one state folder. Building one touches nothing; where it can't be kept or read, there is none."""

    def __init__(self, cache_dir: Path, state_dir: Path) -> None:
        name = hashlib.sha256(os.fsencode(state_dir.absolute())).hexdigest()[:32]
        self._path = cache_dir / "used" / name

    def read(self) -> int:
        """The number of yeses that have ended as far as the mark knows."""
        try:
            return int(self._path.read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def raise_to(self, ended: int) -> None:
        """Remember that so many have ended; never fewer than before."""
        if ended <= self.read():
            return
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_text(str(ended), "ascii")
            draft.replace(self._path)
        except OSError as error:
            log.warning("the number of used approvals can't be kept apart from the state: %s", error.strerror)
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

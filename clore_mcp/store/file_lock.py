"""A turn that one process of many has at a time, by a lock of the operating system on a file.

Whoever dies gives it back at once. Who is frozen keeps it, so the file says since when: others need not wait for ever.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import Final

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

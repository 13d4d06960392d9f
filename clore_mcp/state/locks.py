"""A lock that one process holds and the system takes back when that process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from clore_mcp.errors import StateUnavailable

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class FileLock:
    """A lock on a file of the state folder. The file stays when the lock is given back: whoever deletes it, ends it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def take(self) -> bool:
        """Hold it now; False when another process does. Raises StateUnavailable where there can be no such file."""
        try:
            file = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise StateUnavailable(f"The state in {self.path.parent} can't be used: {error}.") from error
        try:
            if sys.platform == "win32":
                msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._file = file
        if self.stands:
            return True
        self.release()  # deleted between the two: what we hold, nobody would ever meet
        return False

    @property
    def stands(self) -> bool:
        """Whether we hold it and the path still leads to the file that we hold."""
        if self._file is None:
            return False
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file))
        except OSError:
            return False

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            if sys.platform == "win32":
                with contextlib.suppress(OSError):
                    os.lseek(self._file, 0, os.SEEK_SET)
                    msvcrt.locking(self._file, msvcrt.LK_UNLCK, 1)
            os.close(self._file)
            self._file = None

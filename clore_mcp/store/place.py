"""A place that one process holds for as long as it lives, and loses when the state folder goes."""

from __future__ import annotations

import time
from pathlib import Path

from clore_mcp.errors import StateUnavailable
from clore_mcp.store.file_lock import LockTry, try_turn


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

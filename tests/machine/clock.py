"""The clock that the machine and its processes share."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path


class SharedClock:
    """Seconds added to this machine's clock, in a file that all processes map."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)

    @property
    def offset(self) -> float:
        found: float = struct.unpack_from("d", self._map)[0]
        return found

    def advance(self, seconds: float) -> None:
        struct.pack_into("d", self._map, 0, self.offset + seconds)

    def now(self) -> float:
        return time.time() + self.offset

    def monotonic(self) -> float:
        return time.monotonic() + self.offset

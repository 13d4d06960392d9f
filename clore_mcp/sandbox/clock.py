"""The simulated market's clock, which can run fast and be moved forward."""

import time
from collections.abc import Callable
from email.utils import formatdate


class Clock:
    """Unix seconds that pass `speed` times as fast as real ones, starting at the present."""

    def __init__(self, speed: float = 1.0, real: Callable[[], float] = time.monotonic) -> None:
        self._real = real
        self._speed = speed
        self._base = time.time()
        self._since = real()

    @property
    def speed(self) -> float:
        """Return how many market seconds pass in a real second."""
        return self._speed

    def now(self) -> float:
        """Return the market's Unix time in seconds."""
        return self._base + (self._real() - self._since) * self._speed

    def http_date(self, ahead: float = 0.0) -> str:
        """Return the market's time in the `Date` header's format, `ahead` seconds ahead."""
        return formatdate(self.now() + ahead, usegmt=True)

    def advance(self, seconds: float) -> None:
        """Move the market forward. Raises ValueError for a negative number, because bills can't be undone."""
        if seconds < 0:
            raise ValueError("the clock only moves forward")
        self._rebase(self.now() + seconds, self._speed)

    def set_speed(self, speed: float) -> None:
        """Make a real second last `speed` market seconds from now on. 0 stops the market's time."""
        if speed < 0:
            raise ValueError("the clock only moves forward")
        self._rebase(self.now(), speed)

    def _rebase(self, now: float, speed: float) -> None:
        self._base, self._since, self._speed = now, self._real(), speed

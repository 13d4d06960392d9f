"""One running sandbox: its clock, its record of requests, its other parts, and the loop that drives them."""

import asyncio
import hashlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .faults import Faults
from .listeners import Listeners
from .options import Live, Options
from .world import World

_BEAT = 0.05  # s, real time: an SSH port may open or close up to this late


class Clock:
    """Unix seconds that pass `speed` times as fast as real ones, starting at the present."""

    def __init__(self, speed: float = 1.0, real: Callable[[], float] = time.monotonic) -> None:
        self._real = real
        self.speed = speed
        self._base = time.time()
        self._since = real()

    def now(self) -> float:
        """Return the market's Unix time in seconds."""
        return self._base + (self._real() - self._since) * self.speed

    def advance(self, seconds: float) -> None:
        """Move the market forward. Raises ValueError for a negative number, because bills can't be undone."""
        if seconds < 0:
            raise ValueError("the clock only moves forward")
        self._base += seconds

    def set_speed(self, speed: float) -> None:
        """Make a real second last `speed` market seconds from now on. 0 stops the market's time."""
        if speed < 0:
            raise ValueError("the clock only moves forward")
        self._base, self._since, self.speed = self.now(), self._real(), speed


@dataclass(slots=True, kw_only=True)
class Recorded:
    """One request. `status` stays None if the client got no reply. `effect`: the request was processed."""

    sequence: int
    wall: float = field(default_factory=time.time)
    arrived_ns: int = field(default_factory=time.monotonic_ns)
    method: str
    endpoint: str
    query: dict[str, str]
    key: str | None
    user_agent: str
    body: Any
    completed_ns: int | None = None
    status: int | None = None
    code: int | None = None
    error: str | None = None
    effect: bool = False
    fault: str | None = None


def digest(key: str) -> str:
    """Return a short digest of a key that doesn't reveal it."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


class Engine:
    """Everything that a running sandbox holds. There is no global state, so several can run in one process."""

    def __init__(self, options: Options) -> None:
        self.live = Live(options)
        self.clock = Clock(options.speed)
        self.world = World(self.live)
        self.faults = Faults(options.faults)
        self.listeners = Listeners(self.live)
        self.requests: list[Recorded] = []
        self.sequence = itertools.count(1)  # of requests; it continues when they are deleted
        self.closing = asyncio.Event()
        self._ticking = asyncio.Lock()

    async def tick(self) -> None:
        """Bring bills, orders and SSH ports up to date with the clock."""
        async with self._ticking:
            now = self.clock.now()
            self.world.settle(now)
            await self.listeners.sync(self.world.open_orders(), now)

    async def run(self) -> None:
        while True:
            await self.tick()
            await asyncio.sleep(_BEAT)

"""One sandbox: its parts, connected, and the loop that drives them."""

import asyncio

from .api import Api
from .clock import Clock
from .faults import Faults
from .gate import Gate, Limiter
from .journal import Journal
from .listeners import Listeners
from .options import Live, Options
from .world import World

_BEAT = 0.05  # s, real time: an SSH port may open or close up to this late


class Engine:
    """Everything that a running sandbox holds. There is no global state, so several can run in one process."""

    def __init__(self, options: Options) -> None:
        self.live = Live(options)
        self.clock = Clock(options.speed)
        self.world = World(self.live)
        self.faults = Faults(options.faults)
        self.journal = Journal()
        self.listeners = Listeners(self.live)
        self.closing = asyncio.Event()
        self._ticking = asyncio.Lock()
        api = Api(self.live, self.clock, self.world, self.listeners)
        self.gate = Gate(
            live=self.live,
            clock=self.clock,
            world=self.world,
            api=api,
            limiter=Limiter(self.live),
            faults=self.faults,
            journal=self.journal,
            closing=self.closing,
        )

    async def tick(self) -> None:
        """Bring bills, orders and SSH ports up to date with the clock."""
        async with self._ticking:
            now = self.clock.now()
            self.world.settle(now)
            await self.listeners.sync(self.world.open_orders(), now)

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await self.tick()
            await asyncio.sleep(_BEAT)

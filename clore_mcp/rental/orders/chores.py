"""What is done in each round beside ending leases: it may take long and may fail, and holds up no end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from clore_mcp.errors import Failure
from clore_mcp.rental.account.reading import Orders

log = logging.getLogger(__name__)


class Chore(Protocol):
    """One kind of such work."""

    what: str
    """For the log, as in "the watches"."""

    async def left(self, account: str) -> bool:
        """Whether it needs rounds though no order has an end to keep."""

    async def round(self, account: str, current: Orders) -> None:
        """Do what there is to do now; `current` is what runs at Clore."""


class Chores:
    """Runs each in a task of its own, one round at a time: who is still at its last one is left to it."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        self._chores = tuple(chores)
        self._running: dict[int, asyncio.Task[None]] = {}

    async def left(self, account: str) -> bool:
        """Whether any of them needs rounds."""
        return any([await chore.left(account) for chore in self._chores])

    def begin(self, account: str, current: Orders) -> None:
        """One round of each that is not at one."""
        for place, chore in enumerate(self._chores):
            if place not in self._running or self._running[place].done():
                self._running[place] = asyncio.ensure_future(_guarded(chore, account, current))

    async def finish(self) -> None:
        """Wait for the rounds that run."""
        if self._running:
            await asyncio.wait(list(self._running.values()))

    async def stop(self) -> None:
        """End them; spending that has begun is seen through elsewhere (context.py)."""
        for task in self._running.values():
            task.cancel()
        await self.finish()


async def _guarded(chore: Chore, account: str, current: Orders) -> None:
    try:
        await chore.round(account, current)
    except Failure as failure:
        log.warning("%s could not be looked after: %s", chore.what, failure.message)
    except Exception as error:  # a row that nobody can read, too, must not end the watch over money
        log.error("%s could not be looked after: %s", chore.what, type(error).__name__)

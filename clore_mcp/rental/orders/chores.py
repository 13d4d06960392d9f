"""Runs the work of each round besides ending leases. It may take long or fail, but it delays no end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from clore_mcp.errors import Failure
from clore_mcp.rental.account.reading import Orders

log = logging.getLogger(__name__)


class Chore(Protocol):
    """One kind of work in a round."""

    what: str
    """Its name in the log, as in "the watches"."""

    async def left(self, account: str) -> bool:
        """Return whether it needs rounds even if no order has an end to enforce."""

    async def round(self, account: str, current: Orders) -> None:
        """Do the work that is due. `current` holds the orders that run at Clore."""


class Chores:
    """Runs each chore in its own task, one round at a time. A chore whose last round still runs is skipped."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        self._chores = tuple(chores)
        self._running: dict[int, asyncio.Task[None]] = {}

    async def left(self, account: str) -> bool:
        """Return whether any chore needs rounds."""
        return any([await chore.left(account) for chore in self._chores])

    def begin(self, account: str, current: Orders) -> None:
        """Start a round of each chore that has none running."""
        for place, chore in enumerate(self._chores):
            if place not in self._running or self._running[place].done():
                self._running[place] = asyncio.ensure_future(_guarded(chore, account, current))

    async def finish(self) -> None:
        """Wait for the running rounds."""
        if self._running:
            await asyncio.wait(list(self._running.values()))

    async def stop(self) -> None:
        """Cancel the running rounds. Spending that has begun is completed elsewhere (context.py)."""
        for task in self._running.values():
            task.cancel()
        await self.finish()


async def _guarded(chore: Chore, account: str, current: Orders) -> None:
    try:
        await chore.round(account, current)
    except Failure as failure:
        log.warning("a round of %s failed: %s", chore.what, failure.message)
    except Exception as error:  # no error, such as an unreadable row, may end the watchdog
        log.error("a round of %s failed: %s", chore.what, type(error).__name__)

"""Work that spends and must not stop half-way: it outlives the call that began it, up to the process's end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from clore_mcp.rental.results import Outcome

log = logging.getLogger(__name__)


class Commitments:
    """Spending work by quote id. A caller that is cancelled or gives up waiting leaves the work running."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Outcome]] = {}

    async def run(
        self, quote_id: str, work: Callable[[], Awaitable[Outcome]], patience_seconds: float | None
    ) -> Outcome | None:
        """Begin the work, or join it, and wait for its outcome; None when it goes on beyond the patience, if that
        has an end."""
        task = self._running.get(quote_id)
        if task is None:
            task = asyncio.ensure_future(work())
            self._running[quote_id] = task
            task.add_done_callback(lambda done: self._finished(quote_id, done))
        # wait() ends no work, and tells its outcome also where that came in the instant in which the patience ended.
        await asyncio.wait([task], timeout=patience_seconds)
        return task.result() if task.done() else None

    def runs(self, quote_id: str) -> bool:
        """Whether this process is carrying that quote out now."""
        return quote_id in self._running

    async def drain(self, patience_seconds: float) -> None:
        """At the end of the process: let what has begun come to its end, at most so long. The rest is settled later."""
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=patience_seconds)

    def _finished(self, quote_id: str, task: asyncio.Task[Outcome]) -> None:
        self._running.pop(quote_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("quote %s failed: %s", quote_id, type(error).__name__)

"""One value that is fetched when nobody has it fresh enough, once for everyone who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Fresh(Generic[T]):
    """Holds what `fetch` returned and when. Callers that meet share one fetch; a cancelled one hurts no other."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._value: tuple[T, float] | None = None
        self._running: asyncio.Task[T] | None = None

    async def get(self, max_age_seconds: float) -> T:
        """The value, at most that old when the call began; failures of the fetch reach every waiter."""
        if self._value is not None and 0 <= self._clock() - self._value[1] <= max_age_seconds:
            return self._value[0]
        if self._running is None:
            self._running = asyncio.ensure_future(self._refresh())
            self._running.add_done_callback(_heard)
        return await asyncio.shield(self._running)

    def forget(self) -> None:
        """Make the next call fetch, also when a fetch is under way that may have begun too early."""
        self._value = None
        self._running = None

    @property
    def last(self) -> tuple[T, float] | None:
        """The value held and when its fetch began, however old."""
        return self._value

    async def _refresh(self) -> T:
        task, began = asyncio.current_task(), self._clock()
        try:
            value = await self._fetch()
            if self._running is task:
                self._value = (value, began)
            return value
        finally:
            if self._running is task:
                self._running = None


def _heard(task: asyncio.Task[T]) -> None:
    """A fetch that failed after all had left is nobody's news: reading its exception keeps asyncio quiet."""
    if not task.cancelled():
        task.exception()

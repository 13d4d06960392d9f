"""Who goes next on one key, and the faces of those who say so.

`ProcessPacer` acts on the arithmetic (schedule.py) inside one event loop; `SharedPacer` (shared_pacer.py) does so for
all processes that share a state folder. Both have the face of `Pacer`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Protocol

from clore_mcp.clore.schedule import SECOND_NS, Gaps, Lane, Marks, Waiting, forecast
from clore_mcp.errors import QueueFull


@dataclass(frozen=True, slots=True)
class Step:
    """What follows now: who goes, who is told that it would take too long (with the instant), when to look again."""

    go: Waiting | None
    refused: list[tuple[Waiting, int]]
    look_again_ns: int | None


@dataclass(slots=True)
class Schedule:
    """Who waits and what has happened; every method is told the time and nothing here waits."""

    gaps: Gaps = field(default_factory=Gaps)
    marks: Marks = field(default_factory=Marks)
    waiting: list[Waiting] = field(default_factory=list)
    _numbers: Iterable[int] = field(default_factory=count)

    def join(self, lane: Lane, urgent: bool, deadline_ns: int) -> Waiting:
        """Stand in the queue."""
        one = Waiting(next(iter(self._numbers)), lane, urgent, deadline_ns)
        self.waiting.append(one)
        return one

    def step(self, now_ns: int) -> Step:
        """Open the gate for the next one if it is time, and turn away those whose turn would come too late."""
        leaves = forecast(self.marks, self.gaps, self.waiting, now_ns)
        refused = [(one, at) for one, at in leaves if at > one.deadline_ns]
        staying = [(one, at) for one, at in leaves if at <= one.deadline_ns]
        go = None
        if staying and not self.marks.blocked(now_ns, self.gaps) and staying[0][1] <= now_ns:
            go = staying.pop(0)[0]
            self.marks = replace(self.marks, at_the_gate=True)
        self.waiting = sorted((one for one, _ in staying), key=lambda one: one.number)
        instants = [one.deadline_ns + 1 for one in self.waiting]
        if staying and not self.marks.at_the_gate:
            blocked = self.marks.blocked(now_ns, self.gaps)
            instants.append(self.marks.flight_blocks_until(self.gaps) if blocked else staying[0][1])
        return Step(go, refused, min(instants, default=None))

    def leave_queue(self, one: Waiting) -> None:
        """Give up while waiting: the place is free at once."""
        self.waiting.remove(one)

    def give_back(self) -> None:
        """Give up at the gate: nothing left, nothing counts."""
        self.marks = replace(self.marks, at_the_gate=False)


class Turn(Protocol):
    """A turn that has come."""

    def leaving(self) -> None:
        """The bytes leave now; a turn that ends without this has cost nothing. Calling it again changes nothing."""

    def refused(self, retry_after_seconds: float | None) -> float:
        """Clore answered "too fast"; says how many seconds from now the next request of this lane may leave."""


class Pacer(Protocol):
    """Gives turns to the requests of one key."""

    def turn(
        self, lane: Lane, *, urgent: bool = False, patience_seconds: float | None = None
    ) -> AbstractAsyncContextManager[Turn]:
        """Wait for a turn and hold it for one request; QueueFull at once when the wait would outlast the patience."""


def nanoseconds(retry_after_seconds: float | None) -> int:
    """The pause that a reply asks for."""
    return round(max(retry_after_seconds or 0.0, 0.0) * SECOND_NS)


def queue_full(waiting: int, wait_ns: int) -> QueueFull:
    """The refusal of a request whose turn would come too late, in `wait_ns`."""
    return QueueFull(
        f"{waiting} requests to Clore already wait for their turn; nothing was sent.",
        retry_after_seconds=round(max(wait_ns / SECOND_NS, 0.1), 1),
    )


class ProcessPacer:
    """Paces the requests of one process on one event loop. Holds no task: whoever waits moves the queue."""

    def __init__(
        self,
        gaps: Gaps | None = None,
        *,
        patience_seconds: float = 60.0,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._schedule = Schedule(gaps or Gaps())
        self._patience_seconds = patience_seconds
        self._clock_ns = clock_ns
        self._replies: dict[Waiting, asyncio.Future[int | None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def turn(
        self, lane: Lane, *, urgent: bool = False, patience_seconds: float | None = None
    ) -> AsyncIterator[Turn]:
        """See `Pacer.turn`."""
        patience = self._patience_seconds if patience_seconds is None else patience_seconds
        await self._wait(self._schedule.join(lane, urgent, self._clock_ns() + round(patience * SECOND_NS)))
        turn = _Turn(self, lane, urgent=urgent)
        try:
            yield turn
        finally:
            turn.end()

    @property
    def marks(self) -> Marks:
        """What has happened so far, as far as this process had a part in it."""
        return self._schedule.marks

    def take_up(self, known: Marks) -> None:
        """Go on from what is known of the key from elsewhere."""
        marks = self._schedule.marks
        if known.left_ns > marks.left_ns:
            self._schedule.marks = replace(known, in_flight=marks.in_flight, at_the_gate=marks.at_the_gate)

    async def _wait(self, one: Waiting) -> None:
        reply: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._replies[one] = reply
        self._advance()
        try:
            too_late_ns = await reply
        except asyncio.CancelledError:
            if self._replies.pop(one, None) is not None:
                self._schedule.leave_queue(one)
            elif reply.result() is None:  # the turn came in the same instant as the cancellation
                self._schedule.give_back()
            self._advance()
            raise
        if too_late_ns is not None:
            raise queue_full(len(self._replies), too_late_ns - self._clock_ns())

    def _advance(self) -> None:
        """Let the schedule take its next step; called whenever anything changed."""
        now_ns = self._clock_ns()
        step = self._schedule.step(now_ns)
        for one, at in step.refused:
            self._replies.pop(one).set_result(at)
        if step.go is not None:
            self._replies.pop(step.go).set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if step.look_again_ns is not None:
            delay = max(step.look_again_ns - now_ns, 0) / SECOND_NS
            self._timer = asyncio.get_running_loop().call_later(delay, self._advance)


class _Turn:
    """A turn of a ProcessPacer."""

    __slots__ = ("_lane", "_left_ns", "_pacer", "_urgent")

    def __init__(self, pacer: ProcessPacer, lane: Lane, *, urgent: bool) -> None:
        self._pacer = pacer
        self._lane = lane
        self._urgent = urgent
        self._left_ns: int | None = None

    def leaving(self) -> None:
        if self._left_ns is None:
            self._left_ns = now_ns = self._pacer._clock_ns()
            schedule = self._pacer._schedule
            schedule.marks = schedule.marks.departed(self._lane, now_ns)
            self._pacer._advance()

    def refused(self, retry_after_seconds: float | None) -> float:
        schedule, now_ns = self._pacer._schedule, self._pacer._clock_ns()
        pause_ns = nanoseconds(retry_after_seconds)
        left_ns = now_ns if self._left_ns is None else self._left_ns
        schedule.marks = schedule.marks.refused(now_ns, pause_ns, schedule.gaps, left_ns)
        self._pacer._advance()
        earliest_ns = schedule.marks.earliest(self._lane, now_ns, schedule.gaps, urgent=self._urgent)
        return (earliest_ns - now_ns) / SECOND_NS

    def end(self) -> None:
        schedule = self._pacer._schedule
        if self._left_ns is not None:
            schedule.marks = schedule.marks.completed(self._pacer._clock_ns())
        else:
            schedule.give_back()
        self._pacer._advance()

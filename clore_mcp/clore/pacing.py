"""When a request may leave: one schedule for a key, so that Clore's limits are never the caller's problem.

Requests leave `general_ns` apart, creates `create_ns` apart as well, urgent ones before queued ones, equals in the
order in which they came. A turn is taken, then left at the moment the bytes leave (`leaving`), then over: what is
counted is the true departure, not the wake-up before it, because connecting and TLS come in between and would bring two
requests closer together at Clore than they were here. Until it leaves, a turn holds the gate but has cost nothing, so
whoever gives up gives it back.

`Schedule` is the arithmetic: integer nanoseconds, the clock an argument. `ProcessPacer` acts on it inside one event
loop. `Pacer` is the seam: one that is shared by processes has the same face. Lowering a spot price (once per order in
600 seconds) would be a lane of its own for each order; Clore answers it itself, with the seconds to wait.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count
from typing import Final, Protocol

from clore_mcp.errors import QueueFull

SECOND_NS: Final = 1_000_000_000
# The longest Retry-After obeyed: nobody has seen Clore send one, and a wrong one must not hold up a cancel for a day.
LONGEST_PAUSE_NS: Final = 600 * SECOND_NS
_LONG_AGO: Final = -(1 << 62)


class Lane(StrEnum):
    """Which of Clore's limits a request counts against, besides the general one."""

    GENERAL = "general"
    CREATE = "create"


@dataclass(frozen=True, slots=True)
class Gaps:
    """How far apart requests leave; the simulated marketplace may be asked faster."""

    # Clore documents 1 s. At 1.0 s half are refused, for wake-ups jitter; with 100 ms to spare 0 of 32 were (2026-11).
    general_ns: int = 1_100_000_000
    create_ns: int = 5_500_000_000  # documented 5 s; production clients use 5.2 to 6
    single_flight_ns: int = 600 * SECOND_NS


@dataclass(frozen=True, slots=True)
class Marks:
    """What has happened on the key so far, as instants of the clock."""

    left_ns: int = _LONG_AGO
    create_left_ns: int = _LONG_AGO
    completed_ns: int = _LONG_AGO
    not_before_ns: int = _LONG_AGO
    single_until_ns: int = _LONG_AGO
    in_flight: int = 0
    at_the_gate: bool = False  # a turn was given whose request has not left yet

    def departed(self, lane: Lane, now_ns: int) -> Marks:
        """A request of that lane left now."""
        create_left_ns = now_ns if lane is Lane.CREATE else self.create_left_ns
        return replace(
            self, left_ns=now_ns, create_left_ns=create_left_ns, in_flight=self.in_flight + 1, at_the_gate=False
        )

    def completed(self, now_ns: int) -> Marks:
        """A request that had left is over, with a reply or without."""
        return replace(self, completed_ns=now_ns, in_flight=self.in_flight - 1)

    def refused(self, now_ns: int, pause_ns: int, gaps: Gaps) -> Marks:
        """Clore said "too fast". Our spacing never explains that: departures are apart by construction. So Clore counts
        differently (from completion, one reads) or someone else uses the key: one call in flight for a while."""
        return replace(
            self,
            not_before_ns=max(self.not_before_ns, now_ns + min(pause_ns, LONGEST_PAUSE_NS)),
            single_until_ns=now_ns + gaps.single_flight_ns,
        )

    def blocked(self, now_ns: int) -> bool:
        """Whether nothing may leave before something else happens, whatever the time."""
        return self.at_the_gate or (self.in_flight > 0 and now_ns < self.single_until_ns)

    def earliest(self, lane: Lane, now_ns: int, gaps: Gaps) -> int:
        """The earliest instant for a request of that lane over all its limits at once; while blocked, a lower bound."""
        at = max(now_ns, self.not_before_ns, self.left_ns + gaps.general_ns)
        if lane is Lane.CREATE:
            at = max(at, self.create_left_ns + gaps.create_ns)
        if now_ns < self.single_until_ns:
            at = max(at, self.completed_ns + gaps.general_ns)
        return max(at, now_ns + gaps.general_ns) if self.blocked(now_ns) else at


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits for its turn, and the last instant for which it cares."""

    number: int
    lane: Lane
    urgent: bool
    deadline_ns: int


@dataclass(frozen=True, slots=True)
class Step:
    """What follows now: who goes, who is told that it would take too long (with the instant), when to look again."""

    go: Waiting | None
    refused: list[tuple[Waiting, int]]
    look_again_ns: int | None


def forecast(marks: Marks, gaps: Gaps, waiting: Iterable[Waiting], now_ns: int) -> list[tuple[Waiting, int]]:
    """The instant at which each would leave, in that order. Who would leave past its deadline takes no one's slot."""
    queues: dict[tuple[Lane, bool], deque[Waiting]] = {}
    for one in waiting:
        queues.setdefault((one.lane, one.urgent), deque()).append(one)
    leaves: list[tuple[Waiting, int]] = []
    while queues:
        # Whoever can leave first does: a create that must wait for its lane holds up no read behind it.
        key, at = min(
            ((key, marks.earliest(key[0], now_ns, gaps)) for key in queues),
            key=lambda found: (found[1], not found[0][1], queues[found[0]][0].number),
        )
        one = queues[key].popleft()
        if not queues[key]:
            del queues[key]
        leaves.append((one, at))
        if at <= one.deadline_ns:
            marks, now_ns = marks.departed(one.lane, at).completed(at), at
    return leaves


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
        blocked = self.marks.blocked(now_ns)
        if staying and not blocked and staying[0][1] <= now_ns:
            go = staying.pop(0)[0]
            self.marks = replace(self.marks, at_the_gate=True)
            blocked = True
        self.waiting = sorted((one for one, _ in staying), key=lambda one: one.number)
        instants = [one.deadline_ns + 1 for one in self.waiting]
        if staying and not blocked:
            instants.append(staying[0][1])
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
        turn = _Turn(self, lane)
        try:
            yield turn
        finally:
            turn.end()

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
            wait_seconds = (too_late_ns - self._clock_ns()) / SECOND_NS
            raise QueueFull(
                f"{len(self._replies)} requests to Clore already wait for their turn; nothing was sent.",
                retry_after_seconds=round(max(wait_seconds, 0.1), 1),
            )

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

    __slots__ = ("_lane", "_left", "_pacer")

    def __init__(self, pacer: ProcessPacer, lane: Lane) -> None:
        self._pacer = pacer
        self._lane = lane
        self._left = False

    def leaving(self) -> None:
        if not self._left:
            self._left = True
            schedule = self._pacer._schedule
            schedule.marks = schedule.marks.departed(self._lane, self._pacer._clock_ns())
            self._pacer._advance()

    def refused(self, retry_after_seconds: float | None) -> float:
        schedule, now_ns = self._pacer._schedule, self._pacer._clock_ns()
        pause_ns = round(max(retry_after_seconds or 0.0, 0.0) * SECOND_NS)
        schedule.marks = schedule.marks.refused(now_ns, pause_ns, schedule.gaps)
        self._pacer._advance()
        return (schedule.marks.earliest(self._lane, now_ns, schedule.gaps) - now_ns) / SECOND_NS

    def end(self) -> None:
        schedule = self._pacer._schedule
        if self._left:
            schedule.marks = schedule.marks.completed(self._pacer._clock_ns())
        else:
            schedule.give_back()
        self._pacer._advance()

"""One schedule for a key in all processes that share a state folder: which request may leave next, and when.

Requests leave `general_ns` apart, and creates also leave `create_ns` apart. Urgent requests leave before others, and
equal ones in order of arrival, one per process in each round. A turn is given, then left at the moment the bytes leave,
then over. The actual departure counts, not the wake-up before it: connecting and TLS come in between and would bring
two requests closer together at Clore than they were here. Until its request leaves, a turn holds the gate but costs
nothing, so a caller that gives up returns it. This arithmetic (`Gaps`, `Marks`, `forecast`, `step`) is pure: times are
integer nanoseconds, and the clock is an argument.

Lowering a spot price (once per order in 600 seconds) has no lane, because no call waits for ten minutes. Clore refuses
it with the seconds left, which set_spot_price reports.

Every process stores its requests as rows. In short transactions on a worker thread it asks whether the next request to
leave is one of its own: when one joins, when its own forecast is due, and a few times a second in between, because
others may have given up or be urgent. Departures, replies and refusals are recorded in the same transactions, in order.
Until a departure is recorded, its row stays at the gate and no other request leaves.

A process that is killed or stopped falls silent, and its rows are deleted after `SILENT_NS`. If there is no usable
state, the rows are kept in memory and the process paces itself alone, because a cancel must not wait for a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from secrets import token_hex
from typing import Final

from clore_mcp.errors import QueueFull, StateUnavailable
from clore_mcp.store import pace
from clore_mcp.store.database import Database, Tx
from clore_mcp.store.pace import PaceMemory, PacePlace

SECOND_NS: Final = 1_000_000_000
# The longest Retry-After that is obeyed. None from Clore has been seen yet, and a wrong one must not lock a key for a
# day. An urgent request never waits that long (`Gaps.urgent_pause_ns`).
LONGEST_PAUSE_NS: Final = 600 * SECOND_NS
LONG_AGO: Final = -(1 << 62)
INSTANTS: Final = ("left_ns", "create_left_ns", "completed_ns", "not_before_ns", "single_until_ns")  # of Marks
log = logging.getLogger(__name__)
SILENT_NS: Final = 1_500_000_000  # longer than a live event loop is ever blocked
_TICK_SECONDS: Final = 0.2
_ALIVE_SECONDS: Final = 0.5  # while no request waits here: often enough not to count as silent
_LEAST_PAUSE_NS: Final = 5_000_000  # with gaps near zero, a process that waits for another asks again this often
_KEPT: Final = (*INSTANTS, "margin_ns", "round")


class Lane(StrEnum):
    """The limit of Clore that a request counts against, besides the general one."""

    GENERAL = "general"
    CREATE = "create"


@dataclass(frozen=True, slots=True)
class Gaps:
    """How far apart requests leave. The simulated marketplace accepts a faster pace."""

    # Clore documents 1 s. At 1.0 s half are refused, because wake-ups jitter. With 100 ms more, 0 of 32 were (2026-11).
    general_ns: int = 1_100_000_000
    create_ns: int = 5_500_000_000  # documented: 5 s; production clients use 5.2 to 6
    single_flight_ns: int = 600 * SECOND_NS
    longest_flight_ns: int = 5 * SECOND_NS  # a slower reply blocks no other request, because a cancel may be waiting
    urgent_pause_ns: int = 5 * SECOND_NS  # after a refusal, even if it asks for longer, because the order bills

    @classmethod
    def scaled(cls, general_seconds: float) -> Gaps:
        """Return gaps in the usual proportions, for a marketplace with another pace."""
        usual, general_ns = cls(), round(general_seconds * SECOND_NS)
        return cls(
            general_ns=general_ns,
            create_ns=usual.create_ns * general_ns // usual.general_ns,
            urgent_pause_ns=usual.urgent_pause_ns * general_ns // usual.general_ns,
        )

    @property
    def reply_ns(self) -> int:
        """The gap from a reply to the next departure: 1.02 s if departures are 1.1 s apart. Counted from a reply,
        jitter can't bring two requests closer, because the reply left Clore before it arrived here."""
        return self.general_ns * 102 // 110

    @property
    def widest_margin_ns(self) -> int:
        """The most that refusals can add to a gap."""
        return self.general_ns


@dataclass(frozen=True, slots=True)
class Marks:
    """What has happened on the key so far, as instants of the clock."""

    left_ns: int = LONG_AGO
    create_left_ns: int = LONG_AGO
    completed_ns: int = LONG_AGO
    not_before_ns: int = LONG_AGO
    single_until_ns: int = LONG_AGO
    margin_ns: int = 0  # added to every gap while only one call is in flight at a time
    round: int = 0  # of the last request that got a turn
    in_flight: int = 0
    at_the_gate: bool = False  # a turn was given, and its request has not left yet

    def departed(self, lane: Lane, now_ns: int) -> Marks:
        """Return the marks after a request of that lane left now."""
        create_left_ns = now_ns if lane is Lane.CREATE else self.create_left_ns
        return replace(
            self, left_ns=now_ns, create_left_ns=create_left_ns, in_flight=self.in_flight + 1, at_the_gate=False
        )

    def joined(self, other: Marks) -> Marks:
        """Return these marks with the later of both for each instant. Everything else stays as it is here."""
        return replace(self, **{name: max(getattr(self, name), getattr(other, name)) for name in INSTANTS})

    def completed(self, now_ns: int) -> Marks:
        """Return the marks after a request that had left ended, with or without a reply."""
        return replace(self, completed_ns=now_ns, in_flight=self.in_flight - 1)

    def refused(self, now_ns: int, pause_ns: int, gaps: Gaps, left_ns: int) -> Marks:
        """Return the marks after Clore answered "too fast" to a request that left at `left_ns`.

        Our spacing can't be the reason, because departures are far enough apart. Either Clore counts differently (from
        completion, by one account), or the network delay varies, or another program uses the key. For a while, only one
        call is in flight, and gaps are counted from its reply. Each further refusal in that time adds a tenth of the
        gap.
        """
        since_ns = self.single_until_ns - gaps.single_flight_ns  # the last refusal
        margin_ns = 0
        if now_ns < self.single_until_ns:
            grown_ns = self.margin_ns + (gaps.general_ns // 10 if left_ns >= since_ns else 0)
            margin_ns = min(grown_ns, gaps.widest_margin_ns)
        return replace(
            self,
            not_before_ns=max(self.not_before_ns, now_ns + min(pause_ns, LONGEST_PAUSE_NS)),
            single_until_ns=now_ns + gaps.single_flight_ns,
            margin_ns=margin_ns,
        )

    def blocked(self, now_ns: int, gaps: Gaps) -> bool:
        """Return whether nothing may leave before another event, regardless of the gaps."""
        return self.at_the_gate or (self.in_flight > 0 and now_ns < self.flight_blocks_until(gaps))

    def flight_blocks_until(self, gaps: Gaps) -> int:
        """Return the instant until which a request in flight blocks the others, unless it ends before."""
        return min(self.single_until_ns, self.left_ns + gaps.longest_flight_ns)

    def earliest(self, lane: Lane, now_ns: int, gaps: Gaps, *, urgent: bool = False) -> int:
        """Return the earliest instant for a request of that lane under all its limits; while blocked, a lower bound."""
        single = now_ns < self.single_until_ns
        margin_ns = self.margin_ns if single else 0
        not_before_ns = self.not_before_ns
        if urgent:
            refused_ns = self.single_until_ns - gaps.single_flight_ns
            not_before_ns = min(not_before_ns, refused_ns + gaps.urgent_pause_ns)
        at = max(now_ns, not_before_ns, self.left_ns + (gaps.reply_ns if single else gaps.general_ns) + margin_ns)
        if lane is Lane.CREATE:
            at = max(at, self.create_left_ns + gaps.create_ns)
        if single:
            at = max(at, self.completed_ns + gaps.reply_ns + margin_ns)
        return max(at, now_ns + gaps.general_ns) if self.blocked(now_ns, gaps) else at


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits for its turn until `deadline_ns` at the latest."""

    number: int
    lane: Lane
    urgent: bool
    deadline_ns: int
    round: int = 0  # a caller with many waiting requests has one in each round

    @property
    def rank(self) -> tuple[int, int]:
        """Its sort key among requests of the same lane and urgency."""
        return self.round, self.number


def forecast(marks: Marks, gaps: Gaps, waiting: Iterable[Waiting], now_ns: int) -> list[tuple[Waiting, int]]:
    """Return when each would leave, in that order. A request that would miss its deadline takes no slot."""
    queues: dict[tuple[Lane, bool], deque[Waiting]] = {}
    for one in sorted(waiting, key=lambda one: one.rank):
        queues.setdefault((one.lane, one.urgent), deque()).append(one)
    leaves: list[tuple[Waiting, int]] = []
    while queues:
        # The request that can leave first does. A create that waits for its lane delays no read behind it.
        key, at = min(
            ((key, marks.earliest(key[0], now_ns, gaps, urgent=key[1])) for key in queues),
            key=lambda found: (found[1], not found[0][1], queues[found[0]][0].rank),
        )
        one = queues[key].popleft()
        if not queues[key]:
            del queues[key]
        leaves.append((one, at))
        if at <= one.deadline_ns:
            marks, now_ns = marks.departed(one.lane, at).completed(at), at
    return leaves


@dataclass(frozen=True, slots=True)
class Step:
    """The plan: the request that may leave now, those that would miss their deadline and when, and when the others
    leave."""

    go: Waiting | None
    too_late: list[tuple[Waiting, int]]
    staying: list[tuple[Waiting, int]]


def step(marks: Marks, gaps: Gaps, waiting: Iterable[Waiting], now_ns: int) -> Step:
    """Return which waiting request may leave now, and when the others would leave."""
    leaves = forecast(marks, gaps, waiting, now_ns)
    staying = [(one, at) for one, at in leaves if at <= one.deadline_ns]
    free = bool(staying) and not marks.blocked(now_ns, gaps) and staying[0][1] <= now_ns
    return Step(staying[0][0] if free else None, [(one, at) for one, at in leaves if at > one.deadline_ns], staying)


Change = Callable[[Tx, Marks], Marks]


@dataclass(eq=False, slots=True)
class Turn:
    """A turn to send one request, from the wait for it to the reply. `came` is resolved when it has come, or fails."""

    pacer: Pacer
    lane: Lane
    urgent: bool
    deadline_ns: int
    came: asyncio.Future[None]
    place: int = 0
    left_ns: int | None = None

    def leaving(self) -> None:
        """Record that the bytes leave now, once. A turn that ends without this costs nothing."""
        if self.left_ns is None:
            self.left_ns = self.pacer.departed(self)

    def refused(self, retry_after_seconds: float | None) -> float:
        """Record that Clore answered "too fast". Returns in how many seconds the next of this lane may leave."""
        return self.pacer.refused(self, retry_after_seconds)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The result of one transaction."""

    marks: Marks
    go: Turn | None  # may leave now
    too_late: tuple[tuple[Turn, int], ...]  # would wait too long, with the time of its turn
    next_ns: int | None  # when to ask again
    waiting: int  # how many requests wait


class Pacer:
    """Paces the requests of this process, with a `state` among those of all processes on the same key (a digest)."""

    def __init__(
        self,
        gaps: Gaps | None = None,
        *,
        state: Database | None = None,
        key: str = "",
        patience_seconds: float = 60.0,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._state: Database | PaceMemory = state or PaceMemory()
        self._key = key
        self._gaps = gaps or Gaps()
        self._patience_seconds = patience_seconds
        self._clock_ns = clock_ns
        self._owner = token_hex(8)
        # Takes over if the state can't be used. Each continues from what the other knows.
        self._other = None if state is None else Pacer(gaps, patience_seconds=patience_seconds, clock_ns=clock_ns)
        if self._other is not None:
            self._other._other = self
        self._requests: list[Turn] = []
        self._changes: list[Change] = []
        self._marks = Marks()  # as of the last transaction
        self._changed = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def turn(
        self, lane: Lane, *, urgent: bool = False, patience_seconds: float | None = None
    ) -> AsyncIterator[Turn]:
        """Wait for a turn and hold it for one request. Raises QueueFull at once if the wait would be too long."""
        patience = self._patience_seconds if patience_seconds is None else patience_seconds
        deadline_ns = self._clock_ns() + round(patience * SECOND_NS)
        request = Turn(self, lane, urgent, deadline_ns, asyncio.get_running_loop().create_future())
        try:
            await self._wait(request)
        except StateUnavailable:
            if self._other is None:
                raise
            async with self._other.turn(lane, urgent=urgent, patience_seconds=patience_seconds) as turn:
                yield turn
            return
        try:
            yield request
        finally:
            self._end(request)

    async def aclose(self) -> None:
        """Record what is still pending, then close the file."""
        for pacer in filter(None, (self, self._other)):
            if pacer._driver is not None:
                pacer._requests.clear()
                pacer._changed.set()
                await asyncio.wait([pacer._driver])
            await asyncio.to_thread(pacer._state.close)

    async def _wait(self, request: Turn) -> None:
        self._requests.append(request)
        self._wake()
        try:
            await request.came
        except BaseException:
            if request in self._requests:
                self._requests.remove(request)
                self._change(partial(_drop, request))
            raise

    def _end(self, request: Turn) -> None:
        if request in self._requests:
            self._requests.remove(request)
            now_ns, left = self._clock_ns(), request.left_ns is not None
            self._changes.append(partial(_completed, request, now_ns) if left else partial(_drop, request))
            if not left or now_ns < self._marks.single_until_ns:  # else the next step is soon enough
                self._wake()

    def departed(self, request: Turn) -> int:
        """Return the time of a departure, which is recorded a moment later. Until then no other request leaves."""
        now_ns = self._clock_ns()
        self._marks = self._marks.departed(request.lane, now_ns)  # counts even if it can't be recorded
        self._change(partial(_departed, request, now_ns))
        return now_ns

    def refused(self, request: Turn, retry_after_seconds: float | None) -> float:
        """See `Turn.refused`."""
        now_ns, gaps = self._clock_ns(), self._gaps
        left_ns = now_ns if request.left_ns is None else request.left_ns
        pause_ns = round(max(retry_after_seconds or 0.0, 0.0) * SECOND_NS)
        self._marks = self._marks.refused(now_ns, pause_ns, gaps, left_ns)
        self._change(lambda tx, marks: marks.refused(now_ns, pause_ns, gaps, left_ns))
        earliest_ns = self._marks.earliest(request.lane, now_ns, gaps, urgent=request.urgent)
        return (earliest_ns - now_ns) / SECOND_NS

    def _change(self, change: Change) -> None:
        self._changes.append(change)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._drive(), name="pacing")

    async def _drive(self) -> None:
        """Keep the rows and ask which request is next, while any request waits."""
        while self._requests or self._changes:
            self._changed.clear()
            changes, self._changes = self._changes, []
            try:
                verdict = await self._state.write(partial(self._step, changes, tuple(self._requests)))
            except StateUnavailable as error:
                self._changes = [*changes, *self._changes]  # until the state can be used again
                self._go_alone(error)
                return
            self._tell(verdict)
            if not self._requests:
                continue
            on_its_way = all(request.left_ns is not None for request in self._requests)
            pause = _ALIVE_SECONDS if on_its_way else _TICK_SECONDS
            if verdict.next_ns is not None:
                pause = min(pause, max(verdict.next_ns - self._clock_ns(), _LEAST_PAUSE_NS) / SECOND_NS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    # On a worker thread, in one transaction

    def _step(self, changes: Sequence[Change], requests: Sequence[Turn], tx: Tx) -> _Verdict:
        """Record what has happened here, then return which request is next and which would wait too long."""
        now_ns = self._clock_ns()
        marks = self._read(tx, now_ns)
        if self._other is not None:
            marks = marks.joined(self._other._marks)
        for change in changes:
            marks = change(tx, marks)
        standing = {place.id for place in pace.places(tx, self._key)}
        for request in requests:  # new, or dropped because others took this process for dead: it joins at the end
            if request.place not in standing and not request.came.done():
                request.place = pace.join(
                    tx, self._key, self._owner, request.lane.value, urgent=request.urgent,
                    deadline_ns=request.deadline_ns, round=marks.round + 1, now_ns=self._clock_ns(),
                )  # fmt: skip
        pace.touch(tx, self._owner, now_ns)
        places = pace.places(tx, self._key)
        silent = [place for place in places if place.seen_ns < now_ns - SILENT_NS]
        for place in silent:
            marks = _fell_silent(tx, marks, place)
        verdict = self._next(tx, marks, [place for place in places if place not in silent], requests, now_ns)
        pace.keep_marks(tx, self._key, {name: getattr(verdict.marks, name) for name in _KEPT})
        return verdict

    def _read(self, tx: Tx, now_ns: int) -> Marks:
        """Return the recorded marks, or empty ones if they are from before the machine's last start, when the clock was
        another one."""
        kept = pace.marks(tx, self._key)
        if kept is None:
            return Marks()
        marks = replace(Marks(), **{name: kept[name] for name in _KEPT})
        seen = [place.seen_ns for place in pace.places(tx, self._key)]
        if max(marks.left_ns, marks.completed_ns, *seen, LONG_AGO) > now_ns:
            pace.forget(tx, self._key)
            return Marks()
        return marks

    def _next(
        self, tx: Tx, marks: Marks, places: Sequence[PacePlace], requests: Sequence[Turn], now_ns: int
    ) -> _Verdict:
        stages = [place.stage for place in places]
        marks = replace(marks, in_flight=stages.count("flying"), at_the_gate="gate" in stages)
        mine = {request.place: request for request in requests if request.place}
        waiting = [
            Waiting(place.id, Lane(place.lane), place.urgent, place.deadline_ns, place.round)
            for place in places
            if place.stage == "waiting"
        ]
        found = step(marks, self._gaps, waiting, now_ns)
        too_late = tuple((mine[one.number], at) for one, at in found.too_late if one.number in mine)
        for request, _ in too_late:
            pace.drop(tx, request.place)
        go = mine.get(found.go.number) if found.go is not None else None
        if go is not None and found.go is not None:
            pace.move(tx, go.place, "gate")
            marks = replace(marks, at_the_gate=True, round=max(marks.round, found.go.round))
        ours = (at for one, at in found.staying if one.number in mine and mine[one.number] is not go)
        next_ns = min(ours, default=None)
        return _Verdict(marks, go, too_late, next_ns, len(waiting))

    # Back on the event loop

    def _tell(self, verdict: _Verdict) -> None:
        self._marks = verdict.marks
        now_ns = self._clock_ns()
        for request, at in verdict.too_late:
            if not request.came.done():
                self._requests.remove(request)
                message = f"{verdict.waiting} requests to Clore already wait for their turn; nothing was sent."
                wait_seconds = max((at - now_ns) / SECOND_NS, 0.1)
                request.came.set_exception(QueueFull(message, retry_after_seconds=round(wait_seconds, 1)))
        if verdict.go is not None and not verdict.go.came.done():
            verdict.go.came.set_result(None)

    def _go_alone(self, error: StateUnavailable) -> None:
        """Let the waiting requests continue with what this process knows. Requests in flight end without a record."""
        log.warning("requests are paced by this process alone: %s", error.message)
        waiting = [request for request in self._requests if not request.came.done()]
        self._requests = [request for request in self._requests if request.came.done()]
        if self._withdraw not in self._changes:  # else their rows stay first in line once the state can be used again
            self._changes.append(self._withdraw)
        for request in waiting:
            request.came.set_exception(error)

    def _withdraw(self, tx: Tx, marks: Marks) -> Marks:
        pace.withdraw(tx, self._key, self._owner)
        return marks


def _departed(request: Turn, at_ns: int, tx: Tx, marks: Marks) -> Marks:
    pace.move(tx, request.place, "flying")
    return marks.departed(request.lane, at_ns)


def _completed(request: Turn, at_ns: int, tx: Tx, marks: Marks) -> Marks:
    pace.drop(tx, request.place)
    return marks.completed(at_ns)


def _drop(request: Turn, tx: Tx, marks: Marks) -> Marks:
    pace.drop(tx, request.place)
    return marks


def _fell_silent(tx: Tx, marks: Marks, place: PacePlace) -> Marks:
    """Return the marks after a process was killed or stopped. A request at the gate may have left unrecorded."""
    pace.drop(tx, place.id)
    if place.stage == "gate":
        return marks.departed(Lane(place.lane), max(marks.left_ns, place.seen_ns))
    return marks.completed(max(marks.completed_ns, place.seen_ns)) if place.stage == "flying" else marks

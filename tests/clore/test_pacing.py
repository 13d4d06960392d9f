"""When requests leave: the schedule under a clock that the test sets, and the pacer that acts on it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clore_mcp.clore import Gaps, Lane, Pacer
from clore_mcp.clore.pacer import LONGEST_PAUSE_NS, SECOND_NS, Marks, Waiting, forecast, step
from clore_mcp.errors import QueueFull
from tests.clore.conftest import MS
from tests.clore.turns import Turns

GAPS = Gaps()
FOREVER = 1 << 60


@dataclass
class Street:
    """A schedule driven by hand: time goes on only by `run`, and every departure is written down."""

    marks: Marks = field(default_factory=Marks)
    waiting: list[Waiting] = field(default_factory=list)
    now: int = 0
    latency: int = 450 * MS
    connect: int = 0  # between getting a turn and leaving
    departures: list[tuple[int, Waiting]] = field(default_factory=list)
    refused: list[tuple[Waiting, int]] = field(default_factory=list)
    cancelled: list[Waiting] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    most_in_flight: int = 0

    def join(self, lane: Lane = Lane.GENERAL, urgent: bool = False, patience: int = FOREVER) -> Waiting:
        one = Waiting(
            len([*self.departures, *self.waiting, *self.refused, *self.cancelled]), lane, urgent, self.now + patience
        )
        self.waiting.append(one)
        self.settle()
        return one

    def settle(self) -> int | None:
        """Whoever may leave now does; when to look again."""
        while True:
            found = step(self.marks, GAPS, self.waiting, self.now)
            self.refused += found.too_late
            self.waiting = [one for one in self.waiting if one not in [late for late, _ in found.too_late]]
            if found.go is None:
                blocked = self.marks.blocked(self.now, GAPS)
                deadlines = [one.deadline_ns + 1 for one in self.waiting]
                at = self.marks.flight_blocks_until(GAPS) if blocked else None
                return min([*deadlines, *([at] if at is not None else [at for _, at in found.staying])], default=None)
            self.waiting.remove(found.go)
            self.now += self.connect
            self.complete_due()
            self.marks = self.marks.departed(found.go.lane, self.now)
            self.departures.append((self.now, found.go))
            self.ends.append(self.now + self.latency)
            self.most_in_flight = max(self.most_in_flight, self.marks.in_flight)

    def complete_due(self) -> None:
        for end in [end for end in self.ends if end <= self.now]:
            self.ends.remove(end)
            self.marks = self.marks.completed(end)

    def run(self, until: int) -> None:
        while True:
            again = self.settle()
            instants = [at for at in [*self.ends, again] if at is not None and at <= until]
            if not instants:
                break
            self.now = max(self.now, min(instants))
            self.complete_due()
        self.now = max(self.now, until)
        self.complete_due()

    def gaps(self, lane: Lane | None = None) -> list[int]:
        at = [at for at, one in self.departures if lane is None or one.lane is lane]
        return [later - earlier for earlier, later in pairwise(at)]


arrivals = st.lists(
    st.tuples(
        st.sampled_from(["join", "join", "join", "cancel", "refuse"]),
        st.sampled_from(Lane),
        st.booleans(),
        st.integers(0, 3 * SECOND_NS),
        st.integers(0, 90 * SECOND_NS),
    ),
    max_size=40,
)


@given(arrivals, st.integers(0, 3 * SECOND_NS), st.integers(0, 400 * MS))
def test_no_two_departures_are_ever_closer_than_their_gaps(
    events: list[tuple[str, Lane, bool, int, int]], latency: int, connect: int
) -> None:
    street, smallest = Street(latency=latency, connect=connect), GAPS.general_ns
    for what, lane, urgent, pause, patience in events:
        street.run(street.now + pause)
        if what == "join":
            street.join(lane, urgent, patience)
        elif what == "cancel" and street.waiting:
            street.cancelled += [street.waiting.pop(0)]
        elif what == "refuse":
            street.marks = street.marks.refused(street.now, pause, GAPS, street.now)
            smallest = GAPS.reply_ns  # counted from a reply, which came later than the departure
    street.run(street.now + 400 * SECOND_NS)
    assert all(gap >= smallest for gap in street.gaps())
    assert all(gap >= GAPS.create_ns for gap in street.gaps(Lane.CREATE))
    assert not street.waiting
    assert all(at <= one.deadline_ns + street.connect for at, one in street.departures)
    assert all(at > one.deadline_ns for one, at in street.refused)


@given(arrivals)
def test_equals_leave_in_the_order_in_which_they_came(events: list[tuple[str, Lane, bool, int, int]]) -> None:
    street = Street()
    for _, lane, urgent, pause, _ in events:
        street.run(street.now + pause)
        street.join(lane, urgent)
    street.run(street.now + 400 * SECOND_NS)
    assert len(street.departures) == len(events)
    for lane in Lane:
        for urgent in (False, True):
            numbers = [one.number for _, one in street.departures if (one.lane, one.urgent) == (lane, urgent)]
            assert numbers == sorted(numbers)


@settings(max_examples=20)
@given(st.integers(0, 3 * SECOND_NS))
def test_an_urgent_request_leaves_within_two_slots_behind_fifty_queued_ones(later: int) -> None:
    street = Street()
    for _ in range(50):
        street.join()
    street.run(later)
    urgent, came = street.join(urgent=True), street.now
    street.run(came + 10 * SECOND_NS)
    assert next(at for at, one in street.departures if one is urgent) <= came + 2 * GAPS.general_ns


@given(st.integers(0, 9))
def test_a_cancelled_wait_frees_its_slot(which: int) -> None:
    street = Street()
    waiting = [street.join() for _ in range(11)][1:]
    street.waiting.remove(waiting[which])
    street.run(60 * SECOND_NS)
    assert [at for at, _ in street.departures] == [n * GAPS.general_ns for n in range(10)]


def test_a_create_that_waits_for_its_lane_holds_up_no_read() -> None:
    street = Street()
    street.join(Lane.CREATE)
    create, read = street.join(Lane.CREATE), street.join()
    street.run(20 * SECOND_NS)
    assert [(at, one) for at, one in street.departures[1:]] == [(GAPS.general_ns, read), (GAPS.create_ns, create)]


def test_who_would_wait_too_long_is_told_at_once_and_takes_no_slot() -> None:
    street = Street()
    for _ in range(3):
        street.join()
    hasty, patient = street.join(patience=3 * SECOND_NS), street.join(patience=4 * SECOND_NS)
    assert street.refused == [(hasty, 3 * GAPS.general_ns)]
    street.run(10 * SECOND_NS)
    assert (3 * GAPS.general_ns, patient) in street.departures


def test_a_refusal_that_spacing_does_not_explain_lets_one_call_fly_at_a_time_for_ten_minutes() -> None:
    street = Street(latency=3 * SECOND_NS)
    street.marks = Marks().refused(0, 0, GAPS, 0)
    for _ in range(300):
        street.join()
    street.run(590 * SECOND_NS)
    assert street.most_in_flight == 1
    assert set(street.gaps()) == {street.latency + GAPS.reply_ns}  # counted from completion
    street.run(620 * SECOND_NS)
    assert street.most_in_flight > 1
    assert street.gaps()[-1] == GAPS.general_ns


def test_retry_after_holds_up_everyone_but_no_longer_than_ten_minutes() -> None:
    marks = Marks().refused(0, 7 * SECOND_NS, GAPS, 0)
    assert {marks.earliest(lane, 0, GAPS) for lane in Lane} == {7 * SECOND_NS}
    assert marks.refused(SECOND_NS, 0, GAPS, 0).earliest(Lane.GENERAL, SECOND_NS, GAPS) == 7 * SECOND_NS
    assert Marks().refused(0, 1 << 55, GAPS, 0).earliest(Lane.GENERAL, 0, GAPS) == LONGEST_PAUSE_NS


def test_refused_again_although_one_flies_at_a_time_the_gap_grows_and_recovers() -> None:
    marks, tenth = Marks().refused(0, 0, GAPS, 0), GAPS.general_ns // 10
    late = marks.refused(SECOND_NS, 0, GAPS, -SECOND_NS)  # it had left before the first refusal was heard
    assert (marks.margin_ns, late.margin_ns) == (0, 0)
    for times in range(1, 20):
        now = times * 2 * SECOND_NS
        marks = marks.refused(now, 0, GAPS, now - MS)
        assert marks.margin_ns == min(times * tenth, GAPS.widest_margin_ns)
    left = marks.departed(Lane.GENERAL, now).completed(now)
    assert left.earliest(Lane.GENERAL, now, GAPS) == now + GAPS.reply_ns + GAPS.widest_margin_ns
    over = now + GAPS.single_flight_ns
    assert left.departed(Lane.GENERAL, over).earliest(Lane.GENERAL, over, GAPS) == over + GAPS.general_ns
    assert left.refused(over, 0, GAPS, over).margin_ns == 0


def test_a_reply_that_takes_long_holds_up_nobody_for_long() -> None:
    street = Street(latency=25 * SECOND_NS)
    street.marks = Marks().refused(0, 0, GAPS, 0)
    street.join()
    urgent = street.join(urgent=True)
    street.run(20 * SECOND_NS)
    assert street.departures[1] == (street.departures[0][0] + GAPS.longest_flight_ns, urgent)


def test_who_has_many_waiting_has_one_a_round() -> None:
    crowd = [Waiting(number, Lane.GENERAL, urgent=False, deadline_ns=FOREVER, round=number) for number in range(1, 6)]
    guest = Waiting(9, Lane.GENERAL, urgent=False, deadline_ns=FOREVER, round=2)
    order = [one.number for one, _ in forecast(Marks(), GAPS, [*crowd, guest], 0)]
    assert order == [1, 2, 9, 3, 4, 5]


def test_a_thousand_waiting_requests_are_planned_in_a_fraction_of_a_second() -> None:
    crowd = [Waiting(number, list(Lane)[number % 2], number % 3 == 0, FOREVER) for number in range(1000)]
    begun = time.thread_time()  # of this thread alone: whatever else the machine does
    step(Marks(), GAPS, crowd, 0)
    assert time.thread_time() - begun < 0.5


class Track(Turns):
    """The turns of one pacer without a state."""

    def __init__(self, gaps: Gaps, patience_seconds: float = 5) -> None:
        super().__init__()
        self.pacer = Pacer(gaps, patience_seconds=patience_seconds)


TEN = Gaps(general_ns=10 * MS, create_ns=40 * MS, single_flight_ns=200 * MS)


@pytest.mark.anyio
async def test_twenty_callers_at_once_leave_apart_and_in_order() -> None:
    track = Track(TEN)
    async with asyncio.timeout(20):
        await asyncio.gather(*(track.go(track.pacer, chr(97 + n)) for n in range(20)))
    assert track.names() == "abcdefghijklmnopqrst"
    assert track.smallest_gap() >= 0.0099


@pytest.mark.anyio
async def test_an_urgent_caller_overtakes_the_queue_and_a_create_keeps_its_own_distance() -> None:
    track = Track(Gaps(general_ns=10 * MS, create_ns=800 * MS))  # far apart, so that a busy machine changes no order
    async with asyncio.timeout(20):
        await asyncio.gather(
            track.go(track.pacer, "C", Lane.CREATE),
            track.go(track.pacer, "D", Lane.CREATE),
            track.go(track.pacer, "a"),
            track.go(track.pacer, "b"),
            track.go(track.pacer, "!", urgent=True),
        )
    assert track.names() == "!CabD"


@pytest.mark.anyio
async def test_a_cancelled_caller_gives_its_turn_back_wherever_it_stands() -> None:
    track = Track(TEN)
    entered = asyncio.Event()

    async def stands_at_the_gate() -> None:
        async with track.pacer.turn(Lane.GENERAL):
            entered.set()
            await asyncio.sleep(60)

    gate = asyncio.create_task(stands_at_the_gate())
    await asyncio.wait_for(entered.wait(), 20)
    queued, last = asyncio.create_task(track.go(track.pacer, "q")), asyncio.create_task(track.go(track.pacer, "l"))
    await asyncio.sleep(0)
    for task in (queued, gate):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.wait_for(last, 20)
    assert track.names() == "l"


@pytest.mark.anyio
async def test_a_turn_that_comes_in_the_instant_of_the_cancellation_is_given_back() -> None:
    track = Track(TEN)
    async with track.pacer.turn(Lane.GENERAL):
        late = asyncio.create_task(track.go(track.pacer, "x"))
        await asyncio.sleep(0)
    late.cancel()  # the turn is its already, but it has not run since
    with pytest.raises(asyncio.CancelledError):
        await late
    await asyncio.wait_for(track.go(track.pacer, "y"), 20)
    assert track.names() == "y"


@pytest.mark.anyio
async def test_a_caller_that_is_turned_away_and_cancelled_in_one_instant_disturbs_nobody() -> None:
    track = Track(Gaps(general_ns=20 * MS, create_ns=20 * MS), patience_seconds=0.03)
    async with track.pacer.turn(Lane.GENERAL) as turn:
        turn.leaving()
        second = asyncio.create_task(track.go(track.pacer, "s"))
        await asyncio.sleep(0)
        turn.refused(9.0)  # whoever waits is hopeless now
        second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert track.names() == ""


@pytest.mark.anyio
async def test_a_wait_beyond_the_callers_patience_is_refused_at_once_with_the_seconds_to_wait() -> None:
    pacer: Pacer = Pacer(patience_seconds=0.5, clock_ns=lambda: 0)  # no time passes: a wait would never end
    async with pacer.turn(Lane.GENERAL) as turn:
        turn.leaving()
        turn.leaving()  # a second time changes nothing
    async with asyncio.timeout(20):
        with pytest.raises(QueueFull, match="nothing was sent") as caught:
            async with pacer.turn(Lane.GENERAL):
                raise AssertionError("the turn must not come")
        assert caught.value.retry_after_seconds == 1.1
        with pytest.raises(QueueFull):
            async with pacer.turn(Lane.GENERAL, patience_seconds=0):
                raise AssertionError("the turn must not come")


@pytest.mark.anyio
async def test_waiting_ends_when_a_stuck_call_outlasts_the_patience() -> None:
    track = Track(TEN, patience_seconds=0.05)
    async with track.pacer.turn(Lane.GENERAL):
        with pytest.raises(QueueFull):
            await asyncio.wait_for(track.go(track.pacer, "x"), 20)


@pytest.mark.anyio
async def test_after_a_refusal_one_call_flies_at_a_time_and_retry_after_is_kept() -> None:
    track = Track(TEN)
    async with track.pacer.turn(Lane.GENERAL) as turn:
        turn.leaving()
        told = time.monotonic()
        assert turn.refused(0.05) == pytest.approx(0.05)
    async with asyncio.timeout(20):
        await asyncio.gather(*(track.go(track.pacer, name, takes=0.03) for name in "abc"))
    assert track.left[0][1] - told >= 0.0499
    assert track.smallest_gap() >= 0.0399  # 30 ms of work and the gap after it

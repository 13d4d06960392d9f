"""Computes when requests of one key may leave under Clore's limits. Times are integer nanoseconds; the clock is an
argument.

Requests leave `general_ns` apart, and creates also leave `create_ns` apart. Urgent requests leave before others, and
equal ones in order of arrival, one per process in each round. A turn is given, then left at the moment the bytes leave,
then over. The actual departure counts, not the wake-up before it: connecting and TLS come in between and would bring
two requests closer together at Clore than they were here. Until its request leaves, a turn holds the gate but costs
nothing, so a caller that gives up returns it.

Lowering a spot price (once per order in 600 seconds) has no lane, because no call waits for ten minutes. Clore refuses
it with the seconds left, which set_spot_price reports.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

SECOND_NS: Final = 1_000_000_000
# The longest Retry-After that is obeyed. None from Clore has been seen yet, and a wrong one must not lock a key for a
# day. An urgent request never waits that long (`Gaps.urgent_pause_ns`).
LONGEST_PAUSE_NS: Final = 600 * SECOND_NS
LONG_AGO: Final = -(1 << 62)
INSTANTS: Final = ("left_ns", "create_left_ns", "completed_ns", "not_before_ns", "single_until_ns")  # of Marks


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
    """Return the instant at which each would leave, in that order. A request that would miss its deadline takes no
    slot."""
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

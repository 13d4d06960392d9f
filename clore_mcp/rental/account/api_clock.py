"""Clore's clock, by which leases run. It is set by the dates of replies and carried on by a monotonic clock.

No single date is trusted. A date counts at once if it agrees with the last accepted one by a clock of this machine. The
first date counts if it agrees with this machine's own time. Any other date is a jump, and is accepted only when three
in a row agree with each other. Until then the last accepted date is carried on.

While a machine sleeps its monotonic clock may stand still. Clore's time is then behind until the next reply, so a lease
ends late, never early.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from clore_mcp.store.shared import Instant

log = logging.getLogger(__name__)

_JUMP_SECONDS: Final = 5.0  # clocks are slewed slightly all the time
_SLACK_SECONDS: Final = 10.0  # a date is in whole seconds, and a slow reply is read some seconds after its date
_AGREEING: Final = 3  # this many dates in a row confirm a jump
_STRAYS: Final = 6  # after this many first dates that agree with nothing, use this machine's clock, as without a date


@dataclass(frozen=True, slots=True)
class DatedReply:
    """A reply: Clore's time then, in unix seconds, and both clocks of this machine."""

    api_at: float
    wall: float
    monotonic: float

    def agrees(self, later: DatedReply, slack_seconds: float) -> bool:
        """Return whether as much time has passed at Clore as here, by either clock. Each may jump or stand still."""
        passed = later.api_at - self.api_at
        return any(
            abs(passed - here) <= slack_seconds for here in (later.monotonic - self.monotonic, later.wall - self.wall)
        )


@dataclass(frozen=True, slots=True)
class Belief:
    """The conclusion from the dates heard so far: the last accepted one, and those in doubt since then. Immutable."""

    base: DatedReply | None = None
    dated: bool = False  # False: `base` is this machine's own time, because no date was accepted
    doubted: tuple[DatedReply, ...] = ()
    strays: int = 0

    def after(self, heard: DatedReply, slack_seconds: float) -> Belief:
        """Return the belief after this date is heard too."""
        if self._agrees(heard, slack_seconds):
            return Belief(heard, dated=True)
        in_row = bool(self.doubted) and self.doubted[-1].agrees(heard, slack_seconds)
        doubted = (*self.doubted, heard) if in_row else (heard,)
        if len(doubted) >= _AGREEING:
            return Belief(heard, dated=True)
        if self.base is None and self.strays + 1 >= _STRAYS:
            return Belief(DatedReply(heard.wall, heard.wall, heard.monotonic))
        return replace(self, doubted=doubted, strays=self.strays + 1)

    def _agrees(self, heard: DatedReply, slack_seconds: float) -> bool:
        if self.base is not None and self.dated:
            return self.base.agrees(heard, slack_seconds)
        return abs(heard.api_at - heard.wall) <= slack_seconds


class ApiClock:
    """Clore's time as heard so far. `wall` and `monotonic` are this machine's clocks, in seconds. `faster` is how many
    times as fast as ours Clore's clock may run; it exceeds 1 only for a simulated one."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float], faster: float = 1.0) -> None:
        self.wall = wall
        self._monotonic = monotonic
        self._slack = _SLACK_SECONDS * faster
        self._belief = Belief()
        self._last: Instant | None = None
        self._warned = False

    def here(self) -> Instant:
        """Return this machine's clocks now."""
        return Instant(self.wall(), self._monotonic())

    def hear(self, api_at: float | None, came: Instant | None = None) -> None:
        """Record a reply that arrived now, or at `came`, possibly in another process. `api_at` is Clore's time, if it
        had one. A reply that came no later than the last one is ignored."""
        if came is None:
            came = self.here()
        elif self._last is not None and came.monotonic <= self._last.monotonic:
            return
        self._last = came
        before = self._belief
        if api_at is None:
            self._undated(came)
            return
        self._warned = False
        self._belief = before.after(DatedReply(api_at, came.wall, came.monotonic), self._slack)
        if self._belief.doubted and not before.doubted:
            log.info("Clore's clock has jumped by a reply's date: it counts when the next replies agree.")
        if self._belief.base is not None and not self._belief.dated and before.base is None:
            log.warning("Clore's dates contradict each other: leases end by this machine's clock.")

    def _undated(self, came: Instant) -> None:
        before = self._belief
        if not self._warned:
            by = "the last one that had" if before.dated else "this machine's clock"
            log.warning("Clore's replies have no date: leases end by %s, and by no other clock.", by)
        self._warned = True
        if not before.dated:
            self._belief = Belief(DatedReply(came.wall, came.wall, came.monotonic))

    def now(self) -> float:
        """Return Clore's time in unix seconds. Before the first reply it is this machine's time."""
        known = self._belief.base or (self._belief.doubted[-1] if self._belief.doubted else None)
        return self.wall() if known is None else known.api_at + self._monotonic() - known.monotonic

    def is_ahead(self, api_at: float | None) -> bool:
        """Return whether a time reported by Clore is in Clore's own future. No past event can be."""
        return api_at is not None and self.settled and api_at > self.now() + self._slack

    @property
    def settled(self) -> bool:
        """Whether the last date was accepted. A date in doubt is settled by asking again."""
        return not self._belief.doubted

    @property
    def certain(self) -> bool:
        """Whether `now` may end a lease without another reply. False until replies have set the time. Without an
        accepted date, also false after this machine's clock jumped, because it is unknown on which side of the jump it
        was right."""
        base = self._belief.base
        if base is None:
            return False
        apart = (self.wall() - base.wall) - (self._monotonic() - base.monotonic)
        return self._belief.dated or abs(apart) <= _JUMP_SECONDS


def created_between(told: float | None, sent_api_at: float | None, seen_api_at: float) -> int:
    """Return when an order of ours began, by Clore's clock. This is the time its row reports, but not before its create
    was sent and not after it was seen. An unknown time sets no bound."""
    earliest = seen_api_at if sent_api_at is None else min(sent_api_at, seen_api_at)
    if told is None:
        return int(earliest)
    lowest = told if sent_api_at is None else earliest
    return int(min(max(told, lowest), seen_api_at))

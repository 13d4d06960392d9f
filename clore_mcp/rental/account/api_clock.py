"""Clore's clock, by which leases run: told by the dates of replies, carried on from there by a clock that never jumps.

No single date is believed. One counts at once where it agrees with the last believed one by a clock of this machine;
the first one ever, where it agrees with this machine's own time. Anything else has jumped, and is believed only when
three in a row agree with each other. Until then the believed one is carried on.

While a machine sleeps its monotonic clock may stand still. Clore's time is then behind until the next reply: a lease
ends late, never early.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from clore_mcp.store.shared import Instant

log = logging.getLogger(__name__)

_JUMP_SECONDS: Final = 5.0  # clocks are slewed a little all the time
_SLACK_SECONDS: Final = 10.0  # a date is in whole seconds, and a slow reply is read some seconds after it was dated
_AGREEING: Final = 3  # dates in a row that make a jump true
_STRAYS: Final = 6  # first dates that agree with nothing: then this machine's clock counts, as where there is no date


@dataclass(frozen=True, slots=True)
class Heard:
    """A reply: Clore's time then (unix seconds), and both clocks of this machine."""

    api_at: float
    wall: float
    monotonic: float

    def agrees(self, later: Heard, slack_seconds: float) -> bool:
        """Whether as much time has passed at Clore as here, by one of the clocks: each may jump or stand still."""
        passed = later.api_at - self.api_at
        return any(
            abs(passed - here) <= slack_seconds for here in (later.monotonic - self.monotonic, later.wall - self.wall)
        )


@dataclass(frozen=True, slots=True)
class Belief:
    """What the dates heard so far come to: the last believed one, and those in doubt since then. Pure."""

    base: Heard | None = None
    dated: bool = False  # False: `base` is this machine's own time, for want of a date
    doubted: tuple[Heard, ...] = ()
    strays: int = 0

    def after(self, heard: Heard, slack_seconds: float) -> Belief:
        """The belief once this date was heard too."""
        if self._agrees(heard, slack_seconds):
            return Belief(heard, dated=True)
        in_row = bool(self.doubted) and self.doubted[-1].agrees(heard, slack_seconds)
        doubted = (*self.doubted, heard) if in_row else (heard,)
        if len(doubted) >= _AGREEING:
            return Belief(heard, dated=True)
        if self.base is None and self.strays + 1 >= _STRAYS:
            return Belief(Heard(heard.wall, heard.wall, heard.monotonic))
        return replace(self, doubted=doubted, strays=self.strays + 1)

    def _agrees(self, heard: Heard, slack_seconds: float) -> bool:
        if self.base is not None and self.dated:
            return self.base.agrees(heard, slack_seconds)
        return abs(heard.api_at - heard.wall) <= slack_seconds


class ApiClock:
    """Clore's time as far as it was heard. `wall` and `monotonic` are this machine's clocks, in seconds; `faster` is
    how many times as fast as ours Clore's clock may run, which only a simulated one does."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float], faster: float = 1.0) -> None:
        self.wall = wall
        self._monotonic = monotonic
        self._slack = _SLACK_SECONDS * faster
        self._belief = Belief()
        self._last: Instant | None = None
        self._warned = False

    def here(self) -> Instant:
        """This machine's clocks now."""
        return Instant(self.wall(), self._monotonic())

    def hear(self, api_at: float | None, came: Instant | None = None) -> None:
        """A reply came now, with Clore's time in it or without; or it `came` then, perhaps to another process: one from
        before the last says nothing new."""
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
        self._belief = before.after(Heard(api_at, came.wall, came.monotonic), self._slack)
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
            self._belief = Belief(Heard(came.wall, came.wall, came.monotonic))

    def now(self) -> float:
        """Unix seconds; this machine's clock while nothing was heard."""
        known = self._belief.base or (self._belief.doubted[-1] if self._belief.doubted else None)
        return self.wall() if known is None else known.api_at + self._monotonic() - known.monotonic

    def is_ahead(self, api_at: float | None) -> bool:
        """Whether a time that Clore tells lies in its own future, which no past event can."""
        return api_at is not None and self.settled and api_at > self.now() + self._slack

    @property
    def settled(self) -> bool:
        """Whether the last date was believed: one in doubt is settled by asking again."""
        return not self._belief.doubted

    @property
    def certain(self) -> bool:
        """Whether `now` may end a lease without another reply: not before the first date that is believed, and where no
        reply has a date, not after this machine's clock jumped, for nobody knows on which side of it it was right."""
        base = self._belief.base
        if base is None:
            return False
        apart = (self.wall() - base.wall) - (self._monotonic() - base.monotonic)
        return self._belief.dated or abs(apart) <= _JUMP_SECONDS


def created_between(told: float | None, sent_api_at: float | None, seen_api_at: float) -> int:
    """When an order of ours began, by Clore's clock: the time that its row tells, but not before its create left and
    not after it was seen. A time that is not known bounds nothing."""
    earliest = seen_api_at if sent_api_at is None else min(sent_api_at, seen_api_at)
    if told is None:
        return int(earliest)
    lowest = told if sent_api_at is None else earliest
    return int(min(max(told, lowest), seen_api_at))

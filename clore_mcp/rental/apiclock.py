"""Clore's clock, by which leases run: told by the date of a reply, carried on from there by a clock that never jumps.

While a machine sleeps its monotonic clock may stand still. Clore's time is then behind until the next reply: a lease
ends late, never early.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from clore_mcp.state.copies import Instant

log = logging.getLogger(__name__)

_JUMP_SECONDS: Final = 5.0  # clocks are slewed a little all the time


@dataclass(frozen=True, slots=True)
class _Heard:
    """A reply: Clore's time then (unix seconds), and both clocks of this machine."""

    api_at: float
    wall: float
    monotonic: float
    dated: bool


class ApiClock:
    """Clore's time as far as it was heard. `wall` and `monotonic` are this machine's clocks, in seconds."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.wall = wall
        self._monotonic = monotonic
        self._heard: _Heard | None = None
        self._warned = False

    def here(self) -> Instant:
        """This machine's clocks now."""
        return Instant(self.wall(), self._monotonic())

    def hear(self, api_at: float | None, came: Instant | None = None) -> None:
        """A reply came now, with Clore's time in it or without; or it `came` then, perhaps to another process: one from
        before the last says nothing new."""
        dated, before = api_at is not None, self._heard
        if came is None:
            came = self.here()
        elif before is not None and came.monotonic <= before.monotonic:
            return
        if not dated and not self._warned:
            by = "the last one that had" if before and before.dated else "this machine's clock"
            log.warning("Clore's replies have no date: leases end by %s, and by no other clock.", by)
        self._warned = not dated
        if api_at is None and before is not None and before.dated:
            return
        self._heard = _Heard(came.wall if api_at is None else api_at, came.wall, came.monotonic, dated)

    def now(self) -> float:
        """Unix seconds; this machine's clock while nothing was heard."""
        heard = self._heard
        return self.wall() if heard is None else heard.api_at + self._monotonic() - heard.monotonic

    @property
    def certain(self) -> bool:
        """Whether `now` may end a lease without another reply: not before the first one, and where no reply has a date,
        not after this machine's clock jumped, for nobody knows on which side of the jump it was right."""
        heard = self._heard
        if heard is None:
            return False
        apart = (self.wall() - heard.wall) - (self._monotonic() - heard.monotonic)
        return heard.dated or abs(apart) <= _JUMP_SECONDS

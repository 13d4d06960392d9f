"""One call a second for a key, one create in five: the limiter in front of the simulated API."""

from dataclasses import dataclass

from .options import Live

NANO = 1_000_000_000


@dataclass(slots=True)
class _Lane:
    """When a lane last let a call in, and whether that call is still under way."""

    mark_ns: int | None = None
    in_flight: int = 0


class Limiter:
    """Admits a call or says how long to wait. A rejected call is not processed and does not move the window."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._lanes: dict[tuple[str, str], _Lane] = {}

    def admit(self, who: str, create: bool, now_ns: int) -> float | None:
        """None lets the call in and counts it; a number is the seconds until the next chance. Real time."""
        if self._live.options.rate_limit == "off":
            return None
        lanes = self._lanes_of(who, create)
        waits = [self._wait(lane, seconds, now_ns) for lane, seconds in lanes]
        if max(waits) > 0:
            return max(waits)
        for lane, _ in lanes:
            lane.mark_ns = now_ns
            lane.in_flight += 1
        return None

    def complete(self, who: str, create: bool, now_ns: int) -> None:
        """Tell that an admitted call's reply has gone out."""
        for lane, _ in self._lanes_of(who, create):
            lane.in_flight = max(0, lane.in_flight - 1)
            if self._live.options.rate_limit == "completion":
                lane.mark_ns = now_ns

    def _lanes_of(self, who: str, create: bool) -> list[tuple[_Lane, float]]:
        options = self._live.options
        names = [("call", options.interval), ("create", options.create_interval)][: 2 if create else 1]
        return [(self._lanes.setdefault((who, name), _Lane()), seconds) for name, seconds in names]

    def _wait(self, lane: _Lane, seconds: float, now_ns: int) -> float:
        if lane.in_flight and self._live.options.rate_limit == "completion":
            return seconds
        if lane.mark_ns is None:
            return 0.0
        return max(0, lane.mark_ns + round(seconds * NANO) - now_ns) / NANO

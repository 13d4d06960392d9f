"""Callers of pacers, and when their turns came."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

from clore_mcp.clore import Lane, Pacer


class Turns:
    """Whose turn came when, in order. Each caller leaves after that, so that what left second left later still."""

    def __init__(self) -> None:
        self.left: list[tuple[str, float]] = []

    async def go(
        self, pacer: Pacer, name: str, lane: Lane = Lane.GENERAL, *, urgent: bool = False, takes: float = 0
    ) -> None:
        """Wait for a turn, leave, and be away for `takes` seconds."""
        async with pacer.turn(lane, urgent=urgent) as turn:
            self.left.append((name, time.monotonic()))  # before it leaves: from then on the next one's gap runs
            turn.leaving()
            await asyncio.sleep(takes)

    def names(self) -> str:
        return "".join(name for name, _ in self.left)

    def smallest_gap(self) -> float:
        return min(later - earlier for (_, earlier), (_, later) in pairwise(self.left))

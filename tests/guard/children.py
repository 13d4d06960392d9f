"""Child processes that carry out one call each, which tests start, stop and outlive (child.py is their side)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from clore_mcp.rental.context import Patience
from clore_mcp.rental.requests import Request
from clore_mcp.wiring import Services
from tests.forking import forked, stands_still
from tests.guard.calls import SHORT
from tests.guard.child import HUNT, STOPPING, begin
from tests.guard.stepping import Point
from tests.world import World

_OUTCOME_SECONDS: Final = 90.0
_GONE_SECONDS: Final = 60.0


class Child:
    """One call in a child process, or one round for the watches if there is no `ask`. It stops itself at the place
    `stop`, or at a `point` by that signal."""

    def __init__(
        self,
        world: World,
        ask: Request | None,
        *,
        stop: str = "",
        patience: Patience = SHORT,
        env: Mapping[str, str] | None = None,
        point: Point | None = None,
        sign: int = 0,
    ) -> None:
        self.ask = ask
        self.point = point
        self._sign = sign
        told = {
            "folder": str(world.folder),
            "env": dict(world.env | dict(env or {})),
            "patience": asdict(patience),
            "verb": ask.verb if ask else HUNT,
            "ask": ask.model_dump(mode="json") if ask else None,
            "stop": stop,
            "point": point and asdict(point),
            "signal": int(sign),
        }
        self._process, self._pipe = forked(begin, told)

    @property
    def lives(self) -> bool:
        """Return whether it runs or is stopped."""
        return self._process.is_alive()

    def kill(self) -> None:
        self._process.kill()
        self._process.join(_GONE_SECONDS)
        assert not self.lives

    def wake(self) -> None:
        """Resume it where it was stopped."""
        os.kill(self._pid, signal.SIGCONT)

    def outcome(self) -> dict[str, Any]:
        told: dict[str, Any] = self._hear()
        self._process.join(_GONE_SECONDS)
        assert self._process.exitcode == 0, told
        return told

    def await_place(self) -> None:
        """Wait until it has stopped itself at its place."""
        told = self._hear()
        assert told == STOPPING, told

    def await_signal(self) -> None:
        """Wait until it is dead or stopped."""
        until = time.monotonic() + _OUTCOME_SECONDS
        while not stands_still(self._pid):
            assert time.monotonic() < until, self.point
            time.sleep(0.005)
        if self._sign == signal.SIGSTOP:
            assert not self._pipe.poll(), (self.point, self._pipe.recv())
        else:
            self._process.join(_GONE_SECONDS)
            assert self._process.exitcode == -self._sign, (self.point, self._process.exitcode)

    def end(self) -> None:
        """Kill it if it still runs, and close its pipe."""
        if self.lives:
            self.kill()
        self._pipe.close()
        self._process.close()

    @property
    def _pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def _hear(self) -> Any:
        assert self._pipe.poll(_OUTCOME_SECONDS), f"{self.point}: nothing was said"
        return self._pipe.recv()


async def settle(world: World, services: Services, *, seconds: float = 60.0) -> None:
    """Look as a later process would, until nothing is on its way any more."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        services.context.readings.changed()
        await services.overview.orders(max_age_seconds=0)
        states = {row["state"] for row in world.intents()}
        left = world.rows("SELECT id FROM quotes WHERE state = 'committing'")
        if not states & {"reserved", "sending"} and not left:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"still open after {seconds} s: {states}, {left}")

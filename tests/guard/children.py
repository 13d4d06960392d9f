"""Processes of their own that carry out one call, as tests start, stop and outlive them (child.py is their side)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clore_mcp.rental.asks import Ask
from clore_mcp.rental.desk import Patience
from clore_mcp.services import Services
from tests.guard.stepping import Point
from tests.guard.world import SHORT, World


class Child:
    """One call in a process of its own. It stops itself at the place `stop`, or at a `point` by that signal."""

    def __init__(
        self,
        world: World,
        ask: Ask,
        *,
        stop: str = "",
        patience: Patience = SHORT,
        env: Mapping[str, str] | None = None,
        point: Point | None = None,
        sign: int = 0,
    ) -> None:
        self.ask = ask
        self.point = point
        told = {
            "folder": str(world.folder),
            "env": world.env(**(env or {})),
            "patience": asdict(patience),
            "verb": ask.verb,
            "ask": ask.model_dump(mode="json"),
            "stop": stop,
            "point": point and asdict(point),
            "signal": int(sign),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.guard.child", json.dumps(told)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def lives(self) -> bool:
        """Whether it runs or is frozen."""
        return self.process.returncode is None and self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)

    def outcome(self) -> dict[str, Any]:
        out, err = self.process.communicate(timeout=90)
        assert self.process.returncode == 0, err
        told: dict[str, Any] = json.loads(out.splitlines()[-1])
        return told

    def await_place(self) -> None:
        """Wait until it has stopped itself at its place."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "stopping\n"

    def await_signal(self) -> None:
        """Wait until it is dead or frozen."""
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return
        self.process.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        assert os.WIFSIGNALED(status), (self.point, self.process.communicate()[1])

    def end(self) -> None:
        """Leave nothing behind."""
        if self.lives:
            self.kill()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


async def settle(world: World, services: Services, *, seconds: float = 60.0) -> None:
    """Look as a later process would, until nothing is on its way any more."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        services.desk.readings.changed()
        await services.overview.orders(max_age_seconds=0)
        states = {row["state"] for row in world.intents()}
        left = world.rows("SELECT id FROM quotes WHERE state = 'committing'")
        if not states & {"reserved", "sending"} and not left:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"still open after {seconds} s: {states}, {left}")

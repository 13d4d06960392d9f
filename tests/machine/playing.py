"""What every step of the machine goes through: it is recorded, done, waited for, judged and counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine

from tests.machine.market import Json
from tests.machine.names import Broken
from tests.machine.report import Report
from tests.machine.stage import Stage


class Playing(RuleBasedStateMachine):
    """Random interleavings in one world after another."""

    report: Report

    def __init__(self) -> None:
        super().__init__()
        if self.report.error:  # hypothesis repeats a failure, but once is enough
            raise self.report.broken or RuntimeError("as before")
        self.stage = Stage()

    def teardown(self) -> None:
        if not hasattr(self, "stage"):
            return
        try:
            if self.stage.told and not self.report.error:
                self._step("settle", self._settle)
        finally:
            self.report.orders += len(self.stage.made_here())
            self.report.of_watches += len(self.stage.made_by_watches())
            self.stage.close()

    def _step(self, name: str, work: Callable[[], bool | None], *, wait: bool = True, **about: Any) -> None:
        """Do one step, wait until things rest, and check the invariants."""
        began = time.monotonic()
        told = self.stage.told
        told.append(f"{name} {about}")
        try:
            if work() is False:  # there was nothing to do it to, so it is not a step
                told.pop()
                return
            if wait:
                self.stage.rest()
            self.stage.check()
        except BaseException as error:
            self.report.trace = list(told)
            self.report.broken = error if isinstance(error, Broken) else None
            self.report.error = error
            raise
        self.report.steps += 1
        self.report.tally[name] = self.report.tally.get(name, 0) + 1
        self.report.seconds[name] = self.report.seconds.get(name, 0.0) + time.monotonic() - began

    def _arguments(self, wish: Json) -> Json:
        ids = self.stage.market.servers
        others = [ids[(wish["server"] + step) % len(ids)] for step in wish["others"]]
        return {
            "server_id": ids[wish["server"]],
            "image": wish["image"],
            "hours": wish["hours"],
            "order_type": wish["kind"],
            **({"currency": wish["coin"]} if wish["coin"] else {}),
            **({"fallback_server_ids": others} if others else {}),
        }

    def _order_ids(self, *, spot: bool = False) -> list[int]:
        rows = self.stage.market.orders()
        return [row["id"] for row in rows if row["ended_at"] is None and (not spot or row["type"] == "spot")]

    def _settle(self) -> None:
        self.stage.settle()
        self.stage.check(settled=True)

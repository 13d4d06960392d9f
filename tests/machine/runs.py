"""One run of the machine from a seed."""

from __future__ import annotations

import math
from typing import Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.machine import Driven
from tests.machine.report import Report

STEPS_A_WORLD: Final = 50


def run(number: int, steps: int) -> Report:
    """Do at least `steps` steps from one seed. The first broken invariant ends the run."""
    report = Report()
    while report.steps < steps and not report.error:
        machine = type("Seeded", (Driven,), {"report": report})
        seed(number)(machine)
        number += 1_000_003
        left = steps - report.steps
        worlds = max(1, round(left / STEPS_A_WORLD))
        rules = settings(
            max_examples=1 + worlds,  # hypothesis' first try is not a step at all
            stateful_step_count=max(10, math.ceil(left / worlds)),
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
        )
        try:
            run_state_machine_as_test(machine, settings=rules)
        except Exception:
            if report.error is None:
                raise
    return report

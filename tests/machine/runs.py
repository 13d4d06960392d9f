"""One run of the machine from a seed."""

from __future__ import annotations

from typing import Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.drawing import Focus
from tests.machine.machine import driven
from tests.machine.report import Report

STEPS_A_WORLD: Final = 50


def run(
    number: int, steps: int, mutant: str | None = None, focus: Focus | None = None, *, a_world: int = STEPS_A_WORLD
) -> Report:
    """At least so many steps from one seed; the first broken invariant ends it."""
    report = Report()
    base = driven(focus)
    while report.steps < steps and not report.error:
        machine = type("Seeded", (base,), {"report": report, "mutant": mutant})
        seed(number)(machine)
        number += 1_000_003
        worlds = 1 + (steps - report.steps) // a_world
        rules = settings(
            max_examples=worlds,
            stateful_step_count=a_world,
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

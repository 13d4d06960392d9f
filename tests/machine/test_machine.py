"""Random interleavings of clients, answers, faults, price and rate moves, kills, freezes and restarts.

2,000 steps where `CI` is set, 500 elsewhere.
One run again: CLORE_MACHINE_SEED=… CLORE_MACHINE_STEPS=… pytest tests/machine/test_machine.py
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.machine.runs import run

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals, and a server to fork from"),
    pytest.mark.timeout(360),  # it takes a fifth of a minute where nothing else runs, and notices by itself what hangs
]

_EIGHT = [11, 13, 21, 31, 42, 51, 61, 71]
SEEDS = [int(os.environ["CLORE_MACHINE_SEED"])] if "CLORE_MACHINE_SEED" in os.environ else _EIGHT
STEPS = int(os.environ.get("CLORE_MACHINE_STEPS", "250" if "CI" in os.environ else "63"))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_interleaving_spends_what_nobody_allowed(seed: int) -> None:
    report = run(seed, STEPS)
    assert report.error is None, f"seed {seed}, after {report.steps} steps: {report.error!r}\n{report}"
    assert report.steps >= STEPS
    assert report.of_watches >= STEPS // 250, "a watch that rents nothing shows nothing"
    assert report.orders >= STEPS // 50, "a machine in which nothing is rented shows nothing"

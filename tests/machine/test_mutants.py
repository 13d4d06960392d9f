"""The machine bites: each rule broken on purpose is noticed, by an invariant that is about that rule."""

from __future__ import annotations

import sys
from typing import Final

import pytest

from tests.machine.foci import FOCI
from tests.machine.mutants import MUTANTS
from tests.machine.runs import run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals, and a server to fork from")

_SEED: Final = 1
_STEPS: Final = 150
_STEPS_A_WORLD: Final = 20
_STEPS_OF_THE_WHOLE: Final = 8
_DISTINCT: Final = list({id(focus): name for name, focus in reversed(FOCI.items())}.values())


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_rule_is_noticed(name: str) -> None:
    mutant = MUTANTS[name]
    report = run(_SEED, _STEPS, name, FOCI[name], a_world=_STEPS_A_WORLD)
    assert report.broken is not None, f"{name} survived {report.steps} steps: {report.error!r}\n{report}"
    assert report.broken.invariant in mutant.caught_by, f"{name}: {report.broken}\n{report}"


@pytest.mark.parametrize("name", _DISTINCT)
def test_only_the_broken_rule_is_noticed(name: str) -> None:
    """The same steps on the product as it is."""
    report = run(_SEED, _STEPS_OF_THE_WHOLE, None, FOCI[name], a_world=_STEPS_OF_THE_WHOLE)
    assert report.error is None, f"{report.error!r}\n{report}"

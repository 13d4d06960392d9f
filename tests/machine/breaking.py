"""Rules broken on purpose, inside the client processes, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Mutant:
    """One broken rule: how it is broken, and the invariants that may notice."""

    break_it: Callable[[], None]
    caught_by: tuple[str, ...]


MUTANTS: Final[dict[str, Mutant]] = {}


def mutant(*caught_by: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def keep(break_it: Callable[[], None]) -> Callable[[], None]:
        MUTANTS[break_it.__name__] = Mutant(break_it, caught_by)
        return break_it

    return keep

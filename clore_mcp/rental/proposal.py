"""What a verb proposes to the guard: terms to freeze, the question to ask, and whether a yes is needed at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Yes(StrEnum):
    """When a person's yes is needed."""

    ALWAYS = "always"
    IF_ASKABLE = "if_askable"  # cancelling what was made here: the meter stops even if nobody can be asked
    NEVER = "never"  # lowering a bid


@dataclass(frozen=True, slots=True)
class Proposal:
    """One priced intent, before it is held."""

    terms: dict[str, Any]
    question: Callable[[str], str]
    yes: Yes

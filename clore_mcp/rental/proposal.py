"""What a verb proposes to the guard: terms to freeze, the question to ask, and whether a yes is needed at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from clore_mcp.store.quotes import Quote


class Yes(StrEnum):
    """When a person's yes is needed."""

    PERSON = "person"  # ending someone else's work: the operator's limits are no yes to that
    ALWAYS = "always"
    IF_ASKABLE = "if_askable"  # cancelling what was made here: the meter stops even if nobody can be asked
    NEVER = "never"  # lowering a bid

    @property
    def is_needed(self) -> bool:
        """Whether nothing goes on without one, also where nobody can be asked."""
        return self in (Yes.PERSON, Yes.ALWAYS)


@dataclass(frozen=True, slots=True)
class Proposal:
    """One priced intent, before it is held."""

    terms: dict[str, Any]
    question: Callable[[str], str]
    yes: Yes


class Verb(Protocol):
    """One kind of spending."""

    async def already(self, ask: Any, account: str, digest: str) -> dict[str, Any] | None:
        """The outcome that this very call has led to and that still stands."""

    async def propose(self, ask: Any, account: str) -> Proposal | dict[str, Any]:
        """What to ask a person, or an outcome where there is nothing to ask."""

    async def carry_out(self, quote: Quote, ask: Any, *, from_state: str, by: str) -> dict[str, Any]:
        """Do it, once, and record the outcome."""

    def unfinished(self, quote: Quote) -> dict[str, Any]:
        """What to answer while it is still being done."""

"""A verb of the guard: what it asks a person, what it does with the yes, and what it answers where none came."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from clore_mcp.rental import outcomes
from clore_mcp.rental.context import Context
from clore_mcp.rental.requests import Request
from clore_mcp.rental.results import Outcome
from clore_mcp.store.quotes import Quote

A = TypeVar("A", bound=Request)


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
class Consent:
    """How the yes of a quote is to be had. `protocol` is the client's, for the record; `subject` is what the question
    is about, None where nobody is asked."""

    yes: Yes
    protocol: str = ""
    subject: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For the quote's row, beside its terms."""
        return {"yes": self.yes.value, "protocol": self.protocol, "subject": self.subject}

    @classmethod
    def of(cls, quote: Quote) -> Consent:
        """How the yes of that quote is to be had."""
        row: Mapping[str, Any] = quote.terms
        return cls(Yes(row["yes"]), row.get("protocol", ""), quote.subject)


class QuotedTerms(Protocol):
    """What a quote freezes; each verb has its own."""

    def as_json(self) -> dict[str, Any]:
        """For the quote's row: exact decimals as text."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One priced intent, before it is held. `question` writes what a person reads, given the quote's id."""

    terms: QuotedTerms
    question: Callable[[str], str]
    yes: Yes


class Verb(ABC, Generic[A]):
    """One kind of call that spends or ends something."""

    _context: Context

    async def account(self, request: A) -> str:
        """Whose account the call is about."""
        return await self._context.readings.account()

    async def already(self, request: A, account: str, digest: str) -> Outcome | None:
        """The outcome that this very call has led to and that still stands."""
        return None

    async def shared(self, request: A, account: str, caller: str, digest: str) -> Quote | None:
        """The quote of a call that shares the yes of an earlier one. Raises Settled where it may not."""
        return None

    @abstractmethod
    async def propose(self, request: A, account: str) -> Proposal:
        """What to ask a person. Raises Settled where there is nothing to ask."""

    @abstractmethod
    async def carry_out(self, quote: Quote, request: A, *, from_state: str, by: str) -> Outcome:
        """Do it, once, and record the outcome. `from_state` is where the yes stands, `by` who gave it."""

    @abstractmethod
    def unfinished(self, quote: Quote) -> Outcome:
        """What to answer while it is still being done."""

    def declined(self, request: A, unasked: str | None = None) -> Outcome:
        """No yes was given; `unasked` is why the person was not asked, None where they said no."""
        return outcomes.declined(unasked)

    def lapsed(self, request: A) -> Outcome:
        """The quote ran out before its yes was used."""
        return outcomes.expired()

    def left_to_person(self, request: A, quote_id: str) -> Outcome:
        """A person decides outside the chat."""
        return outcomes.approval_required(quote_id, self._context.program)

    async def told(self, request: A, outcome: Outcome) -> Outcome:
        """The outcome as the caller of this call reads it."""
        return outcome if outcome.order_id is not None else replace(outcome, order_id=request.about_order)

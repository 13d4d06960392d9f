"""A verb of the guard: what it asks a person, what it does with the yes, and what it answers where none came.

And how many questions may wait for a person, and in which order they are shown: no caller can drown another's. A caller
names itself, so a cap by caller stops one that runs wild, and a cap on all of them one that changes its name. Where
there is no room the newest question is refused: what waits already may be somebody's real one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar

from clore_mcp.errors import Failure
from clore_mcp.rental import outcomes
from clore_mcp.rental.context import Context
from clore_mcp.rental.requests import CancelOrder, Request
from clore_mcp.rental.results import Outcome
from clore_mcp.store import quotes
from clore_mcp.store.database import Tx
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

    def left_to_person(self, request: A, quote_id: str, deed: str) -> Outcome:
        """A person decides outside the chat; `deed` is what they are to do for that."""
        return outcomes.approval_required(quote_id, deed)

    async def told(self, request: A, outcome: Outcome) -> Outcome:
        """The outcome as the caller of this call reads it."""
        return outcome if outcome.order_id is not None else replace(outcome, order_id=request.about_order)


OF_A_CALLER: Final = 10  # eight sessions of one client may each have one
OF_ALL: Final = 40
CANCELS_OF_ALL: Final = 40  # counted apart, with none for a caller: whoever ends many orders may ask about each
A_MINUTE: Final = 20  # of a caller, without a yes from anyone
A_MINUTE_OF_ALL: Final = 60
SHOWN: Final = 10
_MINUTE: Final = 60.0


class NoRoom(Failure):
    """A question is not asked, because too many wait already or came just now."""

    code = "no_room"


def place_question(tx: Tx, quote: Quote, now: float, program: str) -> None:
    """Close the older question that this one, just added, replaces, if there is room for it. Raises NoRoom."""
    if quote.verb != CancelOrder.verb and quote.state == "pending":
        _require_calm(tx, quote, now)
    if quote.subject is None:
        return
    waiting = [one for one in quotes.pending(tx, quote.account) if one.subject is not None and not _same(one, quote)]
    if Consent.of(quote).yes is not Yes.IF_ASKABLE:  # an order made here: its cancel is never refused
        _require_room(quote, waiting, program)
    quotes.replace(tx, quote)


def _same(one: Quote, other: Quote) -> bool:
    return (one.caller, one.verb, one.subject) == (other.caller, other.verb, other.subject)


def _require_room(quote: Quote, waiting: Sequence[Quote], program: str) -> None:
    cancels = quote.verb == CancelOrder.verb
    kin = [one for one in waiting if (one.verb == CancelOrder.verb) is cancels]
    mine = sum(one.caller == quote.caller for one in kin)
    if not cancels and mine >= OF_A_CALLER:
        raise NoRoom(f"{mine} questions of this client wait for the person already, so this one was not asked."
                     f" {_cure(program)}")  # fmt: skip
    if len(kin) >= (CANCELS_OF_ALL if cancels else OF_ALL):
        cure = f"The person can run `{program} cancel` with the order's id." if cancels else _cure(program)
        raise NoRoom(f"{len(kin)} questions wait for the person already, so this one was not asked. {cure}")


def _cure(program: str) -> str:
    return (
        f"The person answers them in their own terminal, beginning with `{program} approvals`; each lapses after ten"
        " minutes."
    )


def _require_calm(tx: Tx, quote: Quote, now: float) -> None:
    """Each call without a yes leaves rows: bound how many a minute brings."""
    callers = quotes.unanswered_since(tx, quote.account, now - _MINUTE, now, A_MINUTE_OF_ALL + 1)
    if callers.count(quote.caller) > A_MINUTE or len(callers) > A_MINUTE_OF_ALL:
        raise NoRoom("Too many calls came within a minute, so this one was left. Call again in a minute, once.")


def fair(waiting: Sequence[Quote]) -> list[Quote]:
    """What waits, in the order in which a person should see it: the callers take turns, who asks least goes first."""
    asked = Counter(quote.caller for quote in waiting)
    turns: Counter[str] = Counter()
    ranked = []
    for quote in waiting:  # oldest first
        ranked.append((quote.state != "pending", turns[quote.caller], asked[quote.caller], quote))
        turns[quote.caller] += 1
    return [quote for *_, quote in sorted(ranked, key=lambda one: one[:3])]

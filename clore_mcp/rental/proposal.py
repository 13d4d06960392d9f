"""A verb of the guard: what it asks a person, what it does after a yes, and what it answers without one.

This module also caps how many questions may wait for a person and puts them in order, so that no caller can drown
another's. A caller chooses its own name. A cap per caller stops one that runs wild, and a cap on all callers stops one
that changes its name. If there is no room, the newest question is refused, because an older one may be a real one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar

from clore_mcp.errors import Failure
from clore_mcp.rental import outcome_texts
from clore_mcp.rental.context import Context
from clore_mcp.rental.requests import CancelOrder, Request
from clore_mcp.rental.results import Outcome
from clore_mcp.store import quotes
from clore_mcp.store.database import Tx
from clore_mcp.store.quotes import Quote

A = TypeVar("A", bound=Request)


class Yes(StrEnum):
    """When a person's yes is needed."""

    PERSON = "person"  # ending an order that someone else may be using, which the operator's limits do not approve
    ALWAYS = "always"
    IF_ASKABLE = "if_askable"  # cancelling an order made here: billing stops even if no one can be asked
    NEVER = "never"  # lowering a bid

    @property
    def is_needed(self) -> bool:
        """Whether nothing happens without a yes, even if no one can be asked."""
        return self in (Yes.PERSON, Yes.ALWAYS)


@dataclass(frozen=True, slots=True)
class Consent:
    """How a quote gets its yes. `protocol` is the client's, for the record. `subject` is what the question is about,
    None if no one is asked."""

    yes: Yes
    protocol: str = ""
    subject: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return JSON for the quote's row, beside its terms."""
        return {"yes": self.yes.value, "protocol": self.protocol, "subject": self.subject}

    @classmethod
    def of(cls, quote: Quote) -> Consent:
        """Return how that quote gets its yes."""
        row: Mapping[str, Any] = quote.terms
        return cls(Yes(row["yes"]), row.get("protocol", ""), quote.subject)


class QuotedTerms(Protocol):
    """The terms that a quote freezes; each verb has its own kind."""

    def as_json(self) -> dict[str, Any]:
        """Return JSON for the quote's row, with exact decimals as text."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One priced intent before it is held. `question` returns the question's text for a quote's id."""

    terms: QuotedTerms
    question: Callable[[str], str]
    yes: Yes


class Verb(ABC, Generic[A]):
    """One kind of call that spends or ends something."""

    _context: Context

    async def account(self, request: A) -> str:
        """Return the account that the call is about."""
        return await self._context.readings.account()

    async def already(self, request: A, account: str, digest: str) -> Outcome | None:
        """Return the outcome of the same earlier call, if it still stands."""
        return None

    async def shared(self, request: A, account: str, caller: str, digest: str) -> Quote | None:
        """Return the quote of a call that shares an earlier call's yes. Raises Settled if it may not."""
        return None

    @abstractmethod
    async def propose(self, request: A, account: str) -> Proposal:
        """Return what to ask a person. Raises Settled if there is nothing to ask."""

    @abstractmethod
    async def carry_out(self, quote: Quote, request: A, *, from_state: str, by: str) -> Outcome:
        """Do it once, record the outcome and return it. `from_state` is the quote's state; `by` says who approved."""

    @abstractmethod
    def unfinished(self, quote: Quote) -> Outcome:
        """Return the answer while the work is still going on."""

    def declined(self, request: A, unasked: str | None = None) -> Outcome:
        """Return the answer without a yes. `unasked` is why the person was not asked, None if they said no."""
        return outcome_texts.declined(unasked)

    def lapsed(self, request: A) -> Outcome:
        """Return the answer for a quote that expired before its yes was used."""
        return outcome_texts.expired()

    def left_to_person(self, request: A, quote_id: str, deed: str) -> Outcome:
        """Return the answer that leaves the decision to a person outside the chat. `deed` is what they have to do."""
        return outcome_texts.approval_required(quote_id, deed)

    async def told(self, request: A, outcome: Outcome) -> Outcome:
        """Return the outcome as the caller of this call reads it."""
        return outcome if outcome.order_id is not None else replace(outcome, order_id=request.about_order)


OF_A_CALLER: Final = 10  # eight sessions of one client may each have one
OF_ALL: Final = 40
CANCELS_OF_ALL: Final = 40  # counted separately, with no cap per caller: one that ends many orders may ask about each
A_MINUTE: Final = 20  # calls per caller without a yes
A_MINUTE_OF_ALL: Final = 60
SHOWN: Final = 10
_MINUTE: Final = 60.0


class NoRoom(Failure):
    """The question is not asked, because too many wait already or came within the last minute."""

    code = "no_room"


def place_question(tx: Tx, quote: Quote, now: float, program: str) -> None:
    """Close the older question that this one, just added, replaces, if there is room for it. Raises NoRoom."""
    if quote.verb != CancelOrder.verb and quote.state == "pending":
        _require_calm(tx, quote, now)
    if quote.subject is None:
        return
    waiting = [one for one in quotes.pending(tx, quote.account) if one.subject is not None and not _same(one, quote)]
    if Consent.of(quote).yes is not Yes.IF_ASKABLE:  # the cancel of an order made here is never refused
        _require_room(quote, waiting, program)
    quotes.replace(tx, quote)


def _same(one: Quote, other: Quote) -> bool:
    return (one.caller, one.verb, one.subject) == (other.caller, other.verb, other.subject)


def _require_room(quote: Quote, waiting: Sequence[Quote], program: str) -> None:
    cancels = quote.verb == CancelOrder.verb
    kin = [one for one in waiting if (one.verb == CancelOrder.verb) is cancels]
    mine = sum(one.caller == quote.caller for one in kin)
    if not cancels and mine >= OF_A_CALLER:
        raise NoRoom(f"{mine} questions of this client already wait for the person, so this one was not asked."
                     f" {_cure(program)}")  # fmt: skip
    if len(kin) >= (CANCELS_OF_ALL if cancels else OF_ALL):
        cure = f"The person can run `{program} cancel` with the order's id." if cancels else _cure(program)
        raise NoRoom(f"{len(kin)} questions already wait for the person, so this one was not asked. {cure}")


def _cure(program: str) -> str:
    return (
        f"The person can answer them in their own terminal, starting with `{program} approvals`. Each lapses after ten"
        " minutes."
    )


def _require_calm(tx: Tx, quote: Quote, now: float) -> None:
    """Cap the calls without a yes per minute, because each one adds rows. Raises NoRoom."""
    callers = quotes.unanswered_since(tx, quote.account, now - _MINUTE, now, A_MINUTE_OF_ALL + 1)
    if callers.count(quote.caller) > A_MINUTE or len(callers) > A_MINUTE_OF_ALL:
        raise NoRoom("Too many calls came within a minute, so this one was not asked. Wait a minute, then call once.")


def fair(waiting: Sequence[Quote]) -> list[Quote]:
    """Return the waiting quotes in the order for a person: the callers take turns, and the one with the fewest goes
    first."""
    asked = Counter(quote.caller for quote in waiting)
    turns: Counter[str] = Counter()
    ranked = []
    for quote in waiting:  # oldest first
        ranked.append((quote.state != "pending", turns[quote.caller], asked[quote.caller], quote))
        turns[quote.caller] += 1
    return [quote for *_, quote in sorted(ranked, key=lambda one: one[:3])]

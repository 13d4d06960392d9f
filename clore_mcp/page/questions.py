"""The questions as the page shows them: the texts of `clore-mcp approve`, with their figures separate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from clore_mcp.money import dollars
from clore_mcp.rental.approvals import Consent, Yes
from clore_mcp.rental.questions import hours_text
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.results import Outcome, outcome_of
from clore_mcp.rental.terms import Terms
from clore_mcp.store import Quote
from clore_mcp.text import clean
from clore_mcp.wiring import Services

CALLER: Final = "the person's page"
_LINE_SHOWN: Final = 2_000  # as in `clore-mcp approve`
_LABELLED: Final = re.compile(r"([A-Z][A-Za-z ]{1,24}(?: [0-9]+)?): (.+)")
_YES: Final = {
    "extend_order": "Yes, move the end",
    "cancel_order": "Yes, cancel the order",
    "create_watch": "Yes, rent when the price falls",
    "set_spot_price": "Yes, change the bid",
}
_CAME: Final = {
    "pending": "It waits for your answer.",
    "approved": "Approved. Nothing is spent yet. It is valid for the same call by the assistant. Have it call again.",
    "committing": "Approved, and being carried out now.",
    "declined": "Declined. Nothing is spent. Orders that already run keep running.",
    "expired": "It has lapsed, and nothing was spent. If you still want it, tell your assistant to call again.",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a table: a label and its text."""

    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question as `approve` shows it, with its figures separate, and its outcome."""

    id: str
    title: str
    lines: tuple[Fact, ...]
    figures: tuple[Fact, ...]
    fallbacks: tuple[str, ...]
    caller: str
    asked_at: float
    until: float
    state: str
    waits: bool
    came: str
    order_id: int | None
    yes_label: str


def question(quote: Quote, now: float) -> Question:
    """Return the question of a quote."""
    first, *rest = [clean(line, _LINE_SHOWN) for line in quote.question.split("\n")]
    terms = Terms.from_json(quote.terms) if quote.verb == CreateOrder.verb else None
    fallbacks = tuple(line for line in rest if line.startswith("If it is gone, server"))
    outcome = outcome_of(quote)
    return Question(
        id=quote.id,
        title=first,
        lines=tuple(_fact(line) for line in rest if line not in fallbacks),
        figures=_figures(terms) if terms else (),
        fallbacks=fallbacks,
        caller=clean(quote.caller, 60),
        asked_at=quote.created_at,
        until=quote.expires_at,
        state=quote.state,
        waits=quote.state == "pending" and quote.in_time(now),
        came=_came_of(quote, outcome),
        order_id=outcome.order_id if outcome else None,
        yes_label=f"Yes, rent it; worst case {dollars(terms.worst_usd)}" if terms else _YES.get(quote.verb, "Yes"),
    )


def _came_of(quote: Quote, outcome: Outcome | None) -> str:
    if quote.replaced_by is not None:
        return "A newer question from the same assistant about the same thing replaced it. Nothing was spent."
    if outcome is not None:
        order = "" if outcome.order_id is None else f", order {outcome.order_id}"
        return f"Carried out: {outcome.status.replace('_', ' ')}{order}."
    return _CAME[quote.state]


def _figures(terms: Terms) -> tuple[Fact, ...]:
    ended_by = clean(terms.enforced_by, 80) if terms.enforced_by else "NO ONE: it runs until someone cancels it"
    if terms.on_end == "notify":
        ended_by = "no one: your assistant is notified, but nothing cancels it"
    return (
        Fact("It costs now", f"at most {dollars(terms.usd_per_hour)} per hour, including fees"),
        Fact("Worst case", dollars(terms.worst_usd)),
        Fact("Until", f"{hours_text(terms.hours)} after the start"),
        Fact("Ended by", ended_by),
    )


def _fact(line: str) -> Fact:
    found = _LABELLED.fullmatch(line)
    return Fact(found[1], found[2]) if found else Fact("", line)


async def waiting(services: Services) -> list[Question]:
    """Return the questions that wait for the person or hold an unused approval, the callers in turn."""
    if not services.context.state.exists:
        return []
    found = await services.approvals.waiting()
    now = services.context.clock()
    return [question(quote, now) for quote in found if Consent.of(quote).yes is not Yes.NEVER]

"""`clore-mcp approvals`: what waits for a person, and which yeses nobody has used yet. Reads the state alone."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Final

from clore_mcp.cli.context import settings_of
from clore_mcp.cli.screen import say, span, usd
from clore_mcp.rental.approvals import Approvals
from clore_mcp.rental.proposal import Consent, Yes
from clore_mcp.rental.rules.terms import Terms
from clore_mcp.rental.watches.watch import envelope_of
from clore_mcp.store import watches
from clore_mcp.store.database import Database
from clore_mcp.store.quotes import Quote
from clore_mcp.text import clean

LINE_SHOWN: Final = 2_000  # characters; the texts in a question are clamped well below that


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(arguments: argparse.Namespace) -> int:
    """List them all: what waits first, the callers in turn. How many may wait is capped in question_queue.py."""
    state = Database(settings_of(arguments).state_dir)
    approvals = Approvals(state, time.time, command_prefix(arguments))
    try:
        waiting = asyncio.run(approvals.waiting()) if state.exists else []
        standing = state.read_now(lambda tx: watches.standing(tx, None, time.time())) if state.exists else []
    finally:
        state.close()
    waiting = [quote for quote in waiting if Consent.of(quote).yes is not Yes.NEVER]
    for quote in waiting:
        _show(quote, time.time())
    for watch in standing:
        say(f"{watch.id}  watch: {envelope_of(watch)}", hang=10)
        say(f"approved, rents by itself; to take it back: decline {watch.id}", indent=10)
    pending = [quote.id for quote in waiting if quote.state == "pending"]
    if pending:
        prefix = command_prefix(arguments)
        say(f"To decide: {prefix} approve {pending[0]}, or {prefix} decline {pending[0]}")
    elif not (waiting or standing):
        say("Nothing waits for your yes.")
    return 0


def command_prefix(arguments: argparse.Namespace) -> str:
    """The words before a command that acts on the same world."""
    return "clore-mcp --sandbox" if arguments.sandbox else "clore-mcp"


def price_line(quote: Quote) -> str:
    """What a yes would cost, where the terms hold figures of their own."""
    if quote.verb != "create_order":
        return ""
    terms = Terms.from_json(quote.terms)
    return f"at most {usd(terms.usd_per_hour)} per hour, worst case {usd(terms.worst_usd)}"


def _show(quote: Quote, now: float) -> None:
    first, *rest = quote.question.split("\n")
    say(f"{quote.id}  {clean(first, LINE_SHOWN)}", hang=10)
    for line in rest:
        say(clean(line, LINE_SHOWN), indent=10, hang=2)
    figures = price_line(quote)
    if figures:
        say(figures, indent=10)
    waits = "approved and not used yet" if quote.state == "approved" else "waits for you"
    asked = f"asked by {clean(quote.caller, 30)} {span(now - quote.created_at)} ago"
    say(f"{asked}; {waits}, lapses in {span(quote.expires_at - now)}", indent=10)

"""`clore-mcp decline ID`: a no, or a yes taken back; it only ever spends less and therefore needs no terminal."""

from __future__ import annotations

import argparse
import asyncio
import time

from clore_mcp.cli import person
from clore_mcp.cli.approvals import command_prefix
from clore_mcp.cli.approve import no_longer, waiting_quote
from clore_mcp.cli.opening import settings_of
from clore_mcp.cli.screen import say
from clore_mcp.rental.approvals import Approvals
from clore_mcp.state.database import Database
from clore_mcp.text import clean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The quote's id."""
    parser.add_argument("id", metavar="ID", help="from `clore-mcp approvals`")


def run(arguments: argparse.Namespace) -> int:
    """Record the no."""
    state = Database(settings_of(arguments).state_dir)
    approvals = Approvals(state, time.time, command_prefix(arguments))
    try:
        prefix = command_prefix(arguments)
        if asyncio.run(_closed(state, approvals, arguments.id)):
            say("Taken back; nothing was spent with it.")
            return 0
        find = waiting_quote(state, approvals, arguments.id, prefix, states=("pending", "approved"))
        quote = asyncio.run(find)
        if not asyncio.run(approvals.decide(quote, yes=False, by=person.whoever())):
            raise no_longer(asyncio.run(approvals.get(quote.id)))
    finally:
        state.close()
    say(f"Declined, nothing is spent: {clean(quote.question.split(chr(10), 1)[0], 160)}")
    return 0


async def _closed(state: Database, approvals: Approvals, envelope_id: str) -> bool:
    """Whether that was a wider yes that nothing had used, and now is none."""
    unused = await approvals.envelopes() if state.exists else []
    found = next((envelope for envelope in unused if envelope.id == envelope_id), None)
    return found is not None and await approvals.close(found, by=person.whoever())

"""`clore-mcp decline ID`: a no, or a yes taken back, by somebody at a terminal who has read what it is about."""

from __future__ import annotations

import argparse
import asyncio
import time

from clore_mcp.cli import person
from clore_mcp.cli.approvals import command_prefix
from clore_mcp.cli.approve import disclose, no_longer, waiting_quote
from clore_mcp.cli.context import settings_of
from clore_mcp.cli.screen import say
from clore_mcp.rental.approvals import Approvals
from clore_mcp.rental.watches.watch import envelope_of
from clore_mcp.store import ledger, watches
from clore_mcp.store.database import Database, Tx
from clore_mcp.store.ledger import Entry
from clore_mcp.store.watches import Watch
from clore_mcp.wiring import state_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The id of a question, an unused yes or a watch."""
    parser.add_argument("id", metavar="ID", help="from `clore-mcp approvals`")


def run(arguments: argparse.Namespace) -> int:
    """Show everything, then record the no."""
    person.require_terminal("decline", "nothing was declined")
    state = state_of(settings_of(arguments))
    approvals = Approvals(state, time.time, command_prefix(arguments))
    try:
        watch = _watch(state, arguments.id)
        if watch is not None:
            return _end(state, watch)
        find = waiting_quote(state, approvals, arguments.id, command_prefix(arguments), states=("pending", "approved"))
        quote = asyncio.run(find)
        disclose(quote)
        if not _says_no():
            return 1
        if not asyncio.run(approvals.decide(quote, yes=False, by=person.who())):
            raise no_longer(asyncio.run(approvals.get(quote.id)))
    finally:
        state.close()
    say("Declined. Nothing is spent by it; what runs already runs on.")
    return 0


def _end(state: Database, watch: Watch) -> int:
    say(f"{watch.id}: watch, {envelope_of(watch)}, approved by {watch.approved_by}.", hang=10)
    if not _says_no():
        return 1
    by = person.who()

    def write(tx: Tx) -> list[int]:
        if watches.end(tx, watch.id, "cancelled"):
            entry = Entry(time.time(), watch.account, "watch_cancelled", by, data={"watch_id": watch.id})
            ledger.write(tx, entry)
        return watches.order_ids(tx, watch.id)

    made = asyncio.run(state.write(write))
    run_on = f" Its orders run on: {', '.join(map(str, made))}." if made else ""
    say(f"Taken back; it rents nothing more.{run_on}")
    return 0


def _watch(state: Database, watch_id: str) -> Watch | None:
    """The watch of that id that may still rent."""
    standing = state.read_now(lambda tx: watches.standing(tx, None, time.time())) if state.exists else []
    return next((watch for watch in standing if watch.id == watch_id), None)


def _says_no() -> bool:
    if person.answer("Type no to decline this, anything else to leave it:") == "no":
        return True
    say("Left as it is.")
    return False

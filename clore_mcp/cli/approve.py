"""`clore-mcp approve ID`: the whole disclosure, and a yes that only somebody at a terminal can type."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence

from clore_mcp.cli import person
from clore_mcp.cli.approvals import LINE_SHOWN, command_prefix
from clore_mcp.cli.context import require_spending, settings_of
from clore_mcp.cli.screen import say, span
from clore_mcp.errors import Failure, NotFound
from clore_mcp.rental.approvals import YES_SECONDS, Approvals
from clore_mcp.store.database import Database
from clore_mcp.store.quotes import Quote
from clore_mcp.text import clean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The quote's id, and no way to say yes in advance."""
    parser.add_argument("id", metavar="ID", help="from `clore-mcp approvals`")


def run(arguments: argparse.Namespace) -> int:
    """Show everything, then take the answer."""
    wanted = settings_of(arguments)
    require_spending(wanted)
    person.require_terminal("approve", "nothing was approved")
    state = Database(wanted.state_dir)
    approvals = Approvals(state, time.time, command_prefix(arguments))
    try:
        quote = asyncio.run(waiting_quote(state, approvals, arguments.id, command_prefix(arguments)))
        disclose(quote)
        if person.answer("Type yes to approve exactly this, anything else to leave it:") != "yes":
            say("Not approved; nothing has changed.")
            return 1
        if not asyncio.run(approvals.decide(quote, yes=True, by=person.who())):
            raise no_longer(asyncio.run(approvals.get(quote.id)))
    finally:
        state.close()
    say(
        f"Approved. Nothing is spent yet: the yes waits {span(YES_SECONDS)} for the same call by"
        f" {clean(quote.caller, 60)}. Tell your assistant to call again."
    )
    return 0


async def waiting_quote(
    state: Database, approvals: Approvals, quote_id: str, prefix: str, *, states: Sequence[str] = ("pending",)
) -> Quote:
    """The quote with that id, which is in one of those states and has not lapsed. Raises Failure."""
    shown = clean(quote_id, 40)
    if not state.exists:
        raise NotFound(f"There is no approval {shown!r}.", hint=f"`{prefix} approvals` lists what waits.")
    try:
        quote = await approvals.get(quote_id)
    except NotFound:
        raise NotFound(f"There is no approval {shown!r}.", hint=f"`{prefix} approvals` lists what waits.") from None
    if quote.state not in states or not quote.in_time(time.time()):
        raise no_longer(quote)
    return quote


def no_longer(quote: Quote) -> Failure:
    """Why a quote takes no answer any more."""
    if quote.replaced_by is not None:
        return Failure(
            f"{quote.id} was replaced by {quote.replaced_by}, a newer question of the same client about the same thing;"
            " nothing has changed.",
            hint=f"Look at {quote.replaced_by} in the list of approvals instead.",
        )
    what = {
        "approved": "is approved already and waits for its call",
        "committing": "is being carried out right now",
        "settled": "has been carried out",
        "declined": "was declined",
    }.get(quote.state, "has lapsed")
    return Failure(
        f"{quote.id} {what}; nothing has changed.", hint="To have it after all, let your assistant call again."
    )


def disclose(quote: Quote) -> None:
    """The whole question, who asked it and how long it waits."""
    say()
    for line in quote.question.split("\n"):
        say(clean(line, LINE_SHOWN), indent=2, hang=2)
    now = time.time()
    say(
        f"Asked by {clean(quote.caller, 60)} {span(now - quote.created_at)} ago; lapses in"
        f" {span(quote.expires_at - now)}.",
        indent=2, hang=2,
    )  # fmt: skip
    say()

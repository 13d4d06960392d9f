"""`clore-mcp approvals`, `approve ID`, `decline ID`: list what waits for a person, and take their answer at a terminal
after showing the whole question. They read and write only the state."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Final

from clore_mcp.cli import terminal
from clore_mcp.cli.context import command_prefix, require_spending, settings_of
from clore_mcp.cli.terminal import say, span, usd
from clore_mcp.errors import Failure, NotFound
from clore_mcp.rental.approvals import YES_SECONDS, Approvals, Consent, Yes
from clore_mcp.rental.terms import Terms
from clore_mcp.rental.watches.watch import envelope_of
from clore_mcp.settings import Approval
from clore_mcp.store import Database, Entry, Quote, Tx, Watch, ledger, watches
from clore_mcp.text import clean
from clore_mcp.wiring import state_of

LINE_SHOWN: Final = 2_000  # characters; the texts in a question are clamped well below that


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: `approvals` has no arguments of its own."""


def add_id(parser: argparse.ArgumentParser) -> None:
    """Add the id for `approve` and `decline`. There is no option that answers in advance."""
    parser.add_argument("id", metavar="ID", help="from `clore-mcp approvals`")


def run(arguments: argparse.Namespace) -> int:
    """List all approvals: the waiting ones first, with the callers in turn."""
    prefix = command_prefix(arguments)
    with closing(Database(settings_of(arguments).state_dir)) as state:
        found = asyncio.run(Approvals(state, time.time, prefix).waiting()) if state.exists else []
        standing = _standing(state)
    waiting = [quote for quote in found if Consent.of(quote).yes is not Yes.NEVER]
    for quote in waiting:
        _show(quote, time.time())
    for watch in standing:
        say(f"{watch.id}  watch: {envelope_of(watch)}", hang=10)
        say(f"approved and rents by itself; to withdraw the approval: decline {watch.id}", indent=10)
    pending = [quote.id for quote in waiting if quote.state == "pending"]
    if pending:
        say(f"To decide: {prefix} approve {pending[0]}, or {prefix} decline {pending[0]}")
    elif not (waiting or standing):
        say("Nothing waits for your approval.")
    return 0


def approve(arguments: argparse.Namespace) -> int:
    """Show the whole question, then take the answer."""
    wanted, prefix = settings_of(arguments), command_prefix(arguments)
    require_spending(wanted)
    terminal.require_terminal("approve", "nothing was approved")
    if wanted.approval is Approval.PASSKEY:
        raise Failure(
            "CLORE_APPROVAL is passkey, so a yes counts with a passkey alone; nothing was approved.",
            hint=f"`{prefix} page` shows the question.",
        )
    with closing(Database(wanted.state_dir)) as state:
        approvals = Approvals(state, time.time, prefix)
        quote = asyncio.run(_waiting_quote(state, approvals, arguments.id, prefix, states=("pending",)))
        _disclose(quote)
        if terminal.answer("Type yes to approve exactly this, anything else to leave it:") != "yes":
            say("Not approved. Nothing has changed.")
            return 1
        if not asyncio.run(approvals.decide(quote, yes=True, by=terminal.who())):
            raise _no_longer(asyncio.run(approvals.get(quote.id)))
    say(
        f"Approved. Nothing is spent yet. The approval is valid for {span(YES_SECONDS)}, for the same call by"
        f" {clean(quote.caller, 60)}. Tell your assistant to call again."
    )
    return 0


async def _waiting_quote(
    state: Database, approvals: Approvals, quote_id: str, prefix: str, *, states: Sequence[str]
) -> Quote:
    """Return the quote with that id if it is in one of those states and has not lapsed. Raises Failure."""
    quote = None
    if state.exists:
        with suppress(NotFound):
            quote = await approvals.get(quote_id)
    if quote is None:
        raise NotFound(f"There is no approval {clean(quote_id, 40)!r}.", hint=f"`{prefix} approvals` lists what waits.")
    if quote.state not in states or not quote.in_time(time.time()):
        raise _no_longer(quote)
    return quote


def _no_longer(quote: Quote) -> Failure:
    if quote.replaced_by is not None:
        return Failure(
            f"{quote.id} was replaced by {quote.replaced_by}, a newer question from the same client about the same"
            " thing. Nothing has changed.",
            hint=f"Look at {quote.replaced_by} in the list of approvals instead.",
        )
    what = {
        "approved": "is approved already and waits for its call",
        "committing": "is being carried out right now",
        "settled": "has been carried out",
        "declined": "was declined",
    }.get(quote.state, "has lapsed")
    return Failure(
        f"{quote.id} {what}. Nothing has changed.", hint="If you still want it, tell your assistant to call again."
    )


def _disclose(quote: Quote) -> None:
    """Show the whole question, who asked it and when it lapses."""
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


def decline(arguments: argparse.Namespace) -> int:
    """Show the whole question, then record that it was declined."""
    terminal.require_terminal("decline", "nothing was declined")
    prefix = command_prefix(arguments)
    with closing(state_of(settings_of(arguments))) as state:
        watch = next((watch for watch in _standing(state) if watch.id == arguments.id), None)
        if watch is not None:
            return _end(state, watch)
        approvals = Approvals(state, time.time, prefix)
        quote = asyncio.run(_waiting_quote(state, approvals, arguments.id, prefix, states=("pending", "approved")))
        _disclose(quote)
        if not _says_no():
            return 1
        if not asyncio.run(approvals.decide(quote, yes=False, by=terminal.who())):
            raise _no_longer(asyncio.run(approvals.get(quote.id)))
    say("Declined. Nothing is spent. Orders that already run keep running.")
    return 0


def _end(state: Database, watch: Watch) -> int:
    say(f"{watch.id}: watch, {envelope_of(watch)}, approved by {watch.approved_by}.", hang=10)
    if not _says_no():
        return 1
    by = terminal.who()

    def write(tx: Tx) -> list[int]:
        if watches.end(tx, watch.id, "cancelled"):
            ledger.write(tx, Entry(time.time(), watch.account, "watch_cancelled", by, data={"watch_id": watch.id}))
        return watches.order_ids(tx, watch.id)

    made = asyncio.run(state.write(write))
    run_on = f" Its orders keep running: {', '.join(map(str, made))}." if made else ""
    say(f"Withdrawn. The watch rents nothing more.{run_on}")
    return 0


def _standing(state: Database) -> list[Watch]:
    """Return the watches that may still rent."""
    return state.read_now(lambda tx: watches.standing(tx, None, time.time())) if state.exists else []


def _says_no() -> bool:
    if terminal.answer("Type no to decline this, anything else to leave it:") == "no":
        return True
    say("Left as it is.")
    return False


def _show(quote: Quote, now: float) -> None:
    first, *rest = quote.question.split("\n")
    say(f"{quote.id}  {clean(first, LINE_SHOWN)}", hang=10)
    for line in rest:
        say(clean(line, LINE_SHOWN), indent=10, hang=2)
    if quote.verb == "create_order":
        terms = Terms.from_json(quote.terms)
        say(f"up to {usd(terms.usd_per_hour)} per hour, worst case {usd(terms.worst_usd)}", indent=10)
    waits = "approved and not used yet" if quote.state == "approved" else "waits for you"
    asked = f"asked by {clean(quote.caller, 30)} {span(now - quote.created_at)} ago"
    say(f"{asked}; {waits}, lapses in {span(quote.expires_at - now)}", indent=10)

"""`clore-mcp approvals`, `approve ID`, `decline ID`: list what waits for a person, and take their answer at a terminal
after showing the whole question. They read and write only the state."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
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
        say(f"approved and rents by itself; to withdraw the approval: decline {watch.id}", indent=10)
    pending = [quote.id for quote in waiting if quote.state == "pending"]
    if pending:
        prefix = command_prefix(arguments)
        say(f"To decide: {prefix} approve {pending[0]}, or {prefix} decline {pending[0]}")
    elif not (waiting or standing):
        say("Nothing waits for your approval.")
    return 0


def approve(arguments: argparse.Namespace) -> int:
    """Show the whole question, then take the answer."""
    wanted = settings_of(arguments)
    require_spending(wanted)
    terminal.require_terminal("approve", "nothing was approved")
    if wanted.approval is Approval.PASSKEY:
        raise Failure(
            "CLORE_APPROVAL is passkey, so a yes counts with a passkey alone; nothing was approved.",
            hint=f"`{command_prefix(arguments)} page` shows the question.",
        )
    state = Database(wanted.state_dir)
    approvals = Approvals(state, time.time, command_prefix(arguments))
    try:
        quote = asyncio.run(waiting_quote(state, approvals, arguments.id, command_prefix(arguments)))
        disclose(quote)
        if terminal.answer("Type yes to approve exactly this, anything else to leave it:") != "yes":
            say("Not approved. Nothing has changed.")
            return 1
        if not asyncio.run(approvals.decide(quote, yes=True, by=terminal.who())):
            raise no_longer(asyncio.run(approvals.get(quote.id)))
    finally:
        state.close()
    say(
        f"Approved. Nothing is spent yet. The approval is valid for {span(YES_SECONDS)}, for the same call by"
        f" {clean(quote.caller, 60)}. Tell your assistant to call again."
    )
    return 0


async def waiting_quote(
    state: Database, approvals: Approvals, quote_id: str, prefix: str, *, states: Sequence[str] = ("pending",)
) -> Quote:
    """Return the quote with that id if it is in one of those states and has not lapsed. Raises Failure."""
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
    """Return why a quote can no longer be answered."""
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


def disclose(quote: Quote) -> None:
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
        if not asyncio.run(approvals.decide(quote, yes=False, by=terminal.who())):
            raise no_longer(asyncio.run(approvals.get(quote.id)))
    finally:
        state.close()
    say("Declined. Nothing is spent. Orders that already run keep running.")
    return 0


def _end(state: Database, watch: Watch) -> int:
    say(f"{watch.id}: watch, {envelope_of(watch)}, approved by {watch.approved_by}.", hang=10)
    if not _says_no():
        return 1
    by = terminal.who()

    def write(tx: Tx) -> list[int]:
        if watches.end(tx, watch.id, "cancelled"):
            entry = Entry(time.time(), watch.account, "watch_cancelled", by, data={"watch_id": watch.id})
            ledger.write(tx, entry)
        return watches.order_ids(tx, watch.id)

    made = asyncio.run(state.write(write))
    run_on = f" Its orders keep running: {', '.join(map(str, made))}." if made else ""
    say(f"Withdrawn. The watch rents nothing more.{run_on}")
    return 0


def _watch(state: Database, watch_id: str) -> Watch | None:
    """Return the watch with that id, if it may still rent."""
    standing = state.read_now(lambda tx: watches.standing(tx, None, time.time())) if state.exists else []
    return next((watch for watch in standing if watch.id == watch_id), None)


def _says_no() -> bool:
    if terminal.answer("Type no to decline this, anything else to leave it:") == "no":
        return True
    say("Left as it is.")
    return False


def price_line(quote: Quote) -> str:
    """Return what approval would cost, if the terms have figures of their own."""
    if quote.verb != "create_order":
        return ""
    terms = Terms.from_json(quote.terms)
    return f"up to {usd(terms.usd_per_hour)} per hour, worst case {usd(terms.worst_usd)}"


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

"""`clore-mcp approve ID`: the whole disclosure, and a yes that only somebody at a terminal can type."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Final

from clore_mcp.cli import person
from clore_mcp.cli.approvals import LINE_SHOWN, command_prefix
from clore_mcp.cli.context import opened, require_spending, settings_of
from clore_mcp.cli.screen import say, span
from clore_mcp.errors import Failure, NotFound
from clore_mcp.money import dollars, plain
from clore_mcp.rental.approvals import YES_SECONDS, Approvals
from clore_mcp.rental.envelopes import Bounds, around
from clore_mcp.rental.questions import listing_line
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.rules.terms import Terms
from clore_mcp.store.database import Database
from clore_mcp.store.quotes import Quote
from clore_mcp.text import clean

_SERVERS_MOST: Final = 20
_AMOUNT_MOST: Final = Decimal(1_000_000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The quote's id, how far the yes may reach beyond it, and no way to say yes in advance."""
    parser.add_argument("id", metavar="ID", help="from `clore-mcp approvals`")
    wider = parser.add_argument_group(
        "a wider yes", "for one rental that may go to another server, so that a failover needs no second question"
    )
    wider.add_argument(
        "--any-of", metavar="SERVER,...", type=_server_ids, default=frozenset(), help="these servers too"
    )
    wider.add_argument("--max-usd-per-hour", metavar="USD", type=_amount, help="fee in; default: as asked")
    wider.add_argument("--max-hours", metavar="HOURS", type=_amount, help="default: as asked")
    wider.add_argument("--max-usd", metavar="USD", type=_amount, help="in all at worst; default: follows from the rest")


def run(arguments: argparse.Namespace) -> int:
    """Show everything, then take the answer."""
    wanted = settings_of(arguments)
    require_spending(wanted)
    person.require_terminal("approve", "nothing was approved")
    state = Database(wanted.state_dir)
    approvals = Approvals(state, time.time, command_prefix(arguments))
    try:
        quote = asyncio.run(waiting_quote(state, approvals, arguments.id, command_prefix(arguments)))
        bounds = _bounds(quote, arguments)
        disclose(quote)
        if bounds is not None:
            _disclose_bounds(bounds, quote, arguments)
        if person.answer("Type yes to approve exactly this, anything else to leave it:") != "yes":
            say("Not approved; nothing has changed.")
            return 1
        if not asyncio.run(_approve(approvals, quote, bounds)):
            raise no_longer(asyncio.run(approvals.get(quote.id)))
    finally:
        state.close()
    what = "the same call" if bounds is None else "one rental within these bounds"
    say(
        f"Approved. Nothing is spent yet: the yes waits {span(YES_SECONDS)} for {what} by {clean(quote.caller, 60)}."
        " Tell your assistant to call again."
    )
    return 0


async def _approve(approvals: Approvals, quote: Quote, bounds: Bounds | None) -> bool:
    if bounds is None:
        return await approvals.decide(quote, yes=True, by=person.who())
    return await approvals.approve_within(quote, bounds, by=person.who()) is not None


def _bounds(quote: Quote, arguments: argparse.Namespace) -> Bounds | None:
    """How far the yes is to reach beyond what was asked; None when not at all. Raises Failure."""
    limits = (arguments.max_usd_per_hour, arguments.max_hours, arguments.max_usd)
    if not arguments.any_of and all(limit is None for limit in limits):
        return None
    if quote.verb != CreateOrder.verb:
        raise Failure("Only a rental can be approved more widely than asked; nothing was approved.")
    terms = Terms.from_json(quote.terms).alone()  # a wider yes is to one rental
    bounds = around(terms, also=arguments.any_of, max_usd_per_hour=limits[0], max_hours=limits[1], max_usd=limits[2])
    if not bounds.cover(terms):
        raise Failure(
            f"That is less than what is asked: {dollars(terms.usd_per_hour)} per hour, {plain(terms.hours)} hours,"
            f" {dollars(terms.worst_usd)} in all at worst. Nothing was approved.",
            hint=f"Decline {quote.id}, and let your assistant ask for less.",
        )
    return bounds


def _disclose_bounds(bounds: Bounds, quote: Quote, arguments: argparse.Namespace) -> None:
    """What else the yes would allow; the other servers as the market shows them now. Raises Failure."""
    say(f"Your yes would allow {bounds}. Everything else stays as above.", indent=2, hang=2)
    asked = {candidate.server_id for candidate in Terms.from_json(quote.terms).candidates}
    others = sorted(arguments.any_of - asked)
    if others:
        with opened(arguments) as parts:
            snapshot = parts.run(parts.services.desk.readings.snapshot())
        for server_id in others:
            listing = snapshot.by_id.get(server_id)
            if listing is None:
                raise Failure(f"The market has no server {server_id}; nothing was approved.", hint="Leave it out.")
            say(listing_line(listing), indent=2, hang=2)
    say()


def _server_ids(text: str) -> frozenset[int]:
    ids = frozenset(int(part) for part in text.split(","))
    if not 0 < len(ids) <= _SERVERS_MOST or min(ids) < 1:
        raise ValueError(text)
    return ids


def _amount(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if not value.is_finite() or not 0 < value <= _AMOUNT_MOST:
        raise ValueError(text)
    return value


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

"""Extends an order: moves the end of its lease after a person's yes. Nothing is sent to Clore.

One transaction uses the yes, moves the end, reserves what the order may cost until then and settles the quote, so a
killed process leaves all of it or none. The move applies only to the end that the question named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import anyio.to_thread

from clore_mcp.errors import NotFound
from clore_mcp.money import dollars
from clore_mcp.rental import results
from clore_mcp.rental.approvals import Proposal, Verb, Yes
from clore_mcp.rental.context import Context, settle_quote
from clore_mcp.rental.create.quote import Pricer
from clore_mcp.rental.ends.closure import Closer
from clore_mcp.rental.orders.extend_terms import (
    EndMove,
    ExtendTerms,
    Extension,
    beyond,
    extend_question,
    latest_end,
    most_seconds,
    moved,
    over_limit,
    reservation_of,
    stays,
    weigh,
)
from clore_mcp.rental.requests import ExtendOrder
from clore_mcp.rental.results import Outcome, Refusal, Settled, Status, outcome_of
from clore_mcp.rental.rules.check import AddedUsage, Evidence, Position, Undecided, UndecidedReason, check, position
from clore_mcp.store import End, Quote, Tx, intents, ledger, orders, quotes
from clore_mcp.text import iso

SAME_CALL_SECONDS: Final = 600.0  # within this time, the same call is the same extension
_BILLED_LATE_SECONDS: Final = 120  # the named hours still fit in the next call, although Clore's bill grows meanwhile
_REPEATED: Final = (
    "This call has already moved the end, so it was not moved again. To move it further, name other hours, or call"
    " again in ten minutes."
)


@dataclass(frozen=True, slots=True)
class CheckedExtension:
    """A priced move and every refusal of it. `limits` says how much of the limits would then be used."""

    extension: Extension
    refusals: list[Refusal]
    limits: str
    most_seconds: int | None  # the most that would fit, if the move does not


class ExtendVerb(Verb[ExtendOrder]):
    """Prices, proposes and makes extensions."""

    def __init__(self, context: Context, pricer: Pricer, closer: Closer) -> None:
        self._context = context
        self._pricer = pricer
        self._closer = closer

    async def already(self, request: ExtendOrder, account: str, digest: str) -> Outcome | None:
        now = self._context.clock()
        return await self._context.state.read(lambda tx: _made_already(tx, account, request.order_id, digest, now))

    def unfinished(self, quote: Quote) -> Outcome:
        return results.in_progress(quote.id, "The end is being moved. Call again with the same arguments.")

    async def propose(self, request: ExtendOrder, account: str) -> Proposal:
        """See `Verb`. Also raises NotFound and SpendingFrozen."""
        context = self._context
        await context.require_unfrozen()
        evidence, enforced_by = await self._pricer.evidence(), await context.enforced_by()
        try:
            evidence.require_whole()
        except Undecided as no:
            raise _undecided(request.order_id, no) from None
        self._require_clock(request.order_id)
        await self._closer.reconcile(account, evidence.current, evidence.completed)

        def read(tx: Tx) -> CheckedExtension:
            end = orders.end_of(tx, account, request.order_id)
            begins = end.ends_api_at if end else int(context.readings.api_now())
            move = EndMove(request.order_id, end, begins + request.seconds)
            stands = position(tx, context, account, evidence)
            return self._judge(tx, account, move, stands, evidence, enforced_by, asked_at=context.clock())

        judged = await context.state.read(read)
        extension = judged.extension
        if judged.refusals:
            raise Settled(over_limit(judged.refusals, extension, judged.most_seconds))
        move = extension.move
        before = move.before.ends_api_at if move.before else None
        return Proposal(
            terms=ExtendTerms(request.order_id, before, move.ends_api_at, extension.worst_usd),
            question=lambda quote_id: extend_question(quote_id, extension, judged.limits),
            # An order made elsewhere may be someone else's work, whose end the limits do not approve.
            yes=Yes.ALWAYS if move.made_here else Yes.PERSON,
        )

    async def carry_out(self, quote: Quote, request: ExtendOrder, *, from_state: str, by: str) -> Outcome:
        context = self._context
        evidence, enforced_by = await self._pricer.evidence(), await context.enforced_by()
        try:
            outcome = await context.state.write(
                lambda tx: self._move(tx, quote, evidence, enforced_by, from_state=from_state, by=by)
            )
        except Settled as known:
            return await settle_quote(context, quote, known.outcome) if known.final else known.outcome
        await anyio.to_thread.run_sync(context.wake_watchdog)
        return outcome or results.in_progress(quote.id)

    def _move(
        self, tx: Tx, quote: Quote, evidence: Evidence, enforced_by: str | None, *, from_state: str, by: str
    ) -> Outcome | None:
        """Use the yes and move the end. Returns None if the yes can't be used. Raises Settled and SpendingFrozen."""
        context, now, terms = self._context, self._context.clock(), ExtendTerms.from_json(quote.terms)
        order_id = terms.order_id
        context.forbid_frozen(tx)
        try:
            stands = position(tx, context, quote.account, evidence, deciding=True)
        except Undecided as no:
            raise _undecided(order_id, no) from None
        self._require_clock(order_id)
        end = orders.end_of(tx, quote.account, order_id)
        made = _made_already(tx, quote.account, order_id, quote.digest, now)
        if made is not None:  # by an equal call whose question was open at the same time
            if quotes.consume(tx, quote.id, from_state=from_state, owner=context.owner, by=by, now=now):
                quotes.settle(tx, quote.id, made.as_json())
                context.note(tx, "repeated", quote.caller, quote.account, quote_id=quote.id, order_id=order_id)
            return made
        if (end and end.ends_api_at) != terms.before:
            where = f", to {iso(end.ends_api_at)}" if end else ""
            why = f"Its end was moved meanwhile{where}. Call again if the person wants it moved further."
            raise stays(order_id, "end_moved", why)
        move = EndMove(order_id, end, terms.after)
        judged = self._judge(tx, quote.account, move, stands, evidence, enforced_by, asked_at=quote.created_at)
        extension = judged.extension
        if extension.due_usd > terms.worst_usd:
            why = f"It could cost {dollars(extension.worst_usd)} now, more than was approved. Call again."
            raise stays(order_id, "worst_case_grew", why)
        if not quotes.consume(tx, quote.id, from_state=from_state, owner=context.owner, by=by, now=now):
            return None
        if judged.refusals:
            outcome, step = over_limit(judged.refusals, extension, judged.most_seconds), "refused"
        else:
            moved_end = End(quote.account, order_id, move.ends_api_at, move.on_end, made_here=move.made_here)
            orders.move_end(tx, moved_end, reservation_of(extension, quote.account, now))
            outcome, step = moved(extension), "extended"
        quotes.settle(tx, quote.id, outcome.as_json())
        context.note(tx, step, quote.caller, quote.account, quote_id=quote.id, order_id=order_id, approved_by=by,
                     ended_api_at=terms.before, ends_api_at=move.ends_api_at,
                     reserved_usd=str(extension.worst_usd))  # fmt: skip
        return outcome

    def _judge(
        self,
        tx: Tx,
        account: str,
        move: EndMove,
        stands: Position,
        evidence: Evidence,
        enforced_by: str | None,
        *,
        asked_at: float,
    ) -> CheckedExtension:
        """Price the move and check it. Raises Settled and NotFound."""
        context, api_now = self._context, self._context.readings.api_now()
        self._require_running(tx, account, move, evidence)
        row = evidence.current.find(move.order_id)
        if row is None:
            why = f"Clore does not list order {move.order_id} now. Call again in a minute."
            raise stays(move.order_id, "not_listed", why)
        latest = latest_end(row, evidence, api_now)
        too_long = move.ends_api_at > latest
        if not too_long and move.ends_api_at <= api_now:
            raise stays(move.order_id, "past", f"{iso(move.ends_api_at)} has already passed. Name more hours.")
        held = intents.reservation_of_order(tx, account, move.order_id)
        begins = move.before.ends_api_at if move.before else int(api_now)

        def priced(ends_api_at: int) -> Extension | None:
            return weigh(
                row,
                replace(move, ends_api_at=ends_api_at),
                held,
                evidence,
                api_now=api_now,
                asked_seconds_ago=context.clock() - asked_at,
                enforced_by=enforced_by if move.on_end == "cancel" else None,
            )

        extension = priced(move.ends_api_at)
        if extension is None and not too_long:
            raise stays(move.order_id, "unknown_rate", "The USD exchange rate is unavailable. Call again in a minute.")

        def fits(seconds: int) -> bool:
            found = priced(begins + seconds)
            return found is not None and not check(stands, found.spend(held))

        def most() -> int:
            longest = max(0, latest - begins)
            found = most_seconds(fits, longest)
            return found if found == longest else max(0, found - _BILLED_LATE_SECONDS)

        refusals = [] if extension is None else check(stands, extension.spend(held))
        unwatched = any(one.limit == "watchdog" for one in refusals)  # then no hours fit
        if extension is None or too_long:
            raise beyond(move, latest, api_now, None if extension is None or unwatched else most())
        limits = _limits_used(stands, extension.spend(held).wanted)
        return CheckedExtension(extension, refusals, limits, most() if refusals and not unwatched else None)

    def _require_clock(self, order_id: int) -> None:
        """Raise Settled while Clore's time is uncertain, because a new end could be wrong."""
        clock = self._context.readings.api_clock
        if not (clock.settled and clock.certain):
            why = "Clore's clock has just jumped, so the new end can't be computed yet. Nothing was changed."
            raise stays(order_id, "clock_jumped", f"{why} Call again in a minute.", final=False)

    def _require_running(self, tx: Tx, account: str, move: EndMove, evidence: Evidence) -> None:
        order_id = move.order_id
        lease, row = orders.get(tx, account, order_id), evidence.current.find(order_id)
        if row is None and move.before is None:
            raise NotFound(f"No order {order_id} is running.", hint="list_orders shows what runs.")
        if (lease is not None and lease.ended_at is not None) or (row is not None and row.expired):
            raise stays(order_id, "ended", f"Order {order_id} has ended. To continue, rent a server with create_order.")
        over = move.before is not None and move.before.ends_api_at <= self._context.readings.api_now()
        if (over and move.on_end == "cancel") or ledger.last_of_order(tx, account, order_id, ("cancel_sent",)):
            why = (
                f"Order {order_id} is being ended, which can't be undone. To prove that it is gone, use cancel_order."
                " To rent again, use create_order."
            )
            raise stays(order_id, "ending", why)


def _undecided(order_id: int, no: Undecided) -> Settled:
    again = ". Call again." if no.doubt is UndecidedReason.TOO_OLD else ". Call again in a minute."
    return stays(order_id, no.doubt.value, f"{no.why}{again}", final=False)


def _made_already(tx: Tx, account: str, order_id: int, digest: str, now: float) -> Outcome | None:
    """Return the outcome of the same call within ten minutes, if the end is still there."""
    end = next((one for one in orders.ends(tx, account) if one.order_id == order_id), None)
    if end is None:
        return None
    for quote in quotes.settled_since(tx, digest, now - SAME_CALL_SECONDS, now):
        outcome = outcome_of(quote)
        if outcome is None or outcome.status is not Status.EXTENDED or outcome.repeated:
            continue
        if end.ends_api_at >= ExtendTerms.from_json(quote.terms).after:
            return replace(outcome, ends_at=iso(end.ends_api_at), repeated=True, next=_REPEATED)
    return None


def _limits_used(stands: Position, wanted: AddedUsage) -> str:
    caps, used = stands.caps, stands.used
    rows = (
        (wanted.usd_per_order, caps.usd_per_order, "per order"),
        (used.usd_per_day + wanted.usd_per_day, caps.usd_per_day, "per day"),
        (used.usd_per_hour + wanted.usd_per_hour, caps.usd_per_hour, "per hour"),
    )
    return ", ".join(f"{dollars(use)} of {dollars(cap, up=False)} {name}" for use, cap, name in rows)

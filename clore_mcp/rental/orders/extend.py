"""Moving the end of an order's lease to a later time: it spends more and is asked about; nothing is sent to Clore.

The yes, the new end and what the order may cost until then are one transaction, which also settles the quote: killed
anywhere, all of it has happened or none. The move is bound to the end that was found when it was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

import anyio.to_thread

from clore_mcp.errors import NotFound
from clore_mcp.money import dollars
from clore_mcp.rental import outcomes, questions
from clore_mcp.rental.context import Desk, iso, settle_quote
from clore_mcp.rental.create.quote import Appraiser
from clore_mcp.rental.orders.closure import Closing
from clore_mcp.rental.orders.extensions import (
    Extension,
    Move,
    beyond,
    latest_end,
    moved,
    over_limit,
    refused,
    reservation_of,
    told_of,
    weigh,
)
from clore_mcp.rental.orders.room import Room, most_seconds
from clore_mcp.rental.proposal import Proposal, Yes
from clore_mcp.rental.requests import ExtendOrder
from clore_mcp.rental.rules.check import Evidence, owed_now, used_now, watchdog_refusal
from clore_mcp.rental.rules.limits import Refusal, Used, Wanted
from clore_mcp.settings import Caps
from clore_mcp.store import ends, intents, ledger, orders, quotes
from clore_mcp.store.database import Tx
from clore_mcp.store.ends import End
from clore_mcp.store.quotes import Quote

SAME_CALL_SECONDS: Final = 600.0  # so long the same call is the same extension
_BILLED_LATE_SECONDS: Final = 120  # what is named fits still when it is called for, though Clore's bill has caught up
_REPEATED: Final = (
    "This call has moved the end already, and it was not moved again. To move it further, name other hours, or call"
    " again in ten minutes."
)


class _Stays(Exception):
    """Why the end is not moved. `final`: the quote is settled with that; else nothing was used and it may go on."""

    def __init__(
        self, reason: str, why: str, *, latest: int | None = None, most: int | None = None, final: bool = True
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.why = why
        self.latest = latest
        self.most_seconds = most
        self.final = final


@dataclass(frozen=True, slots=True)
class Judged:
    """A priced move, and every limit that it would break; `limits` is what of them is used with it."""

    extension: Extension
    refusals: list[Refusal]
    limits: str = ""
    most_seconds: int | None = None  # that fit, where the move does not


class Extending:
    """Prices, proposes and makes moves of leases' ends."""

    def __init__(self, desk: Desk, appraiser: Appraiser, closing: Closing) -> None:
        self._desk = desk
        self._appraiser = appraiser
        self._closing = closing

    async def already(self, ask: ExtendOrder, account: str, digest: str) -> dict[str, Any] | None:
        """The move that this very call has made within ten minutes, while it stands."""
        now = self._desk.clock()
        return await self._desk.state.read(lambda tx: _made_already(tx, account, ask.order_id, digest, now))

    def unfinished(self, quote: Quote) -> dict[str, Any]:
        """The end is being moved."""
        return {**outcomes.in_progress(quote.id), "next": "The end is being moved. Call again with the same arguments."}

    async def propose(self, ask: ExtendOrder, account: str) -> Proposal | dict[str, Any]:
        """What a person would be asked; an outcome where there is nothing to ask."""
        desk = self._desk
        await desk.require_unfrozen()
        evidence, enforced_by = await self._appraiser.evidence(), await desk.enforced_by()
        try:
            _require_whole(evidence)
            self._require_clock()
            await self._closing.reconcile(account, evidence.current, evidence.completed)

            def read(tx: Tx) -> Judged:
                end = ends.of(tx, account, ask.order_id)
                begins = end.ends_api_at if end else int(desk.readings.api_now())
                move = Move(ask.order_id, end, begins + ask.seconds)
                return self._judge(tx, account, move, evidence, enforced_by, asked_at=desk.clock())

            judged = await desk.state.read(read)
        except _Stays as stays:
            return refused(ask.order_id, stays.reason, stays.why, stays.latest, stays.most_seconds)
        extension = judged.extension
        if judged.refusals:
            return over_limit(ask.order_id, judged.refusals, extension, judged.most_seconds)
        told, move = told_of(extension, judged.limits), extension.move
        return Proposal(
            terms={
                "order_id": ask.order_id,
                "before": move.before and move.before.ends_api_at,
                "after": move.ends_api_at,
                "worst_usd": str(extension.worst_usd),
            },
            question=lambda quote_id: questions.extend_question(quote_id, told),
            yes=_yes(move),
        )

    async def carry_out(self, quote: Quote, ask: ExtendOrder, *, from_state: str, by: str) -> dict[str, Any]:
        """Use the yes and move the end, in one transaction."""
        desk = self._desk
        evidence, enforced_by = await self._appraiser.evidence(), await desk.enforced_by()

        def write(tx: Tx) -> dict[str, Any] | None:
            return self._move(tx, quote, evidence, enforced_by, from_state=from_state, by=by)

        try:
            outcome = await desk.state.write(write)
        except _Stays as stays:
            outcome = refused(ask.order_id, stays.reason, stays.why, stays.latest, stays.most_seconds)
            return await settle_quote(desk, quote, outcome) if stays.final else outcome
        await anyio.to_thread.run_sync(desk.wake_watchdog)
        return outcome or outcomes.in_progress(quote.id)

    def _move(
        self, tx: Tx, quote: Quote, evidence: Evidence, enforced_by: str | None, *, from_state: str, by: str
    ) -> dict[str, Any] | None:
        """Everything at once; None when the yes is not to be had. Raises _Stays, SpendingFrozen."""
        desk, now, terms = self._desk, self._desk.clock(), quote.terms
        desk.forbid_frozen(tx)
        if not evidence.decides(now):
            raise _Stays("too_slow", "Clore answers too slowly to check the limits; call again.", final=False)
        _require_whole(evidence)
        self._require_clock()
        end = ends.of(tx, quote.account, terms["order_id"])
        made = _made_already(tx, quote.account, terms["order_id"], quote.digest, now)
        if made is not None:  # by an equal call that was asked about at the same time
            if quotes.consume(tx, quote.id, from_state=from_state, owner=desk.owner, by=by, now=now):
                quotes.settle(tx, quote.id, made)
                desk.note(tx, "repeated", quote.caller, quote.account, quote_id=quote.id, order_id=terms["order_id"])
            return made
        if (end and end.ends_api_at) != terms["before"]:
            where = f", to {iso(end.ends_api_at)}" if end else ""
            raise _Stays("end_moved", f"Its end was moved meanwhile{where}; call again if it should be moved on.")
        move = Move(terms["order_id"], end, terms["after"])
        judged = self._judge(tx, quote.account, move, evidence, enforced_by, asked_at=quote.created_at)
        extension = judged.extension
        if extension.due_usd > Decimal(terms["worst_usd"]):
            worst = dollars(extension.worst_usd)
            raise _Stays("worst_case_grew", f"It could cost {worst} now, more than was approved. Call again.")
        if not quotes.consume(tx, quote.id, from_state=from_state, owner=desk.owner, by=by, now=now):
            return None
        if judged.refusals:
            outcome, step = over_limit(move.order_id, judged.refusals, extension, judged.most_seconds), "refused"
        else:
            ends.move(tx, move.moved(quote.account), reservation_of(extension, quote.account, now))
            outcome, step = moved(extension), "extended"
        quotes.settle(tx, quote.id, outcome)
        desk.note(tx, step, quote.caller, quote.account, quote_id=quote.id, order_id=move.order_id, approved_by=by,
                  ended_api_at=terms["before"], ends_api_at=move.ends_api_at,
                  reserved_usd=str(extension.worst_usd))  # fmt: skip
        return outcome

    def _judge(
        self, tx: Tx, account: str, move: Move, evidence: Evidence, enforced_by: str | None, *, asked_at: float
    ) -> Judged:
        """The move priced and held against everything that may forbid it. Raises _Stays, NotFound."""
        desk, api_now = self._desk, self._desk.readings.api_now()
        self._require_running(tx, account, move, evidence)
        row = evidence.current.find(move.order_id)
        if row is None:
            raise _Stays("not_listed", f"Clore does not list order {move.order_id} now; call again in a minute.")
        latest = latest_end(row, evidence, api_now)
        too_long = move.ends_api_at > latest
        if not too_long and move.ends_api_at <= api_now:
            raise _Stays("past", f"{iso(move.ends_api_at)} has passed already: name more hours.")
        on_end = move.before.on_end if move.before else "cancel"
        held = intents.reservation_of_order(tx, account, move.order_id)
        begins = move.before.ends_api_at if move.before else int(api_now)

        def priced(ends_api_at: int) -> Extension | None:
            return weigh(
                row,
                replace(move, ends_api_at=ends_api_at),
                held,
                evidence,
                api_now=api_now,
                asked_seconds_ago=desk.clock() - asked_at,
                enforced_by=enforced_by if on_end == "cancel" else None,
            )

        extension = priced(move.ends_api_at)
        if extension is None and not too_long:
            raise _Stays("unknown_rate", "Nobody says now what it costs in USD; call again in a minute.")
        used = used_now(tx, account, evidence, desk.clock(), desk.settings.limits)
        room = Room(desk.settings.limits, desk.settings.sources, used, owed_now(tx, account, evidence), evidence, held)

        def most() -> int:
            longest = max(0, latest - begins)
            found = most_seconds(lambda seconds: room.has(priced(begins + seconds)), longest)
            return found if found == longest else max(0, found - _BILLED_LATE_SECONDS)

        relied_on = extension is not None and extension.enforced_by is not None
        unwatched = watchdog_refusal(tx, desk, account, relied_on=relied_on)
        if extension is None or too_long:
            fit = None if extension is None or unwatched is not None else most()
            raise _Stays("max_rental_hours", beyond(move, latest, api_now, fit), latest=latest, most=fit)
        refusals = room.refusals(extension)
        if unwatched is not None:
            return Judged(extension, [*refusals, unwatched])
        limits = _limits_used(desk.settings.limits, used, room.wanted(extension))
        return Judged(extension, refusals, limits, most() if refusals else None)

    def _require_clock(self) -> None:
        """Raises _Stays while nobody knows what time it is at Clore: a new end would be counted from a wrong one."""
        clock = self._desk.readings.api_clock
        if not (clock.settled and clock.certain):
            why = "Clore's clock has just jumped, so the new end can't be counted yet; nothing was changed."
            raise _Stays("clock_jumped", f"{why} Call again in a minute.", final=False)

    def _require_running(self, tx: Tx, account: str, move: Move, evidence: Evidence) -> None:
        """Raises _Stays for an order that has ended or is being ended; NotFound for one that nobody knows."""
        order_id = move.order_id
        lease, row = orders.get(tx, account, order_id), evidence.current.find(order_id)
        if row is None and move.before is None:
            raise NotFound(f"No order {order_id} is running.", hint="list_orders shows what runs.")
        if (lease is not None and lease.ended_at is not None) or (row is not None and row.expired):
            raise _Stays("ended", f"Order {order_id} has ended; to go on, rent a server with create_order.")
        over = move.before is not None and move.before.ends_api_at <= self._desk.readings.api_now()
        cancelled = move.before is not None and move.before.on_end == "cancel"
        if (over and cancelled) or ledger.last_of_order(tx, account, order_id, ("cancel_sent",)):
            raise _Stays(
                "ending",
                f"Order {order_id} is being ended, which nothing takes back: cancel_order proves that it is gone, and"
                " create_order rents again.",
            )


def _yes(move: Move) -> Yes:
    """Whether anybody is asked. An end also ends someone else's work: the limits are no yes to that."""
    if move.before is None or not move.before.made_here:
        return Yes.PERSON
    return Yes.ALWAYS


def _require_whole(evidence: Evidence) -> None:
    if evidence.current.unreadable or evidence.completed.unreadable:
        why = "Clore's list of orders has a row that can't be read, so nothing can be counted against the limits."
        raise _Stays("unreadable_orders", f"{why} Call again in a minute.", final=False)


def _made_already(tx: Tx, account: str, order_id: int, digest: str, now: float) -> dict[str, Any] | None:
    """What this call has made of the end within ten minutes, while that stands."""
    end = next((one for one in ends.active(tx, account) if one.order_id == order_id), None)
    for quote in quotes.settled_since(tx, digest, now - SAME_CALL_SECONDS, now):
        if end is not None and _stands(quote, end):
            outcome = {**(quote.outcome or {}), "ends_at": iso(end.ends_api_at)}
            return outcomes.repeated({**outcome, "next": ""}, _REPEATED)
    return None


def _stands(quote: Quote, end: End) -> bool:
    """Whether the end is still where that quote moved it, or further."""
    outcome = quote.outcome or {}
    if outcome.get("status") != "created" or outcome.get("repeated"):
        return False
    return bool(end.ends_api_at >= quote.terms["after"])


def _limits_used(caps: Caps, used: Used, wanted: Wanted) -> str:
    rows = (
        (wanted.usd_per_order, caps.usd_per_order, "per order"),
        (used.usd_per_day + wanted.usd_per_day, caps.usd_per_day, "per day"),
        (used.usd_per_hour + wanted.usd_per_hour, caps.usd_per_hour, "per hour"),
    )
    return ", ".join(f"{dollars(use)} of {dollars(cap, up=False)} {name}" for use, cap, name in rows)

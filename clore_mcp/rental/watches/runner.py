"""Rents for watches: the cheapest servers that fit, once they are cheap enough, within the watch's approval.

A rental is a create like any other, under the watch's approval. The transaction before its send counts what the watch
has already made. If the process is killed at any point, an order that may exist counts as made and is settled by
looking for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from pydantic import ValidationError

from clore_mcp.errors import Failure
from clore_mcp.market.search import FoundServer
from clore_mcp.money import dollars, shown_up
from clore_mcp.rental import hosts
from clore_mcp.rental.account.reading import EXECUTION_AGE, Orders
from clore_mcp.rental.approvals import Approvals
from clore_mcp.rental.context import Commitments, Context, left_to_watchdog
from clore_mcp.rental.create.order import CreateVerb
from clore_mcp.rental.create.presence import ours_on
from clore_mcp.rental.create.quote import Pricer
from clore_mcp.rental.requests import CreateOrder, CreateWatch
from clore_mcp.rental.results import Outcome, Status
from clore_mcp.rental.watches.watch import fitting
from clore_mcp.store import Tx, Watch, ledger, watches

_TRIED_AT_ONCE: Final = 5  # one and its fallbacks
_TOLD_WITHIN_SECONDS: Final = 7 * 86_400.0  # an order that is gone is reported within this time; later it is no news


@dataclass(frozen=True, slots=True)
class WatchObstacle:
    """The reason that a watch could not rent, if any, and whether it is an event for a person."""

    said: str | None = None
    event: bool = False


_NOTHING: Final = WatchObstacle()
_UNSETTLED: Final = WatchObstacle(
    "A rental that it started shows no order yet. One may still appear within a day, so no other is made in its place."
    " If the person wants one anyway, use cancel_watch, then make a new watch, which asks them."
)


class WatchRunner:
    """Checks the market for every waiting watch in each round. While a watchdog is alive, only the watchdog does so."""

    what = "the watches"

    def __init__(
        self,
        context: Context,
        pricer: Pricer,
        approvals: Approvals,
        creating: CreateVerb,
        commitments: Commitments,
        poll_seconds: float,
    ) -> None:
        self._context = context
        self._pricer = pricer
        self._approvals = approvals
        self._creating = creating
        self._commitments = commitments
        self._age = min(EXECUTION_AGE, poll_seconds / 2)

    async def left(self, account: str) -> bool:
        """Return whether a watch is waiting."""
        return bool(await self._context.state.read(lambda tx: watches.waiting(tx, account)))

    async def round(self, account: str, current: Orders) -> None:
        """Check the market for each watch, and rent what is cheap enough."""
        waiting = await self._context.state.write(lambda tx: self._sweep(tx, account))
        if waiting:
            await asyncio.gather(*(self._look(watch, current) for watch in waiting))
            await self._context.state.write(lambda tx: self._sweep(tx, account))

    def _sweep(self, tx: Tx, account: str) -> list[Watch]:
        """Record rentals as events, end watches that are over, and return the watches that this process must check."""
        context, now = self._context, self._context.clock()
        found = []
        for watch_id, order_id in watches.untold(tx, account, now - _TOLD_WITHIN_SECONDS):
            context.note(tx, "watch_fired", "clore-mcp", account, order_id=order_id, watch_id=watch_id)
        for watch in watches.waiting(tx, account):
            is_now = watches.status(tx, watch, now)
            if is_now != "waiting":
                if watches.end(tx, watch.id, is_now) and is_now == "expired":
                    context.note(tx, "watch_expired", "clore-mcp", account, watch_id=watch.id)
            elif watches.may_rent(tx, watch.id, now):
                found.append(watch)
            else:
                self._record(tx, watch, watch.seen_usd, _UNSETTLED)
        return [] if left_to_watchdog(tx, context, account) or ledger.frozen(tx) is not None else found

    async def _look(self, watch: Watch, current: Orders) -> None:
        seen, held = None, _NOTHING
        try:
            request = CreateWatch.model_validate({**watch.ask, "env": watch.env})
        except ValidationError:  # an earlier version accepted it: it must not stop the other watches
            said = "Its arguments are no longer accepted, so it rents nothing."
            held = WatchObstacle(f"{said} Cancel it with cancel_watch and make a new one.", event=True)
            await self._context.state.write(lambda tx: self._record(tx, watch, seen, held))
            return
        try:
            found = await fitting(self._context, request, max_age_seconds=self._age, models=watch.models)
            seen = found.servers[0].priced.usd_per_hour if found.servers else None
            picked = await self._free(watch, found.servers, request.exact_usd_per_hour, current)
            if picked and request.notify:
                await self._context.state.write(lambda tx: self._tell(tx, watch, found.servers, picked[0]))
            elif picked:
                held = await self._rent(watch, request.order(picked), request.exact_usd_per_hour)
        except Failure as failure:
            held = WatchObstacle(failure.message, event=True)
        await self._context.state.write(lambda tx: self._record(tx, watch, seen, held))

    def _tell(self, tx: Tx, watch: Watch, servers: Sequence[FoundServer], server_id: int) -> None:
        """Record once that a server is cheap enough, and end the watch. Such a watch does nothing else."""
        usd = next(one.priced.usd_per_hour for one in servers if one.listing.server_id == server_id)
        if watches.end(tx, watch.id, "fired"):
            self._context.note(tx, "watch_met", "clore-mcp", watch.account, server_id=server_id, watch_id=watch.id,
                               usd_per_hour=shown_up(usd))  # fmt: skip

    async def _free(self, watch: Watch, servers: Sequence[FoundServer], ceiling: Decimal, current: Orders) -> list[int]:
        """Return up to five of the cheapest servers at or under the ceiling. Left out are those that failed here
        recently, and those that run, or may run, an order of ours."""
        cheap = [one.listing.server_id for one in servers if one.priced.usd_per_hour <= ceiling]

        def read(tx: Tx) -> set[int]:
            failed = hosts.failed(tx, watch.account, self._context.clock())
            return ours_on(tx, watch.account, cheap, current.rows) | failed.keys()

        left_out = await self._context.state.read(read)
        return [number for number in cheap if number not in left_out][:_TRIED_AT_ONCE]

    async def _rent(self, watch: Watch, order: CreateOrder, ceiling: Decimal) -> WatchObstacle:
        """Create the next order. Return what blocked it, if anything."""
        priced = await self._pricer.price(order, at_most=ceiling)
        terms = priced.terms
        if terms is not None and terms.enforced_by is None:
            said = "No process would end the order, and a watch rents only if one would."
            return WatchObstacle(f"{said} Ask the person to start a watchdog.", event=True)
        if priced.refusals:
            return WatchObstacle("; ".join(str(refusal) for refusal in priced.refusals), event=True)
        if terms is None:
            return WatchObstacle(" ".join(one.message for one in priced.unfit) or None)
        if terms.worst_usd > watch.worst_usd:
            most = f"worst case {dollars(terms.worst_usd)}, {dollars(watch.worst_usd)} approved"
            return WatchObstacle(f"An order could cost more than was approved: {most}.", event=True)
        context = self._context
        made = await context.state.read(lambda tx: watches.made(tx, watch.id, context.clock()))
        quote = await self._approvals.under_watch(watch, made + 1, terms)
        if quote is None:
            return _NOTHING
        by = quote.decided_by or watch.approved_by
        outcome = await self._commitments.run(
            quote.id, lambda: self._creating.carry_out(quote, order, from_state="approved", by=by), None
        )
        return _NOTHING if outcome is None or outcome.status is Status.CREATED else _came(outcome)

    def _record(self, tx: Tx, watch: Watch, seen: Decimal | None, held: WatchObstacle) -> None:
        """Record the result of a check. A problem that a person may want to fix becomes an event when it begins."""
        context, now = self._context, self._context.clock()
        before = watches.get(tx, watch.id)
        watches.see(tx, watch.id, at=now, usd_per_hour=seen, said=held.said)
        begins = held.event and before is not None and before.said is None
        if begins and watches.status(tx, watch, now) == "waiting":
            context.note(tx, "watch_held_up", "clore-mcp", watch.account, watch_id=watch.id, why=held.said)


def _came(outcome: Outcome) -> WatchObstacle:
    """Return why a rental made no order. Servers that are no longer free are normal, and no event."""
    if outcome.status is Status.REFUSED and not outcome.refusals:
        return WatchObstacle("; ".join(f"server {one.server_id}: {one.outcome}" for one in outcome.attempts) or None)
    return WatchObstacle(outcome.next, event=True)

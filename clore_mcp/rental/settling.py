"""What became of a create: settled by looking at the orders, never by sending again.

A create is answered with `{"code":0}` and no id, or not at all (docs/clore-api.md, section 4.4). The order is the one
for that server, image and type that was not listed before the send. Exactly one: it is adopted, gets its lease and
keeps its reservation. None after code 0, or no valid reply to look at: `uncertain`, which blocks that server and keeps
its reservation. None without code 0: `failed`, and still adopted if the order shows up within a day.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Any, Final

import anyio

from clore_mcp.clore import OrderRow
from clore_mcp.errors import CloreError
from clore_mcp.money import ZERO, Coin
from clore_mcp.rental import outcomes
from clore_mcp.rental.closing import Closing
from clore_mcp.rental.desk import Desk
from clore_mcp.rental.readings import Orders
from clore_mcp.rental.terms import Candidate, Terms
from clore_mcp.state import intents, orders, quotes
from clore_mcp.state.database import Tx
from clore_mcp.state.intents import Intent
from clore_mcp.state.orders import Lease
from clore_mcp.state.quotes import Quote

ADOPTABLE_SECONDS: Final = 86_400.0
_RESERVED_LASTS: Final = 90.0  # a reserved intent that old has lost its owner; abandoning one is safe at any age
_ORPHAN_SECONDS: Final = 300.0  # longer than any live process needs between two steps
_CLOCK_SLACK: Final = 120  # an order that much older than its send, by Clore's own clock, is another one
_PAUSES: Final = (0.3, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)


@dataclass(frozen=True, slots=True)
class Sight:
    """What the looks have shown: the matching orders, and whether any reply could be trusted to show them all."""

    matches: tuple[OrderRow, ...] = ()
    valid: bool = False


def matches(intent: Intent, rows: Iterable[OrderRow], taken: Set[int], sent_api_at: float | None) -> list[OrderRow]:
    """The orders that this intent may have made: its server, image and type, new since, and nobody else's."""
    return [
        row
        for row in rows
        if row.server_id == intent.server_id
        and row.id not in intent.known_order_ids
        and row.id not in taken
        and bool(row.spot) == (intent.order_type == "spot")
        and _same_image(row.image, intent.image)
        and (sent_api_at is None or row.created_at is None or row.created_at >= sent_api_at - _CLOCK_SLACK)
    ]


class Settling:
    """Looks, adopts, and closes what processes that died have left open."""

    def __init__(self, desk: Desk, closing: Closing) -> None:
        self._desk = desk
        self._closing = closing

    async def settle(self, intent: Intent, quote: Quote, *, sent_api_at: float | None = None) -> dict[str, Any]:
        """Look until the outcome of a send is known or the patience is over; the outcome, recorded."""
        desk = self._desk
        give_up_at = desk.monotonic() + desk.patience.look
        best, looks = Sight(), 0
        while True:
            seen = await self._look(intent, completed=looks % 3 == 2, sent_api_at=sent_api_at)
            if len(seen.matches) == 1:
                return await self.adopt(intent, quote, seen.matches[0])
            if seen.valid:
                best = seen
            pause = _PAUSES[min(looks, len(_PAUSES) - 1)]
            looks += 1
            if desk.monotonic() + pause > give_up_at:
                return await self._unfound(intent, quote, best)
            await anyio.sleep(pause)

    async def adopt(self, intent: Intent, quote: Quote, row: OrderRow) -> dict[str, Any]:
        """Take an order as the one that this intent made; above its ceiling it is cancelled at once."""
        desk = self._desk
        terms = Terms.from_json(quote.terms)
        candidate = next(one for one in terms.candidates if one.server_id == intent.server_id)
        lease = lease_of(intent, quote, terms, candidate, row, desk.readings.api_now())
        reservation_usd = candidate.worst_usd

        def write(tx: Tx) -> bool:
            now = intents.get(tx, intent.id)
            if now is None or now.state == "adopted":
                return False
            intents.step(tx, intent.id, was=now.state, now_is="adopted", order_id=row.id)
            orders.add(tx, lease)
            intents.bind(tx, intent.id, row.id)
            desk.note(
                tx, "late_order_adopted" if now.state == "failed" else "created", quote.caller, intent.account,
                quote_id=quote.id, intent_id=intent.id, order_id=row.id, server_id=intent.server_id,
                price_per_day=str(row.price), coin=row.currency, ends_api_at=lease.ends_api_at,
                reserved_usd=str(reservation_usd),
            )  # fmt: skip
            return True

        await desk.state.write(write)
        desk.readings.changed()
        if _above(row, candidate):
            return await self._undo(intent, quote, row, candidate)
        return outcomes.created(lease, candidate, terms, await self._attempts(quote, intent, "created"))

    async def settle_open(self, account: str, current: Orders) -> None:
        """Close what other processes have left: abandon what was never sent, look for what was."""
        desk, now = self._desk, self._desk.clock()
        since = now - ADOPTABLE_SECONDS
        open_ = await desk.state.read(
            lambda tx: intents.in_state(tx, account, "reserved", "sending", "uncertain", "failed", since=since)
        )
        for intent in open_:
            quote = await desk.state.read(lambda tx, i=intent: quotes.get(tx, i.quote_id))  # type: ignore[misc]
            if quote is not None:
                await self._settle_left(intent, quote, current, now)
        await desk.state.write(lambda tx: self._settle_orphans(tx, account, now))

    def _settle_orphans(self, tx: Tx, account: str, now: float) -> None:
        """Close quotes whose process died between two steps, with nothing on its way: else they block the same call."""
        for quote in quotes.committing(tx, account):
            open_ = [intent for intent in intents.of_quote(tx, quote.id) if intent.state in intents.OPEN]
            if quote.owner != self._desk.owner and not open_ and now - (quote.decided_at or now) > _ORPHAN_SECONDS:
                quotes.settle(
                    tx,
                    quote.id,
                    outcomes.failed(
                        "The server process ended before the outcome was known. Check list_orders, then call again."
                    ),
                )
                self._desk.note(tx, "orphaned", "clore-mcp", account, quote_id=quote.id)

    async def _settle_left(self, intent: Intent, quote: Quote, current: Orders, now: float) -> None:
        if intent.state == "reserved":
            if now - intent.created_at > _RESERVED_LASTS:
                await self.abandon(intent, quote)
            return
        if intent.state == "sending" and now < (intent.not_after or now) + self._desk.patience.window:
            return
        seen = await self._sight(intent, current, None)
        if len(seen.matches) == 1:
            outcome = await self.adopt(intent, quote, seen.matches[0])
            await self._desk.state.write(lambda tx: quotes.settle(tx, quote.id, outcome))
        elif intent.state == "sending" and seen.valid:
            outcome = await self._unfound(intent, quote, seen)
            await self._desk.state.write(lambda tx: quotes.settle(tx, quote.id, outcome))

    async def abandon(self, intent: Intent, quote: Quote) -> None:
        """Give up an intent that was never sent: its owner, should it wake, can't send any more."""

        def write(tx: Tx) -> None:
            if intents.step(
                tx, intent.id, was="reserved", now_is="abandoned", reason="its process ended before sending"
            ):
                intents.release(tx, intent.id, ZERO, self._desk.clock())
                quotes.settle(
                    tx, quote.id, outcomes.failed("The server process ended before anything was sent. Call again.")
                )
                self._desk.note(tx, "abandoned", "clore-mcp", intent.account, quote_id=quote.id, intent_id=intent.id)

        await self._desk.state.write(write)

    async def _look(self, intent: Intent, *, completed: bool, sent_api_at: float | None) -> Sight:
        try:
            seen = await self._desk.readings.look(completed=completed)
        except CloreError:
            return Sight()
        return await self._sight(intent, seen, sent_api_at)

    async def _sight(self, intent: Intent, seen: Orders, sent_api_at: float | None) -> Sight:
        taken = await self._desk.state.read(lambda tx: orders.all_ids(tx, intent.account))
        return Sight(tuple(matches(intent, seen.rows, taken, sent_api_at)), valid=not seen.unreadable)

    async def _unfound(self, intent: Intent, quote: Quote, seen: Sight) -> dict[str, Any]:
        desk = self._desk

        def write(tx: Tx) -> str:
            now = intents.get(tx, intent.id) or intent
            certain = seen.valid and not seen.matches and not now.acknowledged
            state = "failed" if certain else "uncertain"
            if now.state in ("sending", "uncertain"):
                intents.step(tx, intent.id, was=now.state, now_is=state)
            if certain:
                intents.release(tx, intent.id, ZERO, desk.clock())
            desk.note(
                tx, state, quote.caller, intent.account,
                quote_id=quote.id, intent_id=intent.id, server_id=intent.server_id, matches=len(seen.matches),
            )  # fmt: skip
            return state

        state = await desk.state.write(write)
        attempts = await self._attempts(quote, intent, state)
        if state == "failed":
            return outcomes.failed(
                "Clore did not confirm the order, and none has appeared. Check list_orders before trying again.",
                attempts,
            )
        return outcomes.uncertain(intent, attempts)

    async def _undo(self, intent: Intent, quote: Quote, row: OrderRow, candidate: Candidate) -> dict[str, Any]:
        gone = await self._closing.cancel(row.id, issue=None, caller=quote.caller, why="above the approved ceiling")
        attempts = await self._attempts(quote, intent, "above_ceiling")
        return outcomes.above_ceiling(row, candidate, gone, attempts)

    async def _attempts(self, quote: Quote, last: Intent, outcome: str) -> list[dict[str, Any]]:
        made = await self._desk.state.read(lambda tx: intents.of_quote(tx, quote.id))
        return [
            {"server_id": one.server_id, "outcome": outcome if one.id == last.id else one.reason or one.state}
            for one in made
        ]


def lease_of(intent: Intent, quote: Quote, terms: Terms, candidate: Candidate, row: OrderRow, api_now: float) -> Lease:
    """The lease of an adopted order; it runs from Clore's own creation time."""
    started = row.created_at or int(api_now)
    return Lease(
        account=intent.account,
        order_id=row.id,
        intent_id=intent.id,
        digest=quote.digest,
        server_id=intent.server_id,
        order_type=intent.order_type,
        image=intent.image,
        coin=candidate.coin.value,
        price_native=row.price if row.price is not None else candidate.listed_per_day,
        ceiling_native=candidate.ceiling_per_day,
        fee_fraction=candidate.fee_fraction,
        creation_fee_usd=candidate.creation_fee_usd,
        usd_per_coin=candidate.usd_per_coin,
        started_api_at=started,
        ends_api_at=started + ceil(terms.hours * 3600),
        on_end=terms.on_end,
    )


def _above(row: OrderRow, candidate: Candidate) -> bool:
    coin = Coin.parse(row.currency or "")
    if coin is not None and coin is not candidate.coin:
        return True
    return row.price is not None and row.price > candidate.ceiling_per_day * (1 + Decimal("1e-9"))  # float noise


def _same_image(listed: str | None, wanted: str) -> bool:
    return listed is None or _bare(listed) == _bare(wanted)


def _bare(image: str) -> str:
    name = image.removeprefix("docker.io/").removeprefix("library/")
    return name.removesuffix(":latest")

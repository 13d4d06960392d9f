"""Settles the outcome of a create by looking at the orders, never by sending again.

Clore answers a create with `{"code":0}` and no id, or not at all (docs/clore-api.md, section 4.4). Its order is the one
for that server, image, type and coin that was not listed before the send. If there is exactly one, it is adopted, gets
its lease and keeps its reservation. If there is none after code 0, or no valid reply until the patience is over, the
create is `uncertain`, which blocks that server and keeps its reservation. If there is none without code 0, it is
`failed`, but its order is still adopted if it shows up within a day. A refusal in undocumented words is the
application's own, so one valid look after a pause is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import anyio

from clore_mcp.clore import OrderRow
from clore_mcp.errors import ArgumentInvalid, CloreError, NotFound, UnknownRefusal
from clore_mcp.money import ZERO
from clore_mcp.rental import results
from clore_mcp.rental.account.reading import Orders
from clore_mcp.rental.context import Commitments, Context
from clore_mcp.rental.create.adopt import ADOPTABLE, Adopter, Sighting
from clore_mcp.rental.requests import REQUESTS
from clore_mcp.rental.results import Attempt, Outcome, Status
from clore_mcp.store import End, Intent, Quote, Tx, accounts, intents, quotes

_LAST_SHARE: Final = 0.25  # of the patience for a look: only looks in this last share can decide that there is no order
_PAUSES: Final = (0.3, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)


OpenWork = tuple[Sequence[Intent], Sequence[tuple[Intent, Quote]], bool]
"""What ended processes may have left: creates under another account that may be this one, creates of this account with
their quotes, and whether a quote is being carried out that is not one of this process's tasks."""


class Settler:
    """Finds and adopts orders, and closes what ended processes have left open."""

    def __init__(self, context: Context, adopter: Adopter, commitments: Commitments) -> None:
        self._context = context
        self._adopter = adopter
        self._commitments = commitments

    async def settle(
        self, intent: Intent, quote: Quote, *, earlier: Sequence[Attempt] = (), refusal: UnknownRefusal | None = None
    ) -> Outcome:
        """Look until the outcome of a send is known or the patience is over. Record it and return it. After a
        `refusal`, the first valid look decides."""
        context = self._context
        if refusal is not None:
            await anyio.sleep(context.patience.look_after_refusal)
        give_up_at = context.monotonic() + context.patience.look
        # An order may show late. An old look that saw none proves nothing, for example if Clore has been down since.
        counts_from = give_up_at - context.patience.look * _LAST_SHARE
        last, looks = Sighting(), 0
        while True:
            asked_at = context.monotonic()
            seen = await self.look(intent, completed=looks % 3 == 2)
            if len(seen.matches) == 1:
                outcome = await self._adopter.adopt(intent, quote, seen.matches[0], earlier=earlier, known=seen.beats)
                if outcome is not None:
                    return outcome
            if seen.valid and (refusal is not None or asked_at >= counts_from):
                last = seen
            left = give_up_at - context.monotonic()
            decided = refusal is not None and seen.valid
            if decided or left <= 0 or not await self._is_open(intent):
                return await self._adopter.unfound(intent, quote, last, earlier, refusal)
            await anyio.sleep(min(left, _PAUSES[min(looks, len(_PAUSES) - 1)]))
            looks += 1

    async def look(self, intent: Intent, *, completed: bool) -> Sighting:
        """Look once for the order of an intent. If Clore fails, return an empty result instead of raising."""
        try:
            seen = await self._context.readings.look(completed=completed)
        except CloreError:
            return Sighting()
        return await self._adopter.sight(intent, seen)

    async def _is_open(self, intent: Intent) -> bool:
        now = await self._context.state.read(lambda tx: intents.get(tx, intent.id))
        return now is not None and now.state in ADOPTABLE  # failed: another process gave up before us

    def unwritten(self, account: str) -> list[End]:
        """Return the ends of orders that only this process knows, because the state could not be written."""
        return self._adopter.unrecorded_ends(account)

    async def write_down(self) -> None:
        """Record the orders that only this process's memory knows, if the state can be written again."""
        await self._adopter.write_down()

    async def settle_open(self, account: str, current: Orders) -> None:
        """Close what ended processes have left: abandon creates that were never sent, and look for those that were.
        This process's own work is not touched."""
        context, now = self._context, self._context.clock()
        strays, creates, orphans = await context.state.read(lambda tx: self.left_open(tx, account, current))
        for stray in strays:  # taken over once its order is listed here
            if len((await self._adopter.sight(stray, current)).matches) == 1:
                await context.state.write(partial(accounts.bring_intent, account=account, intent_id=stray.id))
        if strays:
            _, creates, orphans = await context.state.read(lambda tx: self.left_open(tx, account, current))
        for intent, quote in creates:
            await self._settle_left(intent, quote, current, now)
        if creates or orphans:
            await context.state.write(lambda tx: self._settle_orphans(tx, account, now))

    def left_open(self, tx: Tx, account: str, current: Orders) -> OpenWork:
        """Return what `settle_open` has to check, from the rows of the caller's transaction."""
        open_ = intents.in_state(tx, account, *intents.OPEN)
        listed = {row.server_id for row in current.rows}  # only creates for these can have made a listed order
        failed = [one for one in self._failed(tx, account) if one.server_id in listed]
        of_quotes = ((intent, quotes.get(tx, intent.quote_id)) for intent in (*open_, *failed))
        creates = [(one, of) for one, of in of_quotes if of is not None and not self._commitments.runs(of.id)]
        orphans = any(not self._commitments.runs(quote.id) for quote in quotes.committing(tx, account))
        return self._strays(tx, account), creates, orphans

    async def strays(self, account: str) -> bool:
        """Return whether a create of another account that may be this one may still show as an order."""
        return bool(await self._context.state.read(lambda tx: self._strays(tx, account)))

    async def to_settle(self, account: str) -> bool:
        """Return whether a look might still find an order that is not adopted."""
        return await self._context.state.read(
            lambda tx: bool(intents.in_state(tx, account, *intents.OPEN) or self._failed(tx, account))
        )

    def _strays(self, tx: Tx, account: str) -> list[Intent]:
        since = self._context.clock() - intents.ADOPTABLE_SECONDS
        return self._context.readings.identity.stray_intents(tx, account, since)

    def _failed(self, tx: Tx, account: str) -> list[Intent]:
        """Return the failed creates whose order may still show."""
        since = self._context.clock() - intents.ADOPTABLE_SECONDS
        return intents.in_state(tx, account, "failed", since=since)

    def _settle_orphans(self, tx: Tx, account: str, now: float) -> None:
        """Close quotes whose work ended between two steps with nothing on its way. They would block the same call."""
        for quote in quotes.committing(tx, account):
            made = intents.of_quote(tx, quote.id)
            if self._commitments.runs(quote.id) or any(intent.state in intents.OPEN for intent in made):
                continue
            last = max([quote.decided_at or 0.0, *(intent.not_after or intent.created_at for intent in made)])
            if now - last > self._context.patience.orphan:
                said = "The server process ended before the outcome was known. Check list_orders, then call again."
                lost = Outcome(Status(REQUESTS[quote.verb].lost), said)
                quotes.settle(tx, quote.id, lost.as_json())
                self._context.note(tx, "orphaned", "clore-mcp", account, quote_id=quote.id)

    async def _settle_left(self, intent: Intent, quote: Quote, current: Orders, now: float) -> None:
        patience = self._context.patience
        if intent.state == "reserved":
            if now - max(intent.created_at, intent.not_after or 0) > patience.orphan:
                await self._abandon(intent, quote)
            return
        over = (intent.not_after or intent.created_at) + patience.window
        if intent.state == "sending" and current.at < over:
            return
        seen = await self._adopter.sight(intent, current)
        if len(seen.matches) == 1:
            await self._adopter.adopt(intent, quote, seen.matches[0], known=seen.beats)
        elif intent.state == "sending" and seen.valid and current.at >= over + patience.look:
            await self._adopter.unfound(intent, quote, seen)

    async def _abandon(self, intent: Intent, quote: Quote) -> None:
        """Abandon an intent that was never sent. Its owner, even if it resumes, can no longer send it."""

        def write(tx: Tx) -> None:
            if intents.step(
                tx, intent.id, was="reserved", now_is="abandoned", reason="its process ended before sending"
            ):
                intents.release(tx, intent.id, ZERO, self._context.clock())
                unsent = results.failed("The server process ended before anything was sent. Call again.")
                quotes.settle(tx, quote.id, unsent.as_json())
                self._context.note(tx, "abandoned", "clore-mcp", intent.account, quote_id=quote.id, intent_id=intent.id)

        await self._context.state.write(write)

    async def unsettled(self, intent_id: str) -> tuple[Intent, Quote]:
        """Return an intent that only a person can settle now, and its quote. Raises NotFound and ArgumentInvalid."""
        found = await self._context.state.read(lambda tx: intents.get(tx, intent_id))
        quote = await self._context.state.read(lambda tx: quotes.get(tx, found.quote_id) if found else None)
        if found is None or quote is None or found.account != await self._context.readings.account():
            raise NotFound(
                "This account has no such intent.",
                hint=f"`{self._context.program} orders` names those that are unsettled.",
            )
        self._require_unsettled(found)
        return found, quote

    def _require_unsettled(self, intent: Intent) -> None:
        over = self._context.clock() >= (intent.not_after or 0) + self._context.patience.window
        if intent.state == "sending" and not over:
            raise ArgumentInvalid(f"{intent.id} is still on its way; nothing was changed.", hint="Wait two minutes.")
        if intent.state not in ("sending", "uncertain"):
            whose = f" as order {intent.order_id}" if intent.order_id else ""
            raise ArgumentInvalid(f"{intent.id} is settled already: {intent.state}{whose}. Nothing was changed.")

    async def settle_by_hand(self, intent: Intent, quote: Quote, row: OrderRow | None, *, by: str) -> Outcome:
        """Settle an intent by a person's word if looking could not. `row` is its order, None if it made none.
        Raises ArgumentInvalid if it was settled meanwhile. After a wrong None, the order is still adopted for a day."""
        if row is not None:
            outcome = await self._adopter.adopt(intent, quote, row, by=by)
            if outcome is None:
                raise ArgumentInvalid(f"{intent.id} has just been settled elsewhere. Nothing was changed.")
            return outcome
        none = results.failed("The person checked clore.ai and found no order. Call again if it is still wanted.")

        def write(tx: Tx) -> None:
            now = intents.get(tx, intent.id) or intent
            self._require_unsettled(now)
            intents.step(tx, intent.id, was=now.state, now_is="failed", reason="settled by hand: no order")
            intents.release(tx, intent.id, ZERO, self._context.clock())
            self._context.note(tx, "settled_by_hand", by, intent.account, quote_id=quote.id, intent_id=intent.id,
                               server_id=intent.server_id, order="none")  # fmt: skip
            quotes.settle(tx, quote.id, none.as_json())

        await self._context.state.write(write)
        return none

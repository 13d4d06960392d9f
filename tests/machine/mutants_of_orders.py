"""Broken on purpose: how an order is made, found, taken as ours and ended."""

from __future__ import annotations

import dataclasses
from typing import Any

from clore_mcp.clore import CloreClient
from clore_mcp.errors import Refused, Unclear
from clore_mcp.money import ZERO
from clore_mcp.rental import adopting
from clore_mcp.rental.claiming import Departure, Halted, Stopped
from clore_mcp.rental.creating import Creating
from clore_mcp.rental.ends import closing
from clore_mcp.rental.ends.cancelling import Cancelling
from clore_mcp.rental.ends.leases import Keeper
from clore_mcp.rental.proposal import Proposal, Yes
from clore_mcp.rental.settling import Settling
from clore_mcp.state import intents
from clore_mcp.state.intents import Intent
from tests.machine.breaking import mutant
from tests.machine.names import (
    CANCELLED,
    OVERRUN,
    RESERVED,
    SENT,
    TWICE,
    UNCOVERED,
    UNKNOWN,
)
from tests.machine.patching import put

# The create


@mutant(SENT)
def a_create_is_sent_again_after_a_lost_reply() -> None:
    create = CloreClient.create_order

    async def stubborn(self: CloreClient, request: Any, *, before_send: Any = None) -> Any:
        try:
            return await create(self, request, before_send=before_send)
        except Unclear:
            return await create(self, request)

    put(CloreClient, "create_order", stubborn)


@mutant(TWICE, RESERVED)
def a_lost_reply_goes_on_to_the_fallback() -> None:
    badly = Creating._answered_badly

    async def careless(self: Creating, errand: Any, departure: Departure, error: Any, attempts: Any) -> Stopped:
        if departure.intent is None or isinstance(error, Refused):
            return await badly(self, errand, departure, error, attempts)
        await self._close(errand, departure.intent, "refused", "lost")
        return Stopped(attempt={"server_id": departure.intent.server_id, "outcome": "lost"})

    put(Creating, "_answered_badly", careless)


@mutant(RESERVED)
def a_frozen_process_sends_whatever_the_time() -> None:
    async def leave(self: Departure, evidence: Any, request: Any) -> None:
        not_after = self._desk.clock() + self._desk.patience.send_within
        result = await self._desk.state.write(lambda tx: self._claim(tx, evidence, request, not_after))
        if not isinstance(result, Intent):
            raise Halted(result)
        self.intent = result

    put(Departure, "leave", leave)


# The look


@mutant(UNKNOWN)
def what_a_killed_process_left_is_not_looked_for() -> None:
    async def forget(self: Settling, intent: Intent, quote: Any, current: Any, now: float) -> None:
        def write(tx: Any) -> None:
            if intents.step(tx, intent.id, was="sending", now_is="failed"):
                intents.release(tx, intent.id, ZERO, now)

        if intent.state == "sending" and now > (intent.not_after or 0) + self._desk.patience.window:
            await self._desk.state.write(write)

    put(Settling, "_settle_left", forget)


@mutant(UNCOVERED, CANCELLED)
def any_order_of_the_server_is_adopted() -> None:
    def matches(intent: Intent, rows: Any, taken: Any, *_: Any, **__: Any) -> Any:
        return [row for row in rows if row.server_id == intent.server_id and row.id not in taken]

    put(adopting, "matches", matches)


@mutant(UNCOVERED)
def the_ceiling_is_not_checked_at_adoption() -> None:
    put(adopting, "above", lambda *_: False)
    put(closing, "above", lambda *_: False)


# The end


@mutant(CANCELLED)
def a_cancel_needs_no_yes() -> None:
    propose = Cancelling.propose

    async def willing(self: Cancelling, ask: Any, account: str) -> Any:
        found = await propose(self, ask, account)
        return dataclasses.replace(found, yes=Yes.NEVER) if isinstance(found, Proposal) else found

    put(Cancelling, "propose", willing)


@mutant(OVERRUN)
def leases_are_not_ended() -> None:
    async def leave_them(self: Keeper, current: Any) -> list[Any]:
        return []

    put(Keeper, "_end_due", leave_them)

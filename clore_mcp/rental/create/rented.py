"""A wanted server that is rented: by somebody else, or by this account?

Clore says "already rented" also when we hold the server ourselves, and a late order of ours is listed as rented like
any other. So where anything of ours on that server is younger than a day, a look comes before the next server: only a
valid one that shows none of ours lets the chain go on.
"""

from __future__ import annotations

from typing import Any, Final

from clore_mcp.errors import CloreError
from clore_mcp.rental import outcomes
from clore_mcp.rental.account.reading import Orders
from clore_mcp.rental.context import Desk
from clore_mcp.rental.create.errand import Errand
from clore_mcp.rental.create.present_order import held_by_you, running_on, standing
from clore_mcp.rental.create.send import Send, Stopped
from clore_mcp.rental.create.settle import Settling
from clore_mcp.rental.rules.check import Evidence
from clore_mcp.store import intents
from clore_mcp.store.database import Tx
from clore_mcp.store.intents import Intent


class Rented:
    """Looks before a chain leaves a rented server behind."""

    def __init__(self, desk: Desk, settling: Settling) -> None:
        self._desk = desk
        self._settling = settling

    async def unsent(self, errand: Errand, departure: Send, evidence: Evidence, attempt: dict[str, Any]) -> Stopped:
        """What comes of a candidate that the market rules out before anything is sent to it."""
        account, server_id = errand.quote.account, errand.candidate.server_id
        listing = evidence.snapshot.by_id.get(server_id)
        free = listing is not None and not listing.rented
        ours = running_on(server_id, evidence.current.rows) is not None or await self._may_be_ours(errand, None)
        if free or not ours:
            return Stopped(attempt=attempt)
        seen = await self._seen()
        if seen is not None:
            await self._settling.settle_open(account, seen)  # a late order is taken for what it is first
        held = await self._held(errand)
        if held is not None:
            return Stopped(outcome=held)
        running = None if seen is None else running_on(server_id, seen.rows)
        if running is not None:
            return Stopped(outcome=held_by_you(running, server_id))
        if seen is None or seen.unreadable or running_on(None, seen.rows) is not None:
            return Stopped(attempt, _UNSEEN, final=departure.used)
        return Stopped(attempt=attempt)

    async def answered(
        self, errand: Errand, intent: Intent, attempts: list[dict[str, Any]], *, ours: bool
    ) -> Stopped | None:
        """What comes of a create that Clore answered with "already rented", or with `ours`, with "you already have a
        spot order"; None when no order of this account is seen on the server."""
        if not ours and not await self._may_be_ours(errand, intent):
            return None
        sight = await self._settling.look(intent, completed=False)
        if not sight.valid or sight.matches:
            return Stopped(outcome=await self._settling.settle(intent, errand.quote, earlier=tuple(attempts)))
        if sight.other is None:
            return None
        return Stopped(outcome=await self._held(errand) or held_by_you(sight.other, intent.server_id))

    async def _seen(self) -> Orders | None:
        try:
            return await self._desk.readings.look(completed=False)
        except CloreError:
            return None

    async def _may_be_ours(self, errand: Errand, intent: Intent | None) -> bool:
        """Whether another create of ours for that server may have made an order within a day."""
        account, server_id = errand.quote.account, errand.candidate.server_id
        since = self._desk.clock() - intents.ADOPTABLE_SECONDS
        found = await self._desk.state.read(lambda tx: intents.of_server(tx, account, server_id, since))
        return any(intent is None or one.id != intent.id for one in found)

    async def _held(self, errand: Errand) -> dict[str, Any] | None:
        """What this very call has made already, or an unsettled create for that server."""
        quote, program = errand.quote, self._desk.program

        def read(tx: Tx) -> dict[str, Any] | None:
            made = standing(tx, quote.account, quote.digest, program, but_of=quote.id)
            unsettled = intents.open_on(tx, quote.account, errand.candidate.server_id)
            blocked = unsettled is not None and unsettled.quote_id != quote.id
            return made or (outcomes.blocked(unsettled, program) if unsettled is not None and blocked else None)

        return await self._desk.state.read(read)


_UNSEEN: Final = outcomes.failed(
    "The server is rented, and whether by an order of this account can't be seen now; nothing was sent. Look at"
    " list_orders, then call again."
)

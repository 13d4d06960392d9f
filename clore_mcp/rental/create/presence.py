"""Is one of ours there already? The one place that says so: of a call, of a server, of the account.

The same call is the order that it has made, never a second one. A server of ours is never left for a fallback: that
would be a second bill for one wish. Clore says "already rented" also when we hold the server ourselves, and a late
order of ours is listed as rented like any other. So where anything of ours on that server is younger than a day, a look
comes before the next server: only a valid one that shows none of ours lets the chain go on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from clore_mcp.clore import OrderRow
from clore_mcp.errors import CloreError
from clore_mcp.rental import outcomes
from clore_mcp.rental.account.reading import Orders
from clore_mcp.rental.context import Context, iso
from clore_mcp.rental.results import Attempt, Outcome, Status, Stopped, outcome_of
from clore_mcp.store import intents, orders, quotes
from clore_mcp.store.database import Tx
from clore_mcp.store.intents import Intent
from clore_mcp.store.quotes import Quote

if TYPE_CHECKING:
    from clore_mcp.rental.create.settle import Settling
    from clore_mcp.rental.rules.check import Evidence


def running_on(server_id: int | None, rows: Iterable[OrderRow]) -> OrderRow | None:
    """The account's order on a server, as Clore lists them; for None, one whose server Clore does not tell."""
    return next((row for row in rows if row.server_id == server_id and not row.expired), None)


def unsettled_on(tx: Tx, account: str, server_ids: Iterable[int]) -> dict[int, Intent]:
    """The creates on their way or uncertain, by server: a second one could be a second bill."""
    found = (intents.open_on(tx, account, number) for number in server_ids)
    return {intent.server_id: intent for intent in found if intent is not None}


def ours_on(tx: Tx, account: str, server_ids: Collection[int], rows: Iterable[OrderRow]) -> set[int]:
    """The servers that an order of this account runs on, or may run on."""
    running = {row.server_id for row in rows if not row.expired}
    return {number for number in server_ids if number in running} | unsettled_on(tx, account, server_ids).keys()


def in_the_way(tx: Tx, account: str, server_id: int, rows: Iterable[OrderRow], program: str) -> Outcome | None:
    """What to answer where a server is ours already, or may be; None where a create may go there."""
    held = unsettled_on(tx, account, [server_id]).get(server_id)
    if held is not None:
        return outcomes.blocked(held, program)
    running = running_on(server_id, rows)
    return None if running is None else outcomes.held_by_you(running, server_id)


def made_by_call(tx: Tx, account: str, digest: str, program: str, *, but_of: str | None = None) -> Outcome | None:
    """The order that this very call has made, while it runs, or a create of it whose outcome is unknown; those of the
    quote `but_of`, which is being carried out, aside; and so with what replaces that order. None where there is
    nothing."""
    heir = quotes.replacement_of_call(tx, digest)
    if heir is not None and heir.id != but_of:
        made = made_by_call(tx, account, heir.digest, program, but_of=but_of)
        if made is not None or heir.state in ("approved", "committing"):
            return made or outcomes.being_replaced(heir)
    lease = orders.of_digest(tx, account, digest)
    if lease is None:
        unknown = intents.unsettled_of_call(tx, digest, but_of=but_of)
        return None if unknown is None else outcomes.uncertain(unknown, [], program).again()
    made_by = intents.get(tx, lease.intent_id)
    outcome = outcome_of(quotes.get(tx, made_by.quote_id) if made_by else None)
    if outcome is not None and outcome.status is Status.REFUSED:  # above its ceiling, and its cancel is not proven yet
        return outcome.again()
    known = outcome or Outcome(Status.CREATED, "")
    running = replace(known, status=Status.CREATED, order_id=lease.order_id, ends_at=iso(lease.ends_api_at))
    return running.again(
        "This call made the order already, and it still runs: nothing was ordered again. To stay longer, call"
        " extend_order."
    )


class Presence:
    """Looks before a chain of servers leaves a rented one behind."""

    def __init__(self, context: Context, settling: Settling) -> None:
        self._context = context
        self._settling = settling

    async def not_offered(self, quote: Quote, evidence: Evidence, attempt: Attempt, *, used: bool) -> Stopped:
        """What comes of a server that the market rules out before anything is sent to it. `used`: the yes is."""
        account, server_id = quote.account, attempt.server_id
        listing = evidence.snapshot.by_id.get(server_id)
        free = listing is not None and not listing.rented
        ours = running_on(server_id, evidence.current.rows) is not None or await self._may_be_ours(account, server_id)
        if free or not ours:
            return Stopped(attempt=attempt)
        seen = await self._seen()
        if seen is not None:
            await self._settling.settle_open(account, seen)  # a late order is taken for what it is first
        held = await self._held(quote, server_id)
        if held is not None:
            return Stopped(outcome=held)
        running = None if seen is None else running_on(server_id, seen.rows)
        if running is not None:
            return Stopped(outcome=outcomes.held_by_you(running, server_id))
        if seen is None or seen.unreadable or running_on(None, seen.rows) is not None:
            return Stopped(attempt, _UNSEEN, final=used)
        return Stopped(attempt=attempt)

    async def answered(
        self, quote: Quote, intent: Intent, attempts: Sequence[Attempt], *, ours: bool
    ) -> Stopped | None:
        """What comes of a create that Clore answered with "already rented", or with `ours`, with "you already have a
        spot order"; None when no order of this account is seen on the server."""
        if not ours and not await self._may_be_ours(quote.account, intent.server_id, but=intent):
            return None
        sight = await self._settling.look(intent, completed=False)
        if not sight.valid or sight.matches:
            return Stopped(outcome=await self._settling.settle(intent, quote, earlier=attempts))
        if sight.other is None:
            return None
        held = await self._held(quote, intent.server_id)
        return Stopped(outcome=held or outcomes.held_by_you(sight.other, intent.server_id))

    async def _seen(self) -> Orders | None:
        try:
            return await self._context.readings.look(completed=False)
        except CloreError:
            return None

    async def _may_be_ours(self, account: str, server_id: int, but: Intent | None = None) -> bool:
        """Whether another create of ours for that server may have made an order within a day."""
        since = self._context.clock() - intents.ADOPTABLE_SECONDS
        found = await self._context.state.read(lambda tx: intents.of_server(tx, account, server_id, since))
        return any(but is None or one.id != but.id for one in found)

    async def _held(self, quote: Quote, server_id: int) -> Outcome | None:
        """What this very call has made already, or an unsettled create for that server."""
        program = self._context.program

        def read(tx: Tx) -> Outcome | None:
            made = made_by_call(tx, quote.account, quote.digest, program, but_of=quote.id)
            unsettled = unsettled_on(tx, quote.account, [server_id]).get(server_id)
            blocked = unsettled is not None and unsettled.quote_id != quote.id
            return made or (outcomes.blocked(unsettled, program) if unsettled is not None and blocked else None)

        return await self._context.state.read(read)


_UNSEEN: Final = outcomes.failed(
    "The server is rented, and whether by an order of this account can't be seen now; nothing was sent. Look at"
    " list_orders, then call again."
)

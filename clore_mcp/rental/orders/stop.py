"""Freezes spending in every process of this state, ends every order made here and proves that it is gone.

The freeze is one transaction. From then on no process can send a create. Every unused yes has lapsed, and reservations
that were not sent are dropped. A create that is already on its way is waited for, and the process that adopts its order
during the freeze cancels it at once.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence, Set
from dataclasses import dataclass
from typing import Final

import anyio

from clore_mcp.errors import CloreError, Failure
from clore_mcp.money import ZERO
from clore_mcp.rental import results
from clore_mcp.rental.context import Context
from clore_mcp.rental.create.settle import Settler
from clore_mcp.rental.ends import cancels
from clore_mcp.rental.ends.closure import Closer
from clore_mcp.rental.results import Outcome, Status
from clore_mcp.store import Entry, Intent, Lease, Tx, intents, ledger, orders, quotes, watches
from clore_mcp.store.ledger import EVERY_ACCOUNT, Freeze

_SETTLE_SECONDS: Final = 240.0  # longer than a send's window and the look after it
_LOOK_PAUSE_SECONDS: Final = 3.0
_TAKE_UP_SECONDS: Final = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Frozen:
    """What the freeze has closed. `new` is False if spending was already frozen."""

    freeze: Freeze
    new: bool
    questions: int
    unsent: int


@dataclass(frozen=True, slots=True)
class Ended:
    """One order, the outcome of its cancel, and its failure, if any."""

    order_id: int
    outcome: Outcome
    failure: Failure | None = None

    @property
    def proven(self) -> bool:
        """Whether the order is proven to be no longer billed."""
        return self.outcome.status is Status.CANCELLED


@dataclass(frozen=True, slots=True)
class PendingCreates:
    """Creates that were sent before the freeze and have an unknown outcome. Empty once all are settled."""

    intents: tuple[Intent, ...]


@dataclass(frozen=True, slots=True)
class FreezeLifted:
    """The freeze was lifted meanwhile. Running orders may have been made since, so no more are ended."""


def freeze(tx: Tx, *, by: str, now: float) -> Frozen:
    """Freeze all spending of this state from this transaction on."""
    new = ledger.freeze(tx, by, now)
    questions = quotes.expire_all(tx) + watches.end_all(tx)
    tx.end_yes()
    unsent = intents.unsent(tx)
    for intent in unsent:
        intents.step(tx, intent.id, was="reserved", now_is="abandoned", reason="spending was frozen")
        intents.release(tx, intent.id, ZERO, now)
        quotes.settle(tx, intent.quote_id, results.frozen().as_json())
    if new:
        data = {"questions_closed": questions, "unsent_given_up": len(unsent)}
        ledger.write(tx, Entry(at=now, account=EVERY_ACCOUNT, step="frozen", caller=by, data=data))
    current = ledger.frozen(tx)
    return Frozen(current or Freeze(by, now), new, questions, len(unsent))


def lapse_restored(tx: Tx, *, now: float) -> None:
    """Close the open questions and watches of a state that is an older copy of itself. Their approvals may have been
    used since."""
    closed = quotes.expire_all(tx) + watches.end_all(tx)
    data = {"closed": closed}
    ledger.write(tx, Entry(at=now, account=EVERY_ACCOUNT, step="state_restored", caller="clore-mcp", data=data))


def lift(tx: Tx, *, by: str, now: float) -> bool:
    """Allow spending again. Returns False if it was not frozen."""
    lifted = ledger.lift(tx)
    if lifted:
        ledger.write(tx, Entry(at=now, account=EVERY_ACCOUNT, step="lifted", caller=by))
    return lifted


class Stopper:
    """Ends the orders that were made here."""

    def __init__(self, context: Context, closer: Closer, settler: Settler) -> None:
        self._context = context
        self._closer = closer
        self._settler = settler

    async def running(self) -> list[Lease]:
        """Return the orders made here that are not proven gone, including those under an account that may be this one.
        While Clore does not say which account this is, return those of every account in the state."""
        readings = self._context.readings
        account = await self._account()
        made = await self._context.state.read(orders.active_anywhere)
        if account is None:
            return made
        maybe = await readings.identity.doubtful(account, readings.api_now())
        return [lease for lease in made if lease.account == account] + await readings.identity.of_this_api(maybe)

    async def out_of_reach(self, tried: Set[int]) -> list[Lease]:
        """Return the orders made here that are not proven gone and were not tried. They are under another account or
        have no recorded API. Empty while Clore does not say which account this is."""
        if await self._account() is None:
            return []
        made = await self._context.state.read(orders.active_anywhere)
        found = await self._context.readings.identity.of_this_api(made, or_unknown=True)
        return [lease for lease in found if lease.order_id not in tried]

    async def take_up(self) -> None:
        """Restore the leases of orders that Clore lists as running, whatever it said before, and find out which account
        this is. Wait no longer than ten seconds for Clore."""
        with anyio.move_on_after(_TAKE_UP_SECONDS):
            try:
                current = await self._context.readings.look(completed=False)
                await self._closer.reopen_listed(await self._context.readings.account(), current)
                await self._context.readings.doubtful()
            except Failure as failure:
                log.warning("it is unknown whether an ended order runs again: %s", failure.message)

    async def end_all(
        self, *, by: str, patience_seconds: float = _SETTLE_SECONDS
    ) -> AsyncIterator[Ended | PendingCreates | FreezeLifted]:
        """Cancel all running orders at once. Then cancel orders that run again after they had ended, and orders of
        creates on their way once they show. Yield each result when it is known. The last one is `PendingCreates` if a
        create is still not settled. It is `FreezeLifted` if the freeze ends before the work, because this process may
        have been suspended for hours."""
        context, tried = self._context, set[int]()
        give_up_at = context.monotonic() + patience_seconds
        told: tuple[Intent, ...] = ()
        while True:
            for looked in (False, True):  # orders known to run are cancelled before the look
                if looked:
                    await self.take_up()
                found = [lease for lease in await self.running() if lease.order_id not in tried]
                if await context.state.read(ledger.frozen) is None:  # after the list, which could hold newer orders
                    yield FreezeLifted()
                    return
                tried.update(lease.order_id for lease in found)
                for ended in await self._end(found, by):
                    yield ended
            left = tuple(await context.state.read(intents.sent_anywhere))
            over = context.monotonic() >= give_up_at or all(intent.state == "uncertain" for intent in left)
            if left != told or (left and over):
                yield PendingCreates(left)
            if over:
                return
            told = left
            await anyio.sleep(_LOOK_PAUSE_SECONDS)
            readings = context.readings
            with contextlib.suppress(CloreError):
                await self._settler.settle_open(await readings.account(), await readings.look(completed=False))

    async def _end(self, leases: Sequence[Lease], by: str) -> list[Ended]:
        """Cancel these orders and look until each is proven gone. All cancels are sent before the first is proven."""
        if not leases:
            return []
        targets = [(lease.account, lease.order_id) for lease in leases]
        sent = await cancels.send(self._context, targets, caller=by, why="stop")
        outcomes = await self._closer.prove(sent)
        return [Ended(one.order_id, outcome, one.trouble) for one, outcome in zip(sent, outcomes, strict=True)]

    async def _account(self) -> str | None:
        with contextlib.suppress(CloreError):
            return await self._context.readings.account()
        return None

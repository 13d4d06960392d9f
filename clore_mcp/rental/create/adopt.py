"""Finds the order that a create has made and adopts it: lease, reservation and outcome in one transaction. Without an
order, the create is closed as failed or uncertain.

Every path that finds an order (the sender, a later process, a person's word) adopts it here, so the rows agree no
matter where a process is killed.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final, NamedTuple

import anyio

from clore_mcp.clore import OrderRow
from clore_mcp.errors import CloreError, StateUnavailable, UnknownRefusal
from clore_mcp.money import ZERO
from clore_mcp.rental import results
from clore_mcp.rental.account.api_clock import created_between
from clore_mcp.rental.account.reading import Orders
from clore_mcp.rental.context import Context, beats, enforcer
from clore_mcp.rental.create.presence import running_on
from clore_mcp.rental.ends.closure import Closer
from clore_mcp.rental.results import Attempt, Outcome, outcome_of
from clore_mcp.rental.rules.billing import above, matches, may_be_of, names_coin
from clore_mcp.rental.terms import Candidate, Terms
from clore_mcp.store import Beat, End, Intent, Lease, Quote, Tx, intents, ledger, orders, quotes
from clore_mcp.store.database import fits
from clore_mcp.text import clean

log = logging.getLogger(__name__)
ADOPTABLE: Final = ("sending", "uncertain", "failed")
_WORDS_SHOWN: Final = 80  # characters of an undocumented refusal
_PRICE_PAUSES: Final = (0.3, 1.0, 2.0)  # seconds between looks for a price that Clore does not report at once
_LEFT_RUNNING: Final = (
    "It is still billed, because this clore-mcp is read-only and cancels nothing."
    " Ask the person to cancel it on clore.ai now. A clore-mcp that is not read-only cancels it as soon as it runs."
)
_UNRECORDED: Final = (
    "The order runs, but it could not be recorded: {} This process remembers its end and records it as soon as that"
    " works. Ask the person to free disk space now and to keep this server running."
)
_PRICE_UNKNOWN: Final = (
    "Clore does not report this order's price yet, so it can't be compared with the approved one. Check list_orders,"
    " and use cancel_order if it costs more."
)
_REFUSED: Final = (
    'Clore refused the order with words that no documentation names ("{}"), and none has appeared. Check'
    " list_orders before trying again; another server may do."
)
_UNCONFIRMED: Final = "Clore did not confirm the order, and none has appeared. Check list_orders before trying again."


class Unwanted(NamedTuple):
    """Why an order is cancelled at once: a word for the record and a sentence for the caller."""

    word: str
    said: str


@dataclass(frozen=True, slots=True)
class UnrecordedOrder:
    """An order that a create has made, and its agreed end. `earlier` are the attempts before it."""

    end: End
    intent: Intent
    quote: Quote
    row: OrderRow
    earlier: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Sighting:
    """The result of a look: the matching orders, whether the reply surely shows them all, an order of the account that
    runs on that server but does not match, and the heartbeats of the processes that end leases."""

    matches: tuple[OrderRow, ...] = ()
    valid: bool = False
    other: OrderRow | None = None
    beats: tuple[Beat, ...] = ()


class Adopter:
    """Binds orders to intents, and closes intents that made none."""

    def __init__(self, context: Context, closer: Closer) -> None:
        self._context = context
        self._closer = closer
        self._unrecorded: dict[int, UnrecordedOrder] = {}  # by order id, until they are recorded
        self._acknowledged: set[str] = set()  # intents that Clore has answered with code 0

    def unrecorded_ends(self, account: str) -> list[End]:
        """Return the ends of orders that only this process's memory knows."""
        return [one.end for one in self._unrecorded.values() if one.end.account == account]

    async def write_down(self) -> None:
        """Record the orders that only this process's memory knows, if the state can be written again."""
        for one in [*self._unrecorded.values()]:
            await self.adopt(one.intent, one.quote, one.row, earlier=one.earlier)

    async def sight(self, intent: Intent, current: Orders) -> Sighting:
        """Return what the list of orders shows about an intent. An order that a later create for the same server may
        have made is not a match. While Clore lists an order without its server, nothing is certain."""
        rows = current.rows

        def read(tx: Tx) -> Sighting:
            taken = orders.made_here(tx, intent.account, [row.id for row in rows])
            others = intents.of_server(tx, intent.account, intent.server_id, intent.created_at)
            later = [one for one in others if one.created_at > intent.created_at]
            found = [row for row in matches(intent, rows, taken) if fits(row.id)]
            mine = [row for row in found if all(row.id in one.known_order_ids for one in later)]
            # A row without a server, or with an id too large to store, may be its order, so the result stays open.
            odd = (row for row in rows if row.server_id is None or not fits(row.id))
            whole = not any(row.server_id in (None, intent.server_id) and may_be_of(intent, row, taken) for row in odd)
            other = running_on(intent.server_id, (r for r in rows if r not in mine))
            valid = whole and not current.unreadable
            return Sighting(tuple(mine), valid, other, tuple(beats(tx, self._context, intent.account)))

        return await self._context.state.read(read)

    async def adopt(
        self,
        intent: Intent,
        quote: Quote,
        row: OrderRow,
        *,
        by: str | None = None,
        earlier: Sequence[Attempt] = (),
        known: Sequence[Beat] | None = None,
    ) -> Outcome | None:
        """Adopt an order for this intent. If its price is above the ceiling or spending is frozen, cancel it at once. A
        read-only server does not cancel it.

        Returns None if another process has settled the intent or adopted the order. `by` names a person who says that
        it is the order. If the state can't be written, this process remembers the order and its end until it can.
        `known` holds the heartbeats of the processes that end leases, if they are already read.
        """
        context = self._context
        row = await self._look_for_price(row)
        terms = Terms.from_json(quote.terms)
        candidate = next(one for one in terms.candidates if one.server_id == intent.server_id)
        lease = lease_of(intent, quote, terms, candidate, row, context.readings.api_now())

        def write(tx: Tx) -> tuple[Outcome, Unwanted | None] | None:
            now = intents.get(tx, intent.id)
            if now is None or now.state not in ADOPTABLE or orders.get(tx, intent.account, row.id) is not None:
                return None
            why = _unwanted(tx, row, candidate)
            given = orders.end_of(tx, intent.account, row.id)  # set while it was taken for one made elsewhere
            held = lease if given is None else replace(lease, ends_api_at=given.ends_api_at)
            if why is not None:  # if killed before the cancel below, another process completes it
                held = replace(lease, ends_api_at=lease.started_api_at, on_end="cancel")
            outcome = self._adopted(tx, now, quote, held, candidate, terms, row, earlier, why)
            step = "settled_by_hand" if by else "created" if now.state == "sending" else "late_order_adopted"
            context.note(
                tx, step, by or quote.caller, intent.account,
                quote_id=quote.id, intent_id=intent.id, order_id=row.id, server_id=intent.server_id,
                price_per_day=str(row.price), coin=row.currency, ends_api_at=held.ends_api_at,
                reserved_usd=str(terms.reserved_usd(candidate)),
            )  # fmt: skip
            if why is None and not _says_price(row):
                context.note(tx, "price_unknown", by or quote.caller, intent.account, quote_id=quote.id,
                             intent_id=intent.id, order_id=row.id, server_id=intent.server_id)  # fmt: skip
            return outcome, why

        try:
            await context.ask_enforcers(intent.account, known)
            written = await context.state.write(write)
        except StateUnavailable as error:
            if by is not None:
                raise
            return await self._remember(intent, quote, row, lease, candidate, terms, earlier, error)
        self._unrecorded.pop(row.id, None)
        context.readings.changed()
        if written is None:
            return None
        outcome, why = written
        if why is None or context.settings.read_only:
            return outcome
        word, said = why
        gone = await self._closer.cancel(row.id, issue=None, caller=quote.caller, why=word)
        outcome = results.ended_at_once(said, row, candidate, gone, outcome.attempts)
        with contextlib.suppress(StateUnavailable):  # then the row says that it may bill, but the caller knows better
            await context.state.write(lambda tx: quotes.settle(tx, quote.id, outcome.as_json()))
        return outcome

    async def _remember(
        self, intent: Intent, quote: Quote, row: OrderRow, lease: Lease, candidate: Candidate, terms: Terms,
        earlier: Sequence[Attempt], error: StateUnavailable,
    ) -> Outcome:  # fmt: skip
        """Keep the end of an order in memory. If its price is above the ceiling, it is still cancelled at once."""
        context = self._context
        log.warning("order %s can't be recorded, so its end is kept in memory: %s", row.id, error.message)
        dearer = above(row, candidate.coin, candidate.ceiling_per_day)
        end = End(
            lease.account, row.id, lease.started_api_at if dearer else lease.ends_api_at,
            "cancel" if dearer else lease.on_end, made_here=True,
        )  # fmt: skip
        self._unrecorded[row.id] = UnrecordedOrder(end, intent, quote, row, tuple(earlier))
        context.readings.changed()
        attempts = [*earlier, Attempt(intent.server_id, "above_ceiling" if dearer else "created")]
        if dearer and not context.settings.read_only:
            gone = await self._closer.cancel(row.id, issue=None, caller=quote.caller, why="above_ceiling")
            return results.ended_at_once(results.above_ceiling(row, candidate), row, candidate, gone, attempts)
        try:
            terms = replace(terms, enforced_by=await context.enforced_by())
        except (CloreError, StateUnavailable):
            terms = replace(terms, enforced_by=None)
        outcome = results.created(lease, candidate, terms, attempts, quote.decided_by)
        return replace(outcome, next=f"{_UNRECORDED.format(error.message)} {outcome.next}")

    async def _look_for_price(self, row: OrderRow) -> OrderRow:
        """Return the order's row once it has a price to compare with the ceiling, else as it is after three looks."""
        for pause in _PRICE_PAUSES:
            if _says_price(row):
                break
            await anyio.sleep(pause)
            try:
                row = (await self._context.readings.look(completed=False)).find(row.id) or row
            except CloreError:
                continue
        return row

    def _adopted(
        self, tx: Tx, now: Intent, quote: Quote, lease: Lease, candidate: Candidate, terms: Terms, row: OrderRow,
        earlier: Sequence[Attempt], why: Unwanted | None,
    ) -> Outcome:  # fmt: skip
        intents.step(tx, now.id, was=now.state, now_is="adopted", order_id=row.id)
        orders.add(tx, lease)
        intents.bind(tx, now.id, row.id)
        word, said = why or ("created", "")
        attempts = attempts_of(tx, quote, now, word, earlier)
        if why is not None:
            outcome = results.ended_at_once(said, row, candidate, None, attempts)
            if self._context.settings.read_only:
                outcome = replace(outcome, next=f"{said} {_LEFT_RUNNING}")
        else:
            # Since the question, a watchdog may have started, or the process that was to end it may have stopped.
            terms = replace(terms, enforced_by=enforcer(tx, self._context, lease.account))
            by = (quotes.get(tx, quote.id) or quote).decided_by  # `quote` was read before its yes was used
            outcome = results.created(lease, candidate, terms, attempts, by)
            if not _says_price(row):
                outcome = replace(outcome, next=f"{_PRICE_UNKNOWN} {outcome.next}")
        quotes.settle(tx, quote.id, outcome.as_json())
        return outcome

    async def unfound(
        self,
        intent: Intent,
        quote: Quote,
        seen: Sighting,
        earlier: Sequence[Attempt] = (),
        refusal: UnknownRefusal | None = None,
    ) -> Outcome:
        """Close an intent without an order: failed if that is certain enough, else uncertain."""
        context = self._context
        if intent.acknowledged:
            self._acknowledged.add(intent.id)

        def write(tx: Tx) -> Outcome:
            now = intents.get(tx, intent.id)
            if now is None:  # its state was deleted meanwhile
                return results.uncertain(intent, [*earlier], context.program)
            if now.state not in ("sending", "uncertain"):
                return outcome_of(quotes.get(tx, quote.id)) or results.in_progress(quote.id)
            acknowledged = now.acknowledged or intent.id in self._acknowledged
            certain = seen.valid and not seen.matches and not acknowledged
            state = "failed" if certain else "uncertain"
            intents.step(tx, intent.id, was=now.state, now_is=state)
            if certain:
                intents.release(tx, intent.id, ZERO, context.clock())
            context.note(
                tx, state, quote.caller, intent.account,
                quote_id=quote.id, intent_id=intent.id, server_id=intent.server_id, matches=len(seen.matches),
            )  # fmt: skip
            attempts = attempts_of(tx, quote, intent, state, earlier)
            why = _UNCONFIRMED if refusal is None else _REFUSED.format(clean(refusal.reported, _WORDS_SHOWN))
            outcome = results.failed(why, attempts) if certain else results.uncertain(intent, attempts, context.program)
            quotes.settle(tx, quote.id, outcome.as_json())
            return outcome

        return await context.state.write(write)


def attempts_of(tx: Tx, quote: Quote, last: Intent, outcome: str, earlier: Sequence[Attempt] = ()) -> list[Attempt]:
    """Return the attempts of one quote: `earlier` from the live process, else from the rows."""
    before = list(earlier) or [
        Attempt(one.server_id, one.reason or one.state) for one in intents.of_quote(tx, quote.id) if one.id != last.id
    ]
    return [*before, Attempt(last.server_id, outcome)]


def lease_of(intent: Intent, quote: Quote, terms: Terms, candidate: Candidate, row: OrderRow, api_now: float) -> Lease:
    """Return the lease of an adopted order. It starts at Clore's own creation time."""
    started = created_between(row.created_at, intent.sent_api_at, api_now)
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


def _unwanted(tx: Tx, row: OrderRow, candidate: Candidate) -> Unwanted | None:
    """Return why a running order must be cancelled, or None if it may stay."""
    if above(row, candidate.coin, candidate.ceiling_per_day):
        return Unwanted("above_ceiling", results.above_ceiling(row, candidate))
    if ledger.frozen(tx) is not None:
        return Unwanted("frozen", f"{results.FROZEN} This order was on its way then.")
    return None


def _says_price(row: OrderRow) -> bool:
    return row.price is not None and names_coin(row)

"""Carrying out an approved rental: consumed, reserved, sent once, settled by looking; then the next fallback, if any.

Killed anywhere, the rows say what the person may pay for: before `sending` nothing was sent, and the row is abandoned
later; from `sending` on, someone looks for the order. Failover moves on only after a definite refusal.
"""

from __future__ import annotations

from typing import Any, Final

import anyio
import anyio.to_thread

from clore_mcp.clore import Created, CreateRequest
from clore_mcp.errors import (
    AlreadyRented,
    BidTooLow,
    CloreError,
    CurrencyNotAllowed,
    Failure,
    NotEnoughBalance,
    RateLimited,
    Refused,
    ServerOffline,
    ServerUnknown,
    Spent,
    StateUnavailable,
)
from clore_mcp.money import ZERO
from clore_mcp.rental import disclosure, outcomes
from clore_mcp.rental.appraisal import Appraiser
from clore_mcp.rental.asks import CreateOrder
from clore_mcp.rental.claiming import Departure, Errand, Halted, Stopped, listed_now
from clore_mcp.rental.closing import Closing
from clore_mcp.rental.desk import Desk, iso, settle_quote
from clore_mcp.rental.disclosure import KeyShown
from clore_mcp.rental.envelopes import Bounds
from clore_mcp.rental.judging import Evidence
from clore_mcp.rental.proposal import Proposal, Yes
from clore_mcp.rental.readings import EXECUTION_AGE
from clore_mcp.rental.settling import ADOPTABLE_SECONDS, Settling
from clore_mcp.rental.sshkeys import fingerprint, secret_token, validate
from clore_mcp.rental.terms import Terms
from clore_mcp.state import envelopes, intents, orders, quotes
from clore_mcp.state.database import Tx
from clore_mcp.state.intents import Intent
from clore_mcp.state.orders import Lease
from clore_mcp.state.quotes import Quote

_MOVE_ON: Final = (AlreadyRented, CurrencyNotAllowed, ServerUnknown, ServerOffline, BidTooLow)
_SENDS: Final = 3  # "too fast" comes before Clore looks at a request: it may be sent again, so often
_STALE_TRIES: Final = 3


class Creating:
    """Carries out approved rentals."""

    def __init__(self, desk: Desk, appraiser: Appraiser, settling: Settling, closing: Closing) -> None:
        self._desk = desk
        self._closing = closing
        self._appraiser = appraiser
        self._settling = settling

    async def already(self, ask: CreateOrder, account: str, digest: str) -> dict[str, Any] | None:
        """The order that this very call has made, while it runs; a create of it whose outcome is unknown."""
        current = await self._desk.readings.orders(EXECUTION_AGE)
        await self._settling.settle_open(account, current)
        await self._closing.reconcile(account, current, None)
        lease = await self._desk.state.read(lambda tx: orders.of_digest(tx, account, digest))
        if lease is not None:
            return await self._standing(lease)
        unknown = await self._desk.state.read(lambda tx: intents.in_state(tx, account, "uncertain"))
        ours = await self._desk.state.read(lambda tx: quotes.latest(tx, digest))
        held = next((one for one in unknown if ours is not None and one.quote_id == ours.id), None)
        return None if held is None else outcomes.repeated(outcomes.uncertain(held, [], self._desk.program))

    async def propose(self, ask: CreateOrder, account: str) -> Proposal | dict[str, Any]:
        """What a person would be asked; an outcome where limits or the market leave nothing to ask. Raises
        SpendingFrozen."""
        await self._desk.require_unfrozen()
        ours = (await self._desk.readings.orders(EXECUTION_AGE)).rows
        running = next((row for row in ours if row.server_id == ask.server_id and not row.expired), None)
        if running is not None:  # never on to a fallback: that would be a second bill for one wish
            attempt = {"server_id": ask.server_id, "outcome": "held_by_you"}
            return outcomes.unavailable(
                [attempt],
                f"Order {running.id} of this account already runs on server {ask.server_id}; its hours can't be"
                " extended by ordering again, and cancel_order ends it. For a second machine name another server_id.",
            )
        found = await self._appraiser.appraise(ask)
        attempts = [{"server_id": one.server_id, "outcome": one.reason} for one in found.unfit]
        if found.terms is None or found.cost is None:
            return outcomes.unavailable(attempts, " ".join(one.message for one in found.unfit))
        if found.refusals:
            return outcomes.refused(found.refusals, attempts, ends=found.terms.ends)
        first = found.terms.candidates[0].server_id
        held = await self._desk.state.read(lambda tx: intents.open_on(tx, account, first))
        if held is not None:
            return outcomes.blocked(held, self._desk.program)
        terms, cost, key = found.terms, found.cost, await self._key_shown(ask)
        return Proposal(
            terms={**terms.as_json(), "ssh_key": key.fingerprint},
            question=lambda quote_id: disclosure.rent_question(quote_id, ask, terms, cost, key),
            yes=Yes.ALWAYS,
        )

    def unfinished(self, quote: Quote) -> dict[str, Any]:
        """The order is being made."""
        return outcomes.in_progress(quote.id)

    async def _standing(self, lease: Lease) -> dict[str, Any]:
        made_by = await self._desk.state.read(lambda tx: intents.get(tx, lease.intent_id))
        quote = await self._desk.state.read(lambda tx: quotes.get(tx, made_by.quote_id) if made_by else None)
        outcome = (quote and quote.outcome) or {"status": "created", "order_id": lease.order_id, "attempts": []}
        if outcome["status"] == "refused":  # above its ceiling, and its cancel is not proven yet
            return outcomes.repeated(outcome)
        told = {**outcome, "status": "created", "order_id": lease.order_id, "ends_at": iso(lease.ends_api_at)}
        return outcomes.repeated(
            told, "This call made the order already, and it still runs: nothing was ordered again."
        )

    async def _key_shown(self, ask: CreateOrder) -> KeyShown:
        own = await anyio.to_thread.run_sync(self._desk.ssh_key)
        if ask.ssh_public_key is None:
            return KeyShown(own.fingerprint, configured=True)
        given = fingerprint(validate(ask.ssh_public_key))
        return KeyShown(given, configured=given == own.fingerprint)

    async def carry_out(self, quote: Quote, ask: CreateOrder, *, from_state: str, by: str) -> dict[str, Any]:
        """Rent one of the quote's servers. `from_state` is where the yes stands; `by` who gave it."""
        terms = Terms.from_json(quote.terms)
        attempts: list[dict[str, Any]] = []
        key = await self._ssh_line(ask)  # what can fail without Clore fails before the yes is used
        if fingerprint(key) != quote.terms.get("ssh_key"):
            return await self._end(quote, Stopped(outcome=_OTHER_KEY), attempts)
        for candidate in terms.candidates:
            made = {"jupyter_token": secret_token()} if ask.jupyter else {}
            errand = Errand(quote, ask, terms, candidate, from_state, by, made)
            departure = Departure(self._desk, errand)
            stopped = await self._try(errand, departure, key, attempts)
            if stopped.attempt is not None:
                attempts.append(stopped.attempt)
            if stopped.outcome is not None:
                return await self._end(quote, stopped, attempts)
            from_state = "committing" if departure.intent is not None else from_state
        unavailable = outcomes.unavailable(attempts, "None of the servers could be rented.")
        return await self._end(quote, Stopped(outcome=unavailable), attempts)

    async def _end(self, quote: Quote, stopped: Stopped, attempts: list[dict[str, Any]]) -> dict[str, Any]:
        outcome = stopped.outcome or {}
        if attempts and not outcome.get("attempts"):
            outcome = {**outcome, "attempts": attempts}
        if not stopped.final:
            return outcome
        told = await settle_quote(self._desk, quote, outcome)
        bounds = await self._still_covered(quote)
        return told if bounds is None else outcomes.covered_still(told, bounds)

    async def _still_covered(self, quote: Quote) -> Bounds | None:
        """What the person's wider yes allows after this quote has made no order; None where there is none."""
        envelope_id, now = quote.envelope_id, self._desk.clock()
        if envelope_id is None:
            return None
        envelope = await self._desk.state.read(lambda tx: envelopes.get(tx, envelope_id))
        return Bounds.from_json(envelope.bounds) if envelope is not None and envelope.free(now) else None

    async def _try(self, errand: Errand, departure: Departure, key: str, attempts: list[dict[str, Any]]) -> Stopped:
        """Send one candidate's create and settle it. Stopped without an outcome: definitely none, try the next."""
        for _ in range(_SENDS + _STALE_TRIES):
            try:
                evidence = await self._evidence(errand.quote.account)
            except Failure as error:
                if errand.from_state != "committing" and departure.intent is None:
                    raise  # the yes is unused
                return await self._not_sent(errand, departure, error)
            price = listed_now(errand.candidate, errand.terms, evidence)
            if isinstance(price, dict):
                await self._close(errand, departure.intent, "refused", price["outcome"])
                return Stopped(attempt=price)
            stopped = await self._send(errand, departure, evidence, errand.request(price, key), attempts)
            if stopped is not None:
                return stopped
        await self._close(errand, departure.intent, "abandoned", "too_slow")
        return Stopped(outcome=_TOO_SLOW, final=departure.intent is not None or errand.from_state == "committing")

    async def _send(
        self,
        errand: Errand,
        departure: Departure,
        evidence: Evidence,
        request: CreateRequest,
        attempts: list[dict[str, Any]],
    ) -> Stopped | None:
        """One send and its settlement. None when nothing was looked at: with fresh evidence it may leave again."""
        try:
            created = await self._desk.client.create_order(request, before_send=lambda: departure.leave(evidence))
        except Halted as halted:
            if halted.why is not None:
                await self._close(errand, departure.intent, "abandoned", "not_sent")
            return halted.why
        except RateLimited as error:
            departure.sends += 1
            if departure.sends == _SENDS or not await departure.back():
                return await self._refused(errand, departure, error, attempts)
            await anyio.sleep(min(error.retry_after_seconds or 1.0, self._desk.patience.answer))
            return None
        except Failure as error:
            return await self._answered_badly(errand, departure, error, attempts)
        return await self._left(errand, departure, attempts, created, "code 0")

    async def _evidence(self, account: str) -> Evidence:
        evidence = await self._appraiser.evidence(EXECUTION_AGE)
        await self._settling.settle_open(account, evidence.current)
        return evidence

    async def _answered_badly(
        self, errand: Errand, departure: Departure, error: Failure, attempts: list[dict[str, Any]]
    ) -> Stopped:
        if departure.intent is None or (error.spent is Spent.NO and not isinstance(error, Refused)):
            return await self._not_sent(errand, departure, error)
        if isinstance(error, Refused):
            return await self._refused(errand, departure, error, attempts)
        return await self._left(errand, departure, attempts, None, error.message)

    async def _left(
        self, errand: Errand, departure: Departure, attempts: list[dict[str, Any]], created: Created | None, said: str
    ) -> Stopped:
        """The create has left and was not refused: look."""
        desk, intent, quote = self._desk, _made(departure), errand.quote

        def write(tx: Tx) -> None:
            if created is not None:
                intents.acknowledge(tx, intent.id)
            desk.note(tx, "answered", quote.caller, intent.account, quote_id=quote.id, intent_id=intent.id, said=said)

        desk.readings.changed()
        try:
            await desk.state.write(write)
            return Stopped(outcome=await self._settling.settle(intent, quote, earlier=tuple(attempts)))
        except StateUnavailable:  # money may have moved and can't be recorded: say so; a later look settles the row
            return Stopped(outcome=outcomes.uncertain(intent, attempts, self._desk.program), final=False)

    async def _refused(
        self, errand: Errand, departure: Departure, error: Refused, attempts: list[dict[str, Any]]
    ) -> Stopped:
        intent = _made(departure)
        if isinstance(error, AlreadyRented) and await self._may_be_ours(intent):
            found = await self._settling.adopt_if_seen(intent, errand.quote, tuple(attempts))
            if found is not None:
                return Stopped(outcome=found)
        reason = _word(error)
        await self._close(errand, intent, "refused", reason)
        attempt = {"server_id": intent.server_id, "outcome": reason}
        if isinstance(error, _MOVE_ON):
            return Stopped(attempt=attempt)
        said = f"{error.message} {error.hint}"
        if isinstance(error, RateLimited):
            return Stopped(attempt, outcomes.failed(said))
        return Stopped(attempt, outcomes.unavailable([], said))

    async def _not_sent(self, errand: Errand, departure: Departure, error: Failure) -> Stopped:
        """Nothing left. A yes that was not used stays, so that the same call needs no second one."""
        await self._close(errand, departure.intent, "abandoned", _word(error))
        attempt = {"server_id": errand.candidate.server_id, "outcome": "not_sent"}
        used = departure.intent is not None or errand.from_state == "committing"
        said = error.message if "othing was sent" in error.message else f"{error.message} Nothing was sent."
        return Stopped(attempt, outcomes.failed(f"{said} {error.hint}"), final=used)

    async def _may_be_ours(self, intent: Intent) -> bool:
        """Clore says "already rented" also when we hold the server ourselves."""
        since = self._desk.clock() - ADOPTABLE_SECONDS
        others = await self._desk.state.read(lambda tx: intents.of_server(tx, intent.account, intent.server_id, since))
        return any(other.id != intent.id for other in others)

    async def _close(self, errand: Errand, intent: Intent | None, state: str, reason: str) -> None:
        desk, quote = self._desk, errand.quote
        if intent is None:
            return

        def write(tx: Tx) -> None:
            now = intents.get(tx, intent.id)
            if now is None or now.state not in ("reserved", "sending"):
                return
            intents.step(tx, intent.id, was=now.state, now_is=state, reason=reason)
            intents.release(tx, intent.id, ZERO, desk.clock())
            desk.note(tx, f"attempt_{state}", quote.caller, intent.account, quote_id=quote.id, intent_id=intent.id,
                      server_id=intent.server_id, reason=reason)  # fmt: skip

        await desk.state.write(write)

    async def _ssh_line(self, ask: CreateOrder) -> str:
        if ask.ssh_public_key:
            return validate(ask.ssh_public_key)
        return (await anyio.to_thread.run_sync(self._desk.ssh_key)).line


_OTHER_KEY: Final = outcomes.failed(
    "The SSH key that orders are given is not the one that the question showed; nothing was sent. Call again."
)
_TOO_SLOW: Final = outcomes.failed(
    "Clore answers too slowly to check price and limits; nothing was sent. Call again in a minute."
)


def _made(departure: Departure) -> Intent:
    """The intent of a create that has left: only its own hook lets it leave."""
    if departure.intent is None:
        raise RuntimeError("a create left without its claim")
    return departure.intent


def _word(error: Failure) -> str:
    words: dict[type[Failure], str] = {
        AlreadyRented: "server-already-rented",
        CurrencyNotAllowed: "currency-not-allowed",
        ServerUnknown: "server-dont-exist",
        ServerOffline: "server-offline",
        BidTooLow: "too_low_price",
        NotEnoughBalance: "not_enough_balance",
    }
    return words.get(type(error), error.code if not isinstance(error, CloreError) else type(error).__name__)

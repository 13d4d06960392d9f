"""Carrying out an approved rental: consumed, reserved, sent once, settled by looking; then the next fallback, if any.

Killed anywhere, the rows say what the person may pay for: before `sending` nothing was sent, and the row is abandoned
later; from `sending` on, someone looks for the order. Failover moves on only after a definite refusal.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Final

import anyio
import anyio.to_thread

from clore_mcp.clore import Created, CreateRequest
from clore_mcp.errors import (
    AlreadyRented,
    Failure,
    RateLimited,
    Refused,
    Spent,
    SpotOrderHeld,
    StateUnavailable,
    UnknownRefusal,
)
from clore_mcp.money import ZERO
from clore_mcp.rental import outcomes, questions
from clore_mcp.rental.account.reading import EXECUTION_AGE
from clore_mcp.rental.context import Desk, settle_quote
from clore_mcp.rental.create.errand import Errand
from clore_mcp.rental.create.present_order import held_by_you, running_on, standing
from clore_mcp.rental.create.quote import Appraiser
from clore_mcp.rental.create.rented import Rented
from clore_mcp.rental.create.replacements import Replacements
from clore_mcp.rental.create.send import Halted, Send, Stopped, listed_now
from clore_mcp.rental.create.settle import Settling
from clore_mcp.rental.create.ssh_keys import fingerprint, key_line, secret_token, validate
from clore_mcp.rental.envelopes import Bounds
from clore_mcp.rental.monitoring import hosts
from clore_mcp.rental.orders.closure import Closing
from clore_mcp.rental.proposal import Proposal, Yes
from clore_mcp.rental.questions import KeyShown
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.rules.check import Evidence
from clore_mcp.rental.rules.refusals import moves_on, word
from clore_mcp.rental.rules.terms import Terms
from clore_mcp.store import envelopes, intents
from clore_mcp.store.database import Tx
from clore_mcp.store.intents import Intent
from clore_mcp.store.quotes import Quote

_TRIES: Final = 6  # to send one create: it may be refused unread, or the evidence may grow old before its turn
log = logging.getLogger(__name__)


class Creating:
    """Carries out approved rentals."""

    def __init__(
        self, desk: Desk, appraiser: Appraiser, settling: Settling, closing: Closing, replacements: Replacements
    ) -> None:
        self._desk = desk
        self._closing = closing
        self._appraiser = appraiser
        self._settling = settling
        self._rented = Rented(desk, settling)
        self._replacements = replacements

    async def already(self, ask: CreateOrder, account: str, digest: str) -> dict[str, Any] | None:
        """The order that this very call has made, while it runs; a create of it whose outcome is unknown."""
        desk, settling, closing = self._desk, self._settling, self._closing
        current = await desk.readings.orders(EXECUTION_AGE)

        def read(tx: Tx) -> tuple[bool, dict[str, Any] | None]:
            settled = not settling.left_open(tx, account, current) and closing.agrees(tx, account, current)
            return settled, standing(tx, account, digest, desk.program)

        settled, made = await desk.state.read(read)
        if not settled:
            await settling.settle_open(account, current)
            await closing.reconcile(account, current, None)
            made = await desk.state.read(lambda tx: standing(tx, account, digest, desk.program))
        return made

    async def propose(self, ask: CreateOrder, account: str) -> Proposal | dict[str, Any]:
        """What a person would be asked; an outcome where limits or the market leave nothing to ask. Raises
        SpendingFrozen."""
        await self._desk.require_unfrozen()
        ours = (await self._desk.readings.orders(EXECUTION_AGE)).rows
        running = running_on(ask.server_id, ours)
        if running is not None:
            return held_by_you(running, ask.server_id)
        found = await self._appraiser.appraise(ask)
        attempts = [{"server_id": one.server_id, "outcome": one.reason} for one in found.unfit]
        if found.terms is None or found.cost is None:
            return outcomes.unavailable(attempts, " ".join(one.message for one in found.unfit), found.most_hours)
        if found.refusals:
            return outcomes.refused(found.refusals, attempts, ends=found.terms.ends)
        terms, cost, key = found.terms, found.cost, await self._key_shown(ask)
        return Proposal(
            terms={**terms.as_json(), "ssh_key": key.fingerprint},
            question=lambda quote_id: questions.rent_question(quote_id, ask, terms, cost, key),
            yes=Yes.ALWAYS,
        )

    def unfinished(self, quote: Quote) -> dict[str, Any]:
        """The order is being made."""
        return outcomes.being_replaced(quote) if quote.replaces else outcomes.in_progress(quote.id)

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
        # What can fail without Clore fails before the yes is used.
        key = await key_line(ask.ssh_public_key, self._desk.ssh_key)
        if fingerprint(key) != quote.terms.get("ssh_key"):
            return await self._end(quote, Stopped(outcome=_OTHER_KEY, final=not quote.replaces), attempts)
        await anyio.to_thread.run_sync(self._desk.wake_watchdog)  # before the send: killed after it, we end nothing
        kept = await self._replacements.clear(quote, by) if quote.replaces else None
        if kept is not None:
            return kept
        servers = [candidate.server_id for candidate in terms.candidates]
        failed = (
            await self._desk.state.read(lambda tx: hosts.failed_twice(tx, quote.account, self._desk.clock(), servers))
            if len(servers) > 1
            else frozenset()
        )
        for candidate in terms.candidates:
            if candidate.server_id in failed and candidate.server_id != ask.server_id:  # since the question
                attempts.append({"server_id": candidate.server_id, "outcome": "failed_here"})
                continue
            made = {"jupyter_token": secret_token()} if ask.jupyter else {}
            errand = Errand(quote, ask, terms, candidate, from_state, by, made)
            departure = Send(self._desk, errand)
            stopped = await self._try(errand, departure, key, attempts)
            if stopped.attempt is not None:
                attempts.append(stopped.attempt)
            if stopped.outcome is not None:
                return await self._end(quote, stopped, attempts)
            from_state = "committing" if departure.used else from_state
        unavailable = outcomes.unavailable(attempts, "None of the servers could be rented.")
        return await self._end(quote, Stopped(outcome=unavailable), attempts)

    async def _end(self, quote: Quote, stopped: Stopped, attempts: list[dict[str, Any]]) -> dict[str, Any]:
        outcome = stopped.outcome or {}
        if not outcome.get("repeated"):
            told = outcome.get("attempts", [])
            outcome = {**outcome, "attempts": [*(one for one in attempts if one not in told), *told]}
        if not stopped.final:
            return outcome
        try:
            settled = await settle_quote(self._desk, quote, outcome)
            bounds = await self._still_covered(quote) if settled["status"] in ("refused", "failed") else None
        except StateUnavailable as error:  # an order may run: what is known of it counts more than the record
            log.warning("what came of quote %s could not be recorded: %s", quote.id, error.message)
            return outcome
        return settled if bounds is None else outcomes.covered_still(settled, bounds)

    async def _still_covered(self, quote: Quote) -> Bounds | None:
        """What the person's wider yes allows after this quote has made no order; None where there is none."""
        envelope_id, now = quote.envelope_id, self._desk.clock()
        if envelope_id is None:
            return None
        envelope = await self._desk.state.read(lambda tx: envelopes.get(tx, envelope_id))
        return Bounds.from_json(envelope.bounds) if envelope is not None and envelope.free(now) else None

    async def _try(self, errand: Errand, departure: Send, key: str, attempts: list[dict[str, Any]]) -> Stopped:
        """Send one candidate's create and settle it. Stopped without an outcome: definitely none, try the next."""
        for _ in range(_TRIES):
            try:
                evidence = await self._evidence(errand.quote.account)
            except Failure as error:
                if not departure.used:
                    raise
                return await self._not_sent(errand, departure, error)
            price = listed_now(errand.candidate, errand.terms, evidence)
            if isinstance(price, dict):
                await self._close(errand, departure.intent, "refused", price["outcome"])
                return await self._rented.unsent(errand, departure, evidence, price)
            stopped = await self._send(errand, departure, evidence, errand.request(price, key), attempts)
            if stopped is not None:
                return stopped
        await self._close(errand, departure.intent, "abandoned", "too_slow")
        return Stopped(outcome=_TOO_SLOW, final=departure.used)

    async def _send(
        self,
        errand: Errand,
        departure: Send,
        evidence: Evidence,
        request: CreateRequest,
        attempts: list[dict[str, Any]],
    ) -> Stopped | None:
        """One send and its settlement. None when nothing was looked at: with fresh evidence it may leave again."""
        try:
            created = await self._desk.client.create_order(
                request, before_send=lambda: departure.leave(evidence, request)
            )
        except Halted as halted:
            if halted.why is not None:
                await self._close(errand, departure.intent, "abandoned", "not_sent")
            return halted.why
        except RateLimited as error:
            if not await departure.back():
                return await self._refused(errand, departure, error, attempts)
            await anyio.sleep(min(error.retry_after_seconds or 1.0, self._desk.patience.answer))
            return None
        except Failure as error:
            return await self._answered_badly(errand, departure, error, attempts)
        return await self._left(errand, departure, attempts, created, "code 0")

    async def _evidence(self, account: str) -> Evidence:
        evidence = await self._appraiser.evidence(EXECUTION_AGE)
        await self._settling.settle_open(account, evidence.current)
        await self._desk.ask_enforcers(account)  # the claim can't wait for an answer
        return evidence

    async def _answered_badly(
        self, errand: Errand, departure: Send, error: Failure, attempts: list[dict[str, Any]]
    ) -> Stopped:
        if departure.intent is None or (error.spent is Spent.NO and not isinstance(error, Refused)):
            return await self._not_sent(errand, departure, error)
        if isinstance(error, Refused):
            return await self._refused(errand, departure, error, attempts)
        refusal = error if isinstance(error, UnknownRefusal) else None
        return await self._left(errand, departure, attempts, None, error.message, refusal)

    async def _left(
        self,
        errand: Errand,
        departure: Send,
        attempts: list[dict[str, Any]],
        created: Created | None,
        said: str,
        refusal: UnknownRefusal | None = None,
    ) -> Stopped:
        """The create has left and was not refused, or in words that nobody knows: look."""
        desk, intent, quote = self._desk, _made(departure), errand.quote
        words = {} if refusal is None else {"reported": refusal.reported}

        def write(tx: Tx) -> None:
            if created is not None:
                intents.acknowledge(tx, intent.id)
            desk.note(tx, "answered", quote.caller, intent.account, quote_id=quote.id, intent_id=intent.id, said=said,
                      **words)  # fmt: skip

        desk.readings.changed()
        try:
            await desk.state.write(write)
        except StateUnavailable as error:  # an order may run: it is looked for, and its end is kept, all the same
            log.warning("what Clore said of %s could not be recorded: %s", intent.id, error.message)
            intent = replace(intent, acknowledged=intent.acknowledged or created is not None)
        await anyio.to_thread.run_sync(desk.wake_watchdog)  # one that was about to end may have missed this order
        try:
            outcome = await self._settling.settle(intent, quote, earlier=tuple(attempts), refusal=refusal)
            recorded = outcome["status"] == "created" and not self._settling.unwritten(intent.account)
            return Stopped(outcome=outcome, final=not recorded)  # else the quote has its outcome with its order
        except StateUnavailable:
            return self._unrecorded(intent, attempts)

    def _unrecorded(self, intent: Intent, attempts: list[dict[str, Any]]) -> Stopped:
        """Money may have moved and can't be recorded: say so; a later look settles the row."""
        return Stopped(outcome=outcomes.uncertain(intent, attempts, self._desk.program), final=False)

    async def _refused(
        self, errand: Errand, departure: Send, error: Refused, attempts: list[dict[str, Any]]
    ) -> Stopped:
        intent, reason = _made(departure), word(error)
        if isinstance(error, AlreadyRented | SpotOrderHeld):
            ours = isinstance(error, SpotOrderHeld)
            try:
                stopped = await self._rented.answered(errand, intent, attempts, ours=ours)
            except StateUnavailable:
                return self._unrecorded(intent, attempts)
            if stopped is not None:
                await self._close(errand, intent, "refused", reason)
                return stopped
        await self._close(errand, intent, "refused", reason)
        attempt = {"server_id": intent.server_id, "outcome": reason}
        if moves_on(error):
            return Stopped(attempt=attempt)
        said = f"{error.message} {error.hint}"
        if isinstance(error, RateLimited):
            return Stopped(attempt, outcomes.failed(said))
        return Stopped(attempt, outcomes.unavailable([attempt], said))

    async def _not_sent(self, errand: Errand, departure: Send, error: Failure) -> Stopped:
        """Nothing left. A yes that was not used stays, so that the same call needs no second one."""
        await self._close(errand, departure.intent, "abandoned", word(error))
        attempt = {"server_id": errand.candidate.server_id, "outcome": "not_sent"}
        said = error.message if "othing was sent" in error.message else f"{error.message} Nothing was sent."
        return Stopped(attempt, outcomes.failed(f"{said} {error.hint}"), final=departure.used)

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


_OTHER_KEY: Final = outcomes.failed(
    "The SSH key that orders are given is not the one that the question showed; nothing was sent. Call again."
)
_TOO_SLOW: Final = outcomes.failed(
    "Clore answers too slowly to check price and limits; nothing was sent. Call again in a minute."
)


def _made(departure: Send) -> Intent:
    """The intent of a create that has left: only its own hook lets it leave."""
    if departure.intent is None:
        raise RuntimeError("a create left without its claim")
    return departure.intent

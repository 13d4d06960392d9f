"""Carries out an approved rental: uses the yes, reserves, sends once and settles by looking. Then it tries the next
fallback, if any.

At whatever point the process is killed, the rows say what the person may have to pay for. Before `sending`, nothing was
sent, and the row is abandoned later. From `sending` on, a later look finds the order. A fallback is tried only after a
definite refusal.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import anyio
import anyio.to_thread

from clore_mcp.clore import Created, CreateRequest
from clore_mcp.clore.replies import moves_on, word
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
from clore_mcp.rental import hosts, questions, results
from clore_mcp.rental.account.reading import EXECUTION_AGE, Orders
from clore_mcp.rental.approvals import Proposal, Verb, Yes
from clore_mcp.rental.context import Context, beats, settle_quote
from clore_mcp.rental.create.presence import already_rented, made_by_call, not_offered, running_on
from clore_mcp.rental.create.quote import Pricer
from clore_mcp.rental.create.replacement import Replacements
from clore_mcp.rental.create.send import Send, SendHalted, create_request, listed_now
from clore_mcp.rental.create.settle import Settler
from clore_mcp.rental.ends.closure import Closer
from clore_mcp.rental.questions import KeyShown
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.results import Attempt, Outcome, Settled, Status, Stopped
from clore_mcp.rental.rules.check import Evidence
from clore_mcp.rental.ssh.access import access_of
from clore_mcp.rental.ssh.keys import fingerprint, key_line, validate
from clore_mcp.rental.terms import Terms
from clore_mcp.store import Beat, Quote, Tx, intents

_TRIES: Final = 6  # to send one create: it may be refused unread, or its evidence may become too old before its turn
log = logging.getLogger(__name__)


class CreateVerb(Verb[CreateOrder]):
    """Proposes rentals, and carries out approved ones."""

    def __init__(
        self, context: Context, pricer: Pricer, settler: Settler, closer: Closer, replacements: Replacements
    ) -> None:
        self._context = context
        self._closer = closer
        self._pricer = pricer
        self._settler = settler
        self._replacements = replacements

    async def already(self, request: CreateOrder, account: str, digest: str) -> Outcome | None:
        """Return the running order that the same call has made, or its create with an unknown outcome."""
        context, settler, closer = self._context, self._settler, self._closer
        current = await context.readings.orders(EXECUTION_AGE)

        def read(tx: Tx) -> tuple[bool, Outcome | None]:
            settled = not any(settler.left_open(tx, account, current)) and closer.agrees(tx, account, current)
            return settled, made_by_call(tx, account, digest, context.program)

        settled, made = await context.state.read(read)
        if not settled:
            await settler.settle_open(account, current)
            await closer.reconcile(account, current, None)
            made = await context.state.read(lambda tx: made_by_call(tx, account, digest, context.program))
        return made

    async def shared(self, request: CreateOrder, account: str, caller: str, digest: str) -> Quote | None:
        """See `Verb`. The replacement of an unreachable order uses the approval of that order."""
        order_id = request.replaces_order_id
        return await self._replacements.hold(request, order_id, account, caller, digest) if order_id else None

    async def propose(self, request: CreateOrder, account: str) -> Proposal:
        """Return the question. Raises Settled if limits or the market leave nothing to ask, and SpendingFrozen."""
        context = self._context

        def read(tx: Tx) -> list[Beat]:
            context.forbid_frozen(tx)
            return beats(tx, context, account)

        known = await context.state.read(read)
        ours = (await context.readings.orders(EXECUTION_AGE)).rows
        running = running_on(request.server_id, ours)
        if running is not None:
            raise Settled(results.held_by_you(running, request.server_id))
        found = await self._pricer.price(request, known=known)
        attempts = tuple(Attempt(one.server_id, one.reason) for one in found.unfit)
        if found.terms is None:
            raise Settled(results.unavailable(attempts, " ".join(one.message for one in found.unfit), found.most_hours))
        if found.refusals:
            raise Settled(replace(results.refused(found.refusals, ends=found.terms.ends), attempts=attempts))
        own = await anyio.to_thread.run_sync(context.ssh_key)
        named = request.ssh_public_key
        given = own.fingerprint if named is None else fingerprint(validate(named))
        key = KeyShown(given, configured=given == own.fingerprint)
        terms = replace(found.terms, ssh_key=given)
        return Proposal(terms, lambda quote_id: questions.rent_question(quote_id, request, terms, key), Yes.ALWAYS)

    def unfinished(self, quote: Quote) -> Outcome:
        """Return the answer while the order is being made."""
        return results.being_replaced(quote) if quote.replaces else results.in_progress(quote.id)

    async def told(self, request: CreateOrder, outcome: Outcome) -> Outcome:
        """See `Verb`. Adds Jupyter's address, and the outcome for the order that this call replaces."""
        if request.jupyter:
            outcome = _with_jupyter(outcome, self._context.readings.latest, self._context.program)
        order_id = request.replaces_order_id
        return await self._replacements.told(order_id, outcome) if order_id else outcome

    async def carry_out(self, quote: Quote, request: CreateOrder, *, from_state: str, by: str) -> Outcome:
        """Rent one of the quote's servers. `from_state` is the quote's state; `by` says who approved it."""
        terms = Terms.from_json(quote.terms)
        attempts: list[Attempt] = []
        # Steps that can fail without Clore come before the yes is used.
        key = await key_line(request.ssh_public_key, self._context.ssh_key)
        if fingerprint(key) != terms.ssh_key:
            return await self._end(quote, Stopped(outcome=_OTHER_KEY, final=not quote.replaces), attempts)
        await anyio.to_thread.run_sync(self._context.wake_watchdog)  # before the send, after which we may be killed
        if terms.replaces_order_id is not None:
            try:
                await self._replacements.clear(quote, terms.replaces_order_id, by)
            except Settled as kept:
                return kept.outcome
        servers = [candidate.server_id for candidate in terms.candidates]
        failed: Mapping[int, int] = {}
        if len(servers) > 1:
            now = self._context.clock()
            failed = await self._context.state.read(lambda tx: hosts.failed(tx, quote.account, now, servers))
        for candidate in terms.candidates:
            if candidate.server_id in failed and candidate.server_id != request.server_id:  # failed since the question
                attempts.append(Attempt(candidate.server_id, "failed_here"))
                continue
            send = Send(self._context, quote, request, terms, candidate, from_state, by)
            stopped = await self._try(send, key, attempts)
            if stopped.attempt is not None:
                attempts.append(stopped.attempt)
            if stopped.outcome is not None:
                return await self._end(quote, stopped, attempts)
            from_state = "committing" if send.used else from_state
        return await self._end(quote, Stopped(), attempts)

    async def _end(self, quote: Quote, stopped: Stopped, attempts: Sequence[Attempt]) -> Outcome:
        outcome = stopped.outcome or results.unavailable(attempts, "None of the servers could be rented.")
        if not outcome.repeated:
            told = outcome.attempts
            outcome = replace(outcome, attempts=(*(one for one in attempts if one not in told), *told))
        if not stopped.final:
            return outcome
        try:
            return await settle_quote(self._context, quote, outcome)
        except StateUnavailable as error:  # an order may be running, and its outcome matters more than the record
            log.warning("what came of quote %s could not be recorded: %s", quote.id, error.message)
            return outcome

    async def _try(self, send: Send, key: str, attempts: list[Attempt]) -> Stopped:
        """Send one candidate's create and settle it. Stopped without an outcome means that no order was made."""
        for _ in range(_TRIES):
            try:
                evidence = await self._evidence(send.quote.account)
            except Failure as error:
                if not send.used:
                    raise
                return await self._not_sent(send, error)
            price = listed_now(send.candidate, send.terms, evidence)
            if isinstance(price, Attempt):
                await self._close(send, "refused", price.outcome)
                return await not_offered(self._context, self._settler, send.quote, evidence, price, used=send.used)
            create = create_request(send.request, send.candidate, price, key, send.secrets)
            stopped = await self._send(send, evidence, create, attempts)
            if stopped is not None:
                return stopped
        await self._close(send, "abandoned", "too_slow")
        return Stopped(outcome=_TOO_SLOW, final=send.used)

    async def _evidence(self, account: str) -> Evidence:
        context, settler, evidence = self._context, self._settler, await self._pricer.evidence(EXECUTION_AGE)
        left, known = await context.state.read(
            lambda tx: (settler.left_open(tx, account, evidence.current), beats(tx, context, account))
        )
        if any(left):
            await settler.settle_open(account, evidence.current)
        await context.ask_enforcers(account, known)  # the claim itself can't wait for an answer
        return evidence

    async def _send(
        self, send: Send, evidence: Evidence, create: CreateRequest, attempts: list[Attempt]
    ) -> Stopped | None:
        """Send once and settle it. Returns None if it may be sent again with fresh evidence."""
        created: Created | None = None
        said, refusal = "code 0", None
        try:
            created = await self._context.client.create_order(create, before_send=lambda: send.leave(evidence, create))
        except SendHalted as halted:
            if halted.why is not None:
                await self._close(send, "abandoned", "not_sent")
            return halted.why
        except Failure as error:
            if send.intent is None or (error.spent is Spent.NO and not isinstance(error, Refused)):
                return await self._not_sent(send, error)
            if isinstance(error, RateLimited) and await send.back():
                await anyio.sleep(min(error.retry_after_seconds or 1.0, self._context.patience.answer))
                return None
            if isinstance(error, Refused):
                return await self._refused(send, error, attempts)
            said, refusal = error.message, error if isinstance(error, UnknownRefusal) else None
        return await self._left(send, attempts, created, said, refusal)

    async def _left(
        self,
        send: Send,
        attempts: list[Attempt],
        created: Created | None,
        said: str,
        refusal: UnknownRefusal | None,
    ) -> Stopped:
        """Look for the order of a create that was sent and not refused, or refused with unknown words."""
        context, intent, quote = self._context, send.claimed, send.quote
        words = {} if refusal is None else {"reported": refusal.reported}

        def write(tx: Tx) -> None:
            if created is not None:
                intents.acknowledge(tx, intent.id)
            context.note(tx, "answered", quote.caller, intent.account, quote_id=quote.id, intent_id=intent.id,
                         said=said, **words)  # fmt: skip

        context.readings.changed()
        try:
            await context.state.write(write)
        except StateUnavailable as error:  # an order may be running: still look for it and keep its end
            log.warning("what Clore said of %s could not be recorded: %s", intent.id, error.message)
            intent = replace(intent, acknowledged=intent.acknowledged or created is not None)
        await anyio.to_thread.run_sync(context.wake_watchdog)  # one that is about to exit may have missed this order
        try:
            outcome = await self._settler.settle(intent, quote, earlier=tuple(attempts), refusal=refusal)
            recorded = outcome.status is Status.CREATED and not self._settler.unwritten(intent.account)
            return Stopped(outcome=outcome, final=not recorded)  # if recorded, the quote already has its outcome
        except StateUnavailable:  # money may have moved: a later look settles the row
            return Stopped(outcome=results.uncertain(intent, attempts, context.program), final=False)

    async def _refused(self, send: Send, error: Refused, attempts: list[Attempt]) -> Stopped:
        intent, reason = send.claimed, word(error)
        stopped: Stopped | None = None
        if isinstance(error, AlreadyRented | SpotOrderHeld):
            context, ours = self._context, isinstance(error, SpotOrderHeld)
            try:
                stopped = await already_rented(context, self._settler, send.quote, intent, attempts, ours=ours)
            except StateUnavailable:  # an order may be running: a later look settles the row
                return Stopped(outcome=results.uncertain(intent, attempts, context.program), final=False)
        await self._close(send, "refused", reason)
        if stopped is not None:
            return stopped
        attempt = Attempt(intent.server_id, reason)
        if moves_on(error):
            return Stopped(attempt=attempt)
        said = f"{error.message} {error.hint}"
        if isinstance(error, RateLimited):
            return Stopped(attempt, results.failed(said))
        return Stopped(attempt, results.unavailable([attempt], said))

    async def _not_sent(self, send: Send, error: Failure) -> Stopped:
        """Return the answer if nothing was sent. An unused yes stays valid, so the same call needs no second one."""
        await self._close(send, "abandoned", word(error))
        attempt = Attempt(send.candidate.server_id, "not_sent")
        said = error.message if "othing was sent" in error.message else f"{error.message} Nothing was sent."
        return Stopped(attempt, results.failed(f"{said} {error.hint}"), final=send.used)

    async def _close(self, send: Send, state: str, reason: str) -> None:
        """Close the intent of a create that made no order, if there is one, and release its reservation."""
        context, intent, quote = self._context, send.intent, send.quote
        if intent is None:
            return

        def write(tx: Tx) -> None:
            now = intents.get(tx, intent.id)
            if now is None or now.state not in ("reserved", "sending"):
                return
            intents.step(tx, intent.id, was=now.state, now_is=state, reason=reason)
            intents.release(tx, intent.id, ZERO, context.clock())
            context.note(tx, f"attempt_{state}", quote.caller, intent.account, quote_id=quote.id, intent_id=intent.id,
                         server_id=intent.server_id, reason=reason)  # fmt: skip

        await context.state.write(write)


_OTHER_KEY: Final = results.failed(
    "The SSH key for orders is no longer the one in the question, so nothing was sent. Call again."
)
_TOO_SLOW: Final = results.failed(
    "Clore answers too slowly to check price and limits, so nothing was sent. Call again in a minute."
)


def _with_jupyter(outcome: Outcome, current: Orders | None, program: str) -> Outcome:
    """Return the outcome with Jupyter's address, if the last list has it, and where a person finds its token."""
    order_id = outcome.order_id
    row = None if current is None or order_id is None else current.find(order_id)
    if outcome.status is not Status.CREATED or row is None or row.expired:
        return outcome
    url = access_of(row, None).http_url
    where = "Jupyter opens at jupyter_url" if url else "wait_for_order shows Jupyter's address as http_url"
    token = (
        f"{where}. Its token is for the person alone: they run `{program} connect {order_id}` in their own terminal."
    )
    return replace(outcome, jupyter_url=url or None).also(token)

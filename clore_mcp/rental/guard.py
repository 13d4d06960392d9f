"""The guard: nothing is spent without a yes for exactly these terms, or within limits set outside the chat.

`hold` finds or makes the quote of a call. `conclude` takes the answer, or its absence, and lets the verb carry it out
once. The guard knows neither MCP nor the terminal; the layers above ask the person.

A cancel works even if the account or the state can't be read, because it spends nothing, but waiting does. It still
needs a yes if a person can be asked. If no one can be asked, it is refused, because it may be someone else's order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.to_thread

from clore_mcp.errors import ArgumentInvalid, CloreError, NotFound, StateUnavailable
from clore_mcp.rental import results
from clore_mcp.rental.account.reading import EXECUTION_AGE
from clore_mcp.rental.approvals import (
    BY_PASSKEY,
    PAUSED,
    Approvals,
    Consent,
    NoRoom,
    Proposal,
    Verb,
    Yes,
    quote_of,
)
from clore_mcp.rental.context import Commitments, Context
from clore_mcp.rental.create.settle import Settler
from clore_mcp.rental.ends.closure import UNKNOWN_ACCOUNT
from clore_mcp.rental.reply import QuestionReply, ReplyKind
from clore_mcp.rental.requests import Request
from clore_mcp.rental.results import Outcome, Settled, Status, outcome_of
from clore_mcp.settings import Approval
from clore_mcp.store import Quote, orders

_FOLLOW_PAUSE_SECONDS = 0.3
_DID: Final = {Status.CREATED: "made it", Status.EXTENDED: "moved its end"}


@dataclass(frozen=True, slots=True)
class HeldQuote:
    """The quote of a call, or an outcome that needs none."""

    quote: Quote | None = None
    outcome: Outcome | None = None

    @property
    def yes(self) -> Yes:
        """When this quote needs a yes."""
        return Consent.of(self.quote).yes if self.quote else Yes.NEVER


class Guard:
    """Holds quotes and concludes calls, one per process. Verbs are found by tool name."""

    def __init__(
        self,
        context: Context,
        approvals: Approvals,
        commitments: Commitments,
        settler: Settler,
        verbs: Mapping[str, Verb[Any]],
    ) -> None:
        self._context = context
        self._approvals = approvals
        self._commitments = commitments
        self._settler = settler
        self._verbs = verbs
        self._unkept: dict[tuple[str, Request], Quote] = {}  # questions while the state can't be used

    async def hold(
        self, request: Request, *, caller: str, can_ask: bool, replay: bool, protocol: str = ""
    ) -> HeldQuote:
        """Return the quote of this call: the live one, a settled one that it replays or whose outcome it never got, or
        a new one. `protocol` is only for the record: the same call in another version is the same call."""
        verb = self._verbs[request.verb]
        asking = can_ask and self._context.settings.approval is Approval.ASK
        try:
            account = await verb.account(request)
            digest, quote = await self._approvals.look_up(
                account, caller, request, replay=replay, asking=asking, unbroken=request.spends
            )
            if quote is not None:
                return await self._hold_again(quote, request, account, replay=replay)
            standing = await verb.already(request, account, digest)
            if standing is not None:  # follow what another process is still making or has just made
                twin = await self._approvals.find(digest, replay=replay, asking=asking)
                return HeldQuote(twin) if twin else HeldQuote(outcome=standing)
            return await self._propose(
                request, account, digest, caller=caller, asking=asking, replay=replay, protocol=protocol
            )
        except StateUnavailable:
            if request.spends:
                raise
            return await self._hold_unkept(request, caller=caller, asking=asking)

    async def _hold_again(self, quote: Quote, request: Request, account: str, *, replay: bool) -> HeldQuote:
        """Return the quote that is held already, settled first if the process that carried it out has ended."""
        if quote.state == "committing" and not self._commitments.runs(quote.id):
            with contextlib.suppress(CloreError):
                await self._settler.settle_open(quote.account, await self._context.readings.orders(EXECUTION_AGE))
                quote = await self._approvals.get(quote.id)
        held = HeldQuote(quote)
        waits = quote.state == "pending" and held.yes.is_needed and not replay
        if waits and request.spends and await self._approvals.cooling_until(account):
            return HeldQuote(outcome=self._verbs[request.verb].declined(request, PAUSED))
        return held

    async def _propose(
        self, request: Request, account: str, digest: str, *, caller: str, asking: bool, replay: bool, protocol: str
    ) -> HeldQuote:
        """Hold a new quote, which waits for its yes."""
        verb = self._verbs[request.verb]
        try:
            shared = await verb.shared(request, account, caller, digest)
            if shared is not None:
                return HeldQuote(shared)
            proposal = await verb.propose(request, account)
        except Settled as known:
            # Another process may have carried out the same call meanwhile. Then its outcome counts, not our refusal.
            twin = await self._approvals.find(digest, replay=replay, asking=asking)
            outcome = None if twin else await verb.already(request, account, digest) or known.outcome
            return HeldQuote(twin, outcome)
        subject = request.subject if self._is_question(proposal.yes, asking=asking) else None
        consent, now = Consent(proposal.yes, protocol, subject), self._context.clock()
        quote = quote_of(proposal, consent, account=account, digest=digest, verb=request.verb, caller=caller, now=now)
        try:
            heeds_declines = proposal.yes.is_needed and request.spends
            return HeldQuote(await self._approvals.hold(quote, heeds_declines=heeds_declines))
        except NoRoom as full:
            return HeldQuote(outcome=verb.declined(request, full.message))

    def _is_question(self, yes: Yes, *, asking: bool) -> bool:
        """Return whether a quote waits for a person instead of being carried out at once."""
        if yes is Yes.ALWAYS:
            return self._context.settings.approval is not Approval.LIMITS
        return yes is Yes.PERSON or (yes is Yes.IF_ASKABLE and asking)

    async def _hold_unkept(self, request: Request, *, caller: str, asking: bool) -> HeldQuote:
        """Hold the question of a cancel while the state can't be used. It lives as long as this process."""
        now, key = self._context.clock(), (caller, request)
        quote = self._unkept.get(key)
        if quote is not None and quote.in_time(now):
            return HeldQuote(quote)
        if not asking:
            raise self._unrecorded(request)
        try:
            proposal: Proposal = await self._verbs[request.verb].propose(request, UNKNOWN_ACCOUNT)
        except Settled as known:
            return HeldQuote(outcome=known.outcome)
        self._unkept[key] = quote_of(
            proposal, Consent(Yes.PERSON), account=UNKNOWN_ACCOUNT, digest="", verb=request.verb, caller=caller, now=now
        )
        return HeldQuote(self._unkept[key])

    def _unrecorded(self, request: Request) -> StateUnavailable:
        return StateUnavailable(
            f"The record can't be read, so it is unknown whether order {request.about_order} was made here, and no one"
            " can be asked. It was not cancelled and is still billed.",
            hint=f"Ask the person to run `{self._context.program} cancel {request.about_order}` in their own terminal.",
        )

    def asks(self, held: HeldQuote, *, can_ask: bool) -> bool:
        """Return whether the person is asked through the client now."""
        return (
            held.quote is not None
            and held.quote.state == "pending"
            and can_ask
            and self._context.settings.approval is Approval.ASK
            and held.yes is not Yes.NEVER
        )

    async def conclude(
        self, held: HeldQuote, request: Request, *, answer: bool | None, caller: str, reply: QuestionReply | None = None
    ) -> Outcome:
        """Return the outcome of the call. `answer` is the person's, None if they gave none through the client. `reply`
        is the client's reply to the question. Raises ArgumentInvalid for a malformed answer to an open question."""
        outcome = await self._conclude(held, request, answer=answer, caller=caller, reply=reply)
        return await self._verbs[request.verb].told(request, outcome)

    async def _conclude(
        self, held: HeldQuote, request: Request, *, answer: bool | None, caller: str, reply: QuestionReply | None
    ) -> Outcome:
        verb = self._verbs[request.verb]
        if held.quote is None:
            return held.outcome or results.failed("There was nothing to do.")
        try:
            quote = await self._approvals.get(held.quote.id, unbroken=True)
            waits = quote.state in ("pending", "expired") and quote.replaced_by is None
            if reply is not None and reply.is_open and waits:
                await self._leave(quote, reply, caller)
                return self._unanswered(quote, request, reply, caller)
            committing = quote.state == "committing"
            over = await (self._follow(quote, request) if committing else self._over(quote, request))
            if over is not None:
                return over
            if answer is False:
                if await self._approvals.decide(quote, yes=False, by=caller):
                    return self._unanswered(quote, request, reply, caller) if reply else verb.declined(request)
                return await self._follow(quote, request)  # too late: another process has its yes already
        except (NotFound, StateUnavailable):
            if request.spends:
                raise
            if reply is not None and reply.is_open:
                self._unkept.pop((caller, request), None)
                return self._unanswered(held.quote, request, reply, caller)
            return await self._conclude_unkept(held, held.quote, request, answer=answer, caller=caller)
        by = self._yes_given_by(quote, held.yes, answer, caller)
        if by is None:
            return verb.left_to_person(request, quote.id, await self._deed(quote))
        return await self._carry_out(quote, request, by)

    def _unanswered(self, quote: Quote, request: Request, reply: QuestionReply, caller: str) -> Outcome:
        """Return the answer without a yes, with the client's reply and whether asking again can help."""
        return self._verbs[request.verb].declined(request, reply.told(quote, caller)).also(reply.cure)

    async def _deed(self, quote: Quote) -> str:
        """Return what the person has to do to approve. Opens their page with the question if that is possible."""
        context = self._context
        if await anyio.to_thread.run_sync(context.open_page, quote.id):
            return results.APPROVE_ON_PAGE
        passkey = context.settings.approval is Approval.PASSKEY
        return results.approve_off_page(quote.id, context.program, passkey=passkey)

    async def _leave(self, quote: Quote, reply: QuestionReply, caller: str) -> None:
        """Handle a question without an answer. A cancel closes it, so that no later answer counts. After a malformed
        answer it keeps waiting, because the person has not seen it or not answered."""
        if reply.said is ReplyKind.MALFORMED:
            raise ArgumentInvalid(
                f"{reply.told(quote, caller)} Nothing was done and nothing was spent.",
                hint=f"Call again and the same question is asked. {reply.cure}",
            )
        await self._approvals.leave(quote, by=caller, why=reply.said.value)

    async def _conclude_unkept(
        self, held: HeldQuote, quote: Quote, request: Request, *, answer: bool | None, caller: str
    ) -> Outcome:
        """Carry out a cancel while the state can't be used. Only the person's answer counts."""
        self._unkept.pop((caller, request), None)
        if answer is False:
            return self._verbs[request.verb].declined(request)
        if not quote.in_time(self._context.clock()):
            return self._verbs[request.verb].lapsed(request)
        by = self._yes_given_by(quote, held.yes, answer, caller)
        if by is None:
            raise self._unrecorded(request)
        return await self._carry_out(quote, request, by)

    async def _over(self, quote: Quote, request: Request) -> Outcome | None:
        """Return the outcome of a quote that is over."""
        verb, outcome = self._verbs[request.verb], outcome_of(quote)
        if outcome is not None:
            return await self._again(quote, outcome)
        if quote.state == "declined":
            return verb.declined(request)
        if quote.state == "expired":
            newer = quote.replaced_by
            return verb.declined(request, results.newer_question(newer)) if newer else verb.lapsed(request)
        return None

    async def _again(self, quote: Quote, outcome: Outcome) -> Outcome:
        """Return an outcome that the caller may not have received. An order may have ended since."""
        did, order_id = _DID.get(outcome.status), outcome.order_id
        if did is not None and order_id is not None:
            lease = await self._context.state.read(lambda tx: orders.get(tx, quote.account, order_id))
            if lease is not None and lease.ended_at is not None:
                return results.ended_since(outcome, lease, did)
        return outcome.again()

    async def told(self, held: HeldQuote, outcome: Outcome) -> None:
        """Record that the caller has the outcome of a settled quote, so that the same call later is a new one."""
        if held.quote is not None and outcome.status not in (Status.IN_PROGRESS, Status.APPROVAL_REQUIRED):
            # An order may be running, and the outcome of the call matters more than this record.
            with contextlib.suppress(StateUnavailable):
                await self._approvals.told(held.quote)

    def _yes_given_by(self, quote: Quote, yes: Yes, answer: bool | None, caller: str) -> str | None:
        """Return who approved, or None."""
        given = quote.decided_by or "the person, outside the chat"
        mode = self._context.settings.approval
        if mode is Approval.PASSKEY and yes.is_needed:  # no other yes counts, no matter who recorded it
            return given if quote.state == "approved" and given.startswith(BY_PASSKEY) else None
        if answer:
            return f"the person, asked through {caller}"
        if quote.state == "approved":
            return given
        if not yes.is_needed:
            return "no yes needed"
        if mode is Approval.LIMITS and yes is Yes.ALWAYS:
            return "the operator's limits (CLORE_APPROVAL=limits)"
        return None

    async def _carry_out(self, quote: Quote, request: Request, by: str) -> Outcome:
        verb = self._verbs[request.verb]
        outcome = await self._commitments.run(
            quote.id,
            lambda: verb.carry_out(quote, request, from_state=quote.state, by=by),
            self._context.patience.answer,
        )
        if outcome is None:
            return verb.unfinished(quote)
        if outcome.status is Status.IN_PROGRESS:  # another process took the yes first, or a cancel is not proven yet
            waits = quote.replaces is not None and (await self._approvals.get(quote.id)).state == "approved"
            return outcome if waits else await self._follow(quote, request)
        return outcome

    async def _follow(self, quote: Quote, request: Request) -> Outcome:
        """Wait for the process that carries out the quote, this one or another."""
        give_up_at = self._context.monotonic() + self._context.patience.answer
        while self._context.monotonic() < give_up_at:
            with contextlib.suppress(StateUnavailable):  # the work goes on anyway
                over = await self._over(await self._approvals.get(quote.id), request)
                if over is not None:
                    return over
            await anyio.sleep(_FOLLOW_PAUSE_SECONDS)
        return self._verbs[request.verb].unfinished(quote)

"""The guard: nothing is spent without a yes for exactly these terms, or within limits set outside the chat.

`hold` finds or makes the quote of a call; `conclude` takes the answer (or its absence) and lets the verb carry it out
once. It knows neither MCP nor the terminal: whoever asks the person sits above.

A cancel goes through also where the account or the state can't be read: it spends nothing, and waiting does. It still
needs the yes of whoever can be asked, and nobody to ask means that it is refused, for it may be someone else's order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio

from clore_mcp.errors import ArgumentInvalid, CloreError, NotFound, StateUnavailable
from clore_mcp.rental import outcomes
from clore_mcp.rental.account.reading import EXECUTION_AGE
from clore_mcp.rental.approvals import QUOTE_SECONDS, Approvals, Cooling, new_id
from clore_mcp.rental.context import Desk
from clore_mcp.rental.create.commitments import Commitments
from clore_mcp.rental.create.replacements import Replacements
from clore_mcp.rental.create.settle import Settling
from clore_mcp.rental.orders.closure import UNKNOWN_ACCOUNT, account_for
from clore_mcp.rental.orders.notebooks import with_jupyter
from clore_mcp.rental.proposal import Verb, Yes
from clore_mcp.rental.question_queue import NoRoom, subject_of
from clore_mcp.rental.reply import QuestionReply, Said
from clore_mcp.rental.requests import Ask, CancelOrder, CreateOrder, ExtendOrder, SetSpotPrice
from clore_mcp.rental.rules.terms import Terms
from clore_mcp.store import orders
from clore_mcp.store.quotes import Quote

_FOLLOW_PAUSE_SECONDS = 0.3
_COOLED = f"Three questions were declined just now, so none is asked for a while. {outcomes.UNSEEN}"
# Each tool answers in its own statuses (the contract): a cancel that failed leaves an order that may still bill.
_VERB_WORDS = {"cancel_order": {"failed": "unverified"}, "set_spot_price": {"failed": "uncertain"}}


@dataclass(frozen=True, slots=True)
class Held:
    """What a call is about: a quote, or an outcome that needs none."""

    quote: Quote | None = None
    outcome: dict[str, Any] | None = None

    @property
    def yes(self) -> Yes:
        """When this quote needs a yes."""
        return Yes(self.quote.terms["yes"]) if self.quote else Yes.NEVER


class Guard:
    """One for a process; verbs by tool name."""

    def __init__(
        self,
        desk: Desk,
        approvals: Approvals,
        commitments: Commitments,
        settling: Settling,
        verbs: Mapping[str, Verb],
        replacements: Replacements,
    ) -> None:
        self._desk = desk
        self._approvals = approvals
        self._commitments = commitments
        self._settling = settling
        self._verbs = verbs
        self._replacements = replacements
        self._unkept: dict[tuple[str, CancelOrder], Quote] = {}  # questions while the state can't be used

    async def hold(self, ask: Ask, *, caller: str, can_ask: bool, replay: bool, protocol: str = "") -> Held:
        """The quote of this call: the live one, the settled one that it replays or was never told, or a new one.
        `protocol` is only for the record: the same wish in another era is the same."""
        try:
            return await self._hold(ask, caller=caller, can_ask=can_ask, replay=replay, protocol=protocol)
        except StateUnavailable:
            if not isinstance(ask, CancelOrder):
                raise
            return await self._hold_unkept(ask, caller=caller, can_ask=can_ask)

    async def _hold(self, ask: Ask, *, caller: str, can_ask: bool, replay: bool, protocol: str) -> Held:
        if isinstance(ask, CancelOrder):
            account = await account_for(self._desk, ask.order_id)
        else:
            account = await self._desk.readings.account()
        asking = can_ask and self._desk.mode == "ask"
        digest, quote = await self._approvals.look_up(
            account, caller, ask, replay=replay, asking=asking, unbroken=not isinstance(ask, CancelOrder)
        )
        if quote is not None and quote.state == "committing" and not self._commitments.runs(quote.id):
            quote = await self._left_by_another(quote)
        if quote is not None:
            waits = quote.state == "pending" and Held(quote).yes.is_needed and not replay
            return await self._cooled(ask, account) or Held(quote) if waits else Held(quote)
        standing = await self._verbs[ask.verb].already(ask, account, digest)
        if standing is not None:  # what another process is still making, or has just made, is followed
            twin = await self._approvals.find(digest, replay=replay, asking=asking)
            return Held(twin) if twin else Held(outcome=standing)
        return await self._propose(ask, account, digest, caller=caller, asking=asking, replay=replay, protocol=protocol)

    async def _propose(
        self, ask: Ask, account: str, digest: str, *, caller: str, asking: bool, replay: bool, protocol: str
    ) -> Held:
        """A new quote, which waits for its yes unless one covers it."""
        verb = self._verbs[ask.verb]
        proposal = await self._replacements.hold(ask, account, caller, digest) or await verb.propose(ask, account)
        if isinstance(proposal, Quote):
            return Held(proposal)
        if isinstance(proposal, dict):
            # Meanwhile the same call may have come through in another process: then its outcome counts, not our no.
            twin = await self._approvals.find(digest, replay=replay, asking=asking)
            return Held(twin) if twin else Held(outcome=await verb.already(ask, account, digest) or proposal)
        wish, envelope = "", None
        if isinstance(ask, CreateOrder):
            terms, ssh_key = Terms.from_json(proposal.terms), proposal.terms["ssh_key"]
            wish, envelope = await self._approvals.wish(account, caller, ask, ssh_key, terms)
        asked = proposal.yes.is_needed and envelope is None
        subject = subject_of(ask) if envelope is None and self._is_question(proposal.yes, asking=asking) else None
        try:
            quote = await self._approvals.hold(
                account=account,
                digest=digest,
                verb=ask.verb,
                caller=caller,
                terms={**proposal.terms, "yes": proposal.yes.value, "protocol": protocol, "subject": subject},
                ask=proposal.question,
                wish=wish,
                envelope=envelope,
                heeds_declines=asked and not isinstance(ask, CancelOrder),
            )
        except NoRoom as full:
            return Held(outcome=outcomes.no_yes(ask, full.message))
        except Cooling:
            return Held(outcome=outcomes.no_yes(ask, _COOLED))
        return Held(quote)

    def _is_question(self, yes: Yes, *, asking: bool) -> bool:
        """Whether a quote waits for a person, and is not carried out at once."""
        if yes is Yes.ALWAYS:
            return self._desk.mode != "limits"
        return yes is Yes.PERSON or (yes is Yes.IF_ASKABLE and asking)

    async def _hold_unkept(self, ask: CancelOrder, *, caller: str, can_ask: bool) -> Held:
        """The question of a cancel while the state can't be used: it lives as long as this process."""
        now, key = self._desk.clock(), (caller, ask)
        quote = self._unkept.get(key)
        if quote is not None and quote.in_time(now):
            return Held(quote)
        if not can_ask or self._desk.mode != "ask":
            raise self._unrecorded(ask)
        proposal = await self._verbs[ask.verb].propose(ask, UNKNOWN_ACCOUNT)
        if isinstance(proposal, dict):
            return Held(outcome=proposal)
        quote_id = new_id("q")
        quote = Quote(
            id=quote_id,
            account=UNKNOWN_ACCOUNT,
            digest="",
            verb=ask.verb,
            caller=caller,
            question=proposal.question(quote_id),
            terms={**proposal.terms, "yes": Yes.PERSON.value},
            state="pending",
            created_at=now,
            expires_at=now + QUOTE_SECONDS,
        )
        self._unkept[key] = quote
        return Held(quote)

    def _unrecorded(self, ask: CancelOrder) -> StateUnavailable:
        return StateUnavailable(
            f"The record can't be read, so nobody knows whether order {ask.order_id} was made here, and nobody can be"
            " asked; it was not cancelled and bills on.",
            hint=f"Ask the person to run `{self._desk.program} cancel {ask.order_id}` in their own terminal.",
        )

    async def _cooled(self, ask: Ask, account: str) -> Held | None:
        """After three declines nothing that spends is asked for a while; cancelling always is."""
        if isinstance(ask, CancelOrder) or not await self._approvals.cooling_until(account):
            return None
        return Held(outcome=outcomes.no_yes(ask, _COOLED))

    async def _left_by_another(self, quote: Quote) -> Quote:
        """A quote that this process is not carrying out: another one is, or has died over it; then it is settled."""
        try:
            current = await self._desk.readings.orders(EXECUTION_AGE)
            await self._settling.settle_open(quote.account, current)
        except CloreError:
            return quote
        return await self._approvals.get(quote.id)

    def asks(self, held: Held, *, can_ask: bool) -> bool:
        """Whether the person is asked through the client now."""
        return (
            held.quote is not None
            and held.quote.state == "pending"
            and can_ask
            and self._desk.mode == "ask"
            and held.yes is not Yes.NEVER
        )

    async def conclude(
        self, held: Held, ask: Ask, *, answer: bool | None, caller: str, reply: QuestionReply | None = None
    ) -> dict[str, Any]:
        """What comes of the call. `answer` is the person's, or None where they gave none through the client; `reply` is
        what the client did with the question. Raises ArgumentInvalid for a malformed answer to an open question."""
        outcome = await self._conclude(held, ask, answer=answer, caller=caller, reply=reply)
        if isinstance(ask, CreateOrder) and ask.jupyter:
            outcome = with_jupyter(outcome, self._desk.readings.latest, self._desk.program)
        outcome = await self._replacements.told(ask, outcome)
        word = _VERB_WORDS.get(ask.verb, {}).get(outcome["status"])
        about = {"order_id": ask.order_id} if isinstance(ask, CancelOrder | ExtendOrder | SetSpotPrice) else {}
        return {**about, **outcome, "status": word} if word else {**about, **outcome}

    async def _conclude(
        self, held: Held, ask: Ask, *, answer: bool | None, caller: str, reply: QuestionReply | None
    ) -> dict[str, Any]:
        if held.quote is None:
            return held.outcome or outcomes.failed("There was nothing to do.")
        try:
            quote = await self._approvals.get(held.quote.id, unbroken=True)
            waits = quote.state in ("pending", "expired") and quote.replaced_by is None
            if reply is not None and reply.is_open and waits:
                await self._leave(quote, reply, caller)
                return _unanswered(quote, ask, reply, caller)
            known = await self._known(quote, ask)
            if known is not None:
                return known
            if answer is False:
                if await self._approvals.decide(quote, yes=False, by=caller):
                    return _unanswered(quote, ask, reply, caller) if reply else outcomes.no_yes(ask)
                return await self._follow(quote, ask)  # too late: another process has its yes already
        except (NotFound, StateUnavailable):
            if not isinstance(ask, CancelOrder):
                raise
            if reply is not None and reply.is_open:
                self._unkept.pop((caller, ask), None)
                return _unanswered(held.quote, ask, reply, caller)
            return await self._conclude_unkept(held, held.quote, ask, answer=answer, caller=caller)
        by = self._yes_given_by(quote, held.yes, answer, caller)
        if by is None:
            return outcomes.ask_outside(ask, quote.id, self._desk.program)
        return await self._carry_out(quote, ask, by)

    async def _leave(self, quote: Quote, reply: QuestionReply, caller: str) -> None:
        """A question without an answer. After a cancel it is over, so that no answer to it can come later and count;
        after a malformed answer it waits on, for the person has not seen it or has not answered."""
        if reply.said is Said.MALFORMED:
            raise ArgumentInvalid(
                f"{reply.told(quote, caller)} Nothing was done and nothing was spent.",
                hint=f"Call again and the same question is asked. {reply.cure}",
            )
        await self._approvals.leave(quote, by=caller, why=reply.said.value)

    async def _conclude_unkept(
        self, held: Held, quote: Quote, ask: CancelOrder, *, answer: bool | None, caller: str
    ) -> dict[str, Any]:
        """A cancel while the state can't be used: the person's word alone counts."""
        self._unkept.pop((caller, ask), None)
        if answer is False:
            return outcomes.no_yes(ask)
        if not quote.in_time(self._desk.clock()):
            return outcomes.cancel_expired(ask.order_id)
        by = self._yes_given_by(quote, held.yes, answer, caller)
        if by is None:
            raise self._unrecorded(ask)
        return await self._carry_out(quote, ask, by)

    async def _known(self, quote: Quote, ask: Ask) -> dict[str, Any] | None:
        """What has come of a quote already, or comes of it while it is waited for."""
        if quote.state == "committing":
            return await self._follow(quote, ask)
        return await self._over(quote, ask)

    async def _over(self, quote: Quote, ask: Ask) -> dict[str, Any] | None:
        """The outcome of a quote that is over."""
        if quote.state == "settled" and quote.outcome is not None:
            return await self._again(quote, quote.outcome)
        if quote.state == "declined":
            return outcomes.no_yes(ask)
        if quote.state == "expired":
            return outcomes.replaced(ask, quote.replaced_by) if quote.replaced_by else outcomes.lapsed(ask)
        return None

    async def _again(self, quote: Quote, outcome: dict[str, Any]) -> dict[str, Any]:
        """An outcome that its caller may not have had; an order that has ended meanwhile is not told as running."""
        order_id = outcome.get("order_id")
        if outcome["status"] == "created" and order_id is not None:
            lease = await self._desk.state.read(lambda tx: orders.get(tx, quote.account, int(order_id)))
            if lease is not None and lease.ended_at is not None:
                did = "moved its end" if quote.verb == ExtendOrder.verb else "made it"
                return outcomes.ended_since(outcome, lease, did)
        return outcomes.repeated(outcome)

    async def told(self, held: Held, outcome: Mapping[str, Any]) -> None:
        """The caller has the outcome of a settled quote; the same call later is a new wish."""
        if held.quote is not None and outcome["status"] not in ("in_progress", "approval_required"):
            # An order may run: what came of the call counts more than the record of having told it.
            with contextlib.suppress(StateUnavailable):
                await self._approvals.told(held.quote)

    def _yes_given_by(self, quote: Quote, yes: Yes, answer: bool | None, caller: str) -> str | None:
        """Who said yes, or None where nobody has."""
        if answer:
            return f"the person, asked through {caller}"
        if quote.state == "approved":
            return quote.decided_by or "the person, outside the chat"
        if not yes.is_needed:
            return "no yes needed"
        if self._desk.mode == "limits" and yes is Yes.ALWAYS:
            return "the operator's limits (CLORE_APPROVAL=limits)"
        return None

    async def _carry_out(self, quote: Quote, ask: Ask, by: str) -> dict[str, Any]:
        verb = self._verbs[ask.verb]
        outcome = await self._commitments.run(
            quote.id,
            lambda: verb.carry_out(quote, ask, from_state=quote.state, by=by),
            self._desk.patience.answer,
        )
        if outcome is None:
            return verb.unfinished(quote)
        if outcome["status"] == "in_progress":  # another process took the yes first, or a cancel is not proven yet
            waits = quote.replaces is not None and (await self._approvals.get(quote.id)).state == "approved"
            return outcome if waits else await self._follow(quote, ask)
        return outcome

    async def _follow(self, quote: Quote, ask: Ask) -> dict[str, Any]:
        """Wait for whoever carries the quote out, here or in another process."""
        give_up_at = self._desk.monotonic() + self._desk.patience.answer
        while self._desk.monotonic() < give_up_at:
            try:
                over = await self._over(await self._approvals.get(quote.id), ask)
            except StateUnavailable:  # the work goes on all the same
                over = None
            if over is not None:
                return over
            await anyio.sleep(_FOLLOW_PAUSE_SECONDS)
        return self._verbs[ask.verb].unfinished(quote)


def _unanswered(quote: Quote, ask: Ask, reply: QuestionReply, caller: str) -> dict[str, Any]:
    """No yes, in the words of the tool, with what the client answered and whether asking again can help."""
    outcome = outcomes.no_yes(ask, reply.told(quote, caller))
    return {**outcome, "next": f"{outcome['next']} {reply.cure}"}

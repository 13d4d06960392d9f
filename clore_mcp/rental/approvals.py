"""Holds quotes and takes a person's answers: one live quote per digest, one use per yes.

The transitions are rows with a unique index (`one_live_quote`) and conditional updates, so that processes that handle
the same call agree without talking to each other. A quote is frozen, so every round shows the same text. Its id is part
of that text, so an old answer never fits a new quote.

A `Verb` is one kind of call that asks. This module also caps how many questions may wait for a person and puts them in
order, so that no caller can drown another's. A caller chooses its own name. A cap per caller stops one that runs wild,
and a cap on all callers stops one that changes its name. If there is no room, the newest question is refused, because
an older one may be a real one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar

from clore_mcp.errors import Failure, NotFound
from clore_mcp.rental import results
from clore_mcp.rental.context import Context
from clore_mcp.rental.reply import UNSEEN
from clore_mcp.rental.requests import CancelOrder, CreateOrder, Request
from clore_mcp.rental.results import Outcome, Status, outcome_of
from clore_mcp.rental.terms import Terms
from clore_mcp.store import CLOCK_SLACK_SECONDS, Database, Duplicate, Entry, Quote, Tx, Watch, ledger, quotes
from clore_mcp.store.database import state_key

A = TypeVar("A", bound=Request)
# Questions that may wait at once.
OF_A_CALLER: Final = 10  # eight sessions of one client may each have one
# Of all callers. Cancels are counted separately, with no cap per caller: one that ends many orders may ask about each.
OF_ALL: Final = 40
# Calls without a yes in a minute.
A_MINUTE: Final = 20  # of one caller
A_MINUTE_OF_ALL: Final = 60
_MINUTE: Final = 60.0

QUOTE_SECONDS: Final = 600.0
YES_SECONDS: Final = 1_800.0
BY_PASSKEY: Final = "passkey of "  # prefix of the record of an approval that a passkey has signed
PAUSED: Final = f"Three questions were just declined, so no more are asked for a while. {UNSEEN}"
_ASKABLE_SHARE: Final = 0.8  # in its last fifth a quote could expire while a person reads it, so a new one is made
_DECLINES: Final = 3
_COOL_SECONDS: Final = 600.0
_ID_ALPHABET: Final = "23456789abcdefghjkmnpqrstuvwxyz"


class Yes(StrEnum):
    """When a person's yes is needed."""

    PERSON = "person"  # ending an order that someone else may be using, which the operator's limits do not approve
    ALWAYS = "always"
    IF_ASKABLE = "if_askable"  # cancelling an order made here: billing stops even if no one can be asked
    NEVER = "never"  # lowering a bid

    @property
    def is_needed(self) -> bool:
        """Whether nothing happens without a yes, even if no one can be asked."""
        return self in (Yes.PERSON, Yes.ALWAYS)


@dataclass(frozen=True, slots=True)
class Consent:
    """How a quote gets its yes."""

    yes: Yes
    protocol: str = ""  # of the client, for the record
    subject: str | None = None  # of the question; None if no one is asked

    def as_json(self) -> dict[str, Any]:
        """Return JSON for the quote's row, beside its terms."""
        return {"yes": self.yes.value, "protocol": self.protocol, "subject": self.subject}

    @classmethod
    def of(cls, quote: Quote) -> Consent:
        """Return how that quote gets its yes."""
        return cls(Yes(quote.terms["yes"]), quote.terms.get("protocol", ""), quote.subject)


class QuotedTerms(Protocol):
    """The terms that a quote freezes. Each verb has its own kind, whose JSON has exact decimals as text."""

    def as_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Proposal:
    """One priced call before it is held. `question` returns the question's text for a quote's id."""

    terms: QuotedTerms
    question: Callable[[str], str]
    yes: Yes


class Verb(ABC, Generic[A]):
    """One kind of call that spends or ends something."""

    _context: Context

    async def account(self, request: A) -> str:
        """Return the account that the call is about."""
        return await self._context.readings.account()

    async def already(self, request: A, account: str, digest: str) -> Outcome | None:
        """Return the outcome of the same earlier call, if it still stands."""
        return None

    async def shared(self, request: A, account: str, caller: str, digest: str) -> Quote | None:
        """Return the quote of a call that shares an earlier call's yes. Raises Settled if it may not."""
        return None

    @abstractmethod
    async def propose(self, request: A, account: str) -> Proposal:
        """Return what to ask a person. Raises Settled if there is nothing to ask."""

    @abstractmethod
    async def carry_out(self, quote: Quote, request: A, *, from_state: str, by: str) -> Outcome:
        """Do it once, record the outcome and return it. `from_state` is the quote's state; `by` says who approved."""

    @abstractmethod
    def unfinished(self, quote: Quote) -> Outcome:
        """Return the answer while the work is still going on."""

    def declined(self, request: A, unasked: str | None = None) -> Outcome:
        """Return the answer without a yes. `unasked` is why the person was not asked, None if they said no."""
        return results.declined(unasked)

    def lapsed(self, request: A) -> Outcome:
        """Return the answer for a quote that expired before its yes was used."""
        return results.expired()

    def left_to_person(self, request: A, quote_id: str, deed: str) -> Outcome:
        """Return the answer that leaves the decision to a person outside the chat. `deed` is what they have to do."""
        return results.approval_required(quote_id, deed)

    async def told(self, request: A, outcome: Outcome) -> Outcome:
        """Return the outcome as the caller of this call reads it."""
        return outcome if outcome.order_id is not None else replace(outcome, order_id=request.about_order)


def quote_of(
    proposal: Proposal, consent: Consent, *, account: str, digest: str, verb: str, caller: str, now: float
) -> Quote:
    """Return a new quote that waits for its yes."""
    quote_id = new_id("q")
    return Quote(
        id=quote_id,
        account=account,
        digest=digest,
        verb=verb,
        caller=caller,
        question=proposal.question(quote_id),
        terms={**proposal.terms.as_json(), **consent.as_json()},
        state="pending",
        created_at=now,
        expires_at=now + QUOTE_SECONDS,
    )


class NoRoom(Failure):
    """The question is not asked, because too many wait already, came within the last minute or were just declined."""

    code = "no_room"


def _place_question(tx: Tx, quote: Quote, now: float, program: str) -> None:
    """Close the older question that this one, just added, replaces, if there is room for it. Raises NoRoom."""
    if quote.verb != CancelOrder.verb and quote.state == "pending":
        _require_calm(tx, quote, now)
    if quote.subject is None:
        return
    replaced = (quote.caller, quote.verb, quote.subject)
    waiting = [
        one
        for one in quotes.pending(tx, quote.account)
        if one.subject is not None and (one.caller, one.verb, one.subject) != replaced
    ]
    if Consent.of(quote).yes is not Yes.IF_ASKABLE:  # the cancel of an order made here is never refused
        _require_room(quote, waiting, program)
    quotes.replace(tx, quote)


def _require_room(quote: Quote, waiting: Sequence[Quote], program: str) -> None:
    cancels = quote.verb == CancelOrder.verb
    kin = [one for one in waiting if (one.verb == CancelOrder.verb) is cancels]
    cure = (
        f"The person can answer them in their own terminal, starting with `{program} approvals`. Each lapses after ten"
        " minutes."
    )
    if cancels:
        cure = f"The person can run `{program} cancel` with the order's id."
    mine = sum(one.caller == quote.caller for one in kin)
    if not cancels and mine >= OF_A_CALLER:
        raise NoRoom(f"{mine} questions of this client already wait for the person, so this one was not asked. {cure}")
    if len(kin) >= OF_ALL:
        raise NoRoom(f"{len(kin)} questions already wait for the person, so this one was not asked. {cure}")


def _require_calm(tx: Tx, quote: Quote, now: float) -> None:
    """Cap the calls without a yes per minute, because each one adds rows. Raises NoRoom."""
    callers = quotes.unanswered_since(tx, quote.account, now - _MINUTE, now, A_MINUTE_OF_ALL + 1)
    if callers.count(quote.caller) > A_MINUTE or len(callers) > A_MINUTE_OF_ALL:
        raise NoRoom("Too many calls came within a minute, so this one was not asked. Wait a minute, then call once.")


def _fair(waiting: Sequence[Quote]) -> list[Quote]:
    """Return the waiting quotes in the order for a person: callers take turns, the one with the fewest first."""
    asked = Counter(quote.caller for quote in waiting)
    turns: Counter[str] = Counter()
    ranks = {}
    for quote in waiting:  # oldest first
        ranks[quote.id] = (quote.state != "pending", turns[quote.caller], asked[quote.caller])
        turns[quote.caller] += 1
    return sorted(waiting, key=lambda quote: ranks[quote.id])


def new_id(prefix: str) -> str:
    """Return a short random id that people can read aloud: no 0/o, no 1/l/i."""
    return prefix + "".join(secrets.choice(_ID_ALPHABET) for _ in range(7))


def cooling_until(declines: Sequence[float], now: float) -> float | None:
    """Return the end of the pause after three declines within ten minutes, or None. It lasts ten minutes."""
    past = [at for at in declines if at <= now + CLOCK_SLACK_SECONDS]  # later ones: the clock went back since
    for first, third in zip(past, past[_DECLINES - 1 :], strict=False):
        if third - first <= _COOL_SECONDS and now < third + _COOL_SECONDS:
            return third + _COOL_SECONDS
    return None


class Approvals:
    """Holds quotes and takes answers. `clock` returns unix seconds; `program` is the command that a person types."""

    def __init__(self, state: Database, clock: Callable[[], float], program: str = "clore-mcp") -> None:
        self._state = state
        self._program = program
        self._clock = clock

    async def digest(self, account: str, caller: str, request: Request) -> str:
        """Return the digest of this call by this caller on this account, keyed with the state's own secret."""
        return await self._state.write(lambda tx: _digest_of(tx, account, caller, request))

    async def look_up(
        self, account: str, caller: str, request: Request, *, replay: bool, asking: bool, unbroken: bool
    ) -> tuple[str, Quote | None]:
        """Return the digest of this call and the quote that `find` returns for it."""

        def read(tx: Tx) -> tuple[str, Quote | None]:
            digest = _digest_of(tx, account, caller, request)
            return digest, self._find(tx, digest, replay=replay, asking=asking)

        return await self._state.write(read, unbroken=unbroken)

    async def find(self, digest: str, *, replay: bool, asking: bool) -> Quote | None:
        """Return the quote that this call is about, or None if it needs a new one.

        A settled quote counts if the call replays an answer, or if its outcome never reached the caller. Otherwise a
        lost reply would ask the person again and buy twice. A bid that was set or an end that was moved does not count,
        because it may have changed since; if it has not, the call finds that out.
        """
        return await self._state.write(lambda tx: self._find(tx, digest, replay=replay, asking=asking))

    def _find(self, tx: Tx, digest: str, *, replay: bool, asking: bool) -> Quote | None:
        now = self._clock()
        quotes.expire(tx, now)
        quote = quotes.latest(tx, digest)
        if quote is None:
            return None
        last_asked_at = quote.created_at + _ASKABLE_SHARE * (quote.expires_at - quote.created_at)
        if quote.state == "pending" and asking and not replay and now > last_asked_at:
            quotes.drop(tx, quote.id)
            return None
        keep = {
            "pending": True,
            "approved": True,
            "committing": True,
            "settled": replay or not (quote.told or _finds_out(quote)),
            # A no outside the chat is reported once. After that, the same call is a new one.
            "declined": replay or not quote.told,
            "expired": replay and quote.replaced_by is not None,  # an answer that comes too late gets that as its reply
        }
        return quote if keep[quote.state] else None

    async def hold(self, quote: Quote, *, heeds_declines: bool) -> Quote:
        """Hold a new quote and return it, or the quote that another process held first. Raises NoRoom, after three
        declines only with `heeds_declines`."""

        def add(tx: Tx) -> Quote:
            at = self._clock()  # inside, as in `decide`
            if heeds_declines and _cooling_until(tx, quote.account, at) is not None:
                raise NoRoom(PAUSED)
            quotes.expire(tx, at)
            quotes.add(tx, quote)  # first, so that a live quote of the same call is found and not replaced
            _place_question(tx, quote, at, self._program)
            ledger.write(tx, _entry(quote, at, "quoted", {**quote.terms, "question": quote.question}))
            return quote

        try:
            return await self._state.write(add)
        except Duplicate:
            found = await self.find(quote.digest, replay=True, asking=False)
            if found is None:
                raise
            return found

    async def under_watch(self, watch: Watch, number: int, terms: Terms) -> Quote | None:
        """Hold a quote for the watch's next order under the watch's approval, in place of an unused one. Returns None
        while another process carries that one out."""
        now = self._clock()
        digest = await self._state.write(lambda tx: _keyed_hash(tx, watch.account, "watch", watch.id, number))
        quote = Quote(
            id=new_id("q"),
            account=watch.account,
            digest=digest,
            verb=CreateOrder.verb,
            caller=f"watch {watch.id}",
            question=f"Order {number} of watch {watch.id}, within what was approved for it.",
            terms={**replace(terms, ssh_key=watch.ssh_key).as_json(), **Consent(Yes.ALWAYS).as_json()},
            state="approved",
            created_at=now,
            expires_at=min(now + QUOTE_SECONDS, watch.expires_at),
            decided_at=now,
            decided_by=f"{watch.approved_by}, watch {watch.id}",
            watch_id=watch.id,
        )

        def add(tx: Tx) -> Quote:
            quotes.expire(tx, now)
            quotes.supersede(tx, quote.digest)
            quotes.add(tx, quote)
            ledger.write(tx, _entry(quote, self._clock(), "quoted", quote.terms))
            return quote

        try:
            return await self._state.write(add)
        except Duplicate:
            return None

    async def hold_replacement(self, first: Quote, *, digest: str, terms: Terms) -> Quote | None:
        """Hold a quote for an order's replacement under the approval of that order, or return the one that another
        process held first. Returns None if that approval was shared before."""
        now = self._clock()
        servers = ", ".join(str(one.server_id) for one in terms.candidates)
        quote = Quote(
            id=new_id("q"),
            account=first.account,
            digest=digest,
            verb=first.verb,
            caller=first.caller,
            question=f"In place of order {terms.replaces_order_id}, which can't be reached: {servers}, within quote"
            f" {first.id}.",
            terms={**terms.as_json(), **replace(Consent.of(first), subject=None).as_json()},
            state="approved",
            created_at=now,
            expires_at=now + QUOTE_SECONDS,
            decided_at=now,
            decided_by=f"{first.decided_by}, quote {first.id}",
            replaces=first.id,
        )

        def add(tx: Tx) -> Quote | None:
            quotes.expire(tx, now)
            before = quotes.replacement_of(tx, first.id)
            if before is not None:
                return before if before.digest == digest and before.state != "expired" else None
            quotes.add(tx, quote)
            ledger.write(tx, _entry(quote, now, "quoted", quote.terms))
            return quote

        return await self._state.write(add)

    async def get(self, quote_id: str, *, unbroken: bool = False) -> Quote:
        """Return the quote with that id, expired if its time is over. Raises NotFound."""

        def read(tx: Tx) -> Quote | None:
            quotes.expire(tx, self._clock())
            return quotes.get(tx, quote_id)

        quote = await self._state.write(read, unbroken=unbroken)
        if quote is None:
            raise NotFound(f"There is no approval {quote_id!r}.", hint=f"`{self._program} approvals` lists what waits.")
        return quote

    async def waiting(self, account: str | None = None) -> list[Quote]:
        """Return the quotes that wait for a person, the callers in turn, then those with an unused approval."""

        def read(tx: Tx) -> list[Quote]:
            quotes.expire(tx, self._clock())
            return _fair(quotes.waiting(tx, account))

        return await self._state.write(read)

    async def decide(self, quote: Quote, *, yes: bool, by: str) -> bool:
        """Record the person's answer. Returns False if the quote no longer waits for one."""

        def write(tx: Tx) -> bool:
            now = self._clock()  # inside the transaction: the process may have been suspended on its way here
            if not quotes.decide(tx, quote.id, yes=yes, by=by, now=now, until=now + YES_SECONDS):
                return False
            ledger.write(tx, _entry(quote, now, "approved" if yes else "declined", {"by": by}))
            return True

        return await self._state.write(write)

    async def leave(self, quote: Quote, *, by: str, why: str) -> None:
        """Close a question that the person neither approved nor declined. The same call asks again, with a new id."""

        def write(tx: Tx) -> None:
            quotes.drop(tx, quote.id)
            ledger.write(tx, _entry(quote, self._clock(), "unanswered", {"by": by, "why": why}))

        await self._state.write(write)

    async def told(self, quote: Quote) -> None:
        """Record that the caller has the outcome, so that the same call later is a new one."""
        await self._state.write(lambda tx: quotes.tell(tx, quote.id))

    async def cooling_until(self, account: str) -> float | None:
        """Return the time until which spending calls are declined without asking, or None."""
        now = self._clock()
        return await self._state.read(lambda tx: _cooling_until(tx, account, now))


def _keyed_hash(tx: Tx, *parts: Any) -> str:
    key = state_key(tx)  # not cached, because a state that was replaced has another one
    return hmac.new(key, json.dumps(parts, sort_keys=True).encode(), hashlib.sha256).hexdigest()[:32]


def _cooling_until(tx: Tx, account: str, now: float) -> float | None:
    return cooling_until(quotes.declines_since(tx, account, now - 2 * _COOL_SECONDS), now)


def _digest_of(tx: Tx, account: str, caller: str, request: Request) -> str:
    named = request.model_dump(mode="json")
    if named.get("replaces_order_id") is None:  # the same digest as before that argument existed
        named.pop("replaces_order_id", None)
    return _keyed_hash(tx, account, caller, request.verb, named)


def _finds_out(quote: Quote) -> bool:
    outcome = outcome_of(quote)
    return outcome is not None and outcome.status in (Status.UPDATED, Status.EXTENDED)


def _entry(quote: Quote, now: float, step: str, data: Mapping[str, Any]) -> Entry:
    return Entry(at=now, account=quote.account, step=step, caller=quote.caller, quote_id=quote.id, data=dict(data))

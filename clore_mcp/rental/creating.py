"""Carrying out an approved rental: consumed, reserved, sent once, settled by looking; then the next fallback, if any.

Killed anywhere, the rows say what the person may pay for: before `sending` nothing was sent, and the row is abandoned
later; from `sending` on, someone looks for the order. Failover moves on only after a definite refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import anyio
import anyio.to_thread

from clore_mcp.clore import CreateRequest
from clore_mcp.errors import (
    AlreadyRented,
    BidTooLow,
    CloreError,
    CurrencyNotAllowed,
    Failure,
    RateLimited,
    Refused,
    ServerOffline,
    ServerUnknown,
    Spent,
)
from clore_mcp.market.rates import OrderType
from clore_mcp.money import ZERO, Coin, DayPrice
from clore_mcp.rental import disclosure, outcomes
from clore_mcp.rental.appraisal import Appraiser, Evidence, stands_against
from clore_mcp.rental.approvals import new_id
from clore_mcp.rental.asks import CreateOrder
from clore_mcp.rental.closing import Closing
from clore_mcp.rental.desk import Desk, iso, lease_end_is_enforced, settle_quote
from clore_mcp.rental.disclosure import KeyShown
from clore_mcp.rental.proposal import Proposal, Yes
from clore_mcp.rental.readings import EXECUTION_AGE
from clore_mcp.rental.settling import ADOPTABLE_SECONDS, Settling
from clore_mcp.rental.sshkeys import fingerprint, secret_token, validate
from clore_mcp.rental.terms import Candidate, Terms
from clore_mcp.state import intents, orders, quotes
from clore_mcp.state.database import Tx
from clore_mcp.state.intents import Intent, Reservation
from clore_mcp.state.orders import Lease
from clore_mcp.state.quotes import Quote

_MOVE_ON: Final = (AlreadyRented, CurrencyNotAllowed, ServerUnknown, ServerOffline, BidTooLow)
_SENDS: Final = 3  # "too fast" comes before Clore looks at a request: it may be sent again, so often
_STALE_TRIES: Final = 3
_OURS_FOR_SSHD: Final = ("cloreai/",)  # images that bring their own sshd; others get Clore's entrypoint


class Abandoned(Failure):
    """This process was stopped or frozen for too long between claiming a send and sending: it must not send."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A written intent and what to send for it."""

    intent: Intent
    candidate: Candidate
    required_price: Decimal | None


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why nothing is sent to this candidate; `outcome` ends the whole call, else the next one is tried."""

    attempt: dict[str, Any] | None = None
    outcome: dict[str, Any] | None = None


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
        return None if held is None else outcomes.repeated(outcomes.uncertain(held, []))

    async def propose(self, ask: CreateOrder, account: str) -> Proposal | dict[str, Any]:
        """What a person would be asked; an outcome where limits or the market leave nothing to ask."""
        found = await self._appraiser.appraise(ask)
        attempts = [{"server_id": one.server_id, "outcome": one.reason} for one in found.unfit]
        if found.terms is None or found.cost is None:
            return outcomes.unavailable(attempts, " ".join(one.message for one in found.unfit))
        if found.refusals:
            return outcomes.refused(found.refusals, attempts)
        terms, cost, key = found.terms, found.cost, await self._key_shown(ask)
        return Proposal(
            terms=terms.as_json(),
            question=lambda quote_id: disclosure.rent_question(quote_id, ask, terms, cost, key),
            yes=Yes.ALWAYS,
        )

    def unfinished(self, quote: Quote) -> dict[str, Any]:
        """The order is being made."""
        return outcomes.in_progress(quote.id)

    async def _standing(self, lease: Lease) -> dict[str, Any]:
        quote_id = await self._desk.state.read(lambda tx: intents.get(tx, lease.intent_id))
        quote = await self._desk.state.read(lambda tx: quotes.get(tx, quote_id.quote_id) if quote_id else None)
        outcome = (quote and quote.outcome) or {"status": "created", "order_id": lease.order_id, "attempts": []}
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
        outcome: dict[str, Any] | None = None
        for candidate in terms.candidates:
            claimed = await self._claim(quote, ask, terms, candidate, from_state=from_state, by=by)
            if isinstance(claimed, Stopped):
                attempts += [claimed.attempt] if claimed.attempt else []
                outcome = claimed.outcome
            else:
                from_state = "committing"
                outcome = await self._send(quote, ask, claimed, attempts)
            if outcome is not None:
                break
        outcome = outcome or outcomes.unavailable(attempts, "None of the servers could be rented.")
        if attempts and not outcome.get("attempts"):
            outcome["attempts"] = attempts
        return await settle_quote(self._desk, quote, outcome)

    async def _claim(
        self, quote: Quote, ask: CreateOrder, terms: Terms, candidate: Candidate, *, from_state: str, by: str
    ) -> Claimed | Stopped:
        """Consume the yes and write the reservation, in one transaction, on evidence of the last ten seconds."""
        for _ in range(_STALE_TRIES):
            evidence = await self._appraiser.evidence(EXECUTION_AGE)
            await self._settling.settle_open(quote.account, evidence.current)
            required, moved = _listed_now(candidate, terms, evidence)
            if moved is not None:
                return Stopped(attempt=moved)
            claim = _Claim(self._desk, quote, ask, terms, candidate, evidence, from_state, by)
            result = await self._desk.state.write(claim.write)
            if isinstance(result, Intent):
                return Claimed(result, candidate, required)
            if result is not None:
                return result
        return Stopped(
            outcome=outcomes.failed(
                "Clore answers too slowly to check price and limits; nothing was sent. Call again in a minute."
            )
        )

    async def _send(
        self, quote: Quote, ask: CreateOrder, claimed: Claimed, attempts: list[dict[str, Any]]
    ) -> dict[str, Any] | None:
        """Send once and settle. None: definitely refused, the next candidate may be tried."""
        desk, intent = self._desk, claimed.intent
        try:
            request = await self._request(ask, claimed)
            created = await self._send_when_allowed(request, intent)
        except Refused as error:
            return await self._refused(quote, intent, error, attempts)
        except Failure as error:
            if error.spent is Spent.NO:
                return await self._not_sent(quote, intent, error, attempts)
            await self._heard(quote, intent, error.message)
            return await self._settling.settle(intent, quote)
        await desk.state.write(lambda tx: intents.acknowledge(tx, intent.id))
        await self._heard(quote, intent, "code 0")
        return await self._settling.settle(intent, quote, sent_api_at=created.api_time)

    async def _request(self, ask: CreateOrder, claimed: Claimed) -> CreateRequest:
        candidate, generated = claimed.candidate, {}
        if ask.jupyter:
            generated["jupyter_token"] = secret_token()
            await self._desk.state.write(lambda tx: orders.keep_secrets(tx, claimed.intent.id, generated))
        key = validate(ask.ssh_public_key) if ask.ssh_public_key else self._desk.ssh_key().line
        spot = ask.order_type == "spot"
        return CreateRequest(
            server_id=candidate.server_id,
            image=ask.image,
            coin=candidate.coin,
            order_type=ask.order_type,
            spot_price=candidate.listed_per_day if spot else None,
            required_price=None if spot else claimed.required_price,
            ports=ask.wire_ports,
            env=ask.env or {},
            ssh_key=key,
            jupyter_token=generated.get("jupyter_token"),
            command=ask.command,
            autossh_entrypoint=not ask.image.removeprefix("docker.io/").startswith(_OURS_FOR_SSHD),
        )

    async def _send_when_allowed(self, request: CreateRequest, intent: Intent) -> Any:
        desk = self._desk
        for sends in range(_SENDS):
            try:
                return await desk.client.create_order(request, before_send=lambda: self._claim_send(intent))
            except RateLimited as error:
                back = await desk.state.write(
                    lambda tx: intents.step(tx, intent.id, was="sending", now_is="reserved", owner=desk.owner)
                )
                if sends == _SENDS - 1 or not back:
                    raise
                await anyio.sleep(min(error.retry_after_seconds or 1.0, desk.patience.answer))
        raise AssertionError("unreachable")

    async def _claim_send(self, intent: Intent) -> None:
        """The last step before the bytes leave. A process that was frozen finds its time gone, and stops."""
        desk = self._desk
        not_after = desk.clock() + desk.patience.send_within
        deadline = desk.monotonic() + desk.patience.send_within

        def write(tx: Tx) -> bool:
            mine = intents.step(tx, intent.id, was="reserved", now_is="sending", owner=desk.owner, not_after=not_after)
            if mine:
                desk.note(tx, "sending", "clore-mcp", intent.account, quote_id=intent.quote_id, intent_id=intent.id,
                          server_id=intent.server_id)  # fmt: skip
            return mine

        mine = await desk.state.write(write)
        if not mine or desk.clock() >= not_after or desk.monotonic() >= deadline:
            raise Abandoned("The process was held up before sending, so nothing was sent.", hint="Call again.")

    async def _refused(
        self, quote: Quote, intent: Intent, error: Refused, attempts: list[dict[str, Any]]
    ) -> dict[str, Any] | None:
        if isinstance(error, AlreadyRented) and await self._may_be_ours(intent):
            return await self._settling.settle(intent, quote)
        reason = _word(error)
        await self._close(quote, intent, "refused", reason)
        attempts.append({"server_id": intent.server_id, "outcome": reason})
        if isinstance(error, _MOVE_ON):
            return None
        if isinstance(error, RateLimited):
            return outcomes.failed(f"{error.message} {error.hint}", attempts)
        return outcomes.unavailable(attempts, f"{error.message} {error.hint}")

    async def _not_sent(
        self, quote: Quote, intent: Intent, error: Failure, attempts: list[dict[str, Any]]
    ) -> dict[str, Any]:
        await self._close(quote, intent, "failed", _word(error))
        attempts.append({"server_id": intent.server_id, "outcome": "not_sent"})
        return outcomes.failed(f"{error.message} Nothing was sent; {error.hint}", attempts)

    async def _may_be_ours(self, intent: Intent) -> bool:
        """Clore says "already rented" also when we hold the server ourselves."""
        since = self._desk.clock() - ADOPTABLE_SECONDS
        others = await self._desk.state.read(lambda tx: intents.of_server(tx, intent.account, intent.server_id, since))
        return any(other.id != intent.id for other in others)

    async def _close(self, quote: Quote, intent: Intent, state: str, reason: str) -> None:
        desk = self._desk

        def write(tx: Tx) -> None:
            now = intents.get(tx, intent.id)
            if now is not None and now.state in ("reserved", "sending"):
                intents.step(tx, intent.id, was=now.state, now_is=state, reason=reason)
                intents.release(tx, intent.id, ZERO, desk.clock())
            desk.note(tx, f"attempt_{state}", quote.caller, intent.account, quote_id=quote.id, intent_id=intent.id,
                      server_id=intent.server_id, reason=reason)  # fmt: skip

        await desk.state.write(write)

    async def _heard(self, quote: Quote, intent: Intent, said: str) -> None:
        await self._desk.state.write(
            lambda tx: self._desk.note(
                tx, "answered", quote.caller, intent.account, quote_id=quote.id, intent_id=intent.id, said=said
            )
        )


@dataclass(frozen=True, slots=True)
class _Claim:
    """The transaction that turns a yes into a reservation, with everything that it checks."""

    desk: Desk
    quote: Quote
    ask: CreateOrder
    terms: Terms
    candidate: Candidate
    evidence: Evidence
    from_state: str
    by: str

    def write(self, tx: Tx) -> Intent | Stopped | None:
        """The intent, or why not; None when the evidence is too old by now."""
        desk, now = self.desk, self.desk.clock()
        if now - self.evidence.at > EXECUTION_AGE or self.evidence.current.unreadable:
            return None
        if not self._take_yes(tx, now):
            return Stopped(outcome=outcomes.in_progress(self.quote.id))
        if self.terms.enforced_by is not None and not lease_end_is_enforced(tx, desk, self.quote.account):
            return Stopped(
                outcome=outcomes.failed(
                    "Whoever was to end the lease has stopped running; nothing was sent. Call again."
                )
            )
        held = [
            intent
            for intent in intents.in_state(tx, self.quote.account, *intents.OPEN)
            if intent.server_id == self.candidate.server_id
        ]
        if held:
            return Stopped(outcome=outcomes.uncertain(held[0], []))
        refusals = stands_against(tx, desk, self.quote.account, self.evidence, self.candidate, self.terms)
        if refusals:
            return Stopped(outcome=outcomes.refused(refusals))
        return self._reserve(tx, now)

    def _take_yes(self, tx: Tx, now: float) -> bool:
        if self.from_state == "committing":
            row = quotes.get(tx, self.quote.id)
            return row is not None and row.state == "committing" and row.owner == self.desk.owner
        return quotes.consume(tx, self.quote.id, from_state=self.from_state, owner=self.desk.owner, by=self.by, now=now)

    def _reserve(self, tx: Tx, now: float) -> Intent:
        candidate = self.candidate
        intent = Intent(
            id=new_id("i"),
            account=self.quote.account,
            quote_id=self.quote.id,
            verb=self.ask.verb,
            server_id=candidate.server_id,
            image=self.ask.image,
            order_type=self.ask.order_type,
            coin=candidate.coin.value,
            known_order_ids=frozenset(row.id for row in (*self.evidence.current.rows, *self.evidence.completed.rows)),
            state="reserved",
            owner=self.desk.owner,
            created_at=now,
        )
        intents.add(
            tx,
            intent,
            Reservation(
                intent_id=intent.id,
                account=intent.account,
                coin=intent.coin,
                worst_usd=candidate.worst_usd,
                usd_per_hour=candidate.ceiling_usd_per_hour,
                created_at=now,
            ),
        )
        self.desk.note(
            tx, "reserved", self.quote.caller, intent.account, quote_id=self.quote.id, intent_id=intent.id,
            server_id=intent.server_id, approved_by=self.by, worst_usd=str(candidate.worst_usd),
        )  # fmt: skip
        return intent


def _listed_now(candidate: Candidate, terms: Terms, evidence: Evidence) -> tuple[Decimal | None, dict[str, Any] | None]:
    """The listing's own number to require, or the attempt that is not made because the listing changed."""
    listing = evidence.snapshot.by_id.get(candidate.server_id)
    if listing is None:
        return None, {"server_id": candidate.server_id, "outcome": "not_listed"}
    if listing.rented:
        return None, {"server_id": candidate.server_id, "outcome": "server-already-rented"}
    rate = evidence.snapshot.rates.usd_per(candidate.coin)
    spot = terms.order_type is OrderType.SPOT
    price = candidate.listed_per_day if spot else listing.on_demand.get(candidate.coin)
    if rate is None or price is None:
        return None, {"server_id": candidate.server_id, "outcome": "unpriced"}
    hourly = DayPrice(price, Coin(candidate.coin)).usd_per_hour(rate) * (1 + _fee(candidate, evidence, terms))
    if price > candidate.ceiling_per_day or hourly > candidate.ceiling_usd_per_hour:
        return None, outcomes.price_moved(candidate.server_id, hourly, candidate.ceiling_usd_per_hour)
    return price, None


def _fee(candidate: Candidate, evidence: Evidence, terms: Terms) -> Decimal:
    return evidence.fees.fraction(terms.order_type, candidate.coin)


def _word(error: Failure) -> str:
    words: dict[type[Failure], str] = {
        AlreadyRented: "server-already-rented",
        CurrencyNotAllowed: "currency-not-allowed",
        ServerUnknown: "server-dont-exist",
        ServerOffline: "server-offline",
        BidTooLow: "too_low_price",
    }
    return words.get(type(error), error.code if not isinstance(error, CloreError) else type(error).__name__)

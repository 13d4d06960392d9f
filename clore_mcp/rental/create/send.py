"""The last step before money may move: one transaction uses the yes, checks everything and writes the reservation.

It runs when the create's turn has come and its connection is open, so its evidence is up to ten seconds old when the
bytes leave. If the process is killed before it, nothing is reserved and the yes is unused. If it is killed after it,
the row says `sending`, and a later look finds the order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final

from clore_mcp.clore import CreateRequest
from clore_mcp.errors import Failure
from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import OrderType
from clore_mcp.money import DayPrice, plain
from clore_mcp.rental import results
from clore_mcp.rental.approvals import new_id
from clore_mcp.rental.containers import brings_sshd, secret_token
from clore_mcp.rental.context import Context
from clore_mcp.rental.create.presence import made_by_call, running_on, standing_in_the_way
from clore_mcp.rental.questions import hardware
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.results import Attempt, Status, Stopped, outcome_of
from clore_mcp.rental.rules.check import Evidence, Position, Undecided, UndecidedReason, check, position, spend_of
from clore_mcp.rental.terms import (
    Candidate,
    Terms,
    bid_within,
    longest_hours,
    reservation_margin,
    unended_hours,
    worst_hours,
)
from clore_mcp.store import Intent, Quote, Reservation, Tx, intents, ledger, orders, quotes, watches

_SENDS: Final = 3  # Clore says "too fast" before it reads a request, so the request may be sent up to this many times


class SendAbandoned(Failure):
    """This process was stopped or suspended for too long between claiming a send and sending, so it must not send."""


def create_request(
    request: CreateOrder, candidate: Candidate, price: Decimal, key: str, secrets: Mapping[str, str]
) -> CreateRequest:
    """Return what to send. `price` per day is the listing's own number or the bid; `key` is the SSH key with access."""
    spot = request.order_type == "spot"
    return CreateRequest(
        server_id=candidate.server_id,
        image=request.image,
        coin=candidate.coin,
        order_type=request.order_type,
        spot_price=price if spot else None,
        required_price=None if spot else price,
        ports=request.wire_ports,
        env=request.env or {},
        ssh_key=key,
        jupyter_token=secrets.get("jupyter_token"),
        command=request.command,
        autossh_entrypoint=not brings_sshd(request.image),
    )


def _record_of(create: CreateRequest) -> dict[str, Any]:
    """Return what a create asks for, for the record, without secrets."""
    asked = {"required_price": create.required_price, "spotprice": create.spot_price}
    return {
        "image": create.image,
        "order_type": create.order_type,
        "currency": create.coin.value,
        **{f"{name}_per_day": str(price) for name, price in asked.items() if price is not None},
    }


class SendHalted(Exception):
    """Raised if nothing was sent. `why` is None if the evidence had become too old when the turn came."""

    def __init__(self, why: Stopped | None) -> None:
        super().__init__("nothing was sent")
        self.why = why


@dataclass(slots=True, repr=False)
class Send:
    """Sends the create of one candidate of an approved quote. `from_state` is the quote's state; `by` says who approved
    it. `intent` is its row, None until `leave` has claimed the send."""

    context: Context
    quote: Quote
    request: CreateOrder
    terms: Terms
    candidate: Candidate
    from_state: str
    by: str
    intent: Intent | None = None
    too_fast: int = 0  # how often it was sent and refused unread
    secrets: Mapping[str, str] = field(init=False)
    leave_by: float = field(init=False)

    def __post_init__(self) -> None:
        self.secrets = {"jupyter_token": secret_token()} if self.request.jupyter else {}
        self.leave_by = self.context.monotonic() + self.context.patience.leave_within

    @property
    def claimed(self) -> Intent:
        """The row of a create that was sent. Raises RuntimeError if the send was not claimed."""
        if self.intent is None:
            raise RuntimeError("a create was sent without its claim")
        return self.intent

    @property
    def used(self) -> bool:
        """Whether the yes is already used, by this candidate or an earlier one."""
        return self.intent is not None or self.from_state == "committing"

    async def leave(self, evidence: Evidence, create: CreateRequest) -> None:
        """Claim the send, just before the bytes leave. Raises SendHalted if nothing may be sent, and SendAbandoned if
        the process was suspended past its deadline."""
        context = self.context
        not_after = context.clock() + context.patience.send_within
        deadline = min(context.monotonic() + context.patience.send_within, self.leave_by)
        result = await context.state.write(lambda tx: self._claim(tx, evidence, create, not_after))
        if not isinstance(result, Intent):
            raise SendHalted(result)
        self.intent = result
        if context.clock() >= not_after or context.monotonic() >= deadline:
            raise SendAbandoned("The process was suspended before sending, so nothing was sent.", hint="Call again.")

    async def back(self) -> bool:
        """Record that Clore refused the create unread. Return whether it may be sent again: it may not after three
        sends, or if another process has abandoned the intent."""
        context, intent = self.context, self.claimed
        self.too_fast += 1

        def write(tx: Tx) -> bool:
            context.note(tx, "too_fast", self.quote.caller, intent.account, quote_id=intent.quote_id,
                         intent_id=intent.id, server_id=intent.server_id, said="code 5")  # fmt: skip
            again = self.too_fast < _SENDS
            return again and intents.step(tx, intent.id, was="sending", now_is="reserved", owner=context.owner)

        return await context.state.write(write)

    def _claim(self, tx: Tx, evidence: Evidence, create: CreateRequest, not_after: float) -> Intent | Stopped | None:
        """Return the claimed intent, or why nothing may be sent. None: the evidence is too old."""
        context, quote, now = self.context, self.quote, self.context.clock()
        made = made_by_call(tx, quote.account, quote.digest, context.program, but_of=quote.id)
        if made is not None:
            return Stopped(outcome=made)
        try:
            stands = position(tx, context, quote.account, evidence, deciding=True)
        except Undecided as no:
            if no.doubt is UndecidedReason.TOO_OLD:
                return None
            return Stopped(outcome=results.failed(f"{no.why}; nothing was sent. Call again in a minute."),
                           final=self.used)  # fmt: skip
        stop = self._forbidden(tx, evidence, now) or self._take_yes(tx, now)
        if stop is None and self.intent is None:
            stop = self._objection(tx, evidence, stands)
        if stop is not None:
            return stop
        intent = self.intent or self._reserve(tx, evidence, now)
        known = evidence.current.api_at is not None and context.readings.api_clock.settled
        sent_api_at = context.readings.api_now() if known else None
        if not intents.step(
            tx, intent.id, was="reserved", now_is="sending", owner=context.owner, not_after=not_after,
            sent_api_at=sent_api_at,
        ):  # fmt: skip
            return Stopped(outcome=_TOO_LATE)
        context.note(tx, "sending", quote.caller, intent.account, quote_id=intent.quote_id, intent_id=intent.id,
                     server_id=intent.server_id, **_record_of(create))  # fmt: skip
        return replace(intent, state="sending", not_after=not_after, sent_api_at=sent_api_at)

    def _forbidden(self, tx: Tx, evidence: Evidence, now: float) -> Stopped | None:
        """Return the answer if nothing may be sent now, even with a yes."""
        if self.context.monotonic() >= self.leave_by:
            return Stopped(outcome=_TOO_LATE, final=self.used)
        if ledger.frozen(tx) is not None:
            return Stopped(outcome=results.frozen(), final=self.used)
        quote = self.quote
        if not self.used and quote.watch_id is not None and not watches.may_rent(tx, quote.watch_id, now):
            return Stopped(outcome=_WATCH_OVER)
        kept = standing_in_the_way(tx, quote, self.terms, evidence, self.context.program)
        if kept is None:
            return None
        return Stopped(outcome=kept, final=self.used or kept.status is not Status.IN_PROGRESS)

    def _take_yes(self, tx: Tx, now: float) -> Stopped | None:
        """Use the yes, or check that this process still holds the one that it used. Return the answer if it can't."""
        quote, owner = self.quote, self.context.owner
        if self.used:
            row = quotes.get(tx, quote.id)
            if row is not None and row.state == "committing" and row.owner == owner:
                return None
        elif quotes.consume(tx, quote.id, from_state=self.from_state, owner=owner, by=self.by, now=now):
            return None
        else:
            row = quotes.get(tx, quote.id)
        if row is None or row.state in ("pending", "approved", "expired"):
            return Stopped(outcome=results.expired(), final=False)
        if row.state == "declined":
            return Stopped(outcome=results.declined(), final=False)
        return Stopped(outcome=outcome_of(row) or results.in_progress(row.id), final=False)

    def _objection(self, tx: Tx, evidence: Evidence, stands: Position) -> Stopped | None:
        """Return the answer if a check that comes before the reservation refuses."""
        if self.terms.enforced_by is not None and not stands.ended:
            return Stopped(outcome=_ENFORCER_GONE)
        server_id, program = self.candidate.server_id, self.context.program
        held = intents.open_on(tx, self.quote.account, server_id)
        if held is not None:
            return Stopped(outcome=results.blocked(held, program))
        running = running_on(server_id, evidence.current.rows)
        if running is not None:
            return Stopped(outcome=results.held_by_you(running, server_id))
        refusals = check(stands, spend_of(self.candidate, self.terms))
        return Stopped(outcome=results.refused(refusals, ends=self.terms.ends)) if refusals else None

    def _reserve(self, tx: Tx, evidence: Evidence, now: float) -> Intent:
        quote, candidate = self.quote, self.candidate
        intent = Intent(
            id=new_id("i"),
            account=quote.account,
            quote_id=quote.id,
            verb=self.request.verb,
            server_id=candidate.server_id,
            image=self.request.image,
            order_type=self.request.order_type,
            coin=candidate.coin.value,
            known_order_ids=frozenset(row.id for row in (*evidence.current.rows, *evidence.completed.rows)),
            state="reserved",
            owner=self.context.owner,
            created_at=now,
        )
        reservation = Reservation(
            intent_id=intent.id,
            account=intent.account,
            coin=intent.coin,
            worst_usd=self.terms.reserved_usd(candidate),
            usd_per_hour=candidate.ceiling_usd_per_hour,
            created_at=now,
        )
        intents.add(tx, intent, reservation)
        orders.keep_secrets(tx, intent.id, self.secrets)
        self.context.note(
            tx, "reserved", quote.caller, intent.account, quote_id=intent.quote_id, intent_id=intent.id,
            server_id=intent.server_id, approved_by=self.by, worst_usd=str(reservation.worst_usd),
        )  # fmt: skip
        return intent


_ENFORCER_GONE: Final = results.failed(
    "The process that was to end the order has stopped, so nothing was sent. Call again."
)
_WATCH_OVER: Final = results.failed("The watch that this order was for has ended, so nothing was spent.")
_TOO_LATE: Final = results.failed("It took too long to get a turn, so nothing was sent. Call again.")


def listed_now(candidate: Candidate, terms: Terms, evidence: Evidence) -> Decimal | Attempt:
    """Return the price per day to ask for: the listing's own number or the bid. If the market no longer shows what was
    approved, return the skipped attempt with the reason."""
    server_id, coin = candidate.server_id, candidate.coin
    listing = evidence.snapshot.by_id.get(server_id)
    if listing is None:
        return Attempt(server_id, "not_listed")
    if listing.rented:
        return Attempt(server_id, "server-already-rented")
    changed = _changed(listing, candidate, terms)
    if changed is not None:
        return Attempt(server_id, f"listing_changed: {changed}")
    rate = evidence.snapshot.rates.usd_per(coin)
    spot = terms.order_type is OrderType.SPOT
    listed = (listing.spot if spot else listing.on_demand).get(coin)
    if rate is None or listed is None:
        return Attempt(server_id, "unpriced")
    fee = evidence.fees.fraction(terms.order_type, coin)
    asked, dearer = listed, False
    if spot:  # the rate may have moved, and the bid must not exceed the approved amount in coin or in USD
        bid = bid_within(candidate.ceiling_usd_per_hour, coin, rate, fee, listed)
        dearer = bid is None
        asked = listed if bid is None else max(listed, min(bid.value, candidate.listed_per_day))
    hourly = DayPrice(asked, coin).usd_per_hour(rate) * (1 + fee)
    dearer = dearer or asked > candidate.ceiling_per_day or hourly > candidate.ceiling_usd_per_hour
    creation = evidence.fees.creation_usd(terms.order_type, coin, rate)
    if dearer or creation > candidate.creation_fee_usd * reservation_margin(coin):
        return results.price_moved(server_id, hourly, candidate.ceiling_usd_per_hour)
    return asked


def _changed(listing: Listing, candidate: Candidate, terms: Terms) -> str | None:
    """Return what a host has changed since the question, other than the price, if the yes does not cover it."""
    is_now, was = f"{listing.gpu_count}x {listing.gpu}", f"{candidate.gpu_count}x {candidate.gpu}"
    if is_now != was:
        return f"{hardware(is_now)} now, {hardware(was)} approved"
    longest = longest_hours(listing)
    if longest < terms.hours:
        return f"rented for at most {plain(longest)} hours now, {plain(terms.hours)} approved"
    unended = unended_hours(listing, terms.order_type)
    if worst_hours(terms.hours, unended, ends=terms.ends) > candidate.worst_hours:
        return f"it may run for {plain(unended)} hours now, worst case {plain(candidate.worst_hours)} approved"
    return None

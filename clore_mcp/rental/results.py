"""The outcome of a spending call: one frozen Outcome, its statuses, its parts, and the texts of its cases.

The texts are in the contract's words, and `next` says what to do. Numbers are rounded as they are shown. The record
stores an outcome as JSON, and the tools answer with the same JSON. The figures that a text names (total, worst case and
what lies between them) are computed here too. Texts that only one verb has stand beside it (extend_terms.py,
bid_terms.py). Everything here is pure.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import PlainSerializer, TypeAdapter

from clore_mcp.clore import OrderRow
from clore_mcp.market.pricing import CREATION_FEE_AFTER_SECONDS, Cost, OrderType
from clore_mcp.money import ZERO, coin_name, dollars, plain, shown, shown_up
from clore_mcp.rental.reply import UNSEEN
from clore_mcp.rental.terms import Candidate, Terms, cost_of, reservation_margin
from clore_mcp.store import Intent, Lease, OrderReceipt, Quote
from clore_mcp.text import iso

_NOT_AMOUNTS: Final = ("watchdog", "frozen")  # refusals that have no numbers
_USD_SHOWN: Final = Decimal("0.0001")
_FEE_FREE_MINUTES: Final = CREATION_FEE_AFTER_SECONDS // 60
FEE_DUE: Final = f"after {_FEE_FREE_MINUTES} minutes; free if cancelled before that"
FROZEN: Final = "The person has stopped all spending. Only they can lift that, in their own terminal."
BID_STAYS: Final = "The bid stays as it was."
_NO: Final = "The person said no."
APPROVE_ON_PAGE: Final = "answer the question on the page that they have open in their browser"
OPERATOR: Final = "the operator"
_CURES: Final = {  # by the reason of the wanted server; otherwise another server is the cure
    "bid_under_minimum": "Raise bid_usd_per_hour if the person agrees.",
    "max_rental_hours": "Ask for fewer hours, or name another server.",
    "held_by_you": "For a second server, name another server_id.",
    "not_enough_balance": "",  # Clore's refusals have their own hints
    "you_already_have_spot_order": "",
}
_WORST_CASES: Final = ("usd_per_order", "usd_per_day")
_SMALLER_FITS: Final = (*_WORST_CASES, "usd_per_hour", "wallet")


class Status(StrEnum):
    """The statuses of a call, in the words of the tools' contract."""

    CREATED = "created"
    EXTENDED = "extended"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    WAITING = "waiting"
    CANCELLED = "cancelled"
    ALREADY_ENDED = "already_ended"
    IN_PROGRESS = "in_progress"
    APPROVAL_REQUIRED = "approval_required"
    DECLINED = "declined"
    REFUSED = "refused"
    FAILED = "failed"
    UNVERIFIED = "unverified"  # a cancel that is not proven: the order may bill
    UNCERTAIN = "uncertain"  # it is unknown whether an order was made or a bid was set


@dataclass(frozen=True, slots=True)
class Refusal:
    """One limit that refuses a step. `needed` is what the step adds; `change` says who can change the limit and how."""

    limit: str
    cap: Decimal
    used: Decimal
    needed: Decimal
    change: str

    @property
    def left(self) -> Decimal:
        """How much of the cap is left, never below zero."""
        return max(self.cap - self.used, ZERO)

    def as_json(self) -> dict[str, Any]:
        """Return the refusal as JSON for a result, with rounded amounts."""
        amounts = {name: shown(getattr(self, name)) for name in ("cap", "used", "needed", "left")}
        return {"limit": self.limit, **amounts, "change": self.change}

    def __str__(self) -> str:
        if self.limit in _NOT_AMOUNTS:
            return f"{self.limit}: {self.change}"
        who = f"can only be changed by {self.change}"
        if self.limit == "active_orders":
            return f"{self.needed} more active order, {self.used} of {self.cap} in use, {who}"
        left, cap = dollars(self.left, up=False), dollars(self.cap, up=False)
        return f"{self.limit}: {dollars(self.needed)} needed, {left} of {cap} left, {who}"


_RefusalAsShown = Annotated[Refusal, PlainSerializer(Refusal.as_json)]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One server that was tried or could not be tried, and the outcome."""

    server_id: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """The terms that the person approved. `by` says who approved, None if that is unknown."""

    total_usd: float
    worst_case_usd: float
    margin: str
    image: str
    fallbacks: tuple[int, ...]
    by: str | None = None


@dataclass(frozen=True, slots=True)
class BillingOrder:
    """An order that is still billed. `status` is set if it waits for a server."""

    order_id: int
    status: str | None = None
    usd_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class LostOrder:
    """The order that was replaced by another one, and its cost."""

    order_id: int
    receipt: OrderReceipt | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a call. `next` says what to do. Fields that do not belong to the status are None."""

    status: Status
    next: str
    order_id: int | None = None
    server_id: int | None = None
    approval_id: str | None = None
    attempts: tuple[Attempt, ...] = ()
    refusals: tuple[_RefusalAsShown, ...] = ()
    reason: str | None = None
    repeated: bool = False
    receipt: OrderReceipt | None = None
    # A rental, or its extension.
    usd_per_hour: float | None = None
    reserved_usd: float | None = None
    previous_ends_at: str | None = None
    ends_at: str | None = None
    enforced_by: str | None = None
    approved: Agreement | None = None
    creation_fee_usd: float | None = None
    free_cancel_until: str | None = None
    jupyter_url: str | None = None
    replaced: LostOrder | None = None
    most_hours: float | None = None
    latest_ends_at: str | None = None
    # A cancel.
    said: str | None = None  # why it is not proven, for a person at a terminal
    still_running: tuple[BillingOrder, ...] | None = None
    watches_waiting: int | None = None
    # A bid.
    bid_usd_per_hour: float | None = None
    was_usd_per_hour: float | None = None
    on_demand_usd_per_hour: float | None = None
    to_win_usd_per_hour: float | None = None
    price_per_day: float | None = None
    currency: str | None = None
    rank: int | None = None
    lowest_usd_per_hour_now: float | None = None
    retry_after_seconds: int | None = None
    # A watch.
    watch_id: str | None = None
    envelope: str | None = None
    best_seen_usd_per_hour: float | None = None

    def again(self, note: str = "") -> Outcome:
        """Return this outcome for a repetition of the same call, marked as repeated."""
        return replace(self, repeated=True, next=f"{note} {self.next}".strip())

    def also(self, said: str) -> Outcome:
        """Return this outcome with one more sentence."""
        return replace(self, next=f"{self.next} {said}".strip())

    def as_json(self) -> dict[str, Any]:
        """Return JSON for the quote's row and the tool's answer, without None, False and empty refusals."""
        told: dict[str, Any] = _outcomes().dump_python(self, mode="json", exclude_none=True)
        return {name: value for name, value in told.items() if value is not False and (name, value) != ("refusals", [])}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Outcome:
        """Return the outcome that `as_json` wrote. Fields that a later version added are left out."""
        return _outcomes().validate_python({"next": "", **row})


@functools.cache
def _outcomes() -> TypeAdapter[Outcome]:
    return TypeAdapter(Outcome)


def outcome_of(quote: Quote | None) -> Outcome | None:
    """Return the outcome of a quote, or None if it is not settled."""
    if quote is None or quote.state != "settled" or quote.outcome is None:
        return None
    return Outcome.from_json(quote.outcome)


class Settled(Exception):
    """Raised when the outcome is known, so that there is nothing to ask or to do. If it is `final`, a quote that is
    being carried out is settled with it. Otherwise nothing was used, and the quote stays as it is."""

    def __init__(self, outcome: Outcome, *, final: bool = True) -> None:
        super().__init__(outcome.status)
        self.outcome = outcome
        self.final = final


@dataclass(frozen=True, slots=True)
class Stopped:
    """The reason that nothing more is sent to one server of a rental. With an `outcome` the whole call ends, otherwise
    the next server is tried. If it is `final`, the quote is settled with that outcome. Otherwise the quote stays as it
    is, and so does an unused approval."""

    attempt: Attempt | None = None
    outcome: Outcome | None = None
    final: bool = True


Attempts = Sequence[Attempt]


def created(lease: Lease, candidate: Candidate, terms: Terms, attempts: Attempts, by: str | None = None) -> Outcome:
    """Return the answer for a running order. `by` says who approved it."""
    free_until, fee_due = creation_fee(lease, terms.order_type)
    hourly = lease.price_native * candidate.usd_per_coin / 24 * (1 + candidate.fee_fraction)
    first = f"Call wait_for_order({lease.order_id}) and follow its `next`."
    if terms.to_win_usd is not None and lease.server_id == terms.candidates[0].server_id:
        first = (
            f"Another bid was higher ({dollars(terms.to_win_usd)} per hour would have won). The order is queued"
            " and costs nothing until this bid wins, but its hours run. To raise it, use set_spot_price."
            f" wait_for_order({lease.order_id}) shows its state."
        )
    return Outcome(
        Status.CREATED,
        " ".join(filter(None, (first, fee_due, ending(terms.on_end, terms.enforced_by)))),
        order_id=lease.order_id,
        server_id=lease.server_id,
        attempts=tuple(attempts),
        usd_per_hour=shown(hourly),
        reserved_usd=shown_up(terms.reserved_usd(candidate)),
        ends_at=iso(lease.ends_api_at),
        enforced_by=terms.enforced_by or "nobody",
        approved=agreement(terms, by),
        creation_fee_usd=shown_up(lease.creation_fee_usd) if lease.creation_fee_usd else None,
        free_cancel_until=free_until,
    )


def in_progress(
    quote_id: str,
    said: str = "The order is being made and is not confirmed yet. Call again with exactly the same arguments to get"
    " the outcome. It is never ordered twice.",
) -> Outcome:
    """Return the answer while the work is going on."""
    return Outcome(Status.IN_PROGRESS, said, approval_id=quote_id)


def being_replaced(quote: Quote) -> Outcome:
    """Return the answer while the order of this call is being replaced."""
    order_id = Terms.from_json(quote.terms).replaces_order_id
    return in_progress(
        quote.id,
        f"Order {order_id} of this call is being cancelled. Until it is proven gone it may bill, and nothing else is"
        f" rented. Call create_order with exactly the same arguments and replaces_order_id {order_id}.",
    )


def declined(unasked: str | None = None) -> Outcome:
    """Return the answer without a yes. `unasked` is why the person was not asked, None if they said no."""
    if unasked is not None:
        return Outcome(Status.DECLINED, f"{unasked} Nothing was spent.")
    return Outcome(Status.DECLINED, f"{_NO} Nothing was spent. Ask the person what they would like changed. {UNSEEN}")


def expired() -> Outcome:
    """Return the answer for a quote that expired before its yes was used."""
    return failed("The quote expired before it was used, so nothing was spent. Call again for the present price.")


def approval_required(
    quote_id: str, deed: str, *, order_id: int | None = None, until_then: str = "Nothing is spent before that."
) -> Outcome:
    """Return the answer that leaves the decision to a person outside the chat. `deed` is what they have to do."""
    said = (
        f"Ask the person to {deed} within ten minutes, and wait until they say it is done. Then call again with exactly"
        f" the same arguments. {until_then}"
    )
    return Outcome(Status.APPROVAL_REQUIRED, said, order_id=order_id, approval_id=quote_id)


def approve_off_page(quote_id: str, program: str, *, passkey: bool) -> str:
    """Return how to answer a question if no page is open."""
    if passkey:
        return f"run `{program} page` in their own terminal and answer the question there with their passkey"
    return f"run `{program} approve {quote_id}` in their own terminal"


def cancel_declined(order_id: int, unasked: str | None = None) -> Outcome:
    """Return the answer without a yes to end an order. `unasked`: see `declined`."""
    said = f"Order {order_id} was not cancelled. It keeps running and billing."
    told = f"{_NO} {said} {UNSEEN}" if unasked is None else f"{unasked} {said}"
    return Outcome(Status.DECLINED, told, order_id=order_id)


def cancel_expired(order_id: int) -> Outcome:
    """Return the answer if the question about ending an order expired. Nothing was cancelled."""
    return Outcome(
        Status.DECLINED,
        f"The question expired before it was answered, so order {order_id} was not cancelled. It keeps running and"
        " billing. Call cancel_order again to ask again.",
        order_id=order_id,
    )


def cancel_unfinished(order_id: int) -> Outcome:
    """Return the answer while the cancel is under way and not proven."""
    return Outcome(
        Status.UNVERIFIED,
        "The cancel is not complete yet, so the order may still be billed. Call cancel_order again with the same"
        " arguments for the outcome.",
        order_id=order_id,
    )


def bid_declined(order_id: int, unasked: str | None = None) -> Outcome:
    """Return the answer without a yes to a raise. `unasked`: see `declined`."""
    told = f"{_NO} {BID_STAYS} {UNSEEN}" if unasked is None else f"{unasked} {BID_STAYS}"
    return Outcome(Status.DECLINED, told, order_id=order_id)


def refused(refusals: Sequence[Refusal], *, ends: bool = True) -> Outcome:
    """Return the answer if a limit refuses. `ends`: a process would have ended the order at its time."""
    said = f"{_over_the_limit(refusals)} Nothing was spent.{cure(refusals, ends=ends)}"
    return Outcome(Status.REFUSED, said, refusals=tuple(refusals))


def frozen() -> Outcome:
    """Return the answer while spending is frozen."""
    return Outcome(Status.REFUSED, f"{FROZEN} Nothing was spent.")


def unavailable(attempts: Attempts, why: str, most_hours: Decimal | None = None) -> Outcome:
    """Return the answer if none of the servers could be rented. Up to `most_hours` one of them could be."""
    first = attempts[0].outcome if attempts else ""
    cure = _CURES.get(first, "Search again and name another server, or give fallback_server_ids.")
    return Outcome(
        Status.REFUSED,
        f"{why} Nothing was spent. {cure}".strip(),
        attempts=tuple(attempts),
        most_hours=None if most_hours is None else float(most_hours),
    )


def bid_refused(order_id: int, reason: str, why: str) -> Outcome:
    """Return a refusal that leaves the bid as it was."""
    return Outcome(Status.REFUSED, f"{why} {BID_STAYS}", order_id=order_id, reason=reason)


def raise_refused(refusals: Sequence[Refusal], usd_per_hour: Decimal | None = None) -> Outcome:
    """Return the answer if a limit refuses a raise. The order keeps running as it was."""
    return Outcome(
        Status.REFUSED,
        f"{_over_the_limit(refusals)} {BID_STAYS} A lower one may fit. The order keeps running.",
        refusals=tuple(refusals),
        bid_usd_per_hour=None if usd_per_hour is None else shown(usd_per_hour),
    )


def failed(why: str, attempts: Attempts = ()) -> Outcome:
    """Return the answer if it failed and nothing runs as far as is known. `why` ends with what to do."""
    return Outcome(Status.FAILED, why, attempts=tuple(attempts))


def uncertain(intent: Intent, attempts: Attempts, program: str) -> Outcome:
    """Return the answer if it is unknown whether an order runs."""
    return Outcome(
        Status.UNCERTAIN,
        f"An order on server {intent.server_id} may be running and billing, but Clore does not show it. Its cost stays"
        " reserved and the server is blocked. list_orders checks again. Ask the person to check clore.ai and, if it"
        f" stays unclear, to run `{program} settle {intent.id} --order ID` or `--none`.",
        server_id=intent.server_id,
        attempts=tuple(attempts),
    )


def blocked(intent: Intent, program: str) -> Outcome:
    """Return the answer while another create for that server is unsettled: a second one could be a second bill."""
    said = (
        f"An earlier create for server {intent.server_id} is not settled yet, so no second one is sent. Nothing was"
        " spent now. Rent nothing until list_orders has no `unsettled`."
    )
    if intent.state == "uncertain":
        said += f" If it stays unclear, ask the person to run `{program} settle {intent.id} --order ID` or `--none`."
    return Outcome(
        Status.REFUSED,
        said,
        server_id=intent.server_id,
        attempts=(Attempt(intent.server_id, f"blocked by {intent.id}, which is {intent.state}"),),
    )


def held_by_you(row: OrderRow, server_id: int) -> Outcome:
    """Return the answer if this account has the server. No fallback is tried, which would be a second bill."""
    return unavailable(
        [Attempt(server_id, "held_by_you")],
        f"Order {row.id} of this account already runs on server {server_id}. To move its end, use extend_order. To"
        " end it now, use cancel_order.",
    )


def ended_at_once(said: str, row: OrderRow, candidate: Candidate, gone: Outcome | None, attempts: Attempts) -> Outcome:
    """Return the answer for an order that was cancelled at once, for the reason `said`. `gone` is the outcome of that
    cancel, None while it is on its way."""
    end = (
        f"Its cancel is unverified, so it may be billed. Call cancel_order({row.id}) until it is proven, and rent"
        " nothing before that."
    )
    if gone is not None and gone.status is Status.CANCELLED:
        end = "It was cancelled at once."
    return Outcome(
        Status.REFUSED,
        f"{said} {end}",
        order_id=row.id,
        server_id=candidate.server_id,
        attempts=tuple(attempts),
        receipt=None if gone is None else gone.receipt,
    )


def above_ceiling(row: OrderRow, candidate: Candidate) -> str:
    """Return why an order is cancelled at once: Clore made it at a higher price than approved."""
    price = "?" if row.price is None else plain(row.price)
    return (
        f"Clore made the order at {price} {coin_name(row.currency) or '?'} per day, above the approved"
        f" {plain(candidate.ceiling_per_day)} {candidate.coin.ticker}. Search again for the present price."
    )


def ended_since(outcome: Outcome, lease: Lease, did: str) -> Outcome:
    """Return the answer to a repeated call that `did` something for an order that has ended since."""
    said = (
        f"Order {lease.order_id} has ended since this call {did}. It is no longer running or billed. To rent again,"
        " call create_order."
    )
    return replace(outcome, repeated=True, receipt=lease.receipt or outcome.receipt, next=said)


def price_moved(server_id: int, now_usd: Decimal, ceiling_usd: Decimal) -> Attempt:
    """Return an attempt that was not made, because the price rose above what was approved."""
    return Attempt(server_id, f"price_moved: {dollars(now_usd)} per hour now, {dollars(ceiling_usd)} approved")


def ending(on_end: str, enforced_by: str | None) -> str:
    """Return what ends an order, and what to do."""
    if on_end == "notify":
        return "Nothing cancels it at its end. Call cancel_order when the person is done."
    if enforced_by is None:
        return "No process ends it. Call cancel_order when the person is done."
    return "Call cancel_order as soon as the person is done. It ends by itself only while its enforcer runs."


def newer_question(quote_id: str) -> str:
    """Return why the person is not asked."""
    return f"A newer question of this client about the same thing, {quote_id}, replaced this one."


def shown_parts(cost: Cost) -> tuple[Decimal, ...]:
    """Return rent, fee and creation fee in USD as shown, rounded so that they add up to the total that is shown."""
    parts = (cost.rent_usd, cost.fee_usd, cost.creation_fee_usd)
    return tuple(part.quantize(_USD_SHOWN, ROUND_CEILING) for part in parts)


def asked_usd(terms: Terms) -> tuple[Decimal, bool]:
    """Return the total that the question names, in USD, and whether the approval covers a more expensive fallback. If
    it does, the total is the most that any of the servers may cost, after one that was lost."""
    first = sum(shown_parts(cost_of(terms.candidates[0], terms.hours)), ZERO)
    most = terms.bills(lambda one: one.ceiling_usd_per_hour * terms.hours + one.creation_fee_usd)
    dearer = max(most[1:], default=ZERO) > first
    return (max(most), True) if dearer else (first, False)


def agreement(terms: Terms, by: str | None) -> Agreement:
    """Return the approved terms. `by` says who approved, None if that is unknown."""
    return Agreement(
        total_usd=shown_up(asked_usd(terms)[0]),
        worst_case_usd=shown_up(terms.worst_usd),
        margin=margin(terms),
        image=terms.image,
        fallbacks=tuple(one.server_id for one in terms.candidates[1:]),
        by=by or None,
    )


def margin(terms: Terms) -> str:
    """Return in words what the worst case covers beyond the total of the first server."""
    worst = max(terms.candidates, key=lambda one: one.worst_usd)
    room = terms.worst_usd - cost_of(terms.candidates[0], terms.hours).total_usd
    covers = []
    if worst.server_id != terms.candidates[0].server_id:
        covers.append(f"server {worst.server_id}, the most expensive that may be rented")
    if worst.worst_hours > terms.hours and terms.ends:
        covers.append("two minutes of delay at its end")
    elif worst.worst_hours > terms.hours:
        covers.append(f"{plain(worst.worst_hours)} hours, because no process ends it")
    if worst.ceiling_usd_per_hour > worst.usd_per_hour:
        covers.append(f"a price of up to {dollars(worst.ceiling_usd_per_hour)} per hour")
    if (factor := reservation_margin(worst.coin)) > 1:
        covers.append(f"{plain((factor - 1) * 100)} % for changes in the {worst.coin.ticker} rate")
    if terms.worst_usd > worst.worst_usd:
        covers.append(f"up to {dollars(terms.lost_usd)} for a server that can't be reached and is replaced")
    if room <= 0 or not covers:
        return "The worst case is the total."
    return f"The worst case is {dollars(room)} above the total. It covers {', '.join(covers)}."


def creation_fee(lease: Lease, order_type: OrderType) -> tuple[str | None, str]:
    """Return the time until which a cancel saves the creation fee of a new order, and a sentence about when it is
    charged. Both are empty if there is no such fee."""
    if not lease.creation_fee_usd:
        return None, ""
    told = f"The {dollars(lease.creation_fee_usd)} creation fee is charged"
    if order_type is OrderType.SPOT:  # it is unknown when a waiting bid is charged
        return None, f"{told} {_FEE_FREE_MINUTES} minutes after it first wins, and is free if you cancel before that."
    due = iso(lease.started_api_at + CREATION_FEE_AFTER_SECONDS)
    return due, f"{told} at {due[11:16]} UTC, and is free if you cancel before that."


def _over_the_limit(refusals: Sequence[Refusal]) -> str:
    return f"Over the limit: {'; '.join(map(str, refusals))}."


def cure(refusals: Sequence[Refusal], *, ends: bool) -> str:
    """Return sentences that say what may help against these refusals. `ends` says whether a process ends the order at
    its time. If none does, fewer hours do not lower the worst case."""
    told = ""
    if all(one.limit in _SMALLER_FITS and one.cap > 0 for one in refusals):
        told = " Rent fewer hours or a cheaper server."
        if not ends and any(one.limit in _WORST_CASES for one in refusals):
            told = (
                " It counts as if no one ended it. Rent a cheaper server, or let it end by itself (on_end cancel and a"
                " live watchdog)."
            )
    if any(one.change.startswith(OPERATOR) for one in refusals):
        told += " The operator changes limits outside this chat."
    return told

"""What a spending call answers, in the contract's words; `next` says what to do, and speaks to the person."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from clore_mcp.clore import OrderRow
from clore_mcp.money import coin_name, dollars, plain, shown, shown_up
from clore_mcp.rental.agreement import approved, creation_fee
from clore_mcp.rental.context import iso
from clore_mcp.rental.requests import Ask, CancelOrder, SetSpotPrice
from clore_mcp.rental.rules.limits import Refusal, cure
from clore_mcp.rental.rules.terms import Candidate, Terms
from clore_mcp.store.intents import Intent
from clore_mcp.store.orders import Lease
from clore_mcp.store.quotes import Quote

_CURES: Final = {  # by the reason of the wanted server; otherwise another server is the cure
    "bid_under_minimum": "Raise bid_usd_per_hour if the person agrees.",
    "max_rental_hours": "Ask for fewer hours, or name another server.",
    "held_by_you": "For a second machine name another server_id.",
    "not_enough_balance": "",  # Clore's refusals bring their own
    "you_already_have_spot_order": "",
}


Attempts = Sequence[dict[str, Any]]
FROZEN: Final = "The person has stopped all spending; only they can lift that, in their own terminal."
_NO: Final = "The person said no."
UNSEEN: Final = "If they saw no question at all, the operator can set CLORE_APPROVAL=outside."


def created(
    lease: Lease, candidate: Candidate, terms: Terms, attempts: Attempts, by: str | None = None
) -> dict[str, Any]:
    """An order runs; `by` says who agreed to it."""
    fee, fee_due = creation_fee(lease, terms.order_type)
    hourly = lease.price_native * candidate.usd_per_coin / 24 * (1 + candidate.fee_fraction)
    first = f"Call wait_for_order({lease.order_id}) and follow its `next`."
    if terms.to_win_usd is not None and lease.server_id == terms.candidates[0].server_id:
        first = (
            f"Another bid stood higher ({dollars(terms.to_win_usd)} per hour would have won): until this one wins it"
            f" waits and costs nothing, and its hours run. set_spot_price raises it; wait_for_order({lease.order_id})"
            " shows its state."
        )
    return {
        "status": "created",
        "order_id": lease.order_id,
        "server_id": lease.server_id,
        "attempts": list(attempts),
        "usd_per_hour": shown(hourly),
        "reserved_usd": shown_up(terms.reserved_usd(candidate)),
        "ends_at": iso(lease.ends_api_at),
        "enforced_by": terms.enforced_by or "nobody",
        "approved": approved(terms, by),
        **fee,
        "next": " ".join(filter(None, (first, fee_due, ending(terms.on_end, terms.enforced_by)))),
    }


def in_progress(quote_id: str) -> dict[str, Any]:
    """The work goes on after the answer."""
    return {
        "status": "in_progress",
        "approval_id": quote_id,
        "attempts": [],
        "next": "The order is being made and is not confirmed yet. Call again with exactly the same arguments to get"
        " the outcome; it is never ordered twice.",
    }


def being_replaced(quote: Quote) -> dict[str, Any]:
    """The order of this call gives way to another one now."""
    order_id = quote.terms["replaces_order_id"]
    return {
        "status": "in_progress",
        "approval_id": quote.id,
        "attempts": [],
        "next": f"Order {order_id} of this call is being cancelled. Until it is proven gone it may bill, and nothing"
        f" else is rented. Call create_order with exactly the same arguments and replaces_order_id {order_id}.",
    }


def declined(unasked: str | None = None) -> dict[str, Any]:
    """No yes was given; `unasked` is why the person was not asked, None where they said no."""
    said = f"{unasked} Nothing was spent."
    if unasked is None:
        said = f"{_NO} Nothing was spent. Ask the person what they would like changed. {UNSEEN}"
    return {"status": "declined", "attempts": [], "next": said}


def expired() -> dict[str, Any]:
    """The quote ran out before its yes was used."""
    return failed("The quote expired before it was used; nothing was spent. Call again for the price as it is now.")


def approval_required(quote_id: str, program: str) -> dict[str, Any]:
    """A person decides outside the chat."""
    return {
        "status": "approval_required",
        "approval_id": quote_id,
        "attempts": [],
        "next": f"{_outside(quote_id, program)} Nothing is spent before.",
    }


def cancel_declined(order_id: int, unasked: str | None = None) -> dict[str, Any]:
    """No yes was given to end an order; `unasked` as of `declined`."""
    said = f"Order {order_id} was not cancelled: it runs on and bills."
    return {
        "status": "declined",
        "order_id": order_id,
        "next": f"{_NO} {said} {UNSEEN}" if unasked is None else f"{unasked} {said}",
    }


def cancel_expired(order_id: int) -> dict[str, Any]:
    """The question about ending an order ran out: nothing was cancelled."""
    return {
        "status": "declined",
        "order_id": order_id,
        "next": f"The question expired before it was answered, so order {order_id} was not cancelled: it runs on and"
        " bills. Call cancel_order again to ask anew.",
    }


def cancel_approval_required(quote_id: str, program: str, order_id: int) -> dict[str, Any]:
    """A person decides outside the chat whether an order ends."""
    return {
        "status": "approval_required",
        "order_id": order_id,
        "approval_id": quote_id,
        "next": f"{_outside(quote_id, program)} Order {order_id} runs on and bills until then.",
    }


def bid_declined(order_id: int, unasked: str | None = None) -> dict[str, Any]:
    """No yes was given to a raise; `unasked` as of `declined`."""
    said = "The bid stays as it was."
    return {
        "status": "declined",
        "order_id": order_id,
        "next": f"{_NO} {said} {UNSEEN}" if unasked is None else f"{unasked} {said}",
    }


def bid_approval_required(quote_id: str, program: str, order_id: int) -> dict[str, Any]:
    """A person decides outside the chat about a raise."""
    return {
        "status": "approval_required",
        "order_id": order_id,
        "approval_id": quote_id,
        "next": f"{_outside(quote_id, program)} The bid stays as it is until then.",
    }


def refused(refusals: Sequence[Refusal], attempts: Attempts = (), *, ends: bool = True) -> dict[str, Any]:
    """A limit said no. `ends`: something would have ended the order at its time."""
    names = "; ".join(str(refusal) for refusal in refusals)
    return {
        "status": "refused",
        "refusals": [refusal.as_dict() for refusal in refusals],
        "attempts": list(attempts),
        "next": f"Over the limit: {names}. Nothing was spent.{cure(refusals, ends=ends)}",
    }


def frozen() -> dict[str, Any]:
    """The person has stopped all spending."""
    return {"status": "refused", "attempts": [], "next": f"{FROZEN} Nothing was spent."}


def unavailable(attempts: Attempts, why: str, most_hours: Decimal | None = None) -> dict[str, Any]:
    """None of the servers could be rented; definitely nothing was. Up to `most_hours` one of them could be."""
    first = attempts[0]["outcome"] if attempts else ""
    cure = _CURES.get(first, "Search again and name another server, or give fallback_server_ids.")
    most = {} if most_hours is None else {"most_hours": float(most_hours)}
    told = f"{why} Nothing was spent. {cure}".strip()
    return {"status": "refused", **most, "attempts": list(attempts), "next": told}


def bid_refused(order_id: int, reason: str, why: str) -> dict[str, Any]:
    """The bid stays as it was."""
    return {"status": "refused", "order_id": order_id, "reason": reason, "next": f"{why} The bid stays as it was."}


def failed(why: str, attempts: Attempts = ()) -> dict[str, Any]:
    """It did not work, and nothing runs as far as can be seen; `why` ends with what to do."""
    return {"status": "failed", "attempts": list(attempts), "next": why}


def uncertain(intent: Intent, attempts: Attempts, program: str) -> dict[str, Any]:
    """An order may run, and nobody can say."""
    return {
        "status": "uncertain",
        "server_id": intent.server_id,
        "attempts": list(attempts),
        "next": f"An order on server {intent.server_id} may be running and billing, but Clore does not show it. Its"
        " cost stays reserved and the server is blocked. list_orders looks again; ask the person to check clore.ai,"
        f" and if it stays unclear to run `{program} settle {intent.id} --order ID` or `--none`.",
    }


def blocked(intent: Intent, program: str) -> dict[str, Any]:
    """Another create for that server is unsettled: a second one could be a second bill."""
    settle = f" If it stays unclear, ask the person to run `{program} settle {intent.id} --order ID` or `--none`."
    return {
        "status": "refused",
        "server_id": intent.server_id,
        "attempts": [{"server_id": intent.server_id, "outcome": f"blocked by {intent.id}, which is {intent.state}"}],
        "next": f"An earlier create for server {intent.server_id} is not settled yet, so no second one is sent; nothing"
        " was spent now. Rent nothing before list_orders has no `unsettled`."
        + (settle if intent.state == "uncertain" else ""),
    }


def ended_at_once(
    said: str, row: OrderRow, candidate: Candidate, gone: dict[str, Any], attempts: Attempts
) -> dict[str, Any]:
    """An order that nobody wants as it was made, for the reason `said`: it was cancelled at once."""
    end = (
        "It was cancelled at once."
        if gone["status"] == "cancelled"
        else f"Its cancel is unverified, so it may bill: call cancel_order({row.id}) until it is proven, and rent"
        " nothing before."
    )
    answer: dict[str, Any] = {
        "status": "refused",
        "server_id": candidate.server_id,
        "order_id": row.id,
        "attempts": list(attempts),
        "next": f"{said} {end}",
    }
    return answer | ({"receipt": gone["receipt"]} if "receipt" in gone else {})


def above_ceiling(row: OrderRow, candidate: Candidate) -> str:
    """Why an order is not wanted: Clore made it dearer than approved."""
    price = "?" if row.price is None else plain(row.price)
    return (
        f"Clore made the order at {price} {coin_name(row.currency) or '?'} per day, above the approved"
        f" {plain(candidate.ceiling_per_day)} {candidate.coin.ticker}; search again for the price as it is now."
    )


def repeated(outcome: dict[str, Any], note: str = "") -> dict[str, Any]:
    """The same call again: its first outcome, marked."""
    told = {**outcome, "repeated": True}
    return {**told, "next": f"{note} {told.get('next', '')}".strip()} if note else told


def ended_since(outcome: dict[str, Any], lease: Lease, did: str) -> dict[str, Any]:
    """The same call again, which `did` something for an order that has ended since without its caller having heard of
    it."""
    return {
        **outcome,
        "repeated": True,
        **({"receipt": lease.receipt} if lease.receipt else {}),
        "next": f"Order {lease.order_id} has ended since this call {did}: nothing of it runs or bills any more. To rent"
        " again, call create_order.",
    }


def price_moved(server_id: int, now_usd: Decimal, ceiling_usd: Decimal) -> dict[str, Any]:
    """An attempt that was not made, because the price rose above what was approved."""
    return {
        "server_id": server_id,
        "outcome": f"price_moved: {dollars(now_usd)} per hour now, {dollars(ceiling_usd)} approved",
    }


def ending(on_end: str, enforced_by: str | None) -> str:
    """What ends an order, and what to do about it."""
    if on_end == "notify":
        return "Nothing cancels it at its end: call cancel_order when the person is done."
    if enforced_by is None:
        return "Nothing ends it by itself: call cancel_order when the person is done."
    return "Call cancel_order as soon as the person is done; it ends by itself only while its enforcer runs."


def no_yes(ask: Ask, unasked: str | None = None) -> dict[str, Any]:
    """No yes, in the words of the tool: what it would have changed goes on. `unasked` as of `declined`."""
    if isinstance(ask, CancelOrder):
        return cancel_declined(ask.order_id, unasked)
    if isinstance(ask, SetSpotPrice):
        return bid_declined(ask.order_id, unasked)
    return declined(unasked)


def lapsed(ask: Ask) -> dict[str, Any]:
    """The quote ran out, in the words of the tool."""
    if isinstance(ask, CancelOrder):
        return cancel_expired(ask.order_id)
    if isinstance(ask, SetSpotPrice):
        return bid_refused(ask.order_id, "quote_expired", "The quote expired before it was used.")
    return expired()


def replaced(ask: Ask, by: str) -> dict[str, Any]:
    """The quote gave way to a newer one, in the words of the tool."""
    return no_yes(ask, f"A newer question of this client about the same thing, {by}, took the place of this one.")


def ask_outside(ask: Ask, quote_id: str, program: str) -> dict[str, Any]:
    """A person decides outside the chat, in the words of the tool."""
    if isinstance(ask, CancelOrder):
        return cancel_approval_required(quote_id, program, ask.order_id)
    if isinstance(ask, SetSpotPrice):
        return bid_approval_required(quote_id, program, ask.order_id)
    return approval_required(quote_id, program)


def _outside(quote_id: str, program: str) -> str:
    return (
        f"Ask the person to run `{program} approve {quote_id}` in their own terminal within ten minutes, and wait until"
        " they say it is done; then call again with exactly the same arguments."
    )

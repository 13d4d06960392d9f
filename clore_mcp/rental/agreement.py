"""What a person is asked to agree to, in figures: the total, the worst case, and in words what lies between. Pure."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import Final

from clore_mcp.market.pricing import Cost
from clore_mcp.market.rates import OrderType
from clore_mcp.money import ZERO, dollars, plain, shown_up
from clore_mcp.rental.context import iso
from clore_mcp.rental.results import Agreement
from clore_mcp.rental.rules.billing import CREATION_FEE_AFTER_SECONDS
from clore_mcp.rental.rules.terms import Terms, cost_of, reservation_margin
from clore_mcp.store.orders import Lease

_USD_SHOWN: Final = Decimal("0.0001")
_MINUTES: Final = CREATION_FEE_AFTER_SECONDS // 60
FEE_DUE: Final = f"after {_MINUTES} minutes; cancel before and it is free"


def shown_parts(cost: Cost) -> tuple[Decimal, ...]:
    """Rent, fee and creation fee in USD as they are shown, so that they add up to the total that is shown."""
    return tuple(
        part.quantize(_USD_SHOWN, ROUND_CEILING) for part in (cost.rent_usd, cost.fee_usd, cost.creation_fee_usd)
    )


def asked_usd(terms: Terms) -> tuple[Decimal, bool]:
    """The total that the question names, in USD. True where the yes may buy a dearer fallback: then it is the most that
    any of the servers may cost, after one that was lost."""
    first = sum(shown_parts(cost_of(terms.candidates[0], terms.hours)), ZERO)
    most = terms.bills(lambda one: one.ceiling_usd_per_hour * terms.hours + one.creation_fee_usd)
    dearer = max(most[1:], default=ZERO) > first
    return (max(most), True) if dearer else (first, False)


def agreement(terms: Terms, by: str | None) -> Agreement:
    """What was asked and agreed to; `by` says who agreed, None where that is not known."""
    return Agreement(
        total_usd=shown_up(asked_usd(terms)[0]),
        worst_case_usd=shown_up(terms.worst_usd),
        margin=margin(terms),
        image=terms.image,
        fallbacks=tuple(one.server_id for one in terms.candidates[1:]),
        by=by or None,
    )


def margin(terms: Terms) -> str:
    """In words, what the worst case covers beyond the total of the first server."""
    worst = max(terms.candidates, key=lambda one: one.worst_usd)
    room = terms.worst_usd - cost_of(terms.candidates[0], terms.hours).total_usd
    covers = []
    if worst.server_id != terms.candidates[0].server_id:
        covers.append(f"server {worst.server_id}, the dearest that the yes may rent")
    if worst.worst_hours > terms.hours and terms.ends:
        covers.append("two minutes until its end is noticed")
    elif worst.worst_hours > terms.hours:
        covers.append(f"{plain(worst.worst_hours)} hours, because nothing ends it by itself")
    if worst.ceiling_usd_per_hour > worst.usd_per_hour:
        covers.append(f"a price of up to {dollars(worst.ceiling_usd_per_hour)} per hour")
    if (factor := reservation_margin(worst.coin)) > 1:
        covers.append(f"{plain((factor - 1) * 100)} % for a moving {worst.coin.ticker} rate")
    if terms.worst_usd > worst.worst_usd:
        covers.append(f"up to {dollars(terms.lost_usd)} for a server that can't be reached and is replaced")
    if room <= 0 or not covers:
        return "The worst case is the total."
    return f"The worst case is {dollars(room)} above the total. It covers {', '.join(covers)}."


def creation_fee(lease: Lease, order_type: OrderType) -> tuple[str | None, str]:
    """Until when a cancel saves the creation fee of a new order, and when it is charged as a sentence; nothing where
    there is none."""
    if not lease.creation_fee_usd:
        return None, ""
    told = f"The {dollars(lease.creation_fee_usd)} creation fee is charged"
    if order_type is OrderType.SPOT:  # nobody has seen when, of a bid that waits
        return None, f"{told} {_MINUTES} minutes after it first wins; cancel before and it is free."
    due = iso(lease.started_api_at + CREATION_FEE_AFTER_SECONDS)
    return due, f"{told} at {due[11:16]} UTC; cancel before and it is free."

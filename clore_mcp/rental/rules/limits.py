"""Compares the operator's caps with what is used. Pure arithmetic, for the transaction that writes the reservation.

*Per order*: the worst case of its whole life. *Per hour*: everything that runs or is on its way. *Per day*: the real
cost of the last 24 hours plus the whole of every open reservation. Orders made elsewhere count with Clore's figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from clore_mcp.money import ZERO, dollars
from clore_mcp.rental.results import Refusal
from clore_mcp.settings import Caps
from clore_mcp.store.intents import ActualCost, Reservation

_NAMED: Final = 3
_WORST_CASES: Final = ("usd_per_order", "usd_per_day")
_SMALLER_FITS: Final = (*_WORST_CASES, "usd_per_hour", "wallet")
_OPERATOR: Final = "the operator"


@dataclass(frozen=True, slots=True)
class ListedCost:
    """An order as Clore shows it: its cost per hour while active and its cost in the last 24 hours, in USD. If it is
    not `priced`, the cost is unknown and the amounts are the highest that its known prices allow."""

    order_id: int
    active: bool
    usd_per_hour: Decimal
    usd_last_day: Decimal
    priced: bool = True


_UNSEEN: Final = ListedCost(0, active=False, usd_per_hour=ZERO, usd_last_day=ZERO)


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of each cap is used. `unpriced` orders count with the highest amounts that their known prices allow."""

    usd_per_hour: Decimal
    usd_per_day: Decimal
    active_orders: int
    unpriced: tuple[ListedCost, ...] = ()


@dataclass(frozen=True, slots=True)
class AddedUsage:
    """What a spending step would add. `usd_per_order` covers the order's whole life. The rest adds to what is used
    now."""

    usd_per_hour: Decimal
    usd_per_order: Decimal
    usd_per_day: Decimal
    active_orders: int = 1


def usage(
    open_: Iterable[Reservation], released: Iterable[ActualCost | Reservation], at_clore: Iterable[ListedCost]
) -> Usage:
    """Return what is used now: for each order the larger of this state's figure and Clore's.

    So neither a lost state nor an order that outlived its record frees anything. A reservation is the worst case of an
    order made here, so it counts if Clore does not show what the order costs.
    """
    shown_by_id = {order.order_id: order for order in at_clore}
    hourly, daily, active = ZERO, ZERO, 0
    for held in open_:
        seen = shown_by_id.pop(held.order_id, _UNSEEN) if held.order_id is not None else _UNSEEN
        seen = seen if seen.priced else _UNSEEN
        hourly += max(held.usd_per_hour, seen.usd_per_hour)
        daily += max(held.worst_usd, seen.usd_last_day)
        active += 1
    paid: dict[int, Decimal] = {}
    for entry in released:
        actual = entry.actual_usd or ZERO
        if entry.order_id is None:
            daily += actual
        else:
            paid[entry.order_id] = paid.get(entry.order_id, ZERO) + actual
    for order in shown_by_id.values():  # made elsewhere, or recorded as ended but still running
        hourly += order.usd_per_hour if order.active else ZERO
        daily += max(order.usd_last_day, paid.pop(order.order_id, ZERO))
        active += order.active
    unpriced = tuple(order for order in shown_by_id.values() if not order.priced)
    return Usage(hourly, daily + sum(paid.values(), ZERO), active, unpriced)


def over_caps(caps: Caps, used: Usage, wanted: AddedUsage, sources: Mapping[str, str]) -> list[Refusal]:
    """Return a refusal for each cap that the step would exceed. `sources` says where each cap was set."""
    rows = (
        ("usd_per_order", caps.usd_per_order, ZERO, wanted.usd_per_order),
        ("usd_per_hour", caps.usd_per_hour, used.usd_per_hour, wanted.usd_per_hour),
        ("usd_per_day", caps.usd_per_day, used.usd_per_day, wanted.usd_per_day),
        ("active_orders", Decimal(caps.active_orders), Decimal(used.active_orders), Decimal(wanted.active_orders)),
    )
    return [
        Refusal(
            name,
            cap,
            taken,
            needed,
            f"{_OPERATOR}, with {_variable(name)} ({sources.get(name, 'default')} now){_unpriced(name, used)}",
        )
        for name, cap, taken, needed in rows
        if needed > 0 and taken + needed > cap
    ]


def _unpriced(limit: str, used: Usage) -> str:
    """Return which orders of unknown cost take part of a cap, and how to end them."""
    amounts = {
        order.order_id: order.usd_per_hour if limit == "usd_per_hour" else order.usd_last_day
        for order in used.unpriced
        if limit in ("usd_per_hour", "usd_per_day")
    }
    told = [f"order {order_id} counts as {dollars(usd)}" for order_id, usd in amounts.items() if usd]
    why = "the highest that its known prices allow, because its cost is unknown. To end it, use cancel_order"
    return f"; {', '.join(told[:_NAMED])}, {why}" if told else ""


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
    if any(one.change.startswith(_OPERATOR) for one in refusals):
        told += " The operator changes limits outside this chat."
    return told


def _variable(limit: str) -> str:
    return f"CLORE_MAX_{limit.upper()}"

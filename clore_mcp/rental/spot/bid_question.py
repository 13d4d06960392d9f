"""The question before a spot bid is raised. Pure; questions.py has the others."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from clore_mcp.money import dollars, plain
from clore_mcp.rental.context import iso
from clore_mcp.rental.orders.cancel import what
from clore_mcp.rental.questions import NOT_MADE_HERE, hardware, not_below_on_demand, would_not_win
from clore_mcp.rental.rules.terms import LONGEST_RENTAL_HOURS
from clore_mcp.rental.spot.bids import Bid


@dataclass(frozen=True, slots=True)
class RaiseShown:
    """What a person reads of a raise: `was` the present bid, `day` the new one in its coin, `what` the hardware as the
    host names it, `ends` when it ends, None for an order made elsewhere to which nobody gave an end, `to_win_usd` what
    an hour would cost with a bid that wins, None where this one does or nobody can say; `dear_on_demand_usd` the
    on-demand price where the bid is not below it."""

    order_id: int
    server_id: int | None
    what: str
    was: str
    usd_per_hour: Decimal
    day: str
    ends: str | None
    on_end: str
    made_here: bool
    enforced_by: str | None
    worst_usd: Decimal
    to_win_usd: Decimal | None = None
    dear_on_demand_usd: Decimal | None = None


def bid_question(quote_id: str, bid: RaiseShown) -> str:
    """The question before a spot bid is raised."""
    server = "unknown" if bid.server_id is None else bid.server_id
    return "\n".join(
        [
            f"Raise the bid of spot order {bid.order_id} to {dollars(bid.usd_per_hour)} per hour,"
            f" fees included ({bid.day})? It is {bid.was} now.",
            f"Server {server}: {hardware(bid.what) if bid.what else 'hardware unknown'}",
            *([] if bid.made_here else [NOT_MADE_HERE]),
            *([] if bid.to_win_usd is None else [would_not_win(bid.to_win_usd)]),
            *([] if bid.dear_on_demand_usd is None else [not_below_on_demand(bid.dear_on_demand_usd)]),
            f"{_bid_end(bid)} In all it could cost {dollars(bid.worst_usd)} at most.",
            f"Quote {quote_id}. Nothing changes without a yes.",
        ]
    )


def told_of(bid: Bid, to_win_usd: Decimal | None) -> RaiseShown:
    """What a person reads of a raise; `to_win_usd` per hour where the bid would not win."""
    row, end = bid.row, bid.end
    return RaiseShown(
        order_id=row.id,
        server_id=row.server_id,
        what=what(row),
        was="unknown" if row.price is None else f"{dollars(bid.usd(row.price))} per hour",
        usd_per_hour=bid.usd_per_hour,
        day=f"{plain(bid.day.value)} {bid.coin.ticker} per day",
        ends=iso(end.ends_api_at) if end else None,
        on_end=end.on_end if end else "",
        made_here=end is not None and end.made_here,
        enforced_by=bid.enforced_by,
        worst_usd=bid.worst_usd,
        to_win_usd=to_win_usd,
        dear_on_demand_usd=bid.dear_on_demand_usd,
    )


def _bid_end(bid: RaiseShown) -> str:
    if bid.ends is None:
        return f"End: NOTHING here ends it; counted for {plain(LONGEST_RENTAL_HOURS)} hours, the longest rental."
    if bid.on_end == "notify":
        return f"End: at {bid.ends} clore-mcp tells your assistant, nothing cancels it."
    if bid.enforced_by is None:
        return f"End: NOTHING ends it at {bid.ends} unless someone cancels."
    return f"End: cancelled at {bid.ends} by {bid.enforced_by}."

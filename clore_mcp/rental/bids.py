"""A spot bid in USD and in its coin, and Clore's own rules on changing one. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from clore_mcp.clore import OrderRow
from clore_mcp.errors import BidTooLow, LoweringTooSoon, Refused, StepTooLarge
from clore_mcp.money import ZERO, Coin, DayPrice, shown
from clore_mcp.rental import outcomes
from clore_mcp.rental.judging import Draw


@dataclass(frozen=True, slots=True)
class Bid:
    """A new bid for one order, in the order's coin, with what it may come to over the rest of its life.

    `hours` is how long it is to run still, for the wallet; `enforced`: the worst case ends with the lease, so someone
    must be there to end it.
    """

    row: OrderRow
    coin: Coin
    usd_per_coin: Decimal
    fee: Decimal
    day: DayPrice
    usd_per_hour: Decimal
    worst_usd: Decimal
    hours: Decimal
    enforced: bool

    @property
    def draw(self) -> Draw:
        """What it takes from the wallet until its end."""
        per_hour = self.day.value / 24 * (1 + self.fee)
        return Draw(self.coin, self.usd_per_coin, per_hour, self.hours, order_id=self.row.id)

    @property
    def raises(self) -> bool:
        """Whether the bid is above the present one."""
        return self.row.price is None or self.day.value > self.row.price

    @property
    def unchanged(self) -> bool:
        """Whether Clore has this very bid already."""
        return self.row.price is not None and self.day.value == self.row.price

    def usd(self, per_day: Decimal) -> Decimal:
        """A price per day in the order's coin as USD per hour, fee in."""
        return DayPrice(per_day, self.coin).usd_per_hour(self.usd_per_coin) * (1 + self.fee)

    def at(self, per_day: Decimal) -> Bid:
        """The same bid at another price per day; what it may come to stays the larger of the two."""
        return replace(self, day=DayPrice(per_day, self.coin), usd_per_hour=self.usd(per_day))


def refusal_of(order_id: int, bid: Bid, error: Refused) -> dict[str, Any]:
    """Clore's own rules on bids, in USD per hour and seconds where it gave numbers."""
    told = outcomes.bid_refused(order_id, error.code, f"{error.message} {error.hint}")
    if isinstance(error, StepTooLarge):
        told["reason"] = "exceeded_max_step"
        if error.max_step_per_day is not None and bid.row.price is not None:
            lowest = bid.row.price - Decimal(str(error.max_step_per_day))
            told["lowest_usd_per_hour_now"] = shown(bid.usd(max(lowest, ZERO)))
    elif isinstance(error, LoweringTooSoon):
        told["reason"] = "lowering_too_soon"
        told["retry_after_seconds"] = error.retry_after_seconds
    elif isinstance(error, BidTooLow):
        told["reason"] = "too_low_price"
    return told

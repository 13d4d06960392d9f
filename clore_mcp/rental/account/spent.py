"""How much was spent lately and how long it goes on: the sums of get_account. Pure but for the rows of one transaction.

An order counts with what Clore shows of it; one that Clore no longer lists, with the receipt that was recorded here.
Clore does not say what of it fell into a window, so it counts there as if it had cost its price all the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from clore_mcp.clore import OrderRow
from clore_mcp.market.rates import Fees, Rates
from clore_mcp.money import SECONDS_PER_DAY, ZERO
from clore_mcp.rental.rules.billing import CREATION_FEE_AFTER_SECONDS, Bill, began_of, bill, usd_per_hour
from clore_mcp.rental.spot import bid_history
from clore_mcp.rental.spot.bid_history import BidHistory
from clore_mcp.store import orders
from clore_mcp.store.database import Tx
from clore_mcp.store.reservations import End

DAY: Final = float(SECONDS_PER_DAY)
MONTH: Final = 30 * DAY
_MINUTE: Final = 60  # Clore may bill one more than an order has run


@dataclass(frozen=True, slots=True)
class OrderCost:
    """What one order has cost in USD, and when it ran (Clore's clock). `dearest_usd_per_hour` is the most that an hour
    of it has cost, None where that is not known."""

    bill: Bill
    began: float
    until: float
    dearest_usd_per_hour: Decimal | None

    def since(self, moment: float) -> Decimal:
        """What of it fell into the time from then on: at most the price for each hour of that."""
        if self.began >= moment:
            return self.bill.total_usd
        seconds = max(ZERO, Decimal(str(self.until)) - Decimal(str(moment)))
        rent = self.bill.rent_usd + self.bill.fee_usd
        if not seconds:
            return ZERO
        if self.dearest_usd_per_hour is not None:
            rent = min(rent, self.dearest_usd_per_hour * (seconds + _MINUTE) / 3600)
        charged_later = self.began + CREATION_FEE_AFTER_SECONDS >= moment
        return rent + (self.bill.creation_fee_usd if charged_later else ZERO)


def costs(
    tx: Tx, account: str, rows: Iterable[OrderRow], fees: Fees, rates: Rates, *, api_now: float
) -> dict[int, OrderCost]:
    """What each order has cost, as far as that is known."""
    found = {}
    for row in rows:
        lease = orders.get(tx, account, row.id)
        began = began_of(row, lease, api_now)
        history = bid_history.read(tx, account, row, began, won_from=began) if row.spot else None
        billed = bill(row, fees, rates, api_now=api_now, lease=lease, history=history)
        if billed.priced:
            dearest = _dearest(row, history, fees, rates)
            found[row.id] = OrderCost(billed, began, row.ended_at or api_now, dearest)
    return found


def _dearest(row: OrderRow, history: BidHistory | None, fees: Fees, rates: Rates) -> Decimal | None:
    hourly = usd_per_hour(row, fees, rates)
    if history is None or hourly is None or not row.price:
        return hourly
    return hourly * max(bid for _, bid in history.bids) / row.price


def spent_since(found: Mapping[int, OrderCost], receipts: Mapping[int, Decimal], moment: float) -> Decimal:
    """What was spent from that moment on; `receipts` are those of orders that have ended since, as recorded here."""
    unlisted = (usd for order_id, usd in receipts.items() if order_id not in found)
    return sum((cost.since(moment) for cost in found.values()), ZERO) + sum(unlisted, ZERO)


def then(
    billing: Mapping[int, Decimal | None], ends: Mapping[int, End], found: Mapping[int, OrderCost], api_now: float
) -> tuple[int, Decimal] | None:
    """When the last order that bills now ends, and what these orders have cost by then; None where one of them has no
    end that cancels it, or no known cost. `billing` says what each costs an hour."""
    if not billing or any(usd is None or order_id not in found for order_id, usd in billing.items()):
        return None
    agreed = [ends.get(order_id) for order_id in billing]
    if any(end is None or end.on_end != "cancel" for end in agreed):
        return None
    total = ZERO
    for order_id, usd in billing.items():
        left = max(ZERO, Decimal(str(ends[order_id].ends_api_at - api_now))) / 3600
        total += found[order_id].bill.total_usd + (usd or ZERO) * left
    return max(ends[order_id].ends_api_at for order_id in billing), total

"""The operator's caps, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Caps:
    """What the operator allows at most, in USD; `active_orders` is a count."""

    usd_per_hour: Decimal = Decimal(5)
    usd_per_order: Decimal = Decimal(50)
    usd_per_day: Decimal = Decimal(100)
    active_orders: int = 5

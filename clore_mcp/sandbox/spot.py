"""Spot: who bids on a server, who wins, and how far a bid may be lowered. Pure of state and of HTTP."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .catalogue import Row, coin_price


@dataclass(slots=True)
class SimulatedBid:
    """One offer on a server. `order_id` is set when it belongs to an order of an account here."""

    offer_id: int
    bid: float
    currency: str
    placed_at: float
    order_id: int | None = None


def ranked(bids: Iterable[SimulatedBid], rates: Mapping[str, float]) -> list[SimulatedBid]:
    """Highest in USD first; of equals, the earlier one."""
    return sorted(bids, key=lambda b: (-b.bid * rates[b.currency], b.placed_at, b.offer_id))


def step_error(bid: float, wanted: float, max_step_percent: float, wait_seconds: float) -> dict[str, Any] | None:
    """Why a bid can't be lowered to `wanted` now, as the API's body tells it; None if it can. Raising is free.

    The largest step is a percentage of the present bid: the real formula is unknown.
    """
    if wanted >= bid:
        return None
    if wait_seconds > 0:
        return {"error": "can_lower_every_600_seconds", "time_to_lowering": wait_seconds}
    max_step = bid * max_step_percent / 100
    if bid - wanted > max_step * (1 + 1e-9):
        return {"error": "exceeded_max_step", "max_step": max_step}
    return None


def seeded_rivals(rng: random.Random, row: Row, rates: dict[str, float], first_id: int) -> list[SimulatedBid]:
    """The offers that strangers already hold on a server: none on most."""
    if rng.random() >= 0.12:
        return []
    minimum: dict[str, float] = row["price"]["spot"]
    bids = []
    for place in range(rng.randint(1, 3)):
        currency = rng.choice([coin for coin in row["allowed_coins"] if coin in minimum] or ["bitcoin"])
        usd = minimum.get(currency, 0.0) * rates[currency] * rng.uniform(1.0, 1.4)
        bid = max(coin_price(currency, usd, rates), minimum.get(currency, 0.0))
        bids.append(SimulatedBid(first_id + place, bid, currency, float(place)))
    return bids

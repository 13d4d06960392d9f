"""Spot bids: who wins a server, and how far a bid may be lowered. The functions hold no state and know no HTTP."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .catalogue import Row, coin_price


@dataclass(slots=True)
class SimulatedBid:
    """One bid on a server. `order_id` is set if it belongs to an order of an account here."""

    offer_id: int
    bid: float
    currency: str
    placed_at: float
    order_id: int | None = None


def ranked(bids: Iterable[SimulatedBid], rates: Mapping[str, float]) -> list[SimulatedBid]:
    """Return the bids, highest in USD first. Of equal bids, the earlier one comes first."""
    return sorted(bids, key=lambda b: (-b.bid * rates[b.currency], b.placed_at, b.offer_id))


def step_error(bid: float, wanted: float, max_step_percent: float, wait_seconds: float) -> dict[str, Any] | None:
    """Return why a bid can't be lowered to `wanted` now, as in the API's body, or None if it can. Bids may always be
    raised.

    The largest step is a percentage of the present bid, because the real formula is unknown.
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
    """Return the bids that strangers already hold on a server. Most servers have none."""
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

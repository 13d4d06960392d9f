"""The spot market of one server in USD per hour: who bids what, the least one may bid, and what it takes to win.

Bids stand in different coins and compare in USD by the rates that came with them. All USD figures have the renter's
spot fee in. `min_usd_per_hour` and `to_win_usd_per_hour` are rounded up, so that turned back into a coin and cut to its
precision they are still enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from types import MappingProxyType
from typing import Final

from clore_mcp.clore.models import Offer, SpotBook
from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import SANE_USD_PER_HOUR
from clore_mcp.market.rates import Fees, OrderType, Rates, coin_rates
from clore_mcp.money import HOURS_PER_DAY, Coin, DayPrice

_STEP_USD: Final = Decimal("0.0001")  # per hour; the grid on which replies show prices
_SANE_BID: Final = (Decimal("1e-12"), Decimal("1e12"))  # native per day


@dataclass(frozen=True, slots=True)
class SpotOffer:
    """One bid. `active` is the one that runs; `mine` is this account's."""

    day: DayPrice
    usd_per_hour: Decimal
    active: bool
    mine: bool
    offer_id: int | None = None


@dataclass(frozen=True, slots=True)
class SpotView:
    """The spot market of a server, offers from the strongest down. `unread` bids had no amount or rate to compare."""

    offers: tuple[SpotOffer, ...]
    minimum: Mapping[Coin, DayPrice]
    min_usd_per_hour: Decimal | None
    to_win: DayPrice | None
    to_win_usd_per_hour: Decimal | None
    our_rank: int | None  # 1 is the strongest; rivals with an equal bid count as stronger unless ours runs
    rates: Rates
    unread: int = 0
    online: bool | None = None


def read_book(book: SpotBook, listing: Listing | None, fees: Fees, market: Rates) -> SpotView:
    """What the book says about a bid in one of the coins that the host accepts."""
    rates = Rates(MappingProxyType({**market.usd, **coin_rates(book.rates), Coin.USD: Decimal(1)}))
    read = [_offer(offer, fees, rates) for offer in book.offers]
    offers = tuple(
        sorted((offer for offer in read if offer), key=lambda offer: (not offer.active, -offer.usd_per_hour))
    )
    minimum = _minimum(book, listing)
    floors = [usd for day in minimum.values() if (usd := _asked(_biddable(day), fees, rates)) is not None]
    to_win = _to_win(offers, minimum, fees, rates)
    return SpotView(
        offers=offers,
        minimum=MappingProxyType(minimum),
        min_usd_per_hour=min(floors, default=None),
        to_win=to_win,
        to_win_usd_per_hour=_asked(to_win, fees, rates) if to_win else None,
        our_rank=_rank(offers),
        rates=rates,
        unread=len(read) - len(offers),
        online=book.online,
    )


def _offer(offer: Offer, fees: Fees, rates: Rates) -> SpotOffer | None:
    coin = Coin.parse(offer.currency) if offer.currency else None
    if coin is None or offer.bid is None or not _SANE_BID[0] <= offer.bid <= _SANE_BID[1]:
        return None
    day = DayPrice(+offer.bid, coin)  # + rounds to 28 digits
    usd = _usd(day, fees, rates)
    return None if usd is None else SpotOffer(day, usd, bool(offer.active), bool(offer.mine), offer.id)


def _minimum(book: SpotBook, listing: Listing | None) -> dict[Coin, DayPrice]:
    listed = listing.spot if listing else {}
    accepted = listing.allowed_coins if listing else frozenset(Coin)
    found: dict[Coin, DayPrice] = {}
    for coin in Coin:
        least = book.minimum.get(coin.value)
        if least is None or not _SANE_BID[0] <= least <= _SANE_BID[1]:
            least = listed.get(coin)
        if coin in accepted and least is not None:
            found[coin] = DayPrice(+least, coin)
    return found


def _to_win(
    offers: tuple[SpotOffer, ...], minimum: Mapping[Coin, DayPrice], fees: Fees, rates: Rates
) -> DayPrice | None:
    """The cheapest bid, in any coin with a minimum, that is above every rival's and not under the minimum."""
    rivals = [offer.day.value * rates.usd[offer.day.coin] for offer in offers if not offer.mine]  # USD per day
    best = max(rivals, default=None)
    bids: list[tuple[Decimal, DayPrice]] = []
    for coin, least in minimum.items():
        rate = rates.usd_per(coin)
        if rate is None:
            continue
        bid = _biddable(least)
        if best is not None:
            above = DayPrice(best / rate, coin).floored().value + _unit(coin)
            bid = DayPrice(max(bid.value, above), coin)
        if (usd := _usd(bid, fees, rates)) is not None:
            bids.append((usd, bid))
    return min(bids, key=lambda found: found[0])[1] if bids else None


def _rank(offers: tuple[SpotOffer, ...]) -> int | None:
    ours = [offer for offer in offers if offer.mine]
    if not ours:
        return None
    if any(offer.active for offer in ours):
        return 1
    best = max(offer.usd_per_hour for offer in ours)
    return 1 + sum(not offer.mine and (offer.active or offer.usd_per_hour >= best) for offer in offers)


def _usd(day: DayPrice, fees: Fees, rates: Rates) -> Decimal | None:
    rate = rates.usd_per(day.coin)
    if rate is None:
        return None
    usd = day.usd_per_hour(rate) * (1 + fees.fraction(OrderType.SPOT, day.coin))
    return usd if usd <= SANE_USD_PER_HOUR[1] else None


def _asked(day: DayPrice, fees: Fees, rates: Rates) -> Decimal | None:
    """The lowest USD per hour on our grid that still comes to this bid when it is turned back and cut."""
    usd, rate = _usd(day, fees, rates), rates.usd_per(day.coin)
    if usd is None or rate is None:
        return None
    asked = usd.quantize(_STEP_USD, ROUND_CEILING)
    with_fee = 1 + fees.fraction(OrderType.SPOT, day.coin)
    back = DayPrice(asked * HOURS_PER_DAY / rate / with_fee, day.coin).floored()
    return asked if back.value >= day.value else asked + _STEP_USD


def _biddable(day: DayPrice) -> DayPrice:
    return DayPrice(day.value.quantize(_unit(day.coin), ROUND_CEILING), day.coin)


def _unit(coin: Coin) -> Decimal:
    return Decimal(1).scaleb(-coin.precision)

"""The spot market of one server in USD per hour: the bids, the lowest one allowed, and the one that would win.

Bids are in different coins and are compared in USD at the rates that came with them. All USD figures include the
renter's spot fee. `min_usd_per_hour` and `to_win_usd_per_hour` are rounded up, so that they are still enough after
conversion to a coin and its precision, at the rates of the book and of the market.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from types import MappingProxyType
from typing import Final

from clore_mcp.clore.models import Offer, SpotBook
from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import SANE_USD_PER_HOUR, Fees, OrderType, Rates, coin_rates
from clore_mcp.money import HOURS_PER_DAY, Coin, DayPrice, up_to_coin

_STEP_USD: Final = Decimal("0.0001")  # per hour; the grid on which replies show prices
_SANE_BID: Final = (Decimal("1e-12"), Decimal("1e12"))  # native per day


@dataclass(frozen=True, slots=True)
class SpotOffer:
    """One bid. `active`: it is the one that runs. `mine`: it is this account's."""

    day: DayPrice
    usd_per_hour: Decimal
    active: bool
    mine: bool


@dataclass(frozen=True, slots=True)
class SpotView:
    """The spot market of a server, offers from the strongest down. Bids without an amount or a rate are left out.

    `winning` is the lowest bid in each coin that is above every rival's. `to_win` is the cheapest of these.
    """

    offers: tuple[SpotOffer, ...]
    minimum: Mapping[Coin, DayPrice]
    min_usd_per_hour: Decimal | None
    winning: Mapping[Coin, DayPrice]
    to_win: DayPrice | None
    to_win_usd_per_hour: Decimal | None
    our_rank: int | None  # 1 is the strongest; rivals with an equal bid count as stronger unless ours runs
    rates: Rates

    def beaten(self, bid: DayPrice) -> bool:
        """Return whether a rival is known to be at or above a bid. Of equal bids the earlier one wins."""
        rate = self.rates.usd_per(bid.coin)
        rivals = (offer.day for offer in self.offers if not offer.mine)
        return rate is not None and any(day.value * self.rates.usd[day.coin] >= bid.value * rate for day in rivals)


def lowest_asked(day: DayPrice, usd_per_coin: Decimal, fee: Decimal) -> Decimal:
    """Return the lowest USD per hour on the grid of our replies, including the fee, that is still at least this price
    when it is converted back into the coin and cut to its precision."""
    least = DayPrice(up_to_coin(day.value, day.coin), day.coin)
    asked = (least.usd_per_hour(usd_per_coin) * (1 + fee)).quantize(_STEP_USD, ROUND_CEILING)
    back = DayPrice(asked * HOURS_PER_DAY / usd_per_coin / (1 + fee), day.coin).floored()
    return asked if back.value >= least.value else asked + _STEP_USD


def read_book(book: SpotBook, listing: Listing | None, fees: Fees, market: Rates) -> SpotView:
    """Return the spot market as seen by a bid in one of the coins that the host accepts."""
    rates = Rates(MappingProxyType({**market.usd, **coin_rates(book.rates), Coin.USD: Decimal(1)}))
    known = (found for offer in book.offers if (found := _offer(offer, fees, rates)))
    offers = tuple(sorted(known, key=lambda offer: (not offer.active, -offer.usd_per_hour)))
    minimum = _minimum(book, listing)
    floors = [usd for day in minimum.values() if (usd := _asked(day, fees, rates, market)) is not None]
    winning = _winning(offers, minimum, fees, rates)
    to_win = min(winning.values(), key=lambda day: day.value * rates.usd[day.coin], default=None)
    return SpotView(
        offers=offers,
        minimum=MappingProxyType(minimum),
        min_usd_per_hour=min(floors, default=None),
        winning=MappingProxyType(winning),
        to_win=to_win,
        to_win_usd_per_hour=_asked(to_win, fees, rates, market) if to_win else None,
        our_rank=_rank(offers),
        rates=rates,
    )


def _offer(offer: Offer, fees: Fees, rates: Rates) -> SpotOffer | None:
    coin = Coin.parse(offer.currency) if offer.currency else None
    if coin is None or offer.bid is None or not _SANE_BID[0] <= offer.bid <= _SANE_BID[1]:
        return None
    day = DayPrice(+offer.bid, coin)  # + rounds to 28 digits
    usd = _usd(day, fees, rates)
    return None if usd is None else SpotOffer(day, usd, bool(offer.active), bool(offer.mine))


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


def _winning(
    offers: tuple[SpotOffer, ...], minimum: Mapping[Coin, DayPrice], fees: Fees, rates: Rates
) -> dict[Coin, DayPrice]:
    """Return, for every coin with a minimum, the lowest bid that is above each rival's and not below the minimum."""
    rivals = [offer.day.value * rates.usd[offer.day.coin] for offer in offers if not offer.mine]  # USD per day
    best = max(rivals, default=None)
    bids: dict[Coin, DayPrice] = {}
    for coin, least in minimum.items():
        rate = rates.usd_per(coin)
        if rate is None:
            continue
        bid = DayPrice(up_to_coin(least.value, coin), coin)
        if best is not None:
            above = DayPrice(best / rate, coin).floored().value + Decimal(1).scaleb(-coin.precision)
            bid = DayPrice(max(bid.value, above), coin)
        if _usd(bid, fees, rates) is not None:
            bids[coin] = bid
    return bids


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


def _asked(day: DayPrice, fees: Fees, *tables: Rates) -> Decimal | None:
    """Return the USD per hour to ask for, so that it reaches this bid at the rate of each table that has the coin."""
    known = [rate for rates in tables if (rate := rates.usd_per(day.coin)) is not None]
    if not known or _usd(day, fees, tables[0]) is None:
        return None
    return max(lowest_asked(day, rate, fees.fraction(OrderType.SPOT, day.coin)) for rate in known)

"""Made-up wishes, listings and fees, for the pure parts of renting."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from clore_mcp.clore.models import OrderRow, read_rows
from clore_mcp.market.listing import Listing, read_listing
from clore_mcp.market.pricing import Fees, OrderType, Rates, price_of
from clore_mcp.money import Coin, DayPrice
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.terms import Candidate, Terms, Unfit, candidate_of
from tests.market.rows import row

IMAGE = "cloreai/jupyter:ubuntu24.04-v2"
RATES = Rates({Coin.USD: Decimal(1), Coin.CLORE: Decimal("0.00125"), Coin.BTC: Decimal(64_000)})


def fees(fraction: str = "0.05", creation_usd: str = "0.1") -> Fees:
    """The same fee for every kind of order and coin; the creation fee is worth the same in each."""
    kinds = [(kind, coin) for kind in OrderType for coin in Coin]
    return Fees(
        {kind: Decimal(fraction) for kind in kinds},
        {kind: Decimal(creation_usd) / RATES.usd[kind[1]] for kind in kinds},
        assumed=False,
    )


def ask(**changes: Any) -> CreateOrder:
    return CreateOrder.model_validate({"server_id": 1, "image": IMAGE, "hours": 2, **changes})


def listing(coin: Coin = Coin.USD, per_day: str = "9.6", **changes: Any) -> Listing:
    prices = {"on_demand": {coin.value: Decimal(per_day)}, "spot": {coin.value: Decimal(per_day) / 2}}
    return read_listing(row(price=prices, allowed_coins=[coin.value], **changes))


def fit(
    wish: CreateOrder, place: Listing, table: Fees, *, enforced: bool = True, bid: DayPrice | None = None
) -> Candidate | Unfit:
    return candidate_of(wish, place, table, RATES, wallet=None, preferred=None, spot_bid=bid, enforced=enforced)


def candidate(wish: CreateOrder, place: Listing, table: Fees, **more: Any) -> Candidate:
    found = fit(wish, place, table, **more)
    assert isinstance(found, Candidate), found
    return found


def terms(
    wish: CreateOrder,
    *candidates: Candidate,
    enforced_by: str | None = None,
    assumed: bool = False,
    to_win: Decimal | None = None,
) -> Terms:
    return Terms(
        candidates=candidates,
        hours=wish.exact_hours,
        order_type=OrderType(wish.order_type),
        on_end=wish.on_end,
        image=wish.image,
        enforced_by=enforced_by,
        fees_assumed=assumed,
        to_win_usd=to_win,
    )


def sane(place: Listing, table: Fees, coin: Coin, per_day: Decimal) -> bool:
    return not isinstance(price_of(DayPrice(per_day, coin), OrderType.ON_DEMAND, table, RATES), str)


def order(order_id: int = 1, **changes: Any) -> OrderRow:
    wire = {"id": order_id, "si": 5, "currency": "USD-Blockchain", "price": 24, "spend": 1, "ct": 1_800_000_000,
            "mrl": 604_800, **changes}  # fmt: skip
    (only,) = read_rows(OrderRow, [wire]).rows
    return only

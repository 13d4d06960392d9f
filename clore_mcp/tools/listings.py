"""Fills the answers of search_servers and get_server from the market.

It is separate from the answer models because it imports the whole market, which listing the tools does not need.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, TypeVar

from clore_mcp.errors import StateUnavailable
from clore_mcp.market.concerns import concerns
from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import OrderType, Priced, choose, prices_of
from clore_mcp.market.query import Query, SortBy
from clore_mcp.market.search import FoundServer, Result, find, usd_per_hour
from clore_mcp.market.spotbook import SpotView
from clore_mcp.market.summary import usual_prices
from clore_mcp.money import Coin, shown, shown_up
from clore_mcp.text import clean
from clore_mcp.tools.market import SearchServers
from clore_mcp.tools.market_answers import (
    CoinPrice,
    SearchAnswer,
    ServerAnswer,
    ShownOffer,
    ShownServer,
    Spot,
)
from clore_mcp.tools.prices import medians
from clore_mcp.wiring import Services

S = TypeVar("S", bound=ShownServer)

_CPU_SHOWN: Final = 24
_CPU_NOISE: Final = re.compile(r"\((?:R|TM)\)|\bCPU\b|\bProcessor\b", re.IGNORECASE)
_OFFERS_SHOWN: Final = 10


async def found(services: Services, request: SearchServers) -> SearchAnswer:
    """Return the answer of search_servers."""
    readings = services.context.readings
    snapshot = await readings.snapshot()
    fees = await readings.fees()
    balances = await readings.balances_if_known()
    query = _query(request, services.settings.currency)
    result = await find(snapshot, query, fees, balances, services.context.clock())
    failed = await services.hosts.marked() if balances is not None else {}  # else this would send Clore another request
    return SearchAnswer(
        servers=[_row(one, failed.get(one.listing.server_id)) for one in result.matches],
        total_matches=result.total_matches,
        next_cursor=result.next_cursor,
        snapshot_age_seconds=round(result.snapshot_age_seconds, 1),
        excluded=dict(result.excluded) or None,
        suggestions=list(result.suggestions) or None,
        typical_usd_per_gpu_hour=await _typical(services, result),
        stale=result.stale_because,
        fees_assumed=fees.assumed,
    )


async def in_full(services: Services, server_id: int) -> ServerAnswer:
    """Return the answer of get_server. Raises NotFound."""
    readings = services.context.readings
    snapshot = await readings.snapshot()
    listing = snapshot.server(server_id)
    fees, balances = await readings.fees(), await readings.balances_if_known()
    kind, rates = OrderType.ON_DEMAND, snapshot.rates
    priced = choose(listing, kind, fees, rates, wallet=balances, preferred=services.settings.currency)
    every = [one for one in prices_of(listing, kind, fees, rates).values() if isinstance(one, Priced)]
    view = await readings.spot_view_if_known(server_id)
    bid = view.min_usd_per_hour if view else usd_per_hour(choose(listing, OrderType.SPOT, fees, rates))
    usual = usual_prices(snapshot, fees, {listing.gpu}).get(listing.gpu)
    return _server(
        ServerAnswer,
        listing,
        priced if isinstance(priced, Priced) else None,
        prices=[
            CoinPrice(
                currency=one.coin.ticker, coin_per_day=float(one.day.value), usd_per_hour=shown_up(one.usd_per_hour)
            )
            for one in every
        ],
        spot=_spot(view) if view else None if bid is None else Spot(min_usd_per_hour=shown_up(bid)),
        concerns=list(concerns(listing, usd_per_hour(priced), bid, usual)) or None,
        gpu_mix=dict(listing.gpu_mix) if len(listing.gpu_mix) > 1 else None,
        cpu_threads=listing.cpu_threads,
        board=listing.board or None,
        disk_model=listing.disk_model or None,
        disk_mb_per_second=listing.disk_mb_per_second,
        pcie=_pcie(listing),
        failed_here=None if balances is None else (await services.hosts.marked()).get(server_id),
        snapshot_age_seconds=round(snapshot.age_seconds(services.context.clock()), 1),
    )


_PARSED: Final[dict[str, Callable[[Any], Any]]] = {
    "countries": tuple,
    "exclude_countries": tuple,
    "order_type": OrderType,
    "sort_by": SortBy,
    "max_usd_per_hour": lambda usd: Decimal(str(usd)),
    "currency": Coin,
}


def _query(request: SearchServers, preferred: Coin | None) -> Query:
    given = request.model_dump(exclude_none=True)
    parsed = {name: _PARSED[name](value) if name in _PARSED else value for name, value in given.items()}
    return Query(**parsed, preferred=preferred)


async def _typical(services: Services, result: Result) -> dict[str, float] | None:
    """Return the model's price quartiles now, with its past medians if they are recorded. A search does not fail
    because of an unreadable record."""
    found = result.typical_usd_per_gpu_hour
    if found is None:
        return None
    now = {"low": shown(found.low), "median": shown(found.median), "high": shown(found.high)}
    if len(result.gpu_models) != 1:
        return now
    try:
        return now | await medians(services, result.gpu_models[0])
    except StateUnavailable:
        return now


def _row(found: FoundServer, failed_here: int | None) -> ShownServer:
    spot = found.spot_min_usd_per_hour
    return _server(
        ShownServer,
        found.listing,
        found.priced,
        spot_min_usd_per_hour=None if spot is None else shown_up(spot),
        failed_here=failed_here,
        concerns=list(found.concerns) or None,
    )


def _server(kind: type[S], listing: Listing, priced: Priced | None, **more: Any) -> S:
    """Return an answer of this kind, with the fields that all server answers share and those in `more`."""
    return kind(
        server_id=listing.server_id,
        gpu=listing.gpu,
        gpu_count=listing.gpu_count,
        vram_gb=listing.vram_gb,
        usd_per_hour=shown_up(priced.usd_per_hour) if priced else None,
        usd_per_gpu_hour=shown_up(priced.usd_per_hour / max(1, listing.gpu_count)) if priced else None,
        currency=priced.coin.ticker if priced else None,
        country=listing.country,
        reliability=_short(listing.reliability, 3),
        rating=_short(listing.rating, 2) if listing.rating_count else None,
        rating_count=listing.rating_count or None,
        ram_gb=_short(listing.ram_gb, 0),
        disk_gb=_short(listing.disk_gb, 0),
        cpu=clean(_CPU_NOISE.sub("", listing.cpu), _CPU_SHOWN) or None,
        download_mbps=_short(listing.download_mbps, 0),
        upload_mbps=_short(listing.upload_mbps, 0),
        cuda=listing.cuda or None,
        max_rental_hours=listing.max_rental_hours,
        rented=listing.rented,
        partly_rented=listing.partial,
        **more,
    )


def _short(value: float | None, digits: int) -> float | None:
    if value is None:
        return None
    rounded = round(value, digits)
    return int(rounded) if rounded == int(rounded) else rounded


def _pcie(listing: Listing) -> str | None:
    if listing.pcie_revision is None or listing.pcie_width is None:
        return None
    return f"{listing.pcie_revision:g}.0 x{listing.pcie_width:g}"


def _spot(view: SpotView) -> Spot:
    listed = view.offers[:_OFFERS_SHOWN]
    listed += tuple(one for one in view.offers[_OFFERS_SHOWN:] if one.mine)
    return Spot(
        min_usd_per_hour=None if view.min_usd_per_hour is None else shown(view.min_usd_per_hour),
        to_win_usd_per_hour=None if view.to_win_usd_per_hour is None else shown(view.to_win_usd_per_hour),
        our_rank=view.our_rank,
        offers=[ShownOffer(usd_per_hour=shown(one.usd_per_hour), active=one.active, mine=one.mine) for one in listed],
    )

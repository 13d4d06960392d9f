"""Past prices, as price_history and the resource of the GPU models show them.

It is separate from the answer models because it imports the whole market, which listing the tools does not need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from clore_mcp.errors import NotFound
from clore_mcp.market import history
from clore_mcp.market.history import SECONDS_PER_HOUR, Past, RecordedPrices
from clore_mcp.market.pricing import OrderType
from clore_mcp.market.summary import Quartiles
from clore_mcp.market.wish import Unknown, resolve
from clore_mcp.money import shown, shown_up
from clore_mcp.rental.context import iso
from clore_mcp.store.prices import PriceRow
from clore_mcp.wiring import Services

_MODELS_MOST: Final = 4
_BUCKETS_MOST: Final = 14  # of all models together; a bucket costs a model about forty tokens
WEEK_HOURS: Final = 168
_MONTH_HOURS: Final = 720


async def told(services: Services, gpu: str, hours: int, order_type: str, *, ceiling: float | None) -> dict[str, Any]:
    """Return the answer of price_history. Raises ArgumentInvalid and NotFound."""
    kind, most = OrderType(order_type), None if ceiling is None else Decimal(str(ceiling))
    snapshot, fees = await services.context.readings.snapshot(), await services.context.readings.fees()
    wish = resolve(gpu, snapshot.models)
    if isinstance(wish, Unknown):
        near = f" Did you mean {', '.join(wish.nearest)}?" if wish.nearest else ""
        raise NotFound(f"No GPU model is known as {wish.query!r}.{near}", hint="search_servers lists what there is.")
    now = await asyncio.to_thread(history.models_now, snapshot, fees, kind)
    recorded = await services.prices.read(hours, kind, sorted(wish.models))
    known = [model for model in wish.models if model in now or model in recorded.rows]
    found = sorted(known, key=lambda model: (-(now[model].all.servers if model in now else 0), model))
    size = history.bucket_hours(hours, max(1, _BUCKETS_MOST // max(1, min(_MODELS_MOST, len(found)))))
    return {
        "models": [_model(recorded.past(model, now.get(model)), model, size, most) for model in found[:_MODELS_MOST]],
        "bucket_hours": size,
        "hours_recorded": recorded.hours,
        "recorded_since": None if recorded.first is None else iso(recorded.first),
        "next": _next(recorded, hours, len(found) - _MODELS_MOST),
    }


def week(past: Past) -> dict[str, Any] | None:
    """Return the week's figures for a model's line in the list of all models, or None if nothing is recorded."""
    return {name: value for name, value in _standing(past).items() if value is not None} or None


async def medians(services: Services, model: str) -> dict[str, float]:
    """Return a model's medians of the last 7 and 30 days, each only if enough hours are recorded."""
    recorded = await services.prices.read(_MONTH_HOURS, OrderType.ON_DEMAND, [model])
    told = {}
    for days, least in ((7, 24), (30, WEEK_HOURS)):
        since = int(services.context.clock() // SECONDS_PER_HOUR) - days * 24
        rows = [row for row in recorded.rows.get(model, ()) if row.hour > since]
        usual = history.past(rows, (), None).usual
        if usual is not None and len(rows) >= least:
            told[f"median_{days}_days"] = shown(usual.median)
    return told


def _model(past: Past, model: str, size: int, ceiling: Decimal | None) -> dict[str, Any]:
    now = past.now
    free = now.cheapest_free if now else None
    return {
        "gpu": model,
        "now": None if now is None else {**_quartiles(now.all), **_priced(cheapest_free=free)},
        **_standing(past),
        "ceiling_met_percent": None if ceiling is None else past.met_percent(ceiling),
        "buckets": [_bucket(row) for row in history.buckets(past.rows, size)],
    }


def _standing(past: Past) -> dict[str, Any]:
    lowest = past.lowest
    return {
        "usual": _quartiles(past.usual) if past.usual else None,
        "cheapest_free": None
        if past.cheapest is None or lowest is None
        else {**_quartiles(past.cheapest), **_priced(lowest=lowest.cheapest)},
        "dearer_than_now_percent": past.dearer_percent,
    }


def _quartiles(found: Quartiles) -> dict[str, float]:
    return {"low": shown(found.low), "median": shown(found.median), "high": shown(found.high)}


def _bucket(row: PriceRow) -> dict[str, Any]:
    prices = {"low": shown(row.low), "median": shown(row.median), "high": shown(row.high)}
    return {"from": iso(row.hour * SECONDS_PER_HOUR), **prices, **_priced(cheapest_free=row.cheapest)}


def _priced(**prices: Decimal | None) -> Mapping[str, float]:
    return {name: shown_up(price) for name, price in prices.items() if price is not None}


def _next(recorded: RecordedPrices, hours: int, more: int) -> str:
    gaps, told = max(0, hours - recorded.hours), []
    if recorded.first is None:
        told.append("Prices are recorded from now on, while a server or the watchdog reads the market.")
    elif gaps:
        told.append(f"Of the last {hours} hours {gaps} were not recorded and are left out.")
    if more > 0:
        told.append(f"And {more} more models: name one of them.")
    return " ".join(told)

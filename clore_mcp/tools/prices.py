"""Past prices, as price_history and the resource of the GPU models show them.

It is separate from the answer models because it imports the whole market, which listing the tools does not need.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Final

from clore_mcp.errors import NotFound
from clore_mcp.market import history
from clore_mcp.market.history import SECONDS_PER_HOUR, Past, RecordedPrices
from clore_mcp.market.pricing import OrderType
from clore_mcp.market.summary import Quartiles
from clore_mcp.market.wish import Unknown, resolve
from clore_mcp.money import shown, shown_up
from clore_mcp.store.prices import PriceRow
from clore_mcp.text import iso
from clore_mcp.tools.market_answers import ModelPrices, PriceRange, PricesAnswer
from clore_mcp.wiring import Services

_MODELS_MOST: Final = 4
_BUCKETS_MOST: Final = 14  # for all models together; one bucket is about forty tokens
WEEK_HOURS: Final = 168
_MONTH_HOURS: Final = 720


async def told(services: Services, gpu: str, hours: int, order_type: str, *, ceiling: float | None) -> PricesAnswer:
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
    return PricesAnswer(
        models=[
            model_prices(recorded.past(model, now.get(model)), model, size=size, ceiling=most)
            for model in found[:_MODELS_MOST]
        ],
        bucket_hours=size,
        hours_recorded=recorded.hours,
        recorded_since=None if recorded.first is None else iso(recorded.first),
        next=_next(recorded, hours, len(found) - _MODELS_MOST),
    )


async def medians(services: Services, model: str) -> dict[str, float]:
    """Return a model's medians of the last 7 and 30 days, each only if enough hours are recorded."""
    recorded = await services.prices.read(_MONTH_HOURS, OrderType.ON_DEMAND, [model])
    told = {}
    for days, least in ((7, 24), (30, WEEK_HOURS)):
        since = int(services.context.clock() // SECONDS_PER_HOUR) - days * 24
        rows = [row for row in recorded.rows.get(model, ()) if row.hour > since]
        usual = Past(tuple(rows), 0, None).usual
        if usual is not None and len(rows) >= least:
            told[f"median_{days}_days"] = shown(usual.median)
    return told


def model_prices(past: Past, model: str, *, size: int | None = None, ceiling: Decimal | None = None) -> ModelPrices:
    """Return the present and past prices of one GPU of the model. With `size`, also in buckets of that many hours."""
    now, lowest = past.now, past.lowest
    return ModelPrices(
        gpu=model,
        now=_range(now.all, free=now.cheapest_free) if now else None,
        usual=_range(past.usual) if past.usual else None,
        cheapest_free=_range(past.cheapest, lowest=lowest.cheapest) if past.cheapest and lowest else None,
        dearer_than_now_percent=past.dearer_percent,
        ceiling_met_percent=None if ceiling is None else past.met_percent(ceiling),
        buckets=[
            _range(row, free=row.cheapest, begins=row.hour * SECONDS_PER_HOUR)
            for row in (history.buckets(past.rows, size) if size else ())
        ],
    )


def _range(
    found: Quartiles | PriceRow,
    *,
    free: Decimal | None = None,
    lowest: Decimal | None = None,
    begins: int | None = None,
) -> PriceRange:
    return PriceRange(
        from_=None if begins is None else iso(begins),
        low=shown(found.low),
        median=shown(found.median),
        high=shown(found.high),
        cheapest_free=None if free is None else shown_up(free),
        lowest=None if lowest is None else shown_up(lowest),
    )


def _next(recorded: RecordedPrices, hours: int, more: int) -> str:
    gaps, told = max(0, hours - recorded.hours), []
    if recorded.first is None:
        told.append("Prices are recorded from now on, while a server or the watchdog reads the market.")
    elif gaps:
        told.append(f"Of the last {hours} hours {gaps} were not recorded and are left out.")
    if more > 0:
        told.append(f"And {more} more models: name one of them.")
    return " ".join(told)

"""The prices page: a chart of a model's week or month, the present price, and how often a ceiling was met."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from markupsafe import Markup

from clore_mcp.market import history
from clore_mcp.market.history import SECONDS_PER_HOUR, Past
from clore_mcp.market.pricing import OrderType
from clore_mcp.money import ZERO
from clore_mcp.page.charts import price_chart
from clore_mcp.store import Watch, watches
from clore_mcp.store.prices import PriceRow
from clore_mcp.text import clean
from clore_mcp.wiring import Services

_SPANS: Final = {"week": (168, 1), "month": (720, 24)}  # hours, and hours per bucket


@dataclass(frozen=True, slots=True)
class Choice:
    """What the page shows. `ceiling` is what the person wrote."""

    gpu: str
    order_type: str
    span: str
    ceiling: str


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A price per GPU, its source, and the percentage of recorded hours in which it was met."""

    name: str
    usd: Decimal
    met_percent: int | None


@dataclass(frozen=True, slots=True)
class PricePage:
    """One model's prices over a span, and the other choices."""

    choice: Choice
    models: Sequence[str]
    past: Past | None
    rows: Sequence[PriceRow]
    chart: Markup
    ceilings: Sequence[Ceiling]
    hours: int
    hours_recorded: int
    since: float | None


async def price_page(services: Services, asked: Mapping[str, str]) -> PricePage:
    """Return the page for a form's values: gpu, type, span and ceiling. Invalid ones are ignored. Raises Failure."""
    kind = OrderType.SPOT if asked.get("type") == "spot" else OrderType.ON_DEMAND
    span = asked.get("span", "")
    if span not in _SPANS:
        span = "week"
    hours, size = _SPANS[span]
    readings = services.context.readings
    snapshot, fees = await readings.snapshot(), await readings.fees()
    now = await asyncio.to_thread(history.models_now, snapshot, fees, kind)
    recorded = await services.prices.read(hours, kind)
    models = sorted({*now, *recorded.rows})
    waiting = await _watches(services)
    wanted = next((model for watch in waiting for model in sorted(watch.models) if model in now), "")
    most = max(now, key=lambda model: now[model].free, default="")
    gpu = asked.get("gpu", "")
    if gpu not in models:
        gpu = wanted or most
    past = recorded.past(gpu, now.get(gpu)) if gpu else None
    rows = history.buckets(past.rows, size) if past else []
    ceilings = _ceilings(past, asked.get("ceiling", ""), gpu, waiting)
    last = int(services.context.clock() // SECONDS_PER_HOUR)
    free = past.now.cheapest_free if past and past.now else None
    label = f"{gpu}, {kind.value}: price per GPU and hour over the last {span}; the table below has the figures"
    chart = price_chart(rows, size, (last - hours + 1) // size * size, last // size * size, now=free,
                        ceiling=ceilings[0].usd if ceilings else None, label=label)  # fmt: skip
    choice = Choice(gpu, kind.value, span, asked.get("ceiling", ""))
    return PricePage(choice, models, past, rows, chart, ceilings, hours, recorded.hours, recorded.first)


async def _watches(services: Services) -> list[Watch]:
    if not services.context.state.exists:
        return []
    account = await services.context.readings.account()
    return await services.context.state.read(lambda tx: watches.waiting(tx, account))


def _ceilings(past: Past | None, asked: str, gpu: str, waiting: Sequence[Watch]) -> list[Ceiling]:
    """Return the ceiling that the person entered and those of the watches for this model, per GPU."""
    found: list[tuple[str, Decimal]] = []
    try:
        usd = Decimal(asked or 0)
    except InvalidOperation:
        usd = ZERO
    if usd.is_finite() and 0 < usd < 10_000:
        found.append(("Your ceiling", usd))
    for watch in waiting:
        if gpu in watch.models:
            gpus = watch.ask.get("min_gpus") or 1
            found.append((f"Watch {clean(watch.id, 12)}", watch.max_usd_per_hour / gpus))
    return [Ceiling(name, usd, past.met_percent(usd) if past else None) for name, usd in found]

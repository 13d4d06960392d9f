"""The prices of the page are those that price_history tells a model: one record, told to two readers."""

from __future__ import annotations

import hashlib
import re
import time
from decimal import Decimal

import pytest

from clore_mcp.money import dollars
from clore_mcp.store import prices
from clore_mcp.store.database import Tx
from clore_mcp.store.prices import PriceRow
from tests.page.conftest import House

GPU = "RTX 4090"
CEILING = 0.21
HOURS_BACK = 400
pytestmark = pytest.mark.anyio


def record(house: House) -> None:
    """Seventeen days of hours, some of them gaps, some without a free server; the last one is looked at already."""
    name = hashlib.sha256(house.wanted.api_url.encode()).hexdigest()[:16]
    database, at = prices.open_prices(house.wanted.state_dir), time.time()
    now = int(at // 3600)

    def write(tx: Tx) -> None:
        for back in range(HOURS_BACK):
            if back % 11 == 5:
                continue
            level = Decimal(3000 + back % 37 * 10) / 10_000
            free = level - Decimal("0.12") if back % 7 else None
            row = PriceRow(now - back, level - Decimal("0.04"), level, level + Decimal("0.08"), free)
            prices.add(tx, name, at - back * 3600, [(GPU, "on-demand", row)])

    database.write_now(write)
    database.close()


def figures(html: str) -> list[tuple[str, ...]]:
    """The rows of the chart's table without their time, newest first."""
    return re.findall(r"<tr><th[^>]*>[^<]+</th>" + r'<td class="number">([^<]+)</td>' * 4 + "</tr>", html)


def told(bucket: dict[str, float]) -> tuple[str, ...]:
    names = ("low", "median", "high", "cheapest_free")
    return tuple(dollars(Decimal(str(bucket[name]))) if name in bucket else "–" for name in names)


def usd(row: tuple[str, ...]) -> list[float]:
    return [float(text.strip("$–") or 0) for text in row]


async def test_a_week_of_the_page_is_what_price_history_answers(house: House) -> None:
    record(house)
    async with house.assistant() as us:
        week = await us.call("price_history", gpu=GPU, hours=168, max_usd_per_gpu_hour=CEILING)
        hourly = await us.call("price_history", gpu=GPU, hours=14)
    page = house.visitor().get(f"prices?gpu={GPU.replace(' ', '+')}&ceiling={CEILING}").text
    model = week["models"][0]
    recorded = re.findall(r"of the last 168 hours ([0-9]+)\.", page)
    assert recorded == [str(week["hours_recorded"])] and 150 < week["hours_recorded"] < 168, "gaps are gaps"
    assert f"met in {model['ceiling_met_percent']} of 100" in page and 0 < model["ceiling_met_percent"] < 100
    assert f"more than now in {model['dearer_than_now_percent']} of 100" in page
    now = " · ".join(dollars(Decimal(str(model["now"][name]))) for name in ("low", "median", "high"))
    assert now in page and f"<td>{dollars(Decimal(str(model['now']['cheapest_free'])))}</td>" in page
    hours = [told(bucket) for bucket in reversed(hourly["models"][0]["buckets"])]
    assert hourly["bucket_hours"] == 1 and len(hours) >= 12 and figures(page)[: len(hours)] == hours
    assert "–" in {row[-1] for row in hours}, "an hour without a free server says so"


async def test_a_month_of_the_page_is_told_in_the_same_days(house: House) -> None:
    record(house)
    async with house.assistant() as us:
        answer = await us.call("price_history", gpu=GPU, hours=336)
    page = house.visitor().get(f"prices?gpu={GPU.replace(' ', '+')}&span=month").text
    days = [told(bucket) for bucket in reversed(answer["models"][0]["buckets"])]
    whole = days[:-1]  # the first day is cut by the span
    assert answer["bucket_hours"] == 24 and len(whole) >= 13
    assert len(figures(page)) > len(days), "a month is longer than that"
    for shown, answered in zip(figures(page), whole, strict=False):
        assert usd(shown) == pytest.approx(usd(answered), abs=0.0002), "a mean is rounded up on the page"

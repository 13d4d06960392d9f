"""Prices before now: what is sampled, put together, kept and forgotten, and how much room a year of it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.market import history
from clore_mcp.market.cards import CARDS
from clore_mcp.market.history import Past, PriceRecord, RecordedPrices
from clore_mcp.market.pricing import Fees, OrderType
from clore_mcp.market.snapshot import Snapshot
from clore_mcp.money import Coin
from clore_mcp.store import prices
from clore_mcp.store.database import Database
from clore_mcp.store.prices import HourRow, PriceRow
from tests.market.rows import price, snapshot, wire

HOUR = 500_000  # a whole hour since 1970 that begins no day
FEES = Fees({(kind, coin): Decimal("0.1") for kind in OrderType for coin in Coin})
A_YEAR = 8_760


def row(hour: int, cheapest: str | None = "0.2", low: str = "0.3", samples: int = 1) -> PriceRow:
    start = Decimal(low)
    return PriceRow(hour, start, start * 2, start * 3, None if cheapest is None else Decimal(cheapest), samples)


def market(at: float, usd_per_day: float = 24) -> Snapshot:
    return snapshot(
        wire(1, price=price(usd_per_day, 12)),
        wire(2, price=price(usd_per_day * 2, 12), rented=True),
        wire(3, specs={"gpu": "1x NVIDIA GeForce RTX 3090"}, price=price(12, 6), rented=True),
        fetched_at=at,
    )


def test_a_sample_has_each_model_and_order_type_with_the_fee() -> None:
    found = {(model, kind): row for model, kind, row in history.samples(market(HOUR * 3600.0 + 5), FEES)}
    assert found.keys() == {(model, kind.value) for model in ("RTX 4090", "RTX 3090") for kind in OrderType}
    four = found["RTX 4090", "on-demand"]
    assert (four.hour, str(four.low), str(four.median), str(four.cheapest)) == (HOUR, "0.6875", "0.825", "0.55")
    assert found["RTX 3090", "on-demand"].cheapest is None, "what is rented is a price, and not to be had"


def test_a_gap_is_no_bucket_and_counts_for_no_ceiling() -> None:
    rows = [row(HOUR), row(HOUR + 1, "0.4"), row(HOUR + 9, None)]
    found = history.buckets(rows, 3)
    assert [one.hour for one in found] == [HOUR // 3 * 3, (HOUR + 1) // 3 * 3, (HOUR + 9) // 3 * 3]
    looked = tuple(HourRow(HOUR + n, 1) for n in (0, 1, 9))
    past = RecordedPrices({"RTX 4090": rows}, looked, None).past("RTX 4090", None)
    assert [past.met_percent(Decimal(usd)) for usd in ("0.1", "0.2", "0.4")] == [0, 33, 67]
    assert past.lowest is rows[0] and past.dearer_percent is None
    assert Past((), 0, None).met_percent(Decimal(1)) is None


def test_where_now_stands_is_told_by_the_cheapest_free_of_each_hour() -> None:
    now = history.models_now(market(0.0), FEES, OrderType.ON_DEMAND)["RTX 4090"]
    past = Past(tuple(row(n, usd) for n, usd in enumerate(("0.5", "0.55", "0.6", "0.7", None))), 5, now)
    assert past.dearer_percent == 50
    assert past.usual is not None and past.usual.median == Decimal("0.6")


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 99), st.integers(1, 9)), unique_by=lambda one: one[0]),
       st.sampled_from([1, 2, 6, 24, 168]))  # fmt: skip
def test_buckets_keep_every_sample_and_stay_between_the_extremes(cells: list[tuple[int, int, int]], size: int) -> None:
    rows = [row(hour, str(usd), str(usd), samples) for hour, usd, samples in sorted(cells)]
    found = history.buckets(rows, size)
    assert sum(one.samples for one in found) == sum(one.samples for one in rows)
    for one in found:
        inside = [each for each in rows if one.hour <= each.hour < one.hour + size]
        assert min(each.low for each in inside) <= one.low <= max(each.low for each in inside)
        assert one.cheapest == min(each.cheapest or 0 for each in inside)


def test_however_many_hours_are_asked_for_the_buckets_are_few() -> None:
    assert [history.bucket_hours(hours, 14) for hours in (1, 14, 24, 168, 720, 9_600)] == [1, 1, 2, 12, 168, 672]
    assert all(history.bucket_hours(hours, 1) >= 1 for hours in (1, 9_600))


def keep(database: Database, hour: int, sample: list[tuple[str, str, PriceRow]]) -> None:
    database.write_now(lambda tx: prices.add(tx, "m", hour * 3600.0, sample))


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(HOUR * 3600.0)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = prices.open_prices(tmp_path)
    yield found
    found.close()


async def noted(database: Database, clock: Clock, *snapshots: Snapshot, url: str = "https://one/v1") -> PriceRecord:
    """What several processes, each of which saw one snapshot, have left."""
    for one in snapshots:
        record = PriceRecord(database, url, clock)
        record.note(one, FEES)
        await record.aclose()
    return PriceRecord(database, url, clock)


@pytest.mark.anyio
async def test_processes_share_one_record_of_six_samples_an_hour(database: Database, clock: Clock) -> None:
    at = clock.now
    record = await noted(database, clock, *(market(at + n * 60, 24 + n) for n in range(60)))
    recorded = await record.read(168, OrderType.ON_DEMAND)
    (four,) = recorded.rows["RTX 4090"]
    assert (four.samples, recorded.hours, recorded.first) == (6, 1, at)
    assert four.cheapest == Decimal("0.55"), "the cheapest of the hour"
    assert four.low == Decimal("1.403645"), "the mean of the samples: 24, 34 … 74 USD a day"


@pytest.mark.anyio
async def test_what_is_not_known_is_not_recorded(database: Database, clock: Clock) -> None:
    record = PriceRecord(database, "https://one/v1", clock)
    record.note(market(clock.now), Fees.highest_documented())
    record.note(replace(market(clock.now), listings=()), FEES)
    await record.aclose()
    assert not database.exists and (await record.read(168, OrderType.SPOT)).first is None


@pytest.mark.anyio
async def test_another_market_and_the_future_are_told_apart(database: Database, clock: Clock) -> None:
    await noted(database, clock, market(clock.now + 90 * 86_400))  # a clock that was wrong
    record = await noted(database, clock, market(clock.now))
    assert (await record.read(168, OrderType.ON_DEMAND)).hours == 1
    other = PriceRecord(database, "https://two/v1", clock)
    assert (await other.read(168, OrderType.ON_DEMAND)).hours == 0


@pytest.mark.anyio
async def test_a_state_that_was_deleted_is_not_begun_for_prices(tmp_path: Path, clock: Clock) -> None:
    gone = prices.open_prices(tmp_path / "gone")
    await noted(gone, clock, market(clock.now))
    assert not (tmp_path / "gone").exists()


def test_old_hours_become_days_and_very_old_days_go(database: Database) -> None:
    start = HOUR // 24 * 24
    for hour in (*range(start, start + 48), start + 2_000):
        prices_then = row(hour, "0.5" if hour == start + 3 else "0.6", str(hour - start + 1))
        keep(database, hour, [("RTX 4090", "on-demand", prices_then)])
    before = database.read_now(lambda tx: prices.read(tx, "m", "on-demand", 0, start + 3_000))
    for _ in range(2):
        database.write_now(lambda tx: prices.thin(tx, (start + 2_000) * 3600.0))
    after = database.read_now(lambda tx: prices.read(tx, "m", "on-demand", 0, start + 3_000))["RTX 4090"]
    assert after == [*history.buckets(before["RTX 4090"][:48], 24), before["RTX 4090"][-1]]
    hours = database.read_now(lambda tx: prices.recorded(tx, "m", 0, start + 3_000))
    assert [(one.hour, one.hours) for one in hours] == [(start, 24), (start + 24, 24), (start + 2_000, 1)]
    database.write_now(lambda tx: prices.thin(tx, (start + 24 + prices.KEEP_HOURS) * 3600.0))
    assert database.read_now(lambda tx: prices.first_hour(tx, "m")) == start + 24


def test_a_year_takes_less_than_fifty_megabytes(database: Database) -> None:
    """The rows of two days, written as they come, tell what a row takes; a year has so many."""
    series = [(model, kind.value) for model in CARDS for kind in OrderType]
    days = 2
    for hour in range(HOUR, HOUR + days * 24):
        keep(database, hour, [(model, kind, row(hour, "12.345678", "11.345678")) for model, kind in series])
    database.close()
    per_row = database.path.stat().st_size / (len(series) * days * 24)
    hourly = prices.THIN_AFTER_HOURS + 24
    daily = (A_YEAR - prices.THIN_AFTER_HOURS) / 24
    assert per_row * len(series) * (hourly + daily) < 50e6 / 2
    assert per_row < 60, "bytes"

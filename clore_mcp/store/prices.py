"""Rows of GPU prices, hour by hour, by model and order type.

They are in their own file, written without waiting for the disk, because no order depends on them. An hour with a row
in `hours` was recorded; an hour without one is a gap. Times are whole hours since 1970. Hours older than
`THIN_AFTER_HOURS` become days, and days older than `KEEP_HOURS` are deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from clore_mcp.money import from_micros, to_micros
from clore_mcp.store.database import Database, Row, Tx, marks

FILE_NAME: Final = "prices.sqlite3"
HOURS_PER_DAY: Final = 24
THIN_AFTER_HOURS: Final = 35 * HOURS_PER_DAY
KEEP_HOURS: Final = 400 * HOURS_PER_DAY
MIGRATIONS: Final = (
    """
    CREATE TABLE hours (
        market TEXT NOT NULL,                 -- which API: a digest of its URL
        hour INTEGER NOT NULL,
        looked_at REAL NOT NULL,              -- the last sample in it, unix seconds
        samples INTEGER NOT NULL,
        hours INTEGER NOT NULL,               -- recorded hours in it: 1, or up to 24 once merged into a day
        PRIMARY KEY (market, hour)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE series (
        id INTEGER PRIMARY KEY,
        market TEXT NOT NULL,
        model TEXT NOT NULL,
        order_type TEXT NOT NULL,
        UNIQUE (market, model, order_type)
    ) STRICT;
    CREATE TABLE prices (
        series INTEGER NOT NULL REFERENCES series (id),
        hour INTEGER NOT NULL,
        low_micros INTEGER NOT NULL,          -- quartiles of all servers of the model: the mean of the samples
        median_micros INTEGER NOT NULL,
        high_micros INTEGER NOT NULL,
        cheapest_micros INTEGER,              -- lowest price of a free server in any sample; NULL: none was free
        samples INTEGER NOT NULL,
        PRIMARY KEY (series, hour)
    ) STRICT, WITHOUT ROWID;
    """,
)


@dataclass(frozen=True, slots=True)
class PriceRow:
    """The price of one GPU of a model, in USD/hour including the fee, in the hour (or day) that begins at `hour`."""

    hour: int
    low: Decimal
    median: Decimal
    high: Decimal
    cheapest: Decimal | None
    samples: int = 1


@dataclass(frozen=True, slots=True)
class HourRow:
    """An hour, or a day, in which the market was sampled."""

    hour: int
    hours: int


def open_prices(folder: Path) -> Database:
    """Return the price database in that folder. It is opened at first use."""
    return Database(folder, FILE_NAME, MIGRATIONS, durable=False)


def looked_at(tx: Tx, market: str) -> float | None:
    """Return when the newest sample of that market was taken, in unix seconds, or None."""
    sql = "SELECT looked_at FROM hours WHERE market = ? ORDER BY hour DESC LIMIT 1"
    return tx.one_as(lambda row: float(row["looked_at"]), sql, market)


def add(tx: Tx, market: str, at: float, found: Iterable[tuple[str, str, PriceRow]]) -> None:
    """Store one sample: model, order type and prices of each series."""
    sql = (
        "INSERT INTO hours (market, hour, looked_at, samples, hours) VALUES (?, ?, ?, 1, 1) ON CONFLICT DO UPDATE SET"
        " looked_at = excluded.looked_at, samples = samples + 1"
    )
    tx.run(sql, market, int(at // 3600), at)
    for model, order_type, row in found:
        series = (market, model, order_type)
        tx.run("INSERT INTO series (market, model, order_type) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", *series)
        tx.run(
            "INSERT INTO prices (series, hour, low_micros, median_micros, high_micros, cheapest_micros, samples)"
            " SELECT id, ?, ?, ?, ?, ?, 1 FROM series WHERE market = ? AND model = ? AND order_type = ?"
            " ON CONFLICT DO UPDATE SET"
            " low_micros = (low_micros * samples + excluded.low_micros) / (samples + 1),"
            " median_micros = (median_micros * samples + excluded.median_micros) / (samples + 1),"
            " high_micros = (high_micros * samples + excluded.high_micros) / (samples + 1),"
            " cheapest_micros = min(coalesce(cheapest_micros, excluded.cheapest_micros),"
            " coalesce(excluded.cheapest_micros, cheapest_micros)), samples = samples + 1",
            row.hour,
            *(to_micros(price) for price in (row.low, row.median, row.high)),
            None if row.cheapest is None else to_micros(row.cheapest),
            *series,
        )


def thin(tx: Tx, now: float) -> None:
    """Merge old hours into days, and delete very old days."""
    hour = int(now // 3600)
    day = (hour - THIN_AFTER_HOURS) // HOURS_PER_DAY * HOURS_PER_DAY
    for table, key, sums in (
        ("hours", "market", "max(looked_at), sum(samples), sum(hours)"),
        (
            "prices",
            "series",
            "sum(low_micros * samples) / sum(samples), sum(median_micros * samples) / sum(samples),"
            " sum(high_micros * samples) / sum(samples), min(cheapest_micros), sum(samples)",
        ),
    ):
        split = f"hour < {day} AND hour / 24 IN (SELECT DISTINCT hour / 24 FROM {table} WHERE hour < {day}"
        split += " AND hour % 24 != 0)"
        found = tx.all(f"SELECT {key}, hour / 24 * 24, {sums} FROM {table} WHERE {split} GROUP BY 1, 2")
        tx.run(f"DELETE FROM {table} WHERE {split}")
        for row in found:
            tx.run(f"INSERT INTO {table} VALUES ({marks(row)})", *row)
        tx.run(f"DELETE FROM {table} WHERE hour < ?", hour - KEEP_HOURS)


def recorded(tx: Tx, market: str, since_hour: int, now_hour: int) -> list[HourRow]:
    """Return the hours in which that market was sampled, oldest first."""
    sql = "SELECT hour, hours FROM hours WHERE market = ? AND hour BETWEEN ? AND ? ORDER BY hour"
    return tx.all_as(lambda row: HourRow(row["hour"], row["hours"]), sql, market, since_hour, now_hour)


def first_hour(tx: Tx, market: str) -> int | None:
    """Return the oldest recorded hour of that market, or None."""
    hour: int | None = tx.value("SELECT min(hour) FROM hours WHERE market = ?", market)
    return hour


def read(
    tx: Tx, market: str, order_type: str, since_hour: int, now_hour: int, models: Collection[str] | None = None
) -> dict[str, list[PriceRow]]:
    """Return prices by model, oldest first, for these models or, with None, for all."""
    found: dict[str, list[PriceRow]] = {}
    chosen = "" if models is None else f" AND model IN ({marks(models)})"
    sql = (
        "SELECT model, prices.* FROM series JOIN prices ON prices.series = series.id"
        f" WHERE market = ? AND order_type = ? AND hour BETWEEN ? AND ?{chosen} ORDER BY hour"
    )
    for row in tx.all(sql, market, order_type, since_hour, now_hour, *(models or ())):
        found.setdefault(row["model"], []).append(_row(row))
    return found


def _row(row: Row) -> PriceRow:
    cheapest = row["cheapest_micros"]
    return PriceRow(
        row["hour"],
        from_micros(row["low_micros"]),
        from_micros(row["median_micros"]),
        from_micros(row["high_micros"]),
        None if cheapest is None else from_micros(cheapest),
        row["samples"],
    )

"""Price charts as SVG. They use only shapes and classes, are readable in black and white, and have a table below.

A bucket without a record is a gap that no line crosses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from markupsafe import Markup, escape

from clore_mcp.market.history import SECONDS_PER_HOUR
from clore_mcp.money import dollars
from clore_mcp.store.prices import PriceRow

_WIDTH: Final = 640
_HEIGHT: Final = 240
_LEFT: Final = 64
_RIGHT: Final = 12
_TOP: Final = 12
_BOTTOM: Final = 28
_STEPS: Final = (1, 2, 5)
_LINES: Final = 4


def price_chart(
    rows: Sequence[PriceRow],
    size: int,
    first: int,
    last: int,
    *,
    now: Decimal | None,
    ceiling: Decimal | None,
    label: str,
) -> Markup:
    """Return a chart with the quartiles as a band, the median as a line and the cheapest free server as dots. `now` and
    `ceiling` are lines across it. `size` is the hours of a bucket, `first` and `last` the hours of the axis."""
    tops = [row.high for row in rows] + [one for one in (now, ceiling) if one is not None]
    most = max(tops, default=Decimal(1)) * Decimal("1.05") or Decimal(1)
    span = max(1, last - first + size)

    def x(hour: int) -> float:
        return _LEFT + (hour - first + size / 2) / span * (_WIDTH - _LEFT - _RIGHT)

    def y(price: Decimal) -> float:
        return _HEIGHT - _BOTTOM - float(price / most) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">',
        *_grid(most, y),
        *_dates(first, last, x),
    ]
    for run in _runs(rows, size):
        upper = [f"{x(row.hour):.1f},{y(row.high):.1f}" for row in run]
        lower = [f"{x(row.hour):.1f},{y(row.low):.1f}" for row in reversed(run)]
        if len(run) == 1:
            (row,) = run
            at = f"{x(row.hour):.1f}"
            parts.append(f'<line class="band" x1="{at}" x2="{at}" y1="{y(row.high):.1f}" y2="{y(row.low):.1f}"/>')
            parts.append(f'<circle class="median" cx="{at}" cy="{y(row.median):.1f}" r="2.5"/>')
        else:
            parts.append(f'<polygon class="band" points="{" ".join(upper + lower)}"/>')
            line = " ".join(f"{x(row.hour):.1f},{y(row.median):.1f}" for row in run)
            parts.append(f'<polyline class="median" points="{line}"/>')
    parts += [
        f'<circle class="cheapest" cx="{x(row.hour):.1f}" cy="{y(row.cheapest):.1f}" r="2.5"/>'
        for row in rows
        if row.cheapest is not None
    ]
    for kind, price in (("now", now), ("ceiling", ceiling)):
        if price is not None:
            parts.append(
                f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(price):.1f}" y2="{y(price):.1f}"/>'
            )
            left = kind == "ceiling"  # at opposite ends, because the two prices may be close
            place = f'class="mark{" left" if left else ""}" x="{_LEFT + 4 if left else _WIDTH - _RIGHT}"'
            parts.append(f'<text {place} y="{y(price) - 4:.1f}">{kind} {dollars(price)}</text>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - numbers, our own words and one escaped label


def bar(spent_share: float, reserved_share: float, label: str) -> Markup:
    """Return a bar for a limit: the amount spent, then the amount reserved, which is hatched."""
    return Markup(  # noqa: S704 - numbers, and one escaped label
        f'<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f'<rect class="track" width="100" height="6"/><rect class="spent" width="{spent_share}" height="6"/>'
        f'<rect class="reserved" x="{spent_share}" width="{reserved_share}" height="6"/></svg>'
    )


def _runs(rows: Sequence[PriceRow], size: int) -> Iterator[list[PriceRow]]:
    """Yield the rows in runs without a gap."""
    run: list[PriceRow] = []
    for row in rows:
        if run and row.hour - run[-1].hour > size:
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def _grid(most: Decimal, y: Callable[[Decimal], float]) -> Iterator[str]:
    least = most / _LINES
    scale = Decimal(1).scaleb(least.adjusted())
    step = next((scale * factor for factor in _STEPS if scale * factor >= least), scale * 10)  # a round distance
    price = Decimal(0)
    while price <= most:
        at = f"{y(price):.1f}"
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>'
        yield f'<text class="axis" x="{_LEFT - 6}" y="{float(at) + 4:.1f}">{dollars(price) if price else "$0"}</text>'
        price += step


def _dates(first: int, last: int, x: Callable[[int], float]) -> Iterator[str]:
    every = max(1, round((last - first) / 24 / 6)) * 24
    day = first // 24 * 24 + 24
    while day <= last:
        told = datetime.fromtimestamp(day * SECONDS_PER_HOUR, UTC).strftime("%d %b")
        yield f'<text class="date" x="{x(day):.1f}" y="{_HEIGHT - 8}">{told}</text>'
        day += every

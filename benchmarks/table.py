"""Rows of results and the Markdown table that they make."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

HEADS: Final = ("", "clore-mcp", "beside it", "figure", "goal", "")


@dataclass(frozen=True, slots=True)
class Goal:
    """The wanted value of a figure: up to `bound`, or at least `bound`."""

    bound: float
    at_least: bool = False

    def met_by(self, figure: float) -> bool:
        """Return whether the figure meets the goal."""
        return figure >= self.bound if self.at_least else figure <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {shown(self.bound)}"


@dataclass(frozen=True, slots=True)
class Row:
    """One result. `figure` is the ratio or count that the goal is about. A busy machine changes a time, never a
    count."""

    topic: str
    what: str
    ours: str
    beside: str = ""
    figure: float | None = None
    goal: Goal | None = None
    kind: Literal["count", "time"] = "time"

    @property
    def met(self) -> bool | None:
        """Return whether the goal is met, or None if there is no goal or no figure."""
        return None if self.goal is None or self.figure is None else self.goal.met_by(self.figure)


def markdown(rows: Iterable[Row]) -> str:
    """Return a table for each topic, in the order in which they were measured."""
    topics: dict[str, list[Row]] = {}
    for row in rows:
        topics.setdefault(row.topic, []).append(row)
    return "\n\n".join(f"**{topic}**\n\n{_table(found)}" for topic, found in topics.items())


def store(path: Path, name: str, text: str) -> None:
    """Put the text between the document's two marks with that name. Raises ValueError if there are none."""
    block = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
    document = path.read_text(encoding="utf-8")
    if block.search(document) is None:
        raise ValueError(f"{path.name} has no marks for {name}")
    path.write_text(block.sub(lambda _: f"{text}\n", document), encoding="utf-8")


def shown(figure: float) -> str:
    """Return a figure with the significant decimals only."""
    return f"{figure:,.0f}" if figure == int(figure) or abs(figure) >= 100 else f"{figure:.2f}"


def _table(rows: Iterable[Row]) -> str:
    lines: list[Sequence[str]] = [HEADS, ["---"] * len(HEADS), *(_cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Row) -> Sequence[str]:
    mark = {None: "", True: "met", False: "**missed**"}[row.met]
    figure = "" if row.figure is None else shown(row.figure)
    return (row.what, row.ours, row.beside, figure, "" if row.goal is None else str(row.goal), mark)

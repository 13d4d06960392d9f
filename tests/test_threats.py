"""Each threat of docs/threats.md names tests that exist, or says that nothing stops it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "threats.md"
HEADS = ["threat", "what stops it", "shown by", "what is left"]
NOT_STOPPED = "Not stopped."
LEAST_ROWS = 30
TEST = re.compile(r"\[([^]]+)\]\(([^)]+)\)")


@dataclass(frozen=True)
class Threat:
    """One row."""

    name: str
    stopped_by: str
    shown_by: str
    left: str


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def threats(text: str) -> list[Threat]:
    """The rows of the table between the marks."""
    table = re.search(r"<!-- threats -->\n(.*?)<!-- /threats -->", text, re.DOTALL)
    assert table is not None, "the table has its marks"
    heads, rule, *rows = table[1].splitlines()
    assert cells(heads) == HEADS
    assert set(rule) <= set("|- ")
    return [Threat(*cells(row)) for row in rows]


@cache
def names_in(path: Path) -> frozenset[str]:
    """The tests of a file as pytest would name them, read without running it."""
    return frozenset(names(ast.parse(path.read_text(encoding="utf-8")).body))


def names(body: Iterable[ast.stmt], before: str = "") -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from names(node.body, f"{node.name}::")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield before + node.name


def faults(threat: Threat) -> list[str]:
    """What is wrong with a row; nothing when it keeps its word."""
    shown = TEST.findall(threat.shown_by)
    found = []
    if not shown and not threat.stopped_by.startswith(NOT_STOPPED):
        found.append(f"{threat.name}: no test, and not marked {NOT_STOPPED!r}")
    if not shown and threat.shown_by:
        found.append(f"{threat.name}: {threat.shown_by!r} is no link to a test")
    if not all((threat.name, threat.stopped_by, threat.left)):
        found.append(f"{threat.name}: a cell is empty")
    for test, target in shown:
        path, _, name = test.partition("::")
        if target != f"../{path}":
            found.append(f"{threat.name}: {test} leads to {target}")
        elif not (ROOT / path).is_file() or name not in names_in(ROOT / path):
            found.append(f"{threat.name}: there is no {test}")
    return found


def test_every_threat_has_a_test_or_says_that_nothing_stops_it() -> None:
    rows = threats(PAGE.read_text(encoding="utf-8"))
    assert len(rows) >= LEAST_ROWS
    assert len({row.name for row in rows}) == len(rows)
    assert [fault for row in rows for fault in faults(row)] == []


HERE = "tests/test_threats.py"
GOOD = "test_every_threat_has_a_test_or_says_that_nothing_stops_it"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("a | b | | d", "no test, and not marked"),
        (f"a | {NOT_STOPPED} So it is. | | d", None),
        (f"a | {NOT_STOPPED} | | ", "a cell is empty"),
        ("a | b | somewhere | d", "is no link to a test"),
        (f"a | b | [{HERE}::{GOOD}](../{HERE}) | d", None),
        (f"a | b | [{HERE}::test_gone](../{HERE}) | d", "there is no tests/test_threats.py::test_gone"),
        (f"a | b | [tests/test_gone.py::{GOOD}](../tests/test_gone.py) | d", "there is no tests/test_gone.py"),
        (f"a | b | [{HERE}::{GOOD}](../tests/test_docs.py) | d", "leads to ../tests/test_docs.py"),
    ],
)
def test_a_row_that_does_not_keep_its_word_is_found(row: str, fault: str | None) -> None:
    table = f"<!-- threats -->\n| {' | '.join(HEADS)} |\n|---|---|---|---|\n| {row} |\n<!-- /threats -->\n"
    [threat] = threats(table)
    found = faults(threat)
    assert not found if fault is None else fault in " ".join(found)

"""The protocol's own conformance suite against the real server on loopback HTTP, at both revisions.

Most of its scenarios call tools of a server made for it; conformance.toml lists those, with the reason of each. What is
left must pass, and what is listed as failing must fail, or the list is out of date.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import pytest

from clore_mcp.sandbox import Running
from tests.clients.environments import node_of, packages_of
from tests.clients.page import PAGE
from tests.conftest import environment
from tests.test_docs import ROOT, hold_against, table

pytestmark = pytest.mark.timeout(300)
REVISIONS: Final = ("2025-11-25", "2026-07-28")
PATIENCE_SECONDS: Final = 240
Checks = list[tuple[str, bool]]  # "scenario:check", and whether it is as it should be


@dataclass(frozen=True)
class Listed:
    """What conformance.toml says."""

    failing: frozenset[str]
    passing: frozenset[str]
    checks: frozenset[str]

    @classmethod
    def read(cls) -> Listed:
        groups = tomllib.loads((Path(__file__).parent / "conformance.toml").read_text("utf-8"))["left_out"]
        kinds = [frozenset(name for group in groups for name in group.get(field.name, ())) for field in fields(cls)]
        return cls(*kinds)

    def applies(self, scenario: str) -> bool:
        return scenario not in self.failing | self.passing

    def complaints(self, found: dict[str, Checks]) -> Iterator[str]:
        """What fails though it applies, and what is listed though it does not do as it says there."""
        for scenario, checks in found.items():
            wrong = [name for name, good in checks if not good]
            if scenario in self.failing and not wrong:
                yield f"{scenario} passes: take it off the list, or say there that it passes without saying anything"
            if scenario not in self.failing:
                yield from (f"{name} fails" for name in wrong if name not in self.checks)
            yield from (f"{name} passes: take it off the list" for name, good in checks if good and name in self.checks)

    def figures(self, revision: str, found: dict[str, Checks]) -> tuple[str, str, str, str]:
        """A row for the page."""
        applicable = [checks for scenario, checks in found.items() if self.applies(scenario)]
        passed = sum(good for checks in applicable for _, good in checks)
        return revision, str(len(applicable)), str(passed), str(len(found) - len(applicable))


@contextmanager
def served(market: Running, folder: Path) -> Iterator[str]:
    """Our server's URL."""
    usual = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.clients.http_server"],
        env=usual | environment(market, folder), cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
        process.stdout.close()


def suite(home: Path, url: str, revision: str, out: Path) -> subprocess.Popen[str]:
    """The suite's scenarios for that revision, under way."""
    program = packages_of(home) / "node_modules" / ".bin" / "conformance"
    chosen = ["--suite", "all", "--spec-version", revision, "--timeout", str(PATIENCE_SECONDS * 1000)]
    return subprocess.Popen(
        [node_of(home), str(program), "server", "--url", url, *chosen, "-o", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def results(out: Path) -> dict[str, Checks]:
    """What it found in each scenario."""
    found: dict[str, Checks] = {}
    for path in sorted(out.glob("*/checks.json")):
        scenario = path.parent.name.removeprefix("server-").rsplit("-", 6)[0]  # the rest is the time
        checks = json.loads(path.read_text("utf-8"))
        told = [check for check in checks if check["status"] not in {"INFO", "SKIPPED"}]
        found[scenario] = [(f"{scenario}:{check['id']}", check["status"] == "SUCCESS") for check in told]
    return found


def test_what_applies_to_this_server_passes(
    market: Running, tmp_path: Path, home_of: Callable[[str], Path]
) -> None:  # fmt: skip
    listed = Listed.read()
    home = home_of("node")
    with served(market, tmp_path) as url:
        suites = {revision: suite(home, url, revision, tmp_path / revision) for revision in REVISIONS}
        told = {revision: process.communicate(timeout=PATIENCE_SECONDS)[0] for revision, process in suites.items()}
    found = {revision: results(tmp_path / revision) for revision in REVISIONS}
    for revision in REVISIONS:
        assert len(found[revision]) > 25, told[revision]
        assert not (complaints := list(listed.complaints(found[revision]))), f"{revision}: {complaints}"
    ran = {name for one in found.values() for name in one}
    ran |= {name for one in found.values() for checks in one.values() for name, _ in checks}
    assert listed.failing | listed.passing | listed.checks <= ran, "the list has what the suite has not"
    rows = [listed.figures(revision, found[revision]) for revision in REVISIONS]
    hold_against(
        PAGE, "conformance", table(("revision", "scenarios that apply", "checks passed", "scenarios that don't"), rows)
    )


def test_a_list_that_is_out_of_date_is_told() -> None:
    listed = Listed(frozenset({"fails", "mended"}), frozenset({"empty"}), frozenset({"applies:left-out"}))
    found = {
        "applies": [("applies:works", True), ("applies:broken", False), ("applies:left-out", True)],
        "fails": [("fails:one", False), ("fails:other", True)],
        "mended": [("mended:one", True)],
        "empty": [("empty:one", True)],
    }
    told = [complaint.partition(":")[0] for complaint in listed.complaints(found)]
    assert told == ["applies", "applies", "mended passes"]
    assert listed.figures("2026-07-28", found) == ("2026-07-28", "1", "2", "3")

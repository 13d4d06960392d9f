"""The benchmarks run, and what they count (not what they time) is within its goal."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from benchmarks import ends
from benchmarks.__main__ import DOCUMENT, TOPICS
from benchmarks.bench import Bench, jain, ratio
from benchmarks.children import Made
from benchmarks.gate import SECOND_NS, Arrival, Gate, Rule
from benchmarks.pacing import SCENES, Outcome
from benchmarks.peers import Peers
from benchmarks.table import Goal, Row, markdown, store
from tests.cli.scenes import Outcome as Ended

ROOT = Path(__file__).parents[1]
HELD = {  # counts that have no excuse, however busy the machine is; None: all of the topic
    "Pacing": {"refused later than 2 s after the first refusal", "calls without an answer"},
    "Urgent calls": None,
    "Sharing": {"searches without an answer", "requests for the marketplace"},
    "Tokens": None,
}
# Those that count; the others only time, which CI alone does. The scenes of "ends" are those of tests/cli/test_ends.py.
COUNTING = {"pacing": "Pacing", "urgent": "Urgent calls", "sharing": "Sharing", "tokens": "Tokens"}
TIMING = {"start": "Start", "search": "Search", "growth": "Growth", "age": "Age", "page": "Page"}
PLAYED = COUNTING | TIMING if "CI" in os.environ else COUNTING
PATIENCE_SECONDS = 600  # a minute on a machine that has time


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rows of a quick run, which needs nothing but the project."""
    told = tmp_path_factory.mktemp("benchmarks") / "rows.json"
    command = [sys.executable, "-m", "benchmarks", *PLAYED, "--quick", "--no-peers", "--json", str(told)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert ran.returncode == 0, ran.stderr
    rows: list[dict[str, Any]] = json.loads(told.read_text(encoding="utf-8"))
    return rows


@pytest.mark.timeout(PATIENCE_SECONDS)
def test_every_benchmark_still_runs_and_every_count_that_is_held_is_within_its_goal(
    quick: list[dict[str, Any]],
) -> None:
    topics = [row["topic"].split(":")[0] for row in quick]
    assert list(dict.fromkeys(topics)) == list(PLAYED.values())
    for topic, whats in HELD.items():
        rows = [row for row, name in zip(quick, topics, strict=True) if name == topic and row["kind"] == "count"]
        assert {row["what"] for row in rows} >= (whats or set()) and rows
        assert [row for row in rows if (whats is None or row["what"] in whats) and not row["met"]] == []


@pytest.mark.anyio
async def test_how_late_orders_ended_is_told_for_each_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Ended("Watchdog killed", polls=3.5, excused=1.0, cancels=2, after=1)
    monkeypatch.setattr(ends, "play", lambda scene, folder: outcome)
    late, again = await ends.run(Bench(quick=True, peers=Peers(None, missing="left out"), folder=tmp_path))
    assert (late.what, late.ours, late.beside) == (
        "Watchdog killed",
        "3.50 polls, 2 cancels sent",
        "1.00 while nobody could end it",
    )
    assert (late.figure, late.met, again.figure, again.met) == (2.5, False, 1, False)


def test_the_document_has_a_place_for_each_topic() -> None:
    told = DOCUMENT.read_text(encoding="utf-8")
    assert all(f"<!-- {name} -->\n" in told and f"<!-- /{name} -->\n" in told for name in TOPICS)


def test_a_run_replaces_its_own_tables_alone(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("a\n<!-- start -->\nold\n<!-- /start -->\nb\n<!-- search -->\nkept\n<!-- /search -->\n")
    store(document, "start", "new")
    assert (
        document.read_text() == "a\n<!-- start -->\nnew\n<!-- /start -->\nb\n<!-- search -->\nkept\n<!-- /search -->\n"
    )
    with pytest.raises(ValueError, match="no marks for pacing"):
        store(document, "pacing", "new")


def test_a_goal_that_is_missed_says_so() -> None:
    rows = [
        Row("Start", "wall clock", "2 s", "1 s", 2.0, Goal(1.15)),
        Row("Start", "fairness", "0.97", "", 0.97, Goal(0.95, at_least=True)),
        Row("Start", "no goal", "1 s"),
    ]
    assert markdown(rows).splitlines()[-3:] == [
        "| wall clock | 2 s | 1 s | 2 | ≤ 1.15 | **missed** |",
        "| fairness | 0.97 |  | 0.97 | ≥ 0.95 | met |",
        "| no goal | 1 s |  |  |  |  |",
    ]


def test_ratios_are_of_pairs_and_fairness_is_jains() -> None:
    assert ratio([1.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == 2.0, "the median of 1, 2 and 3"
    assert jain([5, 5, 5, 5]) == 1.0 and jain([20, 0, 0, 0]) == 0.25 and jain([0, 0]) == 0.0


def test_what_was_refused_early_what_failed_and_who_waited_is_told_apart() -> None:
    gate = Gate({}, arrivals=[Arrival(at * SECOND_NS, "wallets", at not in (1, 2, 9)) for at in range(10)])
    quick = [Made(0, SECOND_NS, ""), Made(SECOND_NS, 2 * SECOND_NS, "")]
    slow = [Made(0, 2 * SECOND_NS, ""), Made(2 * SECOND_NS, 6 * SECOND_NS, "rate_limited")]
    outcome = Outcome(gate, [quick, slow])
    assert len(gate.refused) == 3 and outcome.refused_once_adapted == 1
    assert (outcome.failed, outcome.makespan) == (1, 6.0)
    assert outcome.fairness == jain([2, 1])
    assert outcome.told(SCENES[0]) == "3 refused, 1 calls failed, 6.0 s (2.00 of ideal), fairness 0.90"


@pytest.mark.anyio
@pytest.mark.parametrize(("rule", "let_in"), [(Rule(), 1), (Rule("completion", work=0.2), 1), (Rule("nothing"), 3)])
async def test_the_stand_in_refuses_what_comes_too_early(rule: Rule, let_in: int) -> None:
    async with Gate({"wallets": b'{"code":0,"wallets":[]}'}, rule) as gate, httpx2.AsyncClient(trust_env=False) as http:
        replies = await asyncio.gather(*(http.get(f"{gate.url}/wallets") for _ in range(3)))
    assert len(gate.admitted) == let_in and len(gate.refused) == 3 - let_in
    assert sorted(reply.json()["code"] for reply in replies) == [0] * let_in + [5] * (3 - let_in)


@pytest.mark.timeout(PATIENCE_SECONDS)
def test_the_size_of_the_house_and_the_walk_of_a_create_are_measured() -> None:
    ran = subprocess.run([sys.executable, "-m", "benchmarks.house"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    told = dict(line.strip("| ").split(" | ") for line in ran.stdout.splitlines()[2:])
    assert set(told) == {line.strip("| ").split(" | ")[0] for line in stored_house()}
    assert all(int(number) > 10 for number in re.findall(r"(\d+) ", told["one `create_order`"]))


def stored_house() -> list[str]:
    document = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    return document.split("<!-- house -->\n")[1].split("<!-- /house -->")[0].splitlines()[2:]

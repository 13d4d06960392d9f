"""Processes that watch over what runs: one event and one call of the operator's command, however many look."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.world import World

TELLS = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read())"


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tmp_path / "told"


def command(told: Path) -> str:
    quote: Callable[[str], str] = shlex.quote if os.name != "nt" else '"{}"'.format
    return " ".join(map(quote, (sys.executable, "-c", TELLS, str(told))))


def test_each_look_of_cron_tells_what_is_new_and_nothing_twice(world: World, told: Path) -> None:
    world.post("/faults", {"kind": "never_deploys"})
    order_id = world.rent(hours=8)
    world.post("/clock", {"advance": 900})
    for _ in range(2):
        assert world.run("watchdog", "--once", CLORE_NOTIFY_COMMAND=command(told)).code == 0
    [line] = told.read_text("utf-8").splitlines()
    event = json.loads(line)
    assert (event["what"], event["order_id"]) == ("never_deployed", order_id)
    assert world.ledger().count('"never_deployed"') == 1
    shown = next(row for row in world.run("ledger").out.splitlines() if "never deployed" in row)
    assert f"order {order_id}" in shown and "minutes" in shown
    world.post("/clock", {"advance": 8 * 3600})
    world.run("watchdog", "--once", CLORE_NOTIFY_COMMAND=command(told))
    assert [json.loads(line)["what"] for line in told.read_text("utf-8").splitlines()] == [
        "never_deployed", "lease_ended"
    ]  # fmt: skip


def test_a_command_that_fails_changes_nothing_but_the_log(world: World, told: Path) -> None:
    world.rent()
    world.post("/clock", {"advance": 7_200})
    done = world.run("watchdog", "--once", CLORE_NOTIFY_COMMAND=f"'{told}/gone' x" if os.name != "nt" else "gone x")
    assert done.code == 0 and "the notify command could not be run" in done.err
    assert "lease_ended" in world.ledger()


def test_a_malformed_command_stops_the_start_with_a_line(world: World) -> None:
    done = world.run("watchdog", "--once", CLORE_NOTIFY_COMMAND="tell 'me --token hush")
    assert done.code and done.err.count("\n") == 1
    assert "CLORE_NOTIFY_COMMAND can't be split into words" in done.err and "hush" not in done.err


def test_doctor_says_what_is_run_and_whether_it_is_there(world: World, told: Path) -> None:
    said = world.run("doctor", CLORE_NOTIFY_COMMAND=command(told)).out
    assert f"runs {Path(sys.executable).name} for each event" in said and str(told) not in said
    assert "names a program that is not found" in world.run("doctor", CLORE_NOTIFY_COMMAND=f"{told}/gone").out

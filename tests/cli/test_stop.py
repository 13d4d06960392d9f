"""`clore-mcp stop` and `--lift`, as a person in a hurry uses them."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Desk
from tests.cli.test_orders import _elsewhere
from tests.cli.watchdogs import active


def test_stop_ends_everything_freezes_and_only_a_terminal_lifts_it(desk: Desk) -> None:
    order_id, ask = desk.rent(), desk.ask(1)
    stopped = desk.run("stop")
    assert stopped.code == 0, stopped
    assert "Spending is frozen" in stopped.out
    assert f"Order {order_id} ended." in stopped.out
    assert "stop --lift" in stopped.out
    with pytest.raises(Exception, match="stopped all spending"):
        desk.hold(ask)
    doctor = desk.run("doctor")
    assert doctor.code == 1
    assert "Start here: spending: frozen" in doctor.out

    piped = desk.run("stop", "--lift", stdin="yes\n")
    assert piped.code == 1
    assert "needs a person at a terminal" in piped.err
    with desk.at_terminal("stop", "--lift") as terminal:
        terminal.expect("Type yes to allow spending again")
        terminal.type("no")
        assert terminal.end().code == 1
    with desk.at_terminal("stop", "--lift") as terminal:
        terminal.expect("Type yes to allow spending again")
        terminal.type("yes")
        assert terminal.end().code == 0
    assert desk.hold(ask)
    steps = [json.loads(line)["step"] for line in desk.ledger().splitlines()]
    assert {"frozen", "lifted", "cancel_sent"} <= set(steps)


def test_at_a_terminal_it_freezes_first_and_asks_before_data_is_lost(desk: Desk) -> None:
    order_id = desk.rent()
    with desk.at_terminal("stop") as terminal:
        terminal.expect("End them now? [y/N]")
        assert desk.rows("SELECT name FROM meta WHERE name = 'frozen'"), "frozen before the question"
        terminal.type("n")
        done = terminal.end()
    assert done.code == 1
    assert "They keep running and BILLING" in done.out
    with desk.at_terminal("stop") as terminal:
        terminal.expect("frozen already")
        terminal.expect("End them now? [y/N]")
        terminal.type("y")
        done = terminal.end()
    assert done.code == 0
    assert f"Order {order_id} ended." in done.out


def test_with_nothing_running_and_without_an_api_it_still_freezes(desk: Desk) -> None:
    done = desk.run("stop", CLORE_API_URL="http://127.0.0.1:9/v1")
    assert desk.rows("SELECT name FROM meta WHERE name = 'frozen'")
    assert "Spending is frozen" in done.out
    again = desk.run("stop")
    assert again.code == 0
    assert "No order made here is running." in again.out


def test_what_cannot_be_ended_is_said_loudly(desk: Desk) -> None:
    order_id = desk.rent()
    done = desk.run("stop", CLORE_API_URL="http://127.0.0.1:9/v1")
    assert done.code == 1
    assert f"Order {order_id} is STILL BILLING" in done.err
    assert desk.run("stop").code == 0


def test_what_runs_though_made_elsewhere_is_named_and_left_running(desk: Desk) -> None:
    ours = desk.rent()
    theirs = [_elsewhere(desk, desk.ask(place=place).server_id) for place in (2, 3)]
    stopped = desk.run("stop")
    assert stopped.code == 0, stopped
    assert f"Order {ours} ended." in stopped.out
    for order_id in theirs:
        line = next(one for one in stopped.out.splitlines() if one.startswith(f"Order {order_id} "))
        assert "was not made here and is not ended" in line
        assert f"`clore-mcp cancel {order_id}` ends it" in line
        assert active(desk, order_id)
    assert desk.run("cancel", str(theirs[0]), "--yes").code == 0
    again = desk.run("stop")
    assert again.code == 0
    assert "No order made here is running." in again.out
    assert str(theirs[0]) not in again.out and f"`clore-mcp cancel {theirs[1]}` ends it" in again.out


def test_where_clore_cannot_be_asked_it_says_that_nothing_was_ended(desk: Desk) -> None:
    done = desk.run("stop", CLORE_API_URL="http://127.0.0.1:9/v1")
    assert done.code == 1
    assert "Spending is frozen" in done.out
    assert "Nothing was ended" in done.err
    assert "No order made here is running" not in done.out

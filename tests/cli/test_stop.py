"""`clore-mcp stop` and `--lift`, as a person in a hurry uses them."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_orders import _elsewhere
from tests.cli.watchdogs import active
from tests.world import World


def test_stop_ends_everything_freezes_and_only_a_terminal_lifts_it(world: World) -> None:
    order_id, ask = world.rent(), world.ask(1)
    stopped = world.run("stop")
    assert stopped.code == 0, stopped
    assert "Spending is frozen" in stopped.out
    assert f"Order {order_id} ended." in stopped.out
    assert "stop --lift" in stopped.out
    with pytest.raises(Exception, match="stopped all spending"):
        world.hold(ask)
    doctor = world.run("doctor")
    assert doctor.code == 1
    assert "Start here: spending: frozen" in doctor.out

    piped = world.run("stop", "--lift", stdin="yes\n")
    assert piped.code == 1
    assert "needs a person at a terminal" in piped.err
    with world.at_terminal("stop", "--lift") as terminal:
        terminal.expect("Type yes to allow spending again")
        terminal.type("no")
        assert terminal.end().code == 1
    with world.at_terminal("stop", "--lift") as terminal:
        terminal.expect("Type yes to allow spending again")
        terminal.type("yes")
        assert terminal.end().code == 0
    assert world.hold(ask)
    steps = [json.loads(line)["step"] for line in world.ledger().splitlines()]
    assert {"frozen", "lifted", "cancel_sent"} <= set(steps)


def test_at_a_terminal_it_freezes_first_and_asks_before_data_is_lost(world: World) -> None:
    order_id = world.rent()
    with world.at_terminal("stop") as terminal:
        terminal.expect("End them now? [y/N]")
        assert world.rows("SELECT name FROM meta WHERE name = 'frozen'"), "frozen before the question"
        terminal.type("n")
        done = terminal.end()
    assert done.code == 1
    assert "They keep running and BILLING" in done.out
    with world.at_terminal("stop") as terminal:
        terminal.expect("frozen already")
        terminal.expect("End them now? [y/N]")
        terminal.type("y")
        done = terminal.end()
    assert done.code == 0
    assert f"Order {order_id} ended." in done.out


def test_with_nothing_running_and_without_an_api_it_still_freezes(world: World) -> None:
    done = world.run("stop", CLORE_API_URL="http://127.0.0.1:9/v1")
    assert world.rows("SELECT name FROM meta WHERE name = 'frozen'")
    assert "Spending is frozen" in done.out
    again = world.run("stop")
    assert again.code == 0
    assert "No order made here is running." in again.out


def test_what_cannot_be_ended_is_said_loudly(world: World) -> None:
    order_id = world.rent()
    done = world.run("stop", CLORE_API_URL="http://127.0.0.1:9/v1")
    assert done.code == 1
    assert f"Order {order_id} is STILL BILLING" in done.err
    assert world.run("stop").code == 0


def test_what_runs_though_made_elsewhere_is_named_and_left_running(world: World) -> None:
    ours = world.rent()
    theirs = [_elsewhere(world, world.ask(place=place).server_id) for place in (2, 3)]
    stopped = world.run("stop")
    assert stopped.code == 0, stopped
    assert f"Order {ours} ended." in stopped.out
    for order_id in theirs:
        line = next(one for one in stopped.out.splitlines() if one.startswith(f"Order {order_id} "))
        assert "was not made here and is not ended" in line
        assert f"`clore-mcp cancel {order_id}` ends it" in line
        assert active(world, order_id)
    assert world.run("cancel", str(theirs[0]), "--yes").code == 0
    again = world.run("stop")
    assert again.code == 0
    assert "No order made here is running." in again.out
    assert str(theirs[0]) not in again.out and f"`clore-mcp cancel {theirs[1]}` ends it" in again.out


def test_where_clore_cannot_be_asked_it_says_that_nothing_was_ended(world: World) -> None:
    done = world.run("stop", CLORE_API_URL="http://127.0.0.1:9/v1")
    assert done.code == 1
    assert "Spending is frozen" in done.out
    assert "Nothing was ended" in done.err
    assert "No order made here is running" not in done.out

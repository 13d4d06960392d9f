"""The person's own hands: what runs, how to get in, and ending it."""

from __future__ import annotations

import json

import pytest

from clore_mcp.cli.main import main
from clore_mcp.rental.context import Patience
from tests.world import IMAGE, World


def _elsewhere(world: World, server_id: int, image: str = IMAGE) -> int:
    """An order that the same account made by other means."""
    body = {"key": world.key, "currency": "USD-Blockchain", "image": image, "renting_server": server_id}
    body |= {"type": "on-demand", "ports": {"22": "tcp"}, "age_seconds": 60}
    for coin in ("USD-Blockchain", "CLORE-Blockchain", "bitcoin"):
        try:
            return int(world.post("/orders", body | {"currency": coin})["order_id"])
        except AssertionError as refused:
            if "currency-not-allowed" not in str(refused):
                raise
    raise AssertionError("the server takes no coin")


def test_orders_shows_what_runs_and_how_to_get_in(world: World) -> None:
    order_id = world.rent(jupyter=True)
    world.post("/clock", {"advance": 60})
    done = world.run("orders")
    assert done.code == 0
    header, row, *rest = done.out.splitlines()
    assert header.split() == ["order", "GPU", "status", "$/h", "spent", "ends", "in"]
    assert row.startswith(f"{order_id}  1x ")
    assert any(line.startswith(f"{order_id}: ssh -i ") for line in rest)
    assert rest[-1].startswith("1 running, $")
    assert "No process ends these orders now" in done.err  # the server that was to end it has gone
    told = json.loads(world.run("orders", "--json").out)
    assert [order["order_id"] for order in told["orders"]] == [order_id]


def test_connect_shows_the_token_at_a_terminal_and_nowhere_else(world: World) -> None:
    order_id = world.rent(jupyter=True)
    world.post("/clock", {"advance": 60})
    token = str(world.rows("SELECT value FROM secrets")[0]["value"])
    refused = world.run("connect", str(order_id))
    assert (refused.code, refused.out) == (1, "")
    assert "Run it in a terminal" in refused.err
    with world.at_terminal("connect", str(order_id)) as terminal:
        shown = terminal.end()
    assert shown.code == 0
    assert f"jupyter token: {token}" in shown.out
    assert "ssh -i " in shown.out
    assert f"Host clore-{order_id}" in shown.out
    assert "https://" in shown.out
    others = [world.run(*words.split()) for words in ("orders", "orders --json", "ledger", "ledger --json", "doctor")]
    assert all(token not in done.out + done.err for done in (*others, refused))
    tables = [row["name"] for row in world.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    holding = [name for name in tables if token in str(world.rows(f"SELECT * FROM {name}"))]
    assert holding == ["secrets"]


def test_connect_warns_of_an_address_that_attacks(world: World) -> None:
    ask = world.ask()
    world.post("/options", {"hostile_endpoints": [ask.server_id]})
    order_id = world.rent(ask)
    world.post("/clock", {"advance": 60})
    with world.at_terminal("connect", str(order_id)) as terminal:
        done = terminal.end()
    world.post("/options", {"hostile_endpoints": []})
    assert done.code == 1
    assert "no command is shown" in done.out
    assert "ssh -" not in done.out


def test_connect_to_nothing_says_so(world: World) -> None:
    with world.at_terminal("connect", "7") as terminal:
        done = terminal.end()
    assert (done.code, "No order 7 is running." in done.out) == (1, True)


def test_cancel_asks_and_anything_but_yes_leaves_it(world: World) -> None:
    order_id = world.rent()
    assert world.run("cancel", str(order_id), stdin="y\n").code == 1
    with world.at_terminal("cancel", str(order_id)) as terminal:
        terminal.expect("Cancel? [y/N]")
        terminal.type("")
        done = terminal.end()
    assert (done.code, "Not cancelled. Still billing." in done.out) == (1, True)
    with world.at_terminal("cancel", str(order_id)) as terminal:
        terminal.expect("Cancel? [y/N]")
        terminal.type("y")
        done = terminal.end()
    assert done.code == 0
    assert f"Order {order_id} cancelled. " in done.out
    assert "rent + " in done.out
    again = world.run("cancel", str(order_id), "--yes")
    assert (again.code, "had already ended" in again.out) == (0, True)
    assert f"{order_id}" in world.run("orders", "--all").out
    assert world.run("cancel", "7", "--yes").code == 1


def test_cancel_all_ends_what_was_made_here_and_says_what_it_leaves(world: World) -> None:
    mine = [world.rent(place=place) for place in (0, 1)]
    theirs = _elsewhere(world, world.ask(place=2).server_id)
    done = world.run("cancel", "--all", "--yes")
    assert done.code == 0, done.err
    assert "1 not made here and left running." in done.out
    assert all(f"Order {order_id} cancelled." in done.out for order_id in mine)
    after = world.run("orders")
    assert f"{theirs}*" in after.out
    assert "1 running" in after.out
    assert "No order made here is running." in world.run("cancel", "--all", "--yes").out


def test_a_cancel_that_is_not_proven_is_loud_and_exit_1(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order_id = world.rent()
    world.post("/faults", {"kind": "cancel_ignored", "endpoint": "cancel_order", "times": 50})
    monkeypatch.setattr("clore_mcp.wiring.Patience", lambda: Patience(proof=1.0))  # real people wait 25 s
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    code = main(["cancel", str(order_id), "--yes"])
    world.mend()
    assert code == 1
    assert f"!! Order {order_id} is STILL BILLING" in capsys.readouterr().err


def test_read_only_cancels_nothing(world: World) -> None:
    done = world.run("cancel", "--all", "--yes", CLORE_READ_ONLY="1")
    assert (done.code, "CLORE_READ_ONLY is set" in done.err) == (1, True)


def test_an_end_that_nobody_enforces_is_marked(world: World) -> None:
    order_id = world.rent(on_end="notify")
    done = world.run("orders")
    assert f"{order_id}" in done.out
    assert ", not cancelled" in done.out

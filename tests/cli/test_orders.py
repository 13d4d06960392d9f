"""The person's own hands: what runs, how to get in, and ending it."""

from __future__ import annotations

import json

import pytest

from clore_mcp.cli.main import main
from clore_mcp.rental.context import Patience
from tests.cli.conftest import IMAGE, Desk


def _elsewhere(desk: Desk, server_id: int, image: str = IMAGE) -> int:
    """An order that the same account made by other means."""
    body = {"key": desk.key, "currency": "USD-Blockchain", "image": image, "renting_server": server_id}
    body |= {"type": "on-demand", "ports": {"22": "tcp"}, "age_seconds": 60}
    for coin in ("USD-Blockchain", "CLORE-Blockchain", "bitcoin"):
        try:
            return int(desk.control("/orders", body | {"currency": coin})["order_id"])
        except AssertionError as refused:
            if "currency-not-allowed" not in str(refused):
                raise
    raise AssertionError("the server takes no coin")


def test_orders_shows_what_runs_and_how_to_get_in(desk: Desk) -> None:
    order_id = desk.rent(jupyter=True)
    desk.control("/clock", {"advance": 60})
    done = desk.run("orders")
    assert done.code == 0
    header, row, *rest = done.out.splitlines()
    assert header.split() == ["order", "GPU", "status", "$/h", "spent", "ends", "in"]
    assert row.startswith(f"{order_id}  1x ")
    assert any(line.startswith(f"{order_id}: ssh -i ") for line in rest)
    assert rest[-1].startswith("1 running, $")
    assert "No process ends these orders now" in done.err  # the server that was to end it has gone
    told = json.loads(desk.run("orders", "--json").out)
    assert [order["order_id"] for order in told["orders"]] == [order_id]


def test_connect_shows_the_token_at_a_terminal_and_nowhere_else(desk: Desk) -> None:
    order_id = desk.rent(jupyter=True)
    desk.control("/clock", {"advance": 60})
    token = str(desk.rows("SELECT value FROM secrets")[0]["value"])
    refused = desk.run("connect", str(order_id))
    assert (refused.code, refused.out) == (1, "")
    assert "Run it in a terminal" in refused.err
    with desk.at_terminal("connect", str(order_id)) as terminal:
        shown = terminal.end()
    assert shown.code == 0
    assert f"jupyter token: {token}" in shown.out
    assert "ssh -i " in shown.out
    assert f"Host clore-{order_id}" in shown.out
    assert "https://" in shown.out
    others = [desk.run(*words.split()) for words in ("orders", "orders --json", "ledger", "ledger --json", "doctor")]
    assert all(token not in done.out + done.err for done in (*others, refused))
    tables = [row["name"] for row in desk.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    holding = [name for name in tables if token in str(desk.rows(f"SELECT * FROM {name}"))]
    assert holding == ["secrets"]


def test_connect_warns_of_an_address_that_attacks(desk: Desk) -> None:
    ask = desk.ask()
    desk.control("/options", {"hostile_endpoints": [ask.server_id]})
    order_id = desk.rent(ask)
    desk.control("/clock", {"advance": 60})
    with desk.at_terminal("connect", str(order_id)) as terminal:
        done = terminal.end()
    desk.control("/options", {"hostile_endpoints": []})
    assert done.code == 1
    assert "no command is shown" in done.out
    assert "ssh -" not in done.out


def test_connect_to_nothing_says_so(desk: Desk) -> None:
    with desk.at_terminal("connect", "7") as terminal:
        done = terminal.end()
    assert (done.code, "No order 7 is running." in done.out) == (1, True)


def test_cancel_asks_and_anything_but_yes_leaves_it(desk: Desk) -> None:
    order_id = desk.rent()
    assert desk.run("cancel", str(order_id), stdin="y\n").code == 1
    with desk.at_terminal("cancel", str(order_id)) as terminal:
        terminal.expect("Cancel? [y/N]")
        terminal.type("")
        done = terminal.end()
    assert (done.code, "Not cancelled. Still billing." in done.out) == (1, True)
    with desk.at_terminal("cancel", str(order_id)) as terminal:
        terminal.expect("Cancel? [y/N]")
        terminal.type("y")
        done = terminal.end()
    assert done.code == 0
    assert f"Order {order_id} cancelled. " in done.out
    assert "rent + " in done.out
    again = desk.run("cancel", str(order_id), "--yes")
    assert (again.code, "had already ended" in again.out) == (0, True)
    assert f"{order_id}" in desk.run("orders", "--all").out
    assert desk.run("cancel", "7", "--yes").code == 1


def test_cancel_all_ends_what_was_made_here_and_says_what_it_leaves(desk: Desk) -> None:
    mine = [desk.rent(place=place) for place in (0, 1)]
    theirs = _elsewhere(desk, desk.ask(place=2).server_id)
    done = desk.run("cancel", "--all", "--yes")
    assert done.code == 0, done.err
    assert "1 not made here and left running." in done.out
    assert all(f"Order {order_id} cancelled." in done.out for order_id in mine)
    after = desk.run("orders")
    assert f"{theirs}*" in after.out
    assert "1 running" in after.out
    assert "No order made here is running." in desk.run("cancel", "--all", "--yes").out


def test_a_cancel_that_is_not_proven_is_loud_and_exit_1(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order_id = desk.rent()
    desk.control("/faults", {"kind": "cancel_ignored", "endpoint": "cancel_order", "times": 50})
    monkeypatch.setattr("clore_mcp.wiring.Patience", lambda: Patience(proof=1.0))  # real people wait 25 s
    for name, value in desk.env.items():
        monkeypatch.setenv(name, value)
    code = main(["cancel", str(order_id), "--yes"])
    desk.calm()
    assert code == 1
    assert f"!! Order {order_id} is STILL BILLING" in capsys.readouterr().err


def test_read_only_cancels_nothing(desk: Desk) -> None:
    done = desk.run("cancel", "--all", "--yes", CLORE_READ_ONLY="1")
    assert (done.code, "CLORE_READ_ONLY is set" in done.err) == (1, True)


def test_an_end_that_nobody_enforces_is_marked(desk: Desk) -> None:
    order_id = desk.rent(on_end="notify")
    done = desk.run("orders")
    assert f"{order_id}" in done.out
    assert ", not cancelled" in done.out

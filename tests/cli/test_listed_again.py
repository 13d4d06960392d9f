"""Real processes, and orders that Clore calls ended and lists as running again, or lists for another key of theirs."""

from __future__ import annotations

from typing import Any

from tests.cli.conftest import Desk
from tests.cli.watchdogs import Kennel, Server, active, lives, until
from tests.conftest import delete_state, watchdogs_started

HOURS_2 = 7_200
ENDED = "SELECT order_id FROM orders WHERE ended_at IS NOT NULL"
RUNS = "SELECT order_id FROM orders WHERE ended_at IS NULL"


def seem(desk: Desk, order_id: int, seems: str, **more: Any) -> None:
    desk.control(f"/orders/{order_id}", {"seems": seems, **more})


def flicker(desk: Desk) -> int:
    """An order that a command has seen as ended, and that is listed as running again."""
    order_id = desk.rent()
    seem(desk, order_id, "expired")
    assert desk.run("orders").code == 0
    assert desk.rows(ENDED), "it counts as gone"
    seem(desk, order_id, "as_it_is")
    return order_id


def test_stop_ends_an_order_that_had_counted_as_gone(desk: Desk) -> None:
    order_id = flicker(desk)
    stopped = desk.run("stop")
    assert (stopped.code, f"Order {order_id} ended." in stopped.out) == (0, True), stopped
    assert not active(desk, order_id)


def test_stop_at_a_terminal_asks_about_it_first(desk: Desk) -> None:
    order_id = flicker(desk)
    with desk.at_terminal("stop") as terminal:
        terminal.expect("End them now? [y/N]")
        assert f"Made here and running: {order_id}" in terminal.seen
        terminal.type("y")
        assert terminal.end().code == 0
    assert not active(desk, order_id)


def test_once_gives_it_its_end_back_and_ends_it_when_it_is_over(desk: Desk) -> None:
    order_id = flicker(desk)
    assert desk.run("watchdog", "--once").code == 0
    assert [row["order_id"] for row in desk.rows(RUNS)] == [order_id]
    assert "order_seen_again" in desk.ledger()
    seem(desk, order_id, "expired")
    assert desk.run("orders").code == 0
    desk.control("/clock", {"advance": HOURS_2})
    seem(desk, order_id, "as_it_is")
    assert desk.run("watchdog", "--once").code == 0
    assert not active(desk, order_id), "in the round that saw it again"


def test_once_exits_1_while_it_runs_on(desk: Desk, kennel: Kennel) -> None:
    order_id = flicker(desk)
    desk.control("/clock", {"advance": HOURS_2})
    seem(desk, order_id, "both")
    desk.control("/faults", {"kind": "cancel_ignored", "times": 500})
    done = desk.run("watchdog", "--once")
    assert done.code == 1
    assert f"The time of order {order_id} is over, and it is STILL BILLING" in done.err
    stopped = desk.run("stop")
    assert stopped.code == 1
    assert f"Order {order_id} is STILL BILLING" in stopped.err


def test_a_watchdog_at_work_notices_it(desk: Desk, kennel: Kennel) -> None:
    order_id = desk.rent()
    watchdog = kennel.start("--detached")
    kennel.hears(watchdog, "Ending orders")
    seem(desk, order_id, "expired")
    until(lambda: desk.rows(ENDED), "it counts as gone")
    seem(desk, order_id, "as_it_is")
    until(lambda: desk.rows(RUNS), "it has its lease back")
    desk.control("/clock", {"advance": HOURS_2})
    until(lambda: not active(desk, order_id), "the order ends")


def test_a_server_that_starts_again_ends_it(desk: Desk, kennel: Kennel) -> None:
    order_id = flicker(desk)
    desk.control("/clock", {"advance": HOURS_2})
    server = Server(desk)
    try:
        until(lambda: not active(desk, order_id), "the order ends")
    finally:
        server.kill()
        started = watchdogs_started(desk.state)
        delete_state(desk.state)
    until(lambda: not any(map(lives, started)), "no process is left")


def rotated(desk: Desk) -> tuple[int, dict[str, str]]:
    """An order of an account without addresses, and the environment of another key of that account."""
    desk.control("/faults", {"kind": "no_deposits", "times": 100_000})
    order_id, key = desk.rent(), f"{desk.key}-rotated"
    desk.control("/keys", {"key": key, "of": desk.key})
    return order_id, {"CLORE_API_KEY": key}


def test_a_rotated_key_ends_what_the_old_one_made(desk: Desk, kennel: Kennel) -> None:
    order_id, env = rotated(desk)
    assert f"{order_id}*" not in desk.run("orders", **env).out
    stopped = desk.run("stop", **env)
    assert (stopped.code, f"Order {order_id} ended." in stopped.out) == (0, True), stopped
    assert not active(desk, order_id)


def test_a_rotated_key_keeps_the_end(desk: Desk, kennel: Kennel) -> None:
    order_id, env = rotated(desk)
    assert desk.run("watchdog", "--once", **env).code == 0
    desk.control("/clock", {"advance": HOURS_2})
    assert desk.run("watchdog", "--once", **env).code == 0
    assert not active(desk, order_id)


def test_where_it_cannot_be_known_every_way_to_ask_says_so(desk: Desk, kennel: Kennel) -> None:
    order_id, env = rotated(desk)
    seem(desk, order_id, "vanished")
    once = desk.run("watchdog", "--once", **env)
    assert (once.code, f"Order {order_id} was made here under another key" in once.err) == (1, True), once
    doctor = desk.run("doctor", **env)
    assert (doctor.code, "Start here: account:" in doctor.out) == (1, True), doctor
    server = Server(desk, CLORE_WATCHDOG="off", **env)
    try:
        events = server.call("get_account")["events"]
    finally:
        server.kill()
    assert [one["order_id"] for one in events if one["what"] == "account doubtful"] == [order_id]
    seem(desk, order_id, "vanished")
    desk.control("/faults", {"kind": "cancel_ignored", "times": 500})
    stopped = desk.run("stop", **env)
    assert (stopped.code, str(order_id) in stopped.err) == (1, True), stopped


def test_stop_says_what_another_account_has(desk: Desk, kennel: Kennel, fresh_key: Any) -> None:
    order_id = desk.rent()
    stopped = desk.run("stop", CLORE_API_KEY=fresh_key())
    assert stopped.code == 1
    assert f"Order {order_id} was made here and is NOT ENDED" in stopped.err
    assert active(desk, order_id)
    assert desk.run("watchdog", "--once", CLORE_API_KEY=fresh_key()).code == 0, "it is another account's, proven"
    assert desk.run("stop").code == 0

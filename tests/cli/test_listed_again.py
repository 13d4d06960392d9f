"""Real processes, and orders that Clore calls ended and lists as running again, or lists for another key of theirs."""

from __future__ import annotations

from typing import Any

from tests.cli.watchdogs import Kennel, Server, active, lives, until
from tests.conftest import delete_state, watchdogs_started
from tests.world import World

HOURS_2 = 7_200
ENDED = "SELECT order_id FROM orders WHERE ended_at IS NOT NULL"
RUNS = "SELECT order_id FROM orders WHERE ended_at IS NULL"


def seem(world: World, order_id: int, seems: str, **more: Any) -> None:
    world.post(f"/orders/{order_id}", {"seems": seems, **more})


def flicker(world: World) -> int:
    """An order that a command has seen as ended, and that is listed as running again."""
    order_id = world.rent()
    seem(world, order_id, "expired")
    assert world.run("orders").code == 0
    assert world.rows(ENDED), "it counts as gone"
    seem(world, order_id, "as_it_is")
    return order_id


def test_stop_ends_an_order_that_had_counted_as_gone(world: World) -> None:
    order_id = flicker(world)
    stopped = world.run("stop")
    assert (stopped.code, f"Order {order_id} ended." in stopped.out) == (0, True), stopped
    assert not active(world, order_id)


def test_stop_at_a_terminal_asks_about_it_first(world: World) -> None:
    order_id = flicker(world)
    with world.at_terminal("stop") as terminal:
        terminal.expect("End them now? [y/N]")
        assert f"Made here and running: {order_id}" in terminal.seen
        terminal.type("y")
        assert terminal.end().code == 0
    assert not active(world, order_id)


def test_once_gives_it_its_end_back_and_ends_it_when_it_is_over(world: World) -> None:
    order_id = flicker(world)
    assert world.run("watchdog", "--once").code == 0
    assert [row["order_id"] for row in world.rows(RUNS)] == [order_id]
    assert "order_seen_again" in world.ledger()
    seem(world, order_id, "expired")
    assert world.run("orders").code == 0
    world.post("/clock", {"advance": HOURS_2})
    seem(world, order_id, "as_it_is")
    assert world.run("watchdog", "--once").code == 0
    assert not active(world, order_id), "in the round that saw it again"


def test_once_exits_1_while_it_runs_on(world: World, kennel: Kennel) -> None:
    order_id = flicker(world)
    world.post("/clock", {"advance": HOURS_2})
    seem(world, order_id, "both")
    world.post("/faults", {"kind": "cancel_ignored", "times": 500})
    done = world.run("watchdog", "--once")
    assert done.code == 1
    assert f"The time of order {order_id} is over, and it is STILL BILLING" in done.err
    stopped = world.run("stop")
    assert stopped.code == 1
    assert f"Order {order_id} is STILL BILLING" in stopped.err


def test_a_watchdog_at_work_notices_it(world: World, kennel: Kennel) -> None:
    order_id = world.rent()
    watchdog = kennel.start("--detached")
    kennel.hears(watchdog, "Ending orders")
    seem(world, order_id, "expired")
    until(lambda: world.rows(ENDED), "it counts as gone")
    seem(world, order_id, "as_it_is")
    until(lambda: world.rows(RUNS), "it has its lease back")
    world.post("/clock", {"advance": HOURS_2})
    until(lambda: not active(world, order_id), "the order ends")


def test_a_server_that_starts_again_ends_it(world: World, kennel: Kennel) -> None:
    order_id = flicker(world)
    world.post("/clock", {"advance": HOURS_2})
    server = Server(world)
    try:
        until(lambda: not active(world, order_id), "the order ends")
    finally:
        server.kill()
        started = watchdogs_started(world.state)
        delete_state(world.state)
    until(lambda: not any(map(lives, started)), "no process is left")


def rotated(world: World) -> tuple[int, dict[str, str]]:
    """An order of an account without addresses, and the environment of another key of that account."""
    world.post("/faults", {"kind": "no_deposits", "times": 100_000})
    order_id, key = world.rent(), f"{world.key}-rotated"
    world.post("/keys", {"key": key, "of": world.key})
    return order_id, {"CLORE_API_KEY": key}


def test_a_rotated_key_ends_what_the_old_one_made(world: World, kennel: Kennel) -> None:
    order_id, env = rotated(world)
    assert f"{order_id}*" not in world.run("orders", **env).out
    stopped = world.run("stop", **env)
    assert (stopped.code, f"Order {order_id} ended." in stopped.out) == (0, True), stopped
    assert not active(world, order_id)


def test_a_rotated_key_keeps_the_end(world: World, kennel: Kennel) -> None:
    order_id, env = rotated(world)
    assert world.run("watchdog", "--once", **env).code == 0
    world.post("/clock", {"advance": HOURS_2})
    assert world.run("watchdog", "--once", **env).code == 0
    assert not active(world, order_id)


def test_where_it_cannot_be_known_every_way_to_ask_says_so(world: World, kennel: Kennel) -> None:
    order_id, env = rotated(world)
    seem(world, order_id, "vanished")
    once = world.run("watchdog", "--once", **env)
    assert (once.code, f"Order {order_id} was made here under another key" in once.err) == (1, True), once
    doctor = world.run("doctor", **env)
    assert (doctor.code, "Start here: account:" in doctor.out) == (1, True), doctor
    server = Server(world, CLORE_WATCHDOG="off", **env)
    try:
        events = server.call("get_account")["events"]
    finally:
        server.kill()
    assert [one["order_id"] for one in events if one["what"] == "account doubtful"] == [order_id]
    seem(world, order_id, "vanished")
    world.post("/faults", {"kind": "cancel_ignored", "times": 500})
    stopped = world.run("stop", **env)
    assert (stopped.code, str(order_id) in stopped.err) == (1, True), stopped


def test_stop_says_what_another_account_has(world: World, kennel: Kennel, fresh_key: Any) -> None:
    order_id = world.rent()
    stopped = world.run("stop", CLORE_API_KEY=fresh_key())
    assert stopped.code == 1
    assert f"Order {order_id} was made here and is NOT ENDED" in stopped.err
    assert active(world, order_id)
    assert world.run("watchdog", "--once", CLORE_API_KEY=fresh_key()).code == 0, "it is another account's, proven"
    assert world.run("stop").code == 0

"""The watchdog as a process: ends what is over, one for a state, loud when it can't, and gone when it is not needed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from clore_mcp.cli import watchdog as watchdog_command
from clore_mcp.errors import StateUnavailable
from clore_mcp.store.database import Database
from clore_mcp.watchdog_process import LOG_NAME, starter
from tests.cli.watchdogs import REAL, Kennel, Server, active, lives, requests, until
from tests.conftest import delete_state, settings_for, watchdogs_started
from tests.terminal import PATIENCE
from tests.world import World

HOURS_2 = 7_200


def test_it_ends_an_order_whose_time_is_over_and_then_itself(world: World, kennel: Kennel) -> None:
    order_id = world.rent()
    watchdog = kennel.start("--detached")
    kennel.hears(watchdog, "Ending orders")
    assert active(world, order_id)
    world.post("/clock", {"advance": HOURS_2})
    until(lambda: not active(world, order_id), "the order ends")
    assert watchdog.wait(PATIENCE) == 0, "nothing is left to end"
    assert "Nothing is left to end." in kennel.said(watchdog)
    assert "lease_ended" in world.ledger()
    assert world.beats() == [], "its heartbeat is taken back"


def test_who_ends_orders_is_said_truly(world: World, kennel: Kennel) -> None:
    world.rent()
    watchdog = kennel.start()
    until(world.beats, "a heartbeat")
    assert "alive: the watchdog on " in world.run("doctor").out
    watchdog.kill()
    watchdog.wait(PATIENCE)
    world.write(lambda tx: tx.run("UPDATE heartbeats SET at = at - 200"))  # three polls later
    assert "Start here: watchdog: absent, and 1 running order has an end" in world.run("doctor").out


def test_one_works_and_the_next_takes_over_when_it_is_killed(world: World, kennel: Kennel) -> None:
    order_id = world.rent()
    first = kennel.start()
    kennel.hears(first, "Ending orders")
    second = kennel.start()
    kennel.hears(second, "Waiting until it exits")
    started = kennel.start("--detached")
    assert (started.wait(PATIENCE), kennel.said(started)) == (0, ""), "one that a server starts does not wait"
    until(lambda: len(world.beats()) == 1, "one heartbeat")
    first.kill()
    kennel.hears(second, "Ending orders")
    world.post("/clock", {"advance": HOURS_2})
    until(lambda: not active(world, order_id), "the order ends")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a word")
def test_a_signal_ends_it_and_its_heartbeat(world: World, kennel: Kennel) -> None:
    world.rent()
    watchdog = kennel.start()
    until(world.beats, "a heartbeat")
    watchdog.send_signal(signal.SIGTERM)
    assert watchdog.wait(PATIENCE) == 0
    assert world.beats() == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no open file")
def test_it_ends_with_its_state(world: World, kennel: Kennel) -> None:
    world.rent()
    watchdog = kennel.start()
    kennel.hears(watchdog, "Ending orders")
    until(world.beats, "a heartbeat")
    waiting = kennel.start()
    kennel.hears(waiting, "Waiting until it exits")
    delete_state(world.state)
    assert watchdog.wait(PATIENCE) == 1
    assert "was deleted" in kennel.said(watchdog)
    assert waiting.wait(PATIENCE) == 1


def test_it_ends_with_its_state_though_clore_is_silent(world: World, kennel: Kennel) -> None:
    world.rent()
    watchdog = kennel.start()
    kennel.hears(watchdog, "Ending orders")
    until(world.beats, "a heartbeat")
    before = requests(world, "my_orders")
    world.post("/faults", {"kind": "hang_before", "endpoint": "my_orders", "times": 1000})
    until(lambda: requests(world, "my_orders") > before, "a round that waits for Clore")
    delete_state(world.state)
    began = time.monotonic()
    assert watchdog.wait(PATIENCE) == 1
    assert time.monotonic() - began < 15, "no longer than it takes to notice"
    assert "was deleted" in kennel.said(watchdog)


@pytest.mark.anyio
async def test_a_started_one_begins_no_state_where_one_was_just_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "exists", True)  # as it was when it looked
    with pytest.raises(StateUnavailable):
        await watchdog_command._stay(settings_for(world.env, world.folder), detached=True)
    assert not world.state.exists()


def test_a_service_begins_the_state_and_stays_though_nothing_is_there(world: World, kennel: Kennel) -> None:
    watchdog = kennel.start()
    until(world.beats, "a heartbeat, so that the limits count it")
    assert watchdog.poll() is None
    assert requests(world, "wallets") > 0
    assert requests(world, "my_orders") == 0, "an idle one asks Clore for nothing"
    begun = world.folder / "other"
    unneeded = kennel.start("--detached", CLORE_STATE_DIR=str(begun))
    assert (unneeded.wait(PATIENCE), begun.exists()) == (0, False)


def test_once_is_one_round_and_its_exit_code_says_whether_all_is_well(world: World) -> None:
    assert world.run("watchdog", "--once").code == 0
    order_id = world.rent()
    assert world.run("watchdog", "--once").code == 0
    assert active(world, order_id)
    world.post("/clock", {"advance": HOURS_2})
    done = world.run("watchdog", "--once")
    assert (done.code, done.err) == (0, "")
    assert not active(world, order_id)
    assert world.beats() == [], "nobody stays behind"


def test_a_refused_key_is_an_alarm(world: World) -> None:
    order_id = world.rent()
    world.post("/clock", {"advance": HOURS_2})
    done = world.run("watchdog", "--once", CLORE_API_KEY="not-a-key-of-anybody-0000")
    assert done.code == 1
    assert "Clore refuses the API key" in done.err
    assert "Make a new key on clore.ai" in done.err
    assert "key_refused" in world.ledger()
    assert world.run("watchdog", "--once", CLORE_API_KEY="not-a-key-of-anybody-0000").code == 1
    assert world.ledger().count("key_refused") == 1
    assert active(world, order_id)
    missing = world.run("watchdog", CLORE_API_KEY="")
    assert (missing.code, "set CLORE_API_KEY" in missing.err) == (1, True)


def test_a_cancel_that_does_nothing_is_shouted_about_and_tried_again(world: World, kennel: Kennel) -> None:
    order_id = world.rent()
    world.post("/faults", {"kind": "cancel_ignored", "endpoint": "cancel_order", "times": 500})
    world.post("/clock", {"advance": HOURS_2})
    watchdog = kennel.start()
    alarm = f"The time of order {order_id} is over, and it is STILL BILLING"
    kennel.hears(watchdog, alarm)  # after the 25 s that a proof may take
    assert requests(world, "cancel_order") > 1
    assert "still_billing" in world.ledger()
    world.mend()
    until(lambda: not active(world, order_id), "the order ends")
    until(lambda: "lease_ended" in world.ledger(), "and it is told")


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill(pid, 0) ends a process there")
def test_an_order_ends_though_its_server_was_killed(world: World) -> None:
    server = Server(world, REAL)
    try:
        server.call("list_orders")
        assert not (world.state / LOG_NAME).exists(), "looking starts none"
        order_id = int(server.rent()["order_id"])
        until(lambda: watchdogs_started(world.state), "a watchdog of its own")
        until(lambda: any(owner.startswith("watchdog-") for owner in world.beats()), "it beats")
        found = server.call("get_account")
        assert server.rent(place=1)["enforced_by"].startswith("the watchdog on ")
    finally:
        server.kill()
    assert found["watchdog"] == "alive"
    (pid,) = watchdogs_started(world.state)
    assert (world.state / LOG_NAME).stat().st_mode & 0o077 == 0
    ps = ["ps", "-ww", "-o", "args=", "-p", str(pid)]
    command = subprocess.run(ps, capture_output=True, text=True, timeout=60).stdout
    assert "watchdog --detached" in command
    assert world.key not in command
    assert active(world, order_id)
    world.post("/clock", {"advance": HOURS_2})
    until(lambda: not active(world, order_id), "the watchdog ends it")
    until(lambda: not lives(pid), "and then itself")
    assert world.key not in (world.state / LOG_NAME).read_text("utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill(pid, 0) ends a process there")
def test_it_is_started_by_a_server_that_finds_orders_and_ends_with_the_state(world: World) -> None:
    world.rent()
    server = Server(world)
    try:
        server.call("list_orders")
        until(lambda: watchdogs_started(world.state), "a watchdog for an order of an earlier run")
        (pid,) = watchdogs_started(world.state)
        assert lives(pid)
    finally:
        server.kill()
    delete_state(world.state)
    until(lambda: not lives(pid), "it ends with its state")


@pytest.mark.parametrize("env", [{"CLORE_WATCHDOG": "off"}, {"CLORE_READ_ONLY": "1"}], ids=["off", "read-only"])
def test_none_is_started_where_the_operator_says_no(world: World, env: dict[str, str]) -> None:
    wanted = settings_for(world.env | env, world.folder)
    assert starter(wanted) is None
    inside = settings_for(world.env, world.folder).with_sandbox(world.running.url, world.key, gap_seconds=0.1)
    assert starter(inside) is None, "a market inside a process ends with it"


def test_read_only_ends_nothing(world: World) -> None:
    order_id = world.rent()
    world.post("/clock", {"advance": HOURS_2})
    assert world.run("watchdog", "--once", CLORE_READ_ONLY="1").code == 1
    assert active(world, order_id)

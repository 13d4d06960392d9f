"""A watchdog that can't do its work gives its place away, and is not named: an old version, a state that it can't read,
a frozen process. And one that a client can't end by ending all that is below it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from clore_mcp.store.database import FILE_NAME
from clore_mcp.watchdog_process import LOG_NAME, place_of
from tests.cli.watchdogs import REAL, Kennel, Server, active, lives, requests, until
from tests.conftest import settings_for, watchdogs_started
from tests.terminal import PATIENCE
from tests.world import World

HOURS_2 = 7_200
COLUMN = "ALTER TABLE orders ADD COLUMN colour TEXT"
# The program of tomorrow: one migration more. Python runs this at each start of a process with that PYTHONPATH.
TOMORROW = f"""
from clore_mcp.store import Database, orders
from clore_mcp.store.schema import MIGRATIONS
newer = (*MIGRATIONS, "{COLUMN};")
Database.__init__.__defaults__ = tuple(newer if one is MIGRATIONS else one for one in Database.__init__.__defaults__)
def lease(row, as_before=orders._lease):
    return as_before({{name: row[name] for name in row.keys() if name != "colour"}})
orders._lease = lease
"""
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals to processes of their own")


@pytest.fixture
def tomorrow(tmp_path: Path) -> dict[str, str]:
    """The environment in which the program is a version newer."""
    site = tmp_path / "tomorrow"
    site.mkdir()
    (site / "sitecustomize.py").write_text(TOMORROW)
    return {"PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])}


def beats(world: World) -> dict[str, float]:
    """When each watchdog beat last, whatever the version of the tables is."""
    connection = sqlite3.connect(world.state / FILE_NAME)
    try:
        return dict(connection.execute("SELECT owner, at FROM heartbeats WHERE owner LIKE 'watchdog-%'"))
    finally:
        connection.close()


def migrate(world: World) -> None:
    """As a command of a newer version does that ends again."""
    connection = sqlite3.connect(world.state / FILE_NAME)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.executescript(f"BEGIN; {COLUMN}; PRAGMA user_version = {version + 1}; COMMIT;")
    connection.close()


def place_is_free(world: World) -> bool:
    place = place_of(settings_for(world.env, world.folder))
    try:
        return place.take()
    finally:
        place.release()


def at_work(world: World, kennel: Kennel, *words: str) -> subprocess.Popen[bytes]:
    """A watchdog that has read the leases and said so."""
    watchdog = kennel.start(*words)
    kennel.hears(watchdog, "Ending orders")
    until(lambda: beats(world), "a heartbeat")
    before = requests(world, "my_orders")
    until(lambda: requests(world, "my_orders") > before, "a look")
    return watchdog


def test_yesterdays_watchdog_makes_room_for_that_of_todays_server(
    world: World, kennel: Kennel, tomorrow: dict[str, str]
) -> None:
    another = world.ask(1).model_dump(exclude_defaults=True, mode="json")
    order_id = world.rent()
    old = at_work(world, kennel, "--detached")
    (owner,) = beats(world)
    server = Server(world, **tomorrow)
    try:
        server.call("list_orders")
        until(lambda: set(beats(world)) - {owner}, "today's watchdog beats")
        assert old.wait(PATIENCE) == 0
        assert "The ends of orders can't be read" in kennel.said(old)
        assert "Another watchdog works" in kennel.said(old)
        assert server.call("create_order", **another)["enforced_by"].startswith("the watchdog on ")
    finally:
        server.kill()
    last = beats(world)[owner]
    world.post("/clock", {"advance": HOURS_2})
    until(lambda: not active(world, order_id), "today's watchdog ends it")
    assert beats(world).get(owner, last) == last, "the old one has not beaten since"


@posix
def test_one_that_is_out_of_date_ends_from_memory_what_it_knew_and_claims_nothing(world: World, kennel: Kennel) -> None:
    order_id = world.rent()
    old = at_work(world, kennel, "--detached")
    migrate(world)
    kennel.hears(old, "The ends of orders can't be read")
    last = beats(world)
    until(lambda: place_is_free(world), "its place is free for another")
    until(lambda: "newer clore-mcp" in (world.state / LOG_NAME).read_text("utf-8"), "it started what is installed now")
    assert old.poll() is None, "nobody else can end the order"
    world.post("/clock", {"advance": HOURS_2})
    until(lambda: not active(world, order_id), "the order ends")
    assert old.wait(PATIENCE) == 1, "and then itself"
    assert beats(world) == last


def test_a_service_that_is_out_of_date_says_so_and_ends_to_be_started_again(world: World, kennel: Kennel) -> None:
    world.rent()
    old = at_work(world, kennel)
    migrate(world)
    assert old.wait(PATIENCE) == 1
    assert "!! " in kennel.said(old)
    assert "written by a newer clore-mcp" in kennel.said(old)
    assert "Restart this clore-mcp" in kennel.said(old)
    assert place_is_free(world)
    once = world.run("watchdog", "--once")
    assert once.code == 1
    assert "newer clore-mcp" in once.err


def test_one_that_cannot_read_the_leases_gives_its_place_away_until_it_can(world: World, kennel: Kennel) -> None:
    order_id = world.rent()
    watchdog = at_work(world, kennel)
    (right,) = world.rows("SELECT price_native FROM orders")
    world.write(lambda tx: tx.run("UPDATE orders SET price_native = 'none'"))
    kennel.hears(watchdog, "The ends of orders can't be read")
    until(lambda: place_is_free(world), "its place")
    last = beats(world)
    assert "alive" not in world.run("doctor").out
    once = world.run("watchdog", "--once")
    assert (once.code, "The ends of orders can't be read" in once.err) == (1, True)
    assert beats(world) == last
    world.write(lambda tx: tx.run("UPDATE orders SET price_native = ?", right["price_native"]))
    until(lambda: beats(world) != last, "it beats again")
    until(lambda: not place_is_free(world), "in its place")
    world.post("/clock", {"advance": HOURS_2})
    until(lambda: not active(world, order_id), "the order ends")


@posix
@pytest.mark.parametrize("own", ["auto", "off"])
def test_a_frozen_watchdog_is_not_named(world: World, kennel: Kennel, own: str) -> None:
    another = world.ask(1).model_dump(exclude_defaults=True, mode="json")
    world.rent()
    kennel.python = sys.executable  # the one that is frozen
    watchdog = at_work(world, kennel)
    server = Server(world, CLORE_WATCHDOG=own, **({"CLORE_APPROVAL": "ask"} if own == "off" else {}))
    try:
        assert server.call("get_account")["watchdog"] == "alive"
        os.kill(watchdog.pid, signal.SIGSTOP)
        after = Server(world, CLORE_WATCHDOG=own)
        try:
            if own == "off":
                assert after.call("get_account")["watchdog"] == "absent"
                refused = after.call("create_order", **another)
                assert [one["limit"] for one in refused["refusals"]] == ["watchdog"]
            else:
                made = after.call("create_order", **another)
                assert made["enforced_by"].endswith("while it runs and the machine is awake")
                assert made["enforced_by"].startswith("clore-mcp on ")
        finally:
            after.kill()
        assert "does not answer" in world.run("doctor").out
        os.kill(watchdog.pid, signal.SIGCONT)
        until(lambda: world.run("doctor").out.count("alive: the watchdog on "), "it answers again")
    finally:
        os.kill(watchdog.pid, signal.SIGCONT)
        server.kill()


def below(root: int) -> list[int]:
    """Every process under one, as a client finds them that ends a whole tree: by the ids of parents."""
    told = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, timeout=60).stdout
    pairs = [(int(pid), int(parent)) for pid, parent in (line.split() for line in told.splitlines())]
    found = [root]
    for one in found:
        found.extend(pid for pid, parent in pairs if parent == one)
    return found


@posix
def test_it_outlives_a_client_that_ends_the_whole_tree(world: World, kennel: Kennel) -> None:
    server = Server(world, REAL)
    order_id = int(server.rent()["order_id"])
    until(lambda: beats(world), "its watchdog beats")
    (pid,) = watchdogs_started(world.state)
    tree = below(server.process.pid)
    assert tree == [server.process.pid], "neither the watchdog nor a zombie is below the server"
    assert os.getpgid(pid) != os.getpgid(server.process.pid)
    for one in reversed(tree):
        os.kill(one, signal.SIGKILL)
    server.kill()
    assert lives(pid)
    world.post("/clock", {"advance": HOURS_2})
    until(lambda: not active(world, order_id), "the watchdog ends it")


def test_its_log_is_bounded_while_it_runs(world: World, kennel: Kennel) -> None:
    world.rent()
    log = world.state / LOG_NAME
    log.write_text("old\n" * 60_000)
    at_work(world, kennel, "--detached")
    until(lambda: log.stat().st_size <= 200_000, "its older half goes")
    with log.open("a") as more:
        more.write("later\n" * 60_000)
    until(lambda: log.stat().st_size <= 200_000, "and again")
    assert set(log.read_text("utf-8").split()) == {"later"}

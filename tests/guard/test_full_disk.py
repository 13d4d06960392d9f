"""A disk that fills up while a create is on its way: its order is kept in memory, ended, and written down later."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clore_mcp.clore import CloreClient, Created, CreateRequest
from clore_mcp.errors import StateUnavailable
from clore_mcp.store.database import FILE_NAME, Database
from clore_mcp.wiring import Services
from tests.guard.calls import call, wish
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.world import World

pytestmark = pytest.mark.anyio
HOURS = 3 * 3600.0


class Disk:
    """The disk of the state, which has no room for it while it is `full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.refused = 0  # writes of creates that found no room, not those of a keeper beside them
        write = Database.write_now

        def written(state: Database, work: Any, **how: bool) -> Any:
            if self.full and state.path.name == FILE_NAME:
                self.refused += work.__module__.startswith("clore_mcp.rental.create.")
                raise StateUnavailable("The state can't be used: database or disk is full.")
            return write(state, work, **how)

        monkeypatch.setattr(Database, "write_now", written)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """It fills up in the instant in which a create has left."""
    made = Disk(monkeypatch)
    create = CloreClient.create_order

    async def and_fill_up(client: CloreClient, request: CreateRequest, **more: Any) -> Created:
        try:
            return await create(client, request, **more)
        finally:
            made.full = True

    monkeypatch.setattr(CloreClient, "create_order", and_fill_up)
    return made


async def test_an_order_that_could_not_be_recorded_is_told_ended_and_recorded_later(
    world: World, services: Services, disk: Disk
) -> None:
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "created"
    assert "could not be recorded" in outcome.next
    assert "free disk space" in outcome.next
    (order,) = world.active()
    assert outcome.order_id == order["id"]
    assert not world.rows("SELECT * FROM orders")
    await services.keeper.poll()
    assert world.active(), "not over yet"
    world.advance(HOURS)
    await services.keeper.poll()
    assert not world.active(), "ended from memory"
    disk.full = False
    for _ in range(2):
        services.context.readings.changed()
        await services.keeper.poll()
    (row,) = world.rows("SELECT order_id, ended_at, receipt FROM orders")
    assert row["order_id"] == order["id"]
    assert row["ended_at"]
    assert row["receipt"]
    assert len(world.sent("create_order")) == 1
    check_invariants(world)


async def test_it_is_written_down_as_soon_as_there_is_room(world: World, services: Services, disk: Disk) -> None:
    ask = wish(world.free()[0])
    outcome = await call(services, ask)
    assert not world.rows("SELECT * FROM orders")
    disk.full = False
    await services.keeper.poll()
    (row,) = world.rows("SELECT order_id FROM orders")
    assert row["order_id"] == outcome.order_id
    assert (await call(services, ask)).order_id == outcome.order_id
    assert len(world.sent("create_order")) == 1
    check_invariants(world)


async def test_one_above_its_ceiling_is_cancelled_at_once_all_the_same(
    world: World, services: Services, disk: Disk
) -> None:
    world.options(required_price="ignored")
    world.fault("price_moved", factor=3.0)
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "refused"
    assert not world.active()


async def test_a_yes_of_clores_that_could_not_be_recorded_is_never_called_a_failure(
    world: World, process: Processes, disk: Disk
) -> None:
    services = await process()
    world.options(visible_after=90_000.0)
    ask = wish(world.free()[0])
    call_ = asyncio.ensure_future(call(services, ask))
    await asyncio.to_thread(world.await_state, lambda: disk.refused > 0, 30.0)
    assert world.sent("create_order")
    disk.full = False
    assert (await call_).status == "uncertain"
    assert [row["state"] for row in world.intents()] == ["uncertain"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is filled in no time."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root mounts file systems, on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], check=False).returncode:
        pytest.skip("this machine mounts nothing")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


async def test_a_real_disk_that_is_full(
    world: World, process: Processes, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = await process(env={"CLORE_STATE_DIR": str(small_disk / "state")})
    filler = small_disk / "filler"
    file = filler.open("wb", buffering=0)
    create = CloreClient.create_order

    async def and_fill_up(client: CloreClient, request: CreateRequest, **more: Any) -> Created:
        try:
            return await create(client, request, **more)
        finally:
            with file, contextlib.suppress(OSError):
                while file.write(b"x" * 4096):
                    pass

    monkeypatch.setattr(CloreClient, "create_order", and_fill_up)
    outcome = await call(services, wish(world.free()[0]))
    assert shutil.disk_usage(small_disk).free == 0
    assert outcome.status == "created"
    assert "disk is full" in outcome.next
    world.advance(HOURS)
    await services.keeper.poll()
    assert not world.active()
    filler.unlink()
    for _ in range(2):
        services.context.readings.changed()
        await services.keeper.poll()
    account = await services.context.readings.account()
    row = await services.context.state.read(lambda tx: tx.one("SELECT * FROM orders WHERE account = ?", account))
    assert row is not None
    assert row["order_id"] == outcome.order_id
    assert row["ended_at"]


async def test_a_disk_that_can_not_be_read_either_hides_no_order_and_promises_no_end(
    world: World, services: Services, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Database.read_now

    def reading(state: Database, work: Any) -> Any:
        if disk.refused >= 2 and state.path.name == FILE_NAME:  # Clore's answer, then the order that was found
            raise StateUnavailable("disk I/O error")
        return read(state, work)

    monkeypatch.setattr(Database, "read_now", reading)
    outcome = await call(services, wish(world.free()[0]))
    (order,) = world.active()
    assert (outcome.status, outcome.order_id) == ("created", order["id"])
    assert "could not be recorded" in outcome.next
    assert outcome.enforced_by == "nobody" and "No process ends it" in outcome.next


async def test_a_persons_word_on_an_order_that_can_not_be_recorded_is_not_taken_for_done(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.fault("late_visible", seconds=90_000)
    assert (await call(services, wish(world.free()[0]))).status == "uncertain"
    found = await services.settler.unsettled(world.intents()[0]["id"])
    world.advance(90_000)
    (row,) = (await services.context.readings.look(completed=False)).rows
    Disk(monkeypatch).full = True
    with pytest.raises(StateUnavailable, match="disk is full"):
        await services.settler.settle_by_hand(*found, row, by="ann, terminal")
    assert [row["state"] for row in world.intents()] == ["uncertain"]
    assert len(world.reserved()) == 1

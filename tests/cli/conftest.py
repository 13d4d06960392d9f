"""What tests of the commands share: one simulated market, an account and a state folder for each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clore_mcp.sandbox import Options, Running, start_in_thread
from tests.cli.watchdogs import Kennel, lives, until
from tests.conftest import delete_state, watchdogs_started
from tests.world import KEYS, World


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    """A marketplace that takes any pace, lives a minute in a second and has many accounts."""
    options = Options(servers=300, rate_limit="off", speed=60.0, keys=KEYS, ssh_listener=False)
    with start_in_thread(options) as running:
        yield running


@pytest.fixture(scope="session")
def fresh_key() -> Callable[[], str]:
    """The key of an account that nobody has used."""
    keys = iter(KEYS)
    return lambda: next(keys)


@pytest.fixture
def world(running: Running, fresh_key: Callable[[], str], tmp_path: Path) -> Iterator[World]:
    usual = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "SYSTEMROOT") if name in os.environ}
    made = World(running, tmp_path, fresh_key(), usual | {"COLUMNS": "200"})
    yield made
    made.close()


@pytest.fixture
def kennel(world: World) -> Iterator[Kennel]:
    """Watchdogs of the world; what they or a server have started ends with the test."""
    made = Kennel(world)
    try:
        yield made
    finally:
        made.end()
        world.mend()
        started = watchdogs_started(world.state)
        delete_state(world.state)
        until(lambda: not any(map(lives, started)), "no process is left")

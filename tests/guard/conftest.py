"""What the tests of the money path share: a world each, small, unpaced and a minute a second."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from clore_mcp import wiring as wiring
from clore_mcp.rental.context import Patience
from clore_mcp.sandbox import SANDBOX_KEY, Options, start_in_thread
from clore_mcp.wiring import Services
from tests.guard.calls import ENV_VALUE, SHORT
from tests.guard.children import Child
from tests.world import World


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def world(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    options = Options(servers=60, rate_limit="off", speed=60.0, ssh_listener=False)
    with caplog.at_level(logging.DEBUG, logger="clore_mcp"), start_in_thread(options) as running:
        made = World(running, tmp_path, patience=SHORT)
        try:
            yield made
        finally:
            made.close()
    assert SANDBOX_KEY not in caplog.text
    assert ENV_VALUE not in caplog.text


@pytest.fixture
def real_time(tmp_path: Path) -> Iterator[World]:
    """A market whose time passes as ours does, where an order shows at once."""
    options = Options(rate_limit="off", speed=1.0, servers=60, visible_after=0.0, ssh_listener=False)
    with start_in_thread(options) as running:
        made = World(running, tmp_path, patience=SHORT)
        yield made
        made.close()


class Processes:
    """Opens services as processes would, keeps their leases, and closes them."""

    def __init__(self, world: World, stack: AsyncExitStack) -> None:
        self._world = world
        self._stack = stack

    async def __call__(self, patience: Patience = SHORT, env: dict[str, str] | None = None) -> Services:
        services = self._world.services(patience, **(env or {}))
        self._stack.push_async_callback(services.aclose)
        await services.keep_leases()
        return services


class LocalTime:
    """This machine's clocks, which a test sets."""

    def __init__(self) -> None:
        self.wall = self.passed = 0.0

    def time(self) -> float:
        return time.time() + self.wall

    def monotonic(self) -> float:
        return time.monotonic() + self.passed

    def pass_by(self, seconds: float) -> None:
        """Time passes on both clocks."""
        self.wall += seconds
        self.passed += seconds


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> LocalTime:
    made = LocalTime()
    monkeypatch.setattr(wiring, "time", made)
    return made


@pytest.fixture
async def process(world: World, anyio_backend: str) -> AsyncIterator[Processes]:
    async with AsyncExitStack() as stack:
        yield Processes(world, stack)


@pytest.fixture
async def services(process: Processes) -> Services:
    return await process()


@pytest.fixture
def children() -> Iterator[list[Child]]:
    """Processes that end with the test."""
    started: list[Child] = []
    yield started
    for child in started:
        child.end()

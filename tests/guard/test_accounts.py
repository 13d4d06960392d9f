"""Leases belong to an account, and end though it is told otherwise than before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clore_mcp.wiring import Services
from tests.guard.calls import rent
from tests.guard.conftest import Processes
from tests.world import World

pytestmark = pytest.mark.anyio
HOURS = 3 * 3600.0


async def test_a_new_wallet_forgets_no_lease(world: World, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    await rent(services, world.free()[0])
    await services.keeper.stop()
    later = world.services()
    real = later.context.client.wallets

    async def wallets() -> Any:
        reply = await real()
        extra = reply.rows[0].model_copy(update={"name": "USDT", "deposit": "an address more"})
        return replace(reply, rows=[*reply.rows, extra])

    monkeypatch.setattr(later.context.client, "wallets", wallets)
    world.advance(HOURS)
    try:
        await later.keeper.poll()
        assert not world.active()
    finally:
        await later.aclose()


async def test_leases_end_though_the_wallets_cannot_be_read(world: World, process: Processes) -> None:
    first = world.services()
    await first.keep_leases()
    await rent(first, world.free()[0])
    await first.aclose()
    world.fault("http502", "wallets", times=10_000)
    world.advance(HOURS)
    later = await process()
    await later.keeper.poll()
    assert not world.active()

"""A server that can't be rented is told with its reason before anybody is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clore_mcp.rental.results import Attempt
from clore_mcp.wiring import Services
from tests.guard.calls import call, wish
from tests.world import World

pytestmark = pytest.mark.anyio
NOWHERE = 9_999_999


async def test_a_server_that_is_not_on_the_market_is_passed_over_or_refused(world: World, services: Services) -> None:
    alone = await call(services, wish(NOWHERE), answer=False)
    assert (alone.status, alone.attempts) == ("refused", (Attempt(NOWHERE, "not_listed"),))
    assert f"Server {NOWHERE} is not on the marketplace now." in alone.next
    second = world.free()[0]
    outcome = await call(services, wish(NOWHERE, fallback_server_ids=[second]))
    assert (outcome.status, outcome.server_id) == ("created", second)


async def test_a_server_that_takes_no_bids_gets_none(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_id = world.free()[0]
    snapshot = services.context.readings.fresh_snapshot

    async def unpriced(max_age_seconds: float) -> object:
        found = await snapshot(max_age_seconds)
        listing = replace(found.by_id[server_id], spot={})
        return replace(found, by_id={**found.by_id, server_id: listing})

    monkeypatch.setattr(services.context.readings, "fresh_snapshot", unpriced)
    outcome = await call(services, wish(server_id, order_type="spot"))
    assert (outcome.status, outcome.attempts) == ("refused", (Attempt(server_id, "unpriced"),))
    assert f"Server {server_id} has no spot price" in outcome.next
    assert not world.sent()

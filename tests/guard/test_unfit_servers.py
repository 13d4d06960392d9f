"""A server that can't be rented is told with its reason before anybody is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clore_mcp.rental.results import Attempt
from clore_mcp.wiring import Services
from tests.guard.calls import call, let_time_pass, rent, wish
from tests.guard.conftest import Processes
from tests.world import USD, World

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


async def test_a_server_that_somebody_else_rents_after_the_question_is_passed_over(
    world: World, process: Processes
) -> None:
    asking, later = await process(), await process()
    first, second = world.free()[:2]
    ask = wish(first, fallback_server_ids=[second])
    held = await asking.guard.hold(ask, caller="t", can_ask=True, replay=False)
    world.post(f"/servers/{first}", {"rented": True})
    let_time_pass(later)
    outcome = await later.guard.conclude(held, ask, answer=True, caller="t")
    assert (outcome.status, outcome.server_id) == ("created", second)
    assert [one.server_id for one in outcome.attempts] == [first, second]
    assert len(world.sent()) == 1, "none for the first"


async def test_a_fallback_over_a_limit_is_left_out_of_the_question(world: World, process: Processes) -> None:
    cheap, *_, dear = world.free()
    between = (world.price(cheap) + world.price(dear)) / 2 / 24
    services = await process(env={"CLORE_MAX_USD_PER_HOUR": f"{between:.4f}"})
    ask = wish(cheap, fallback_server_ids=[dear])
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    assert held.quote is not None and f"{dear}" not in held.quote.question
    assert (await call(services, wish(dear, fallback_server_ids=[cheap]))).refusals[0].limit == "usd_per_hour"
    quoted = await services.pricer.price(ask)
    assert [(one.server_id, one.reason) for one in quoted.unfit] == [(dear, "over_limit")]


async def test_another_coin_pays_if_running_orders_will_drain_the_wallet_of_the_first(
    world: World, process: Processes
) -> None:
    services = await process(env={"CLORE_CURRENCY": "USD"})
    first, second = world.free()[:2]
    need = world.price(first) / 24 * 1.05 * 20 + 0.1
    world.post("/wallets", {"balances": {USD: need * 1.2, "CLORE-Blockchain": 1_000_000, "bitcoin": 0}})
    await rent(services, first, hours=20)
    services.context.readings.changed()
    outcome = await call(services, wish(second, hours=20, currency=None))
    assert outcome.status == "created", outcome
    assert [row["currency"] for row in world.active()] == [USD, "CLORE-Blockchain"]

"""Ends: cancels that are proven, leases that are kept, and orders that leave by themselves."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from clore_mcp.services import Services
from tests.guard.conftest import Processes
from tests.guard.world import World, cancel, check_invariants, patient, rent, wish

pytestmark = pytest.mark.anyio


async def test_a_cancel_is_proven_and_its_cost_replaces_the_reservation(world: World, services: Services) -> None:
    order_id = (await rent(services, world.free()[0]))["order_id"]
    world.advance(1800)
    outcome = await cancel(services, order_id)
    assert outcome["status"] == "cancelled"
    [order] = world.orders()
    assert outcome["receipt"]["total_usd"] == pytest.approx(order["total"], abs=0.001)
    assert not world.reserved()
    assert (await cancel(services, order_id))["status"] == "already_ended"
    check_invariants(world)


async def test_an_ignored_cancel_is_unverified_and_then_retried_without_a_second_question(
    world: World, services: Services
) -> None:
    order_id = (await rent(services, world.free()[0]))["order_id"]
    world.fault("cancel_ignored", times=2)
    outcome = await cancel(services, order_id)
    assert outcome["status"] == "unverified"
    assert "Still billing" in outcome["next"]
    assert len(world.reserved()) == 1
    world.mend()
    assert (await cancel(services, order_id, answer=False))["status"] == "cancelled"
    check_invariants(world)


async def test_a_cancel_that_failed_is_taken_up_by_the_keeper(world: World, services: Services) -> None:
    order_id = (await rent(services, world.free()[0]))["order_id"]
    world.fault("cancel_ignored", times=2)
    assert (await cancel(services, order_id))["status"] == "unverified"
    world.mend()
    await services.keeper.poll()
    assert not world.active()
    check_invariants(world)


async def test_a_cancel_whose_reply_is_lost_is_proven_by_looking(world: World, services: Services) -> None:
    order_id = (await rent(services, world.free()[0]))["order_id"]
    world.fault("lost_reply", "cancel_order")
    assert (await cancel(services, order_id))["status"] == "cancelled"
    check_invariants(world)


async def test_an_order_of_ours_is_cancelled_though_nobody_can_be_asked(world: World, services: Services) -> None:
    order_id = (await rent(services, world.free()[0]))["order_id"]
    assert (await cancel(services, order_id, can_ask=False))["status"] == "cancelled"


async def test_an_order_made_elsewhere_is_not_cancelled_without_a_yes(world: World, services: Services) -> None:
    order_id = world.rent_elsewhere(world.free()[0], age_seconds=60)
    assert (await cancel(services, order_id, can_ask=False))["status"] == "approval_required"
    assert (await cancel(services, order_id, answer=False))["status"] == "declined"
    assert not world.sent("cancel_order")
    assert (await cancel(services, order_id))["status"] == "cancelled"


async def test_the_keeper_ends_a_lease_by_clores_clock(world: World, services: Services) -> None:
    await rent(services, world.free()[0], hours=1.0)
    await services.keeper.poll()
    assert len(world.active()) == 1
    world.advance(3600)
    await services.keeper.poll()
    assert not world.active()
    assert not world.reserved()
    check_invariants(world)


async def test_the_keeper_tries_again_when_a_cancel_fails_at_the_lease_end(world: World, services: Services) -> None:
    first, second = world.free()[:2]
    await rent(services, first, hours=1.0)
    await rent(services, second, hours=1.0)
    world.advance(3600)
    world.fault("cancel_ignored", times=4)
    await services.keeper.poll()
    assert len(world.active()) == 2
    assert len(world.reserved()) == 2
    world.mend()
    await services.keeper.poll()
    assert not world.active()
    check_invariants(world)


async def test_an_order_to_be_told_about_is_not_cancelled_at_its_end(world: World, services: Services) -> None:
    await rent(services, world.free()[0], hours=1.0, on_end="notify")
    world.advance(2 * 3600)
    await services.keeper.poll()
    assert len(world.active()) == 1


async def test_an_order_that_clore_ends_is_closed_with_its_cost(world: World, services: Services) -> None:
    await rent(services, world.free()[0])
    world.post("/wallets", {"balances": {"USD-Blockchain": 0.001}})
    world.advance(7000)
    await services.overview.orders(max_age_seconds=0)
    assert world.steps()[-1] == "ended"
    assert not world.reserved()


async def test_one_empty_list_is_no_proof_and_two_a_minute_apart_are(world: World, services: Services) -> None:
    await rent(services, world.free()[0])
    account = await services.desk.readings.account()
    seen = await services.desk.readings.look(completed=True)
    assert seen.api_at is not None

    def empty(after: float) -> object:
        assert seen.api_at is not None
        return replace(seen, rows=[], at=seen.at + after, api_at=seen.api_at + after)

    for after in (0, 59):
        await services.closing.reconcile(account, empty(after), empty(after))  # type: ignore[arg-type]
        assert len(world.reserved()) == 1, "not proven gone"
    await services.closing.reconcile(account, empty(61), empty(61))  # type: ignore[arg-type]
    assert world.steps()[-1] == "ended_unseen"
    [lease] = world.rows("SELECT * FROM orders")
    assert lease["ended_at"] is not None


async def test_an_order_that_is_seen_again_was_not_gone(world: World, services: Services) -> None:
    await rent(services, world.free()[0])
    account = await services.desk.readings.account()
    seen = await services.desk.readings.look(completed=True)
    assert seen.api_at is not None
    await services.closing.reconcile(account, replace(seen, rows=[]), replace(seen, rows=[]))
    later = replace(seen, at=seen.at + 30, api_at=seen.api_at + 30)
    await services.closing.reconcile(account, later, later)
    last = replace(seen, rows=[], at=seen.at + 61, api_at=seen.api_at + 61)
    await services.closing.reconcile(account, last, last)
    assert len(world.reserved()) == 1


async def test_a_list_with_unreadable_rows_proves_nothing(world: World, services: Services) -> None:
    await rent(services, world.free()[0])
    account = await services.desk.readings.account()
    seen = await services.desk.readings.look(completed=True)
    assert seen.api_at is not None
    for after in (0, 100):
        torn = replace(seen, rows=[], unreadable=1, at=seen.at + after, api_at=seen.api_at + after)
        whole = replace(torn, unreadable=0)
        await services.closing.reconcile(account, torn, whole)
        await services.closing.reconcile(account, whole, torn)
    assert len(world.reserved()) == 1


async def test_a_process_that_stops_takes_its_heartbeat_back(world: World, process: Processes) -> None:
    services = world.services()
    await services.keep_leases()
    assert await services.desk.enforced_by() is not None
    await services.aclose()
    assert not world.rows("SELECT * FROM heartbeats")


async def test_two_first_calls_start_one_keeper(world: World) -> None:
    services = world.services(patient())
    await asyncio.gather(*(services.keep_leases() for _ in range(4)))
    assert sum(task.get_coro().__qualname__ == "Keeper._run" for task in asyncio.all_tasks()) == 1  # type: ignore[union-attr]
    await services.aclose()


async def test_without_a_keeper_the_whole_of_the_rental_is_reserved(world: World, process: Processes) -> None:
    services = world.services(CLORE_WATCHDOG="off", CLORE_MAX_USD_PER_ORDER="1000", CLORE_MAX_USD_PER_DAY="1000")
    try:
        held = await services.guard.hold(wish(world.free()[0]), caller="t", can_ask=True, replay=False)
        assert held.quote
        candidate = held.quote.terms["candidates"][0]
        assert candidate["worst_hours"] == candidate["max_rental_hours"]
        assert "NOTHING ends it" in held.quote.question
    finally:
        await services.aclose()

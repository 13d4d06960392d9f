"""The operator's caps and the wallet: checked where the reservation is written, and not to be outrun."""

from __future__ import annotations

import asyncio

import pytest

from clore_mcp.wiring import Services
from tests.guard.calls import call, cancel, rent, wish
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.world import USD, World

pytestmark = pytest.mark.anyio
WIDE = {"CLORE_MAX_USD_PER_ORDER": "99999", "CLORE_MAX_USD_PER_DAY": "99999", "CLORE_MAX_USD_PER_HOUR": "999"}
UNWATCHED = {"CLORE_WATCHDOG": "off", **WIDE}

CAPS = [
    ("CLORE_MAX_USD_PER_ORDER", "0.05", "usd_per_order"),
    ("CLORE_MAX_USD_PER_HOUR", "0.01", "usd_per_hour"),
    ("CLORE_MAX_USD_PER_DAY", "0.05", "usd_per_day"),
]


@pytest.mark.parametrize(("variable", "value", "limit"), CAPS, ids=[row[2] for row in CAPS])
async def test_each_cap_refuses_before_the_question_and_says_who_can_change_it(
    world: World, process: Processes, variable: str, value: str, limit: str
) -> None:
    services = await process(env={variable: value})
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "refused"
    [refusal] = outcome.refusals
    assert refusal.limit == limit
    assert float(refusal.cap) == float(value)
    assert float(refusal.used + refusal.left) == pytest.approx(float(value))
    assert refusal.needed > float(value)
    assert variable in refusal.change
    assert "operator" in refusal.change
    assert not world.rows("SELECT * FROM quotes"), "nobody was asked"
    assert not world.sent()


async def test_the_number_of_orders_counts_those_made_elsewhere(world: World, process: Processes) -> None:
    services = await process(env={"CLORE_MAX_ACTIVE_ORDERS": "2"})
    servers = world.free()
    world.rent_elsewhere(servers[1])
    world.advance(10)
    await rent(services, servers[0])
    outcome = await call(services, wish(servers[2]))
    [refusal] = outcome.refusals
    assert (refusal.limit, int(refusal.used), int(refusal.cap)) == ("active_orders", 2, 2)
    check_invariants(world)


async def test_an_order_made_elsewhere_counts_with_its_hourly_price_and_what_it_spent(
    world: World, process: Processes
) -> None:
    servers = world.free()
    hourly = world.price(servers[1]) / 24 * 1.05
    services = await process(env={"CLORE_MAX_USD_PER_HOUR": str(round(hourly * 1.5, 4))})
    world.rent_elsewhere(servers[1], age_seconds=7200)
    outcome = await call(services, wish(servers[0]))
    [refusal] = outcome.refusals
    assert refusal.limit == "usd_per_hour"
    assert float(refusal.used) == pytest.approx(hourly, rel=0.01)


async def test_clores_own_most_orders_at_once_is_kept(world: World, services: Services) -> None:
    servers = world.free()
    world.options(order_limit=1)
    await rent(services, servers[0])
    outcome = await call(services, wish(servers[1]))
    [refusal] = outcome.refusals
    assert (refusal.limit, int(refusal.cap)) == ("active_orders", 1)
    assert "Clore" in refusal.change
    assert len(world.sent()) == 1


async def test_two_orders_at_once_never_pass_a_cap_together(world: World, process: Processes) -> None:
    first, second = (
        await process(env={"CLORE_MAX_ACTIVE_ORDERS": "1"}),
        await process(env={"CLORE_MAX_ACTIVE_ORDERS": "1"}),
    )
    servers = world.free()
    asks = [wish(servers[0]), wish(servers[1])]
    held = [
        await one.guard.hold(ask, caller="t", can_ask=True, replay=False)
        for one, ask in zip((first, second), asks, strict=True)
    ]
    told = await asyncio.gather(
        first.guard.conclude(held[0], asks[0], answer=True, caller="t"),
        second.guard.conclude(held[1], asks[1], answer=True, caller="t"),
    )
    assert sorted(one.status for one in told) == ["created", "refused"]
    assert len(world.active()) == 1
    check_invariants(world)


async def test_renting_and_cancelling_never_outruns_the_day(world: World, process: Processes) -> None:
    cap = 1.2
    services = await process(env={"CLORE_MAX_USD_PER_DAY": str(cap)})
    server_id = world.free()[0]
    for _ in range(12):
        outcome = await call(services, wish(server_id, hours=1.0))
        if outcome.status != "created":
            break
        world.advance(700)
        assert (await cancel(services, outcome.order_id)).status == "cancelled"
    assert outcome.status == "refused"
    assert [one.limit for one in outcome.refusals] == ["usd_per_day"]
    assert 0 < sum(order["total"] for order in world.orders()) <= cap
    check_invariants(world)


async def test_a_lost_state_raises_no_cap(world: World, process: Processes) -> None:
    servers = world.free()
    lost = world.services(CLORE_MAX_ACTIVE_ORDERS="1")
    await lost.keep_leases()
    order_id = (await rent(lost, servers[0])).order_id
    world.advance(1800)
    await lost.aclose()
    world.lose_state()
    world.elsewhere.add(order_id)
    services = await process(env={"CLORE_MAX_ACTIVE_ORDERS": "1", "CLORE_MAX_USD_PER_DAY": "0.25"})
    outcome = await call(services, wish(servers[1]))
    assert {one.limit for one in outcome.refusals} >= {"active_orders"}
    await cancel(services, order_id)
    after = await call(services, wish(servers[1]))
    [refusal] = after.refusals
    [order] = world.orders()
    assert refusal.limit == "usd_per_day"
    assert float(refusal.used) >= round(order["total"], 4) - 0.0002, "what it cost is seen at Clore"


async def test_a_wallet_that_is_too_small_is_refused_before_the_question_with_the_top_up(
    world: World, services: Services
) -> None:
    world.post("/wallets", {"balances": {USD: 0.1}})
    services.context.readings.changed()  # as ten seconds would do
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "refused", outcome
    [refusal] = outcome.refusals
    assert refusal.limit == "wallet"
    assert "topping up" in refusal.change
    assert "USD on clore.ai" in refusal.change
    assert not world.rows("SELECT * FROM quotes")


async def test_a_wallet_is_counted_less_what_other_orders_will_drain(world: World, services: Services) -> None:
    first, second = world.free()[:2]
    need = world.price(first) / 24 * 1.05 * 20 + 0.1
    world.post("/wallets", {"balances": {USD: need * 1.2}})
    await rent(services, first, hours=20)
    outcome = await call(services, wish(second, hours=20))
    assert [one.limit for one in outcome.refusals] == ["wallet"]
    assert len(world.sent()) == 1


async def test_an_order_that_clore_does_not_list_yet_drains_the_wallet_too(world: World, services: Services) -> None:
    first, second = world.free()[:2]
    need = world.price(first) / 24 * 1.05 * 20 + 0.1
    world.post("/wallets", {"balances": {USD: need * 1.2}})
    world.fault("late_visible", seconds=90_000)
    assert (await call(services, wish(first, hours=20))).status == "uncertain"
    outcome = await call(services, wish(second, hours=20))
    assert [one.limit for one in outcome.refusals] == ["wallet"]


async def test_a_wallet_whose_balance_is_not_told_pays_for_nothing(world: World, services: Services) -> None:
    world.post("/wallets", {"balances": {USD: None}})
    services.context.readings.changed()  # as ten seconds would do
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "refused", outcome
    [refusal] = outcome.refusals
    assert refusal.limit == "wallet"
    assert "does not report" in refusal.change


async def test_limits_mode_asks_nobody_and_needs_a_live_keeper(world: World, process: Processes) -> None:
    alone = world.services(CLORE_APPROVAL="limits", CLORE_WATCHDOG="off", CLORE_MAX_USD_PER_ORDER="9999",
                           CLORE_MAX_USD_PER_DAY="9999")  # fmt: skip
    ask = wish(world.free()[0])
    outcome = await call(alone, ask, answer=None)
    assert [one.limit for one in outcome.refusals] == ["watchdog"]
    await alone.aclose()
    services = await process(env={"CLORE_APPROVAL": "limits"})
    assert (await call(services, ask, answer=None)).status == "created"
    check_invariants(world)


async def test_the_ledger_of_one_rental(world: World, services: Services) -> None:
    server_id = world.free()[0]
    order_id = (await rent(services, server_id)).order_id
    await cancel(services, order_id)
    rows = world.rows("SELECT step, caller, order_id, server_id FROM ledger ORDER BY seq")
    assert [tuple(row.values()) for row in rows] == [
        ("quoted", "tester", None, None),
        ("reserved", "tester", None, server_id),
        ("sending", "tester", None, server_id),
        ("answered", "tester", None, None),
        ("created", "tester", order_id, server_id),
        ("quoted", "tester", None, None),
        ("cancel_sent", "tester", order_id, None),
        ("cancel_answered", "tester", order_id, None),
        ("cancelled", "clore-mcp", order_id, None),
    ]
    check_invariants(world)


async def test_a_spot_order_that_nobody_ends_counts_far_beyond_its_hosts_limit(
    world: World, process: Processes
) -> None:
    services = await process(env=UNWATCHED)
    server_id = world.free()[0]
    world.post(f"/servers/{server_id}", {"mrl": 3})
    bid = round(world.price(server_id, "spot") * 2 / 24, 4)
    outcome = await rent(services, server_id, order_type="spot", bid_usd_per_hour=bid)
    world.advance(24 * 3600)
    [order] = world.active()
    assert order["total"] <= outcome.reserved_usd


async def test_a_spot_order_that_nobody_ends_is_above_the_usual_cap_and_the_answer_says_why(
    world: World, services: Services
) -> None:
    server_id = world.free()[0]
    bid = round(world.price(server_id, "spot") * 2 / 24, 4)
    outcome = await call(services, wish(server_id, order_type="spot", bid_usd_per_hour=bid, on_end="notify"))
    assert outcome.status == "refused"
    assert "as if no one ended it" in outcome.next and "on_end cancel" in outcome.next
    assert not world.rows("SELECT * FROM quotes"), "nobody was asked"


async def test_the_top_up_that_is_named_is_enough_where_other_orders_drain_more_than_there_is(
    world: World, process: Processes
) -> None:
    services = await process(env=WIDE)
    first, second, third = world.free()[:3]
    world.rent_elsewhere(first)
    world.rent_elsewhere(second)
    world.advance(5)
    world.post("/wallets", {"balances": {USD: 1.0}})
    services.context.readings.changed()
    outcome = await call(services, wish(third, hours=20))
    [refusal] = outcome.refusals
    assert refusal.change in outcome.next, "what the model reads first names the cure"
    assert "operator" not in outcome.next, "no cap stands against it"
    top_up = float(refusal.change.split("topping up ")[1].split()[0])
    world.post("/wallets", {"balances": {USD: 1.0 + top_up + 0.01}})  # and a cent for the minutes since
    services.context.readings.changed()
    assert (await call(services, wish(third, hours=20))).status == "created"


async def test_the_hours_that_a_wallet_covers_leave_room_for_the_creation_fee(world: World, services: Services) -> None:
    server_id = world.free()[0]
    hourly = world.price(server_id) / 24 * 1.05
    for balance, hours in ((hourly * 2 + 0.1, 2.0), (0.05, 0.0)):
        world.post("/wallets", {"balances": {USD: balance}})
        services.context.readings.changed()
        found = await services.pricer.price(wish(server_id, hours=2))
        assert found.wallet_covers_hours is not None
        assert float(found.wallet_covers_hours) == pytest.approx(hours, abs=1e-6)

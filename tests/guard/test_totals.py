"""Totals say what bills now: an order that is queued or outbid bills nothing in any of them."""

from __future__ import annotations

import pytest

from clore_mcp.rental.account.account_view import AccountView, SpentView
from clore_mcp.rental.account_summary import account_state
from clore_mcp.rental.orders.order_view import OrderList
from clore_mcp.rental.requests import SetSpotPrice
from clore_mcp.rental.results import BillingOrder
from clore_mcp.wiring import Services
from tests.guard.calls import call, cancel, let_time_pass, rent
from tests.guard.spots import WIDE, rewrite, rich
from tests.world import USD, World

pytestmark = pytest.mark.anyio
HOUR = 3_600.0


def bid_of(world: World, server_id: int, factor: float) -> float:
    return round(world.price(server_id, "spot") * factor / 24 * 1.0125 + 0.0001, 4)


def stranger(world: World, server_id: int, factor: float) -> None:
    world.post("/bids", {"server_id": server_id, "bid": world.price(server_id, "spot") * factor, "currency": USD})


async def queued(world: World, services: Services, **more: float) -> tuple[int, int]:
    """An order that a stranger's bid beats, and its server."""
    server_id = world.free()[-1]
    stranger(world, server_id, 2.0)
    made = await rent(services, server_id, order_type="spot", bid_usd_per_hour=bid_of(world, server_id, 1.2), **more)
    return made.order_id, server_id


async def account(services: Services) -> AccountView:
    return await account_state(services.context, services.pricer, services.approvals, services.overview)


async def listed(services: Services) -> OrderList:
    let_time_pass(services)
    return await services.overview.orders()


async def test_a_queued_order_bills_nothing_in_every_total(world: World, services: Services) -> None:
    order_id, _ = await queued(world, services, hours=8)
    world.advance(4 * HOUR)
    told = await listed(services)
    [row] = told.orders
    assert (row.status, row.spent_usd) == ("queued", 0)
    assert (told.usd_per_hour, told.spent_usd) == (0, 0)
    seen = await account(services)
    assert seen.burn_usd_per_hour == 0 and seen.all_end_at is None
    assert all(wallet.runway_hours is None for wallet in seen.wallets)
    assert seen.spent_usd == SpentView(last_24_hours=0, last_30_days=0)
    assert seen.limits["usd_per_hour"].spent == 0 < seen.limits["usd_per_hour"].reserved

    other = await rent(services, world.free()[0])
    both = await listed(services)
    assert both.usd_per_hour == pytest.approx(other.usd_per_hour, abs=1e-4)
    assert (await account(services)).burn_usd_per_hour == pytest.approx(other.usd_per_hour, abs=1e-4)
    gone = await cancel(services, other.order_id)
    assert gone.still_running == (BillingOrder(order_id, "queued", gone.still_running[0].usd_per_hour),)
    assert gone.still_running[0].usd_per_hour == pytest.approx(row.usd_per_hour)
    assert "Nothing more to do" not in gone.next and f"as soon as a bid wins: order {order_id}" in gone.next
    last = await cancel(services, order_id)
    assert last.still_running == () and last.next.endswith("Nothing more to do.")


async def test_a_raise_after_hours_in_the_queue_bills_only_what_is_won_from_then_on(
    world: World, services: Services
) -> None:
    order_id, server_id = await queued(world, services, hours=8)
    world.advance(4 * HOUR)
    let_time_pass(services)
    raised = SetSpotPrice(order_id=order_id, bid_usd_per_hour=bid_of(world, server_id, 2.5))
    assert (await call(services, raised)).status == "updated"
    world.advance(120)
    [row] = (await listed(services)).orders
    [true] = world.orders()
    assert row.status in ("running", "deploying") and true["creation_fee_paid"] == 0
    assert row.spent_usd == pytest.approx(true["total"], abs=0.002), "and no creation fee, after two minutes"
    world.advance(HOUR)
    [later] = (await listed(services)).orders
    [true] = world.orders()
    assert true["creation_fee_paid"] == 0.1 and later.spent_usd == pytest.approx(true["total"], abs=0.05)
    assert not later.estimated


async def test_what_clore_does_not_say_of_a_bid_in_the_queue_is_nothing_and_estimated(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queued(world, services, hours=8)
    world.advance(4 * HOUR)
    rewrite(services, monkeypatch, lambda row: row.model_copy(update={"spend": None}))
    [row] = (await services.overview.orders()).orders
    assert (row.status, row.spent_usd, row.estimated) == ("queued", 0, True)


async def test_an_outbid_order_keeps_what_it_cost_and_bills_nothing_more(world: World, services: Services) -> None:
    server_id = world.free()[0]
    await rent(services, server_id, order_type="spot", bid_usd_per_hour=bid_of(world, server_id, 1.2), hours=8)
    world.advance(HOUR)
    stranger(world, server_id, 3.0)
    world.advance(HOUR)
    told = await listed(services)
    [row] = told.orders
    assert row.status == "outbid" and told.usd_per_hour == 0
    [true] = world.orders()
    assert told.spent_usd == row.spent_usd == pytest.approx(true["total"], abs=0.005)
    spent = (await account(services)).spent_usd
    assert spent.last_24_hours == spent.last_30_days == pytest.approx(true["total"], abs=0.005)


async def test_the_account_says_what_was_spent_and_what_it_will_be_when_all_has_ended(
    world: World, process: object
) -> None:
    rich(world)
    services: Services = await process(env=WIDE)  # type: ignore[operator]
    first, second = world.free()[:2]
    made = await rent(services, first, hours=2.0)
    other = await rent(services, second, hours=5.0)
    world.advance(HOUR)
    let_time_pass(services)
    seen = await account(services)
    true = sum(order["total"] for order in world.orders())
    assert seen.spent_usd.last_24_hours == pytest.approx(true, abs=0.02)
    assert seen.all_end_at == other.ends_at
    at_most = 2 * made.usd_per_hour + 5 * other.usd_per_hour + 0.2
    assert seen.spent_then_usd == pytest.approx(at_most, abs=0.05)
    day = seen.limits["usd_per_day"]
    assert day.spent == seen.spent_usd.last_24_hours
    assert day.spent + day.reserved + day.left == pytest.approx(day.cap, abs=0.001)
    runway = {wallet.currency: wallet.runway_hours for wallet in seen.wallets}
    assert runway["USD"] == pytest.approx(99_999 / seen.burn_usd_per_hour, rel=0.01) and runway["BTC"] is None
    for order in (made, other):
        await cancel(services, order.order_id)
    let_time_pass(services)
    over = await account(services)
    assert over.spent_usd.last_30_days == pytest.approx(sum(one["total"] for one in world.orders()), abs=0.02)
    assert over.all_end_at is None

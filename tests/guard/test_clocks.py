"""Clore's dates and times may each be wrong: an order still ends in time, is counted whole, and is moved by no jump."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clore_mcp.rental.context import enforcer
from clore_mcp.store import ledger
from clore_mcp.wiring import Services
from tests.guard.calls import SHORT, call, rent, wish
from tests.guard.conftest import Processes
from tests.guard.extensions import end_of, longer, look, worst
from tests.guard.spots import raised, spot
from tests.world import World

pytestmark = pytest.mark.anyio
HOUR = 3_600
QUICK = {"CLORE_REQUEST_GAP_SECONDS": "0.1"}  # eleven times Clore's pace: a date may be 110 s off, and no more


@pytest.fixture
def world(real_time: World) -> World:
    return real_time


def began(world: World, order_id: int) -> int:
    return int(next(row["ct"] for row in world.orders() if row["id"] == order_id))


@pytest.mark.parametrize("ahead", [2 * HOUR, 30 * 24 * HOUR, -3 * HOUR])
async def test_one_wrong_date_neither_ends_an_order_nor_keeps_it(
    world: World, process: Processes, ahead: float
) -> None:
    services = await process(env=QUICK)
    order_id = int((await rent(services, world.free()[0], hours=1)).order_id)
    due = end_of(world, order_id)
    for _ in range(3):
        world.fault("wrong_date", "my_orders", seconds=ahead)
        await services.keeper.poll()
        assert [row["id"] for row in world.active()] == [order_id]
        assert end_of(world, order_id) == due
    world.advance(HOUR + 30)  # a true jump, with a wrong date in its midst
    world.fault("wrong_date", "my_orders", seconds=ahead, skip=1)
    for _ in range(3):
        await services.keeper.poll()
    world.await_state(lambda: not world.active())


@pytest.mark.parametrize("ahead", [2 * HOUR, -3 * HOUR])
async def test_a_fresh_process_ends_nothing_by_the_first_date_that_it_hears(
    world: World, process: Processes, ahead: float
) -> None:
    order_id = int((await rent(await process(env=QUICK), world.free()[0], hours=1)).order_id)
    world.fault("wrong_date", "my_orders", seconds=ahead)
    other = world.services(SHORT, **QUICK)
    try:
        await other.keeper.poll()
        assert [row["id"] for row in world.active()] == [order_id]
        world.advance(HOUR + 30)
        world.fault("wrong_date", "my_orders", seconds=ahead)
        await other.keeper.poll()
        await other.keeper.poll()
        world.await_state(lambda: not world.active())
    finally:
        await other.aclose()


@pytest.mark.parametrize(
    "told",
    [
        {"ct_off": 800.0}, {"ct_off": 30 * 24 * HOUR}, {"ct": "milliseconds"}, {"ct": "text"}, {"ct": "null"},
        {"ct": "negative"}, {"ct": "milliseconds", "ct_off": 800.0},
    ],
    ids=str,
)  # fmt: skip
async def test_a_time_that_can_not_be_moves_no_end_and_is_counted_whole(
    world: World, process: Processes, told: dict[str, float | str]
) -> None:
    services = await process(env=QUICK)
    plain_id = int((await rent(services, world.free()[0], hours=1)).order_id)
    world.options(**told)
    order_id = int((await rent(services, world.free()[0], hours=1)).order_id)
    truly = began(world, order_id)
    assert truly - 5 <= (end_of(world, order_id) or 0) - HOUR <= truly + 5
    hourly = {row["id"]: row["price"] / 24 for row in world.orders()}
    assert worst(world, order_id) == pytest.approx(
        worst(world, plain_id) * hourly[order_id] / hourly[plain_id], rel=0.3
    )
    world.advance(HOUR / 2)
    [view] = [row for row in (await look(services)).orders if row.order_id == order_id]
    assert view.spent_usd == pytest.approx(hourly[order_id] / 2 * 1.05 + 0.1, rel=0.1)
    world.advance(HOUR / 2 + 30)
    for _ in range(3):
        await services.keeper.poll()
    world.await_state(lambda: not world.active())


async def test_nothing_is_extended_while_clores_clock_is_in_doubt(world: World, process: Processes) -> None:
    services = await process(env=QUICK)
    order_id = int((await rent(services, world.free()[0], hours=1)).order_id)
    due = end_of(world, order_id)
    for number in range(1, 30):  # no two of them agree
        world.fault("wrong_date", "my_orders", seconds=number * HOUR)
    services.context.readings.changed()
    outcome = await call(services, longer(order_id))
    assert (outcome.status, outcome.reason) == ("refused", "clock_jumped"), outcome
    assert end_of(world, order_id) == due
    world.mend()
    services.context.readings.changed()
    assert (await call(services, longer(order_id))).status == "extended"
    assert end_of(world, order_id) == (due or 0) + HOUR


async def test_evidence_from_the_future_decides_nothing(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id, bid = await spot(world, services)
    sent = len(world.sent())
    gather = services.pricer.evidence

    async def ahead(max_age_seconds: float = 10.0) -> Any:
        found = await gather(max_age_seconds)
        return replace(found, wallets=replace(found.wallets, at=found.wallets.at + HOUR))

    monkeypatch.setattr(services.pricer, "evidence", ahead)
    assert (await call(services, wish(world.free()[0]))).status == "failed"
    assert len(world.sent()) == sent
    outcome = await call(services, raised(order_id, bid))
    assert (outcome.status, outcome.reason) == ("refused", "too_slow")
    assert not world.sent("set_spot_price")


async def test_a_heartbeat_from_the_future_is_no_sign_of_life(world: World) -> None:
    services = world.services()
    account = await services.context.readings.account()

    async def enforced(ahead: float) -> bool:
        at = services.context.clock() + ahead
        await services.context.state.write(lambda tx: ledger.beat(tx, account, services.context.owner, "its host", at))
        in_a_claim = await services.context.state.read(lambda tx: enforcer(tx, services.context, account))
        assert await services.context.enforced_by() == in_a_claim
        return in_a_claim is not None

    assert await enforced(0)
    assert not await enforced(HOUR), "the clock went back, and nobody knows how old it is"
    await services.aclose()

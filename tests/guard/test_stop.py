"""The brake: frozen in every process at once, nothing bought after it, and what was on its way ended as it shows."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest

from clore_mcp.errors import SpendingFrozen
from clore_mcp.rental.orders import stop
from clore_mcp.rental.orders.stop import Ended, FreezeLifted, Frozen, PendingCreates
from clore_mcp.rental.requests import SetSpotPrice
from clore_mcp.rental.rules.check import Evidence
from clore_mcp.store import ledger
from clore_mcp.wiring import Services
from tests.guard.calls import call, patient, rent, wish
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.world import World

pytestmark = pytest.mark.anyio


async def freeze(services: Services) -> Frozen:
    return await services.context.state.write(lambda tx: stop.freeze(tx, by="ann", now=time.time()))


async def end_all(services: Services, seconds: float = 20.0) -> list[Ended | PendingCreates | FreezeLifted]:
    return [step async for step in services.stopper.end_all(by="ann", patience_seconds=seconds)]


async def test_everything_made_here_ends_and_no_process_rents_any_more(world: World, process: Processes) -> None:
    first, second = await process(), await process()
    one, other, third = world.free()[:3]
    await rent(first, one)
    await rent(second, other, on_end="notify")
    elsewhere = world.rent_elsewhere(third)
    await freeze(first)
    steps = await end_all(first)
    assert [step.proven for step in steps if isinstance(step, Ended)] == [True, True]
    assert [order["id"] for order in world.active()] == [elsewhere], "what was not made here is left alone"
    for services in (first, second, await process()):
        with pytest.raises(SpendingFrozen, match="stopped all spending"):
            await call(services, wish(world.free()[0]))
    assert len(world.sent()) == 2
    check_invariants(world)
    await first.context.state.write(lambda tx: stop.lift(tx, by="ann", now=time.time()))
    await rent(second, world.free()[-1])
    assert [step for step in world.steps() if step in ("frozen", "lifted")] == ["frozen", "lifted"]


async def test_the_brake_sends_every_cancel_before_it_proves_one(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = await process(patient(proof=5.0))
    for server_id in world.free()[:3]:
        await rent(services, server_id)
    await services.keeper.stop()  # its rounds look too, whenever they are due: also between two cancels
    await freeze(services)
    gone, look = set[int](), services.context.readings.look

    async def slow(**asked: Any) -> Any:
        gone.add(3 - len(world.active()))
        return await look(**asked)

    monkeypatch.setattr(services.context.readings, "look", slow)
    steps = await end_all(services)
    assert gone == {3}, "the first look for a proof comes after the last cancel"
    assert all(step.proven for step in steps if isinstance(step, Ended))
    assert not world.active()


async def test_a_stop_that_goes_on_after_the_lift_ends_nothing_that_was_made_since(
    world: World, process: Processes
) -> None:
    """A stop that was suspended, or that waits for what is on its way, outlives the freeze that it belongs to."""
    stopper, renting = await process(), await process()
    before, since = world.free()[:2]
    await rent(renting, before)
    await freeze(stopper)
    steps = stopper.stopper.end_all(by="ann", patience_seconds=20.0)
    first = await anext(steps)
    assert isinstance(first, Ended) and first.proven
    await stopper.context.state.write(lambda tx: stop.lift(tx, by="ann", now=time.time()))
    await rent(renting, since)
    assert [step async for step in steps] == [FreezeLifted()]
    assert [order["server_id"] for order in world.active()] == [since]
    check_invariants(world)


async def test_a_yes_that_was_given_before_is_not_used_after(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    approved = wish(world.free()[1])
    outside = await call(services, approved, can_ask=False)
    quote = await services.approvals.get(outside.approval_id)
    assert await services.approvals.decide(quote, yes=True, by="ann")
    assert (await freeze(services)).questions == 2
    late = await services.guard.conclude(held, ask, answer=True, caller="t")
    assert late.status in ("failed", "refused")
    await services.context.state.write(lambda tx: ledger.lift(tx))
    again = await call(services, approved, can_ask=False)
    assert again.status == "approval_required", "an old yes is void after the freeze"
    assert not world.sent()
    check_invariants(world)


async def test_frozen_between_two_attempts_the_second_is_not_made(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = world.free()[:2]
    world.fault("already_rented")
    gather, readings = services.pricer.evidence, itertools.count(1)

    async def evidence(max_age_seconds: float = 10.0) -> Evidence:
        found = await gather(max_age_seconds)
        if next(readings) == 3:  # for the question, the first attempt, the second
            await freeze(services)
        return found

    monkeypatch.setattr(services.pricer, "evidence", evidence)
    outcome = await call(services, wish(first, fallback_server_ids=[other]))
    assert outcome.status == "refused"
    assert "stopped all spending" in outcome.next
    assert [attempt.server_id for attempt in outcome.attempts] == [first]
    assert [row["body"]["renting_server"] for row in world.sent()] == [first]
    check_invariants(world)


@pytest.mark.parametrize("fault", ["hang_after", "late_visible"])
async def test_an_order_that_was_on_its_way_is_ended_as_it_shows(world: World, process: Processes, fault: str) -> None:
    renting, stopper = await process(), await process()
    world.fault(fault, "create_order", seconds=1.0 if fault == "hang_after" else 30.0)
    call_ = asyncio.ensure_future(call(renting, wish(world.free()[0])))
    await asyncio.to_thread(world.await_request, "create_order", effect=True)
    await freeze(stopper)
    steps = await end_all(stopper)
    assert isinstance(steps[0], PendingCreates)
    assert steps[0].intents
    last = steps[-1]
    assert not (isinstance(last, PendingCreates) and last.intents)
    outcome = await call_
    assert outcome.status == "refused"
    assert outcome.order_id == world.orders()[0]["id"]
    assert "stopped all spending" in outcome.next
    assert not world.active()
    check_invariants(world)


async def test_a_bid_is_not_raised_while_frozen_but_lowered(world: World, services: Services) -> None:
    server_id = world.free()[0]
    bid = round(world.price(server_id, "spot") * 2 / 24, 4)
    made = await rent(services, server_id, order_type="spot", bid_usd_per_hour=bid)
    await freeze(services)
    with pytest.raises(SpendingFrozen):
        await call(services, SetSpotPrice(order_id=made.order_id, bid_usd_per_hour=round(bid * 1.5, 4)))
    world.advance(700)
    lower = SetSpotPrice(order_id=made.order_id, bid_usd_per_hour=round(bid * 0.97, 4))
    outcome = await call(services, lower)
    assert outcome.status == "updated", outcome
    assert len(world.sent("set_spot_price")) == 1
    check_invariants(world)


async def test_a_reservation_that_waits_for_its_turn_is_given_up(world: World, services: Services) -> None:
    world.options(rate_limit="arrival", interval=0.0, create_interval=3.0, retry_after=True)
    world.take_create_slot()
    ask = wish(world.free()[0])
    renting = asyncio.ensure_future(call(services, ask))
    await asyncio.to_thread(world.await_request, "create_order", beyond=1)
    await asyncio.to_thread(world.await_state, lambda: [row["state"] for row in world.intents()] == ["reserved"])
    done = await freeze(services)
    assert done.unsent == 1
    world.options(rate_limit="off")
    outcome = await renting
    assert outcome.status in ("refused", "failed"), outcome
    assert [row["state"] for row in world.intents()] == ["abandoned"]
    assert not world.active()
    check_invariants(world)

"""One wish makes one order: the same call is the order that it made, also one that shows late, and a server that may be
held by ourselves is looked at before the next one is rented."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from clore_mcp.errors import NotJson, Spent, StateUnavailable
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.results import Attempt
from clore_mcp.store import Quote
from clore_mcp.wiring import Services
from tests.guard.calls import call, let_time_pass, wish
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.world import IMAGE, World

pytestmark = pytest.mark.anyio
LATE = 90_000.0  # seconds of Clore's clock, which no test lives to see unless it advances it


async def failed(world: World, services: Services, ask: CreateOrder) -> None:
    """The reply is lost and the order shows only later: `failed`, and it bills."""
    world.options(visible_after=LATE)
    world.fault("lost_reply", "create_order")
    assert (await call(services, ask)).status == "failed"
    world.options(visible_after=0.0)


def blind(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look from now on fails; what lists show that merely wait in the queue is read."""
    read = services.context.client.my_orders

    async def my_orders(**how: Any) -> Any:
        if how.get("urgent"):
            raise NotJson("an outage", spent=Spent.NO)
        return await read(**how)

    monkeypatch.setattr(services.context.client, "my_orders", my_orders)


def spot_with_a_fallback(world: World) -> CreateOrder:
    """A spot server is listed as free whoever runs on it, so its create is sent."""
    first, second = world.free()[:2]
    return wish(first, fallback_server_ids=[second], order_type="spot", bid_usd_per_hour=0.5)


async def test_an_order_of_the_same_call_that_shows_while_the_person_is_asked_is_its_outcome(
    world: World, services: Services
) -> None:
    ask = spot_with_a_fallback(world)
    await failed(world, services, ask)
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    assert held.quote
    world.advance(LATE)
    services.context.readings.changed()  # as ten seconds would do
    outcome = await services.guard.conclude(held, ask, answer=True, caller="tester")
    assert (outcome.status, outcome.repeated) == ("created", True)
    assert [order["id"] for order in world.active()] == [outcome.order_id]
    assert len(world.sent()) == 1
    assert "repeated" in world.steps()
    check_invariants(world)


async def test_an_equal_call_of_another_process_that_comes_late_is_the_order_of_the_first(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await process(), await process()
    first, second = world.free()[:2]
    ask = wish(first, fallback_server_ids=[second])
    hold = other.approvals.hold
    proposed, go = asyncio.Event(), asyncio.Event()

    async def late(quote: Quote, *, heeds_declines: bool) -> Quote:
        proposed.set()
        await go.wait()
        return await hold(quote, heeds_declines=heeds_declines)

    monkeypatch.setattr(other.approvals, "hold", late)
    renting = asyncio.ensure_future(call(other, ask))
    await proposed.wait()
    made = await call(one, ask)
    go.set()
    outcome = await renting
    assert (outcome.order_id, outcome.repeated) == (made.order_id, True)
    assert len(world.active()) == 1
    check_invariants(world)


@pytest.mark.parametrize("seen", ["a late order", "nothing", "an outage"])
async def test_a_server_listed_as_rented_is_looked_at_where_a_create_of_ours_is_younger_than_a_day(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    first, second = world.free()[:2]
    ask = wish(first, fallback_server_ids=[second], hours=3.0)
    held = await services.guard.hold(ask, caller="another", can_ask=True, replay=False)
    await failed(world, services, wish(first))
    let_time_pass(services)  # a minute: now the server is listed as rented
    await services.context.readings.orders(0)
    if seen == "a late order":
        world.advance(LATE)  # and the list that was read just now has nothing of it
    elif seen == "an outage":
        blind(services, monkeypatch)
    outcome = await services.guard.conclude(held, ask, answer=True, caller="another")
    running = [order["server_id"] for order in world.active()]
    if seen == "nothing":
        assert outcome.status == "created", "a valid look without an order: somebody else rents it"
        assert outcome.attempts[0] == Attempt(first, "server-already-rented")
        assert running == [first, second]
        return
    assert running == [first], "never on to the fallback"
    assert outcome.status == ("refused" if seen == "a late order" else "failed")
    assert outcome.attempts[0].outcome == ("held_by_you" if seen == "a late order" else "server-already-rented")
    assert len(world.sent()) == 1


async def test_already_rented_and_a_blind_look_is_uncertain_and_rents_no_fallback(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = spot_with_a_fallback(world)
    await failed(world, services, ask)
    blind(services, monkeypatch)
    outcome = await call(services, ask)
    assert outcome.status == "uncertain"
    assert [order["server_id"] for order in world.active()] == [ask.server_id]
    assert len(world.reserved()) == 1


async def test_already_rented_by_an_order_that_does_not_fit_rents_no_fallback(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.free()[:2]
    world.options(visible_after=0.0)
    world.fault("code1_before", "create_order")
    assert (await call(services, wish(first))).status == "failed"
    ask = wish(first, fallback_server_ids=[second], hours=3.0)
    send = services.context.client.create_order

    async def after_another(*about: Any, **more: Any) -> Any:
        if not world.orders():
            world.rent_elsewhere(first, image="another/image")
        return await send(*about, **more)

    monkeypatch.setattr(services.context.client, "create_order", after_another)
    outcome = await call(services, ask)
    assert outcome.status == "refused"
    assert "held_by_you" in {one.outcome for one in outcome.attempts}
    assert [order["server_id"] for order in world.active()] == [first]
    check_invariants(world)


async def test_a_server_on_which_this_account_runs_something_is_not_sent_a_create(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = spot_with_a_fallback(world)
    held = await services.guard.hold(ask, caller="another", can_ask=True, replay=False)
    world.options(visible_after=0.0)
    world.rent_elsewhere(ask.server_id, image=IMAGE, type="spot", spotprice=8.0)
    services.context.readings.changed()
    outcome = await services.guard.conclude(held, ask, answer=True, caller="another")
    assert outcome.status == "refused"
    assert outcome.attempts == (Attempt(ask.server_id, "held_by_you"),)
    assert outcome.next.count("For a second server, name another server_id.") == 1
    assert not world.sent()


async def test_a_rented_server_with_an_uncertain_create_rents_no_fallback(world: World, services: Services) -> None:
    first, second = world.free()[:2]
    ask = wish(first, fallback_server_ids=[second], hours=3.0)
    held = await services.guard.hold(ask, caller="another", can_ask=True, replay=False)
    world.options(visible_after=LATE)
    assert (await call(services, wish(first))).status == "uncertain"
    let_time_pass(services)
    outcome = await services.guard.conclude(held, ask, answer=True, caller="another")
    assert outcome.status == "refused"
    assert "blocked by" in outcome.attempts[0].outcome
    assert len(world.sent()) == 1
    check_invariants(world, settled=False)


async def test_a_rented_server_beside_an_order_whose_server_nobody_tells_rents_no_fallback(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.free()[:2]
    ask = wish(first, fallback_server_ids=[second], hours=3.0)
    held = await services.guard.hold(ask, caller="another", can_ask=True, replay=False)
    await failed(world, services, wish(first))
    world.advance(LATE)
    let_time_pass(services)
    read = services.context.client.my_orders

    async def my_orders(**how: Any) -> Any:
        reply = await read(**how)
        return replace(reply, rows=[row.model_copy(update={"server_id": None}) for row in reply.rows])

    monkeypatch.setattr(services.context.client, "my_orders", my_orders)
    outcome = await services.guard.conclude(held, ask, answer=True, caller="another")
    assert outcome.status == "failed"
    assert "list_orders" in outcome.next
    assert [order["server_id"] for order in world.active()] == [first]
    assert len(world.sent()) == 1


async def test_a_server_that_got_an_uncertain_create_after_the_question_is_sent_no_second_one(
    world: World, process: Processes
) -> None:
    asked, other = await process(), await process()
    server_id = world.free()[0]
    ask = wish(server_id, hours=3.0)
    held = await asked.guard.hold(ask, caller="another", can_ask=True, replay=False)
    await asked.pricer.evidence()  # and the market that it knows has the server as free
    world.options(visible_after=LATE)
    assert (await call(other, wish(server_id))).status == "uncertain"
    outcome = await asked.guard.conclude(held, ask, answer=True, caller="another")
    assert outcome.status == "refused", outcome
    assert "blocked by" in outcome.attempts[0].outcome
    assert len(world.sent()) == 1
    check_invariants(world, settled=False)


async def test_a_server_on_which_this_account_runs_something_is_not_asked_about(
    world: World, services: Services
) -> None:
    server_id = world.free()[0]
    order_id = world.rent_elsewhere(server_id)
    world.advance(60)
    outcome = await call(services, wish(server_id))
    assert (outcome.status, outcome.attempts) == ("refused", (Attempt(server_id, "held_by_you"),))
    assert f"{order_id}" in outcome.next
    assert not world.rows("SELECT * FROM quotes"), "nobody was asked"
    assert not world.sent()


async def test_where_the_look_for_our_own_order_can_not_be_recorded_the_create_is_uncertain(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = spot_with_a_fallback(world)
    world.fault("refused", "create_order", error="you_already_have_spot_order")

    async def full(*_: Any, **__: Any) -> Any:
        raise StateUnavailable("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(services.settler, "look", full)
        outcome = await call(services, ask)
    assert outcome.status == "uncertain", outcome
    assert len(world.sent()) == 1, "never on to the fallback"
    assert len(world.reserved()) == 1
    check_invariants(world, settled=False)

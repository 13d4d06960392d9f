"""Lease ends that nothing holds up: a full disk, a frozen process, a list that fails, a row that nobody can read, a
clock that jumps; and what a heartbeat may claim meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from clore_mcp.clore import OrdersReply
from clore_mcp.errors import NotJson, NotSent, StateUnavailable
from clore_mcp.rental.account_summary import account_state
from clore_mcp.rental.orders.keeper import Keeper
from clore_mcp.rental.terms import POLL_SECONDS
from clore_mcp.store.database import Database
from clore_mcp.wiring import Services
from tests.guard.calls import call, patient, rent, wish
from tests.guard.children import Child
from tests.guard.conftest import LocalTime, Processes
from tests.guard.invariants import check_invariants
from tests.world import USD, World

pytestmark = pytest.mark.anyio
HOURS = 3 * 3600.0


def replies(services: Services, monkeypatch: pytest.MonkeyPatch, change: Callable[..., OrdersReply]) -> None:
    """Let each list of orders pass through `change(reply, **asked)`, which may raise."""
    real = services.context.client.my_orders

    async def my_orders(**asked: Any) -> OrdersReply:
        return change(await real(**asked), completed=asked["completed"], urgent=asked["urgent"])

    monkeypatch.setattr(services.context.client, "my_orders", my_orders)
    services.context.readings.changed()


def down(*_: Any, **__: Any) -> OrdersReply:
    raise NotJson("The reply is not Clore's.")


async def test_a_lease_ends_though_nothing_can_be_written(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rent(services, world.free()[0])

    async def full(work: Any, **how: bool) -> Any:
        raise StateUnavailable("database or disk is full")

    monkeypatch.setattr(services.context.state, "write", full)
    world.advance(HOURS)
    await services.keeper.poll()
    assert not world.active()


async def test_a_lease_ends_though_the_state_cannot_be_read_any_more(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rent(services, world.free()[0])
    await services.keeper.poll()

    def broken(*_: Any, **how: bool) -> Any:
        raise StateUnavailable("disk I/O error")

    monkeypatch.setattr(Database, "_transact", broken)
    world.advance(HOURS)
    await services.keeper.poll()
    assert not world.active()


async def test_a_lease_ends_though_a_frozen_process_holds_the_lock(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clore_mcp.store.database._BUSY_SECONDS", 0.3)  # each write waits so long for the lock
    services = await process()
    first, second = world.free()[:2]
    await rent(services, first)
    child = Child(world, wish(second), stop="claimed")
    try:
        await asyncio.to_thread(child.await_place)
        world.advance(HOURS)
        await services.keeper.poll()
        assert not world.active()
    finally:
        child.kill()


async def test_a_lease_ends_though_the_list_of_ended_orders_fails(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.free()[:2]
    gone = (await rent(services, first)).order_id
    await rent(services, second)
    await services.context.client.cancel_order(gone)

    def change(reply: OrdersReply, *, completed: bool = False, urgent: bool = False) -> OrdersReply:
        return down() if completed and not urgent else reply

    replies(services, monkeypatch, change)
    world.advance(HOURS)
    await services.keeper.poll()
    assert not world.active()


async def test_a_lease_ends_though_no_list_can_be_read(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch, local: LocalTime
) -> None:
    keeping = await process()
    await rent(keeping, world.free()[0])
    await keeping.keeper.poll()
    replies(keeping, monkeypatch, down)
    await keeping.keeper.poll()
    assert len(world.active()) == 1, "not over yet"
    world.advance(HOURS)
    local.pass_by(HOURS)
    await keeping.keeper.poll()
    assert not world.active()


async def test_nothing_is_cancelled_unread_before_clore_ever_told_the_time(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch, local: LocalTime
) -> None:
    await rent(await process(), world.free()[0])
    local.wall = HOURS  # a clock that was wrong from the start
    later = await process()
    replies(later, monkeypatch, down)
    await later.keeper.poll()
    assert len(world.active()) == 1


async def test_a_lease_ends_though_the_row_of_another_call_cannot_be_read(world: World, services: Services) -> None:
    world.fault("lost_reply", "create_order")
    world.options(visible_after=90_000.0)
    assert (await call(services, wish(world.free()[0]))).status == "failed"
    world.options(visible_after=2.0)
    order_id = (await rent(services, world.free()[1])).order_id
    world.change("UPDATE quotes SET terms = '{}' WHERE state = 'settled' AND outcome LIKE '%failed%'")
    world.advance(90_000)
    await services.keeper.poll()
    assert order_id not in [order["id"] for order in world.active()]


async def test_a_lease_ends_though_one_row_is_for_ever_unreadable(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rent(services, world.free()[0])
    replies(services, monkeypatch, lambda reply, **_: replace(reply, dropped=1))
    world.advance(HOURS)
    await services.keeper.poll()
    assert not world.active()


async def test_a_round_that_cannot_end_leases_claims_nothing(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rent(services, world.free()[0])
    await services.keeper.stop()  # no round but those below
    world.change("UPDATE heartbeats SET at = at - 300")
    with monkeypatch.context() as broken:
        replies(services, broken, down)
        await services.keeper.poll()
    assert await services.context.enforced_by() is None, "the orders can't be read"
    world.advance(HOURS)
    with monkeypatch.context() as broken:

        async def cancel_order(*_: Any) -> None:
            raise NotSent("no connection")

        broken.setattr(services.context.client, "cancel_order", cancel_order)
        assert await services.keeper.poll() < 60, "tried again soon"
    assert await services.context.enforced_by() is None, "a cancel does not get through"
    await services.keeper.poll()
    assert not world.active()
    await services.keeper.poll()
    assert await services.context.enforced_by() is not None
    check_invariants(world)


async def test_while_leases_that_cannot_be_read_are_tried_again_nobody_is_told_that_they_can(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rent(services, world.free()[0])
    await services.keeper.stop()  # no round but those below
    world.change("UPDATE orders SET price_native = 'none'")
    await services.keeper.poll()
    read, told, asking = services.context.state.read, list[bool](), False

    async def read_and_ask(work: Any) -> Any:
        nonlocal asking
        if not asking:
            asking = True
            told.append(await services.keeper._can_read())
            asking = False
        return await read(work)

    monkeypatch.setattr(services.context.state, "read", read_and_ask)
    await services.keeper.poll()
    assert told and not any(told)
    world.change("UPDATE orders SET price_native = 1")
    await services.keeper.poll()
    await services.keeper.poll()
    assert told[-1], "they can be read again"


async def test_all_that_is_due_is_cancelled_before_anything_is_proven(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = await process(patient(proof=60.0))
    blind = True
    for server_id in world.free()[:3]:
        await rent(services, server_id)

    def change(reply: OrdersReply, *, completed: bool = False, urgent: bool = False) -> OrdersReply:
        return down() if completed and blind else reply

    replies(services, monkeypatch, change)
    world.advance(HOURS)
    round_ = asyncio.ensure_future(services.keeper.poll())
    await asyncio.to_thread(world.await_state, lambda: not world.active(), 40.0)
    assert not round_.done(), "the proof of the first is still looked for"
    blind = False
    await round_


@pytest.mark.parametrize("ahead", [HOURS, -HOURS])
async def test_a_local_clock_that_jumps_in_the_middle_of_a_round_ends_no_lease(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch, local: LocalTime, ahead: float
) -> None:
    services = await process()
    await rent(services, world.free()[0])
    look = services.context.readings.look

    async def then_jump(**asked: Any) -> Any:
        seen = await look(**asked)
        local.wall = ahead
        return seen

    monkeypatch.setattr(services.context.readings, "look", then_jump)
    await services.keeper.poll()
    replies(services, monkeypatch, down)
    await services.keeper.poll()
    assert len(world.active()) == 1
    assert not world.sent("cancel_order")


async def test_replies_without_a_date_give_a_warning(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replies(services, monkeypatch, lambda reply, **_: replace(reply, api_time=None))
    await rent(services, world.free()[0])
    for _ in range(2):
        await services.keeper.poll()
    assert caplog.text.count("have no date") == 1


async def test_a_price_that_shows_late_and_is_above_the_ceiling_ends_the_order(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.options(required_price="ignored")
    world.fault("price_moved", factor=3.0)
    with monkeypatch.context() as unpriced:
        replies(
            services,
            unpriced,
            lambda reply, **_: replace(reply, rows=[row.model_copy(update={"price": None}) for row in reply.rows]),
        )
        assert (await call(services, wish(world.free()[0]))).status == "created"
        await services.keeper.poll()
        assert len(world.active()) == 1
    services.context.readings.changed()
    await services.overview.orders(max_age_seconds=0)
    assert not world.active()
    told = await account_state(services.context, services.pricer, services.approvals, services.overview)
    assert "above ceiling" in [event.what for event in told.events]
    assert not world.reserved()


async def test_an_outbid_order_keeps_its_reservation_and_its_lease_end_cancels_the_bid(
    world: World, services: Services
) -> None:
    server_id = world.free()[0]
    await rent(services, server_id, order_type="spot", bid_usd_per_hour=0.5)
    world.post("/bids", {"server_id": server_id, "bid": 1000, "currency": USD})
    world.advance(600)
    await services.keeper.poll()
    assert len(world.reserved()) == 1
    assert [order["active"] for order in world.active()] == [False]
    world.advance(2 * 3600)
    await services.keeper.poll()
    assert not world.active()
    check_invariants(world)


async def test_two_who_wake_at_the_same_end_cancel_once(world: World, process: Processes) -> None:
    one, other = await process(), await process()
    await rent(one, world.free()[0])
    world.options(latency=0.3)  # whoever is second has asked before the first one's cancel leaves
    world.advance(HOURS)
    await asyncio.gather(one.keeper.poll(), other.keeper.poll())
    assert not world.active()
    assert len(world.sent("cancel_order")) == 1


@pytest.mark.parametrize(("passed", "held"), [(20, True), (40, False), (-20, False)], ids=["soon", "later", "earlier"])
async def test_the_cancel_of_one_who_was_killed_over_it_counts_for_half_a_poll(
    world: World, local: LocalTime, services: Services, passed: float, held: bool
) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    await services.keeper.stop()
    world.advance(HOURS)
    account = await services.context.readings.account()
    await services.context.state.write(
        lambda tx: services.context.note(tx, "cancel_sent", "x", account, order_id=order_id)
    )
    local.wall += passed  # set back, nobody knows how old that cancel is
    keeper = Keeper(services.context, services.closer, services.settler, (), POLL_SECONDS)
    pause = await keeper.poll()
    assert bool(world.active()) is held
    assert pause == 15 or not held, "it looks again soon"
    local.pass_by(60)
    await keeper.poll()
    assert not world.active()


async def test_a_question_that_waits_is_something_left_though_clore_is_asked_nothing(
    world: World, local: LocalTime, services: Services
) -> None:
    await services.keeper.poll()
    assert not services.keeper.last.left
    held = await services.guard.hold(wish(world.free()[0]), caller="tester", can_ask=True, replay=False)
    assert held.quote is not None
    asked = len(world.sent("my_orders"))
    await services.keeper.poll()
    assert services.keeper.last.left, "who says yes has found the watchdog at work, and may be killed over the order"
    local.pass_by(601)
    await services.keeper.poll()
    assert not services.keeper.last.left
    assert len(world.sent("my_orders")) == asked


async def test_read_only_adopts_an_order_above_its_ceiling_and_leaves_the_cancel_to_who_may_act(
    world: World, process: Processes
) -> None:
    first = world.services()
    await first.keep_leases()
    world.options(required_price="ignored", visible_after=50_000)
    world.fault("price_moved", factor=1.5)
    ask = wish(world.free()[0])
    assert (await call(first, ask)).status == "uncertain"
    await first.aclose()
    world.advance(50_000)
    reader = world.services(CLORE_READ_ONLY="1")
    await reader.overview.orders(max_age_seconds=0)
    assert [row["state"] for row in world.intents()] == ["adopted"]
    assert not world.sent("cancel_order")
    [quote] = world.rows("SELECT outcome FROM quotes")
    assert "It is still billed" in quote["outcome"]
    assert "cancelled at once" not in quote["outcome"]
    await reader.aclose()
    await process()  # its lease was over from the start
    await asyncio.to_thread(world.await_state, lambda: not world.active())
    check_invariants(world)

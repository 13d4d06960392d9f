"""What a look proves: `failed` needs a valid one at the end of the patience; what is doubtful is `uncertain`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from clore_mcp.clore import OrderRow
from clore_mcp.clore.exchange import Timing
from clore_mcp.errors import NotFound, NotJson, Spent
from clore_mcp.rental.context import Patience
from clore_mcp.wiring import Services
from tests.guard.calls import call, patient, wish
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.guard.spots import rewrite
from tests.world import World

pytestmark = pytest.mark.anyio


def tell(
    services: Services, monkeypatch: pytest.MonkeyPatch, change: Callable[[list[OrderRow]], list[OrderRow]]
) -> None:
    """Clore's lists of orders, told otherwise."""
    read = services.context.client.my_orders

    async def my_orders(**how: Any) -> Any:
        reply = await read(**how)
        return replace(reply, rows=change(reply.rows))

    monkeypatch.setattr(services.context.client, "my_orders", my_orders)


async def test_an_early_look_that_saw_nothing_does_not_make_it_failed(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = await process(patient(look=2.0))
    world.options(visible_after=3_600.0)  # a minute of ours
    world.fault("lost_reply", "create_order")
    read, looks = services.context.client.my_orders, []

    async def my_orders(**how: Any) -> Any:
        if how.get("urgent"):
            looks.append(how)
            if len(looks) > 1:
                raise NotJson("an outage", spent=Spent.NO)
        return await read(**how)

    monkeypatch.setattr(services.context.client, "my_orders", my_orders)
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "uncertain"
    assert len(looks) > 1
    assert len(world.active()) == len(world.reserved()) == 1
    check_invariants(world, settled=False)


async def test_a_new_order_whose_server_clore_does_not_tell_is_not_failed(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.fault("lost_reply", "create_order")
    tell(services, monkeypatch, lambda rows: [row.model_copy(update={"server_id": None}) for row in rows])
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "uncertain"
    assert len(world.active()) == len(world.reserved()) == 1
    check_invariants(world, settled=False)


async def test_two_orders_that_fit_are_uncertain_and_reserved(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.fault("lost_reply", "create_order")
    tell(
        services,
        monkeypatch,
        lambda rows: [*rows, *(row.model_copy(update={"id": row.id + 1}) for row in rows)],
    )
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "uncertain"
    assert len(world.reserved()) == 1
    assert not world.rows("SELECT * FROM orders"), "nobody knows which is ours"
    check_invariants(world, settled=False)


@pytest.mark.parametrize("settled", [False, True])
async def test_a_code_0_that_comes_after_another_process_said_failed_takes_that_back(
    world: World, process: Processes, *, settled: bool
) -> None:
    services = await process(patient(look=1.0))
    world.options(visible_after=90_000.0)
    world.fault("hang_after", "create_order", seconds=3.0)
    renting = asyncio.ensure_future(call(services, wish(world.free()[0])))
    await asyncio.to_thread(world.await_request, "create_order", effect=True)
    # What another process does once the time to send, the window and the patience are over.
    world.change("UPDATE intents SET state = 'failed'")
    world.change("UPDATE reservations SET released_at = 1, actual_micros = 0")
    if settled:
        told = '{"status": "failed", "attempts": [], "next": ""}'
        world.change("UPDATE quotes SET state = 'settled', outcome = ?", told)
    assert (await renting).status == "uncertain"
    assert [row["state"] for row in world.intents()] == ["uncertain"]
    assert len(world.reserved()) == 1
    check_invariants(world, settled=False)


def test_a_create_is_given_up_on_before_anybody_else_may_settle_it() -> None:
    assert Timing().create_seconds < Patience().window


async def test_an_order_in_a_coin_that_nobody_knows_is_cancelled_at_once(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(services, monkeypatch, lambda row: row.model_copy(update={"currency": "USDT"}))
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "refused"
    assert "USDT" in outcome.next
    assert [order["end_reason"] for order in world.orders()] == ["cancelled"]


@pytest.mark.parametrize("factor", [1.0, 1.5])
async def test_a_price_that_clore_tells_later_is_waited_for_before_the_order_is_taken(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    untold = iter([True, True])
    rewrite(
        services,
        monkeypatch,
        lambda row: row.model_copy(update={"price": None}) if next(untold, False) else row,
    )
    world.options(required_price="ignored")
    world.fault("price_moved", factor=factor)
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == ("created" if factor == 1.0 else "refused")
    assert len(world.active()) == (factor == 1.0)
    assert "price_unknown" not in world.steps()
    check_invariants(world)


async def test_an_order_whose_price_stays_unknown_is_taken_and_said(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(services, monkeypatch, lambda row: row.model_copy(update={"price": None}))
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "created"
    assert "does not report this order's price" in outcome.next
    assert world.steps()[-2:] == ["created", "price_unknown"]
    check_invariants(world)


async def test_a_server_with_an_unsettled_create_is_quoted_as_not_allowed_also_as_a_fallback(
    world: World, services: Services
) -> None:
    server_id, other = world.free()[:2]
    world.fault("late_visible", seconds=50_000)
    assert (await call(services, wish(server_id))).status == "uncertain"
    alone = await services.pricer.price(wish(server_id, hours=3))
    assert alone.terms is None
    assert [(one.server_id, one.reason) for one in alone.unfit] == [(server_id, "unsettled")]
    assert "clore-mcp settle" in alone.unfit[0].message
    behind = await services.pricer.price(wish(other, fallback_server_ids=[server_id]))
    assert behind.terms is not None
    assert [one.server_id for one in behind.terms.candidates] == [other]
    assert [(one.server_id, one.reason) for one in behind.unfit] == [(server_id, "unsettled")]
    before = len(world.sent())
    outcome = await call(services, wish(server_id, hours=3, fallback_server_ids=[other]))
    assert outcome.status == "refused", "never on to a fallback: the first may be running"
    assert len(world.sent()) == before


async def test_what_a_person_is_told_to_type_about_an_intent_reaches_this_state(services: Services) -> None:
    object.__setattr__(services.context, "program", "clore-mcp --sandbox")
    with pytest.raises(NotFound) as caught:
        await services.settler.unsettled("i-nothing")
    assert "`clore-mcp --sandbox orders`" in caught.value.hint


async def test_a_price_is_asked_for_again_where_a_look_for_it_fails(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopting, readings = services.settler._adopter, services.context.readings
    adopt, look = adopting.adopt, readings.look
    at_work: list[object] = []
    failed: list[str] = []

    async def found(*what: Any, **more: Any) -> Any:
        at_work.append(asyncio.current_task())
        return await adopt(*what, **more)

    async def failing_once(**how: Any) -> Any:
        if not failed and asyncio.current_task() in at_work:  # not the keeper's own look in that moment
            failed.append("the look for a price")
            raise NotJson("an outage")
        return await look(**how)

    monkeypatch.setattr(adopting, "adopt", found)
    monkeypatch.setattr(readings, "look", failing_once)
    rewrite(services, monkeypatch, lambda row: row if failed else row.model_copy(update={"price": None}))
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "created"
    assert failed == ["the look for a price"]
    assert "does not report this order's price" not in outcome.next
    assert "price_unknown" not in world.steps()
    check_invariants(world)

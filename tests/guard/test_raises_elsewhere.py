"""Orders made elsewhere have no lease and no intent: once their bid is raised here they are reserved for all the same,
until they are proven gone. And what a raise leaves behind when its process is killed."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from typing import Any

import pytest

from clore_mcp.errors import NotJson
from clore_mcp.rental.orders import stop
from clore_mcp.rental.requests import CancelOrder, SetSpotPrice
from clore_mcp.store import intents
from clore_mcp.wiring import Services
from tests.guard.calls import SHORT, call, patient, wish
from tests.guard.children import Child
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.guard.spots import WIDE, limits_of, raised, rich, spot, spot_elsewhere
from tests.world import World

pytestmark = pytest.mark.anyio
LONGEST = 3000


def worst(world: World) -> float:
    return sum(float(row["worst_micros"]) for row in world.reserved()) / 10**6


@pytest.fixture
async def roomy(world: World, process: Processes) -> Services:
    rich(world)
    return await process(env=WIDE)


async def look(services: Services) -> None:
    services.context.readings.changed()
    await services.overview.orders(max_age_seconds=0)


async def test_raises_of_two_orders_made_elsewhere_share_the_day(world: World, process: Processes) -> None:
    rich(world)
    first, second = (spot_elsewhere(world, server_id) for server_id in world.free()[:2])
    dearest = max(first[1], second[1]) * 1.5
    cap = dearest * LONGEST * 1.2
    services = await process(env={**WIDE, "CLORE_MAX_USD_PER_DAY": str(round(cap, 2))})
    asks = [SetSpotPrice(order_id=order_id, bid_usd_per_hour=round(dearest, 4)) for order_id, _ in (first, second)]
    assert (await call(services, asks[0])).status == "updated"
    assert worst(world) >= dearest * LONGEST * 0.99
    assert limits_of(await call(services, asks[1])) == ["usd_per_day"]
    assert len(world.sent("set_spot_price")) == 1
    ended = await call(services, CancelOrder(order_id=first[0]))
    assert ended.status == "cancelled"
    assert not world.reserved()
    assert (await call(services, asks[1])).status == "updated", "what it really cost has taken its place"
    check_invariants(world)


async def test_the_question_of_a_raise_says_whose_order_it_is_and_when_it_ends(world: World, roomy: Services) -> None:
    theirs, bid = spot_elsewhere(world, world.free()[0])
    server_id = world.orders()[0]["server_id"]
    ours, own_bid = await spot(world, roomy)
    roomy.context.readings.changed()
    for order_id, price, made_here in ((theirs, bid, False), (ours, own_bid, True)):
        held = await roomy.guard.hold(raised(order_id, price), caller="t", can_ask=True, replay=False)
        assert held.quote
        assert ("It was not made here" in held.quote.question) is not made_here
        assert ("End: cancelled at 2" in held.quote.question) is made_here
        assert (f"Server {server_id}: 1x" in held.quote.question) is not made_here


async def test_a_second_raise_of_an_order_made_elsewhere_adds_only_what_is_more(
    world: World, process: Processes
) -> None:
    rich(world)
    order_id, bid = spot_elsewhere(world, world.free()[0])
    services = await process(env={**WIDE, "CLORE_MAX_USD_PER_DAY": str(round(bid * 1.7 * LONGEST, 2))})
    assert (await call(services, raised(order_id, bid))).status == "updated"
    assert (await call(services, raised(order_id, bid, 1.6))).status == "updated"
    assert len(world.reserved()) == 1
    assert worst(world) >= bid * 1.59 * LONGEST
    assert limits_of(await call(services, raised(order_id, bid, 1.8))) == ["usd_per_day"]


async def test_a_raise_of_an_order_made_elsewhere_that_clore_refuses_reserves_nothing(
    world: World, roomy: Services
) -> None:
    server_id = world.free()[0]
    order_id, bid = spot_elsewhere(world, server_id)
    ask = raised(order_id, bid)
    held = await roomy.guard.hold(ask, caller="t", can_ask=True, replay=False)
    world.post(f"/servers/{server_id}", {"price": {"spot": {"USD-Blockchain": 1000}}})
    assert (await roomy.guard.conclude(held, ask, answer=True, caller="t")).status == "refused"
    assert not world.reserved()


async def test_what_is_reserved_for_an_order_made_elsewhere_ends_with_it(world: World, roomy: Services) -> None:
    order_id, bid = spot_elsewhere(world, world.free()[0])
    assert (await call(roomy, raised(order_id, bid))).status == "updated"
    await look(roomy)
    assert len(world.reserved()) == 1
    world.advance(3600)
    assert (await roomy.closer.cancel(order_id, issue=None, caller="a person", why="by hand")).status == "cancelled"
    [row] = world.rows("SELECT * FROM reservations")
    [paid] = [order["total"] for order in world.orders()]
    assert row["released_at"] is not None
    assert row["actual_micros"] >= int(paid * 10**6) - 1


async def test_an_order_made_elsewhere_that_another_program_ends_is_found_gone_at_the_next_look(
    world: World, roomy: Services
) -> None:
    (order_id, bid), (other, its_bid) = (spot_elsewhere(world, server_id) for server_id in world.free()[:2])
    for _ in range(2):
        assert (await call(roomy, raised(order_id, bid))).status == "updated"
        await roomy.context.client.cancel_order(order_id, None)
        roomy.context.readings.changed()
        order_id, bid, before = other, its_bid, order_id
        assert [row["order_id"] for row in world.reserved()] == [before]
    await look(roomy)
    assert not world.reserved()
    assert world.steps().count("ended") == 2, "the first was found at the second raise"


async def test_a_lease_ends_while_nobody_can_say_what_became_of_an_order_made_elsewhere(
    world: World, roomy: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, bid = spot_elsewhere(world, world.free()[0])
    assert (await call(roomy, raised(theirs, bid))).status == "updated"
    await spot(world, roomy, hours=1)
    await roomy.context.client.cancel_order(theirs, None)
    world.advance(3700)

    async def completed(max_age_seconds: float) -> Any:
        raise NotJson("Clore answers no such list.")

    monkeypatch.setattr(roomy.context.readings, "completed", completed)
    await roomy.keeper.poll()
    assert not world.active()
    assert [row["order_id"] for row in world.reserved()] == [theirs]


async def test_an_order_made_elsewhere_that_leaves_no_trace_counts_whole_for_a_day(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    rich(world)
    services = await process(patient(absence=0.2), env=WIDE)
    order_id, bid = spot_elsewhere(world, world.free()[0])
    assert (await call(services, raised(order_id, bid))).status == "updated"
    [before] = world.reserved()
    hidden = [True]
    listed = services.context.client.my_orders

    async def my_orders(**how: Any) -> Any:
        reply = await listed(**how)
        return replace(reply, rows=[]) if hidden else reply

    monkeypatch.setattr(services.context.client, "my_orders", my_orders)
    await look(services)
    assert world.reserved() == [{**before, "missed_at": world.reserved()[0]["missed_at"]}], "once is no proof"
    world.change("UPDATE reservations SET missed_at = missed_at - 1")
    await look(services)
    assert not world.reserved()
    assert world.rows("SELECT actual_micros FROM reservations") == [{"actual_micros": before["worst_micros"]}]
    hidden.clear()
    await look(services)
    assert world.reserved() == [before], "it is listed again: it runs, and counts as before"


async def test_an_order_that_turns_out_to_be_ours_takes_over_what_was_reserved_for_its_raise(
    world: World, roomy: Services
) -> None:
    order_id, _ = await spot(world, roomy)
    [ours] = world.reserved()
    world.change(
        "INSERT INTO reservations (account, order_id, coin, worst_micros, hourly_micros, created_at)"
        " SELECT account, order_id, coin, worst_micros * 2, hourly_micros * 2, created_at FROM reservations"
    )
    await roomy.context.state.write(lambda tx: intents.bind(tx, ours["intent_id"], order_id))
    [left] = world.reserved()
    assert (left["intent_id"], left["worst_micros"]) == (ours["intent_id"], ours["worst_micros"] * 2)


# Killed


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("meanwhile", ["spending is stopped", "its time passes"])
async def test_a_raise_that_was_frozen_before_it_left_is_not_sent(
    world: World, process: Processes, children: list[Child], meanwhile: str
) -> None:
    services = await process()
    order_id, bid = await spot(world, services)
    [before] = world.reserved()
    brief = patient(answer=0.6) if meanwhile == "its time passes" else SHORT
    child = Child(world, raised(order_id, bid), stop="bid claimed", patience=brief)
    children.append(child)
    await asyncio.to_thread(child.await_place)
    if meanwhile == "its time passes":
        await asyncio.sleep(0.8)
    else:
        await services.context.state.write(lambda tx: stop.freeze(tx, by="ann", now=time.time()))
    child.wake()
    outcome = await asyncio.to_thread(child.outcome)
    assert outcome["status"] in ("refused", "uncertain")
    assert not world.sent("set_spot_price")
    assert world.reserved() == [before | {"bidding": None}]
    check_invariants(world)


async def test_a_raise_that_was_approved_long_ago_is_not_settled_by_another_process_while_it_is_sent(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await process(env={"CLORE_APPROVAL": "outside"})
    server_id = world.free()[0]
    bid = round(world.price(server_id, "spot") * 2 / 24, 4)

    async def approve(ask: Any) -> str:
        quote_id: str = (await call(first, ask, can_ask=False)).approval_id
        await first.approvals.decide(await first.approvals.get(quote_id), yes=True, by="a person at a terminal")
        return quote_id

    rented = wish(server_id, order_type="spot", bid_usd_per_hour=bid)
    await approve(rented)
    order_id = (await call(first, rented, can_ask=False)).order_id
    ask = raised(order_id, bid)
    quote_id = await approve(ask)
    world.change("UPDATE quotes SET decided_at = decided_at - 600 WHERE id = ?", quote_id)
    send = first.context.client.set_spot_price

    async def slowly(*told: Any, **more: Any) -> Any:
        other = await process()
        await other.overview.orders(max_age_seconds=0)
        return await send(*told, **more)

    monkeypatch.setattr(first.context.client, "set_spot_price", slowly)
    assert (await call(first, ask, can_ask=False)).status == "updated"
    assert "orphaned" not in world.steps()

"""What a process has left of a create when it ended, and a person's word on what no look can settle."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.store import intents, quotes
from clore_mcp.store.database import Tx
from clore_mcp.store.intents import Intent, Reservation
from clore_mcp.store.quotes import Quote
from clore_mcp.wiring import Services
from tests.guard.calls import call, rent, wish
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.world import IMAGE, World

pytestmark = pytest.mark.anyio
LONG_AGO = 60.0  # seconds: longer than any patience of these tests
LEFT = "i2345678"


async def left_quote(services: Services, ask: CreateOrder) -> Quote:
    """A quote whose yes was used by a process that is gone."""
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    assert held.quote is not None, held
    quote = held.quote

    def use(tx: Tx) -> bool:
        return quotes.consume(tx, quote.id, from_state="pending", owner="gone", by="ann", now=time.time())

    assert await services.context.state.write(use)
    return quote


async def left(services: Services, ask: CreateOrder, state: str) -> tuple[Intent, Quote]:
    """A create that was in that state when its process was killed, a moment ago."""
    quote, now = await left_quote(services, ask), time.time()
    made = Intent(
        id=LEFT, account=quote.account, quote_id=quote.id, verb=ask.verb, server_id=ask.server_id, image=ask.image,
        order_type="on-demand", coin=quote.terms["candidates"][0]["coin"], known_order_ids=frozenset(), state=state,
        owner="gone", created_at=now,
    )  # fmt: skip
    reserved = Reservation(LEFT, made.account, made.coin, Decimal("0.9"), Decimal("0.4"), now)

    def write(tx: Tx) -> None:
        intents.add(tx, made, reserved)
        intents.step(tx, LEFT, was=state, now_is=state, not_after=now)

    await services.context.state.write(write)
    return made, quote


def time_passes(world: World) -> None:
    """As rows see it: all that was written lies that much earlier."""
    world.change("UPDATE intents SET created_at = created_at - ?1, not_after = not_after - ?1", LONG_AGO)
    world.change("UPDATE quotes SET decided_at = decided_at - ?", LONG_AGO)


async def look(world: World, services: Services) -> tuple[list[str], int]:
    """The states of all creates after a look at the orders, and how many reservations are open."""
    await services.overview.orders(max_age_seconds=0)
    return [row["state"] for row in world.intents()], len(world.reserved())


async def test_a_yes_whose_process_ended_before_it_reserved_anything_blocks_its_call_for_a_while_only(
    world: World, services: Services
) -> None:
    ask = wish(world.free()[0])
    await left_quote(services, ask)
    await look(world, services)
    assert [row["state"] for row in world.rows("SELECT state FROM quotes")] == ["committing"], "it may still live"
    time_passes(world)
    await look(world, services)
    assert world.steps()[-1] == "orphaned"
    told = await call(services, ask)
    assert (told.status, told.repeated) == ("failed", True)
    assert "ended before the outcome was known" in told.next
    assert (await call(services, ask)).status == "created"
    check_invariants(world)


async def test_a_reservation_whose_process_ended_before_sending_is_given_back_after_a_while(
    world: World, services: Services
) -> None:
    ask = wish(world.free()[0])
    await left(services, ask, "reserved")
    assert await look(world, services) == (["reserved"], 1)
    time_passes(world)
    assert await look(world, services) == (["abandoned"], 0)
    told = await call(services, ask)
    assert (told.status, told.repeated) == ("failed", True)
    assert "ended before anything was sent" in told.next
    assert not world.sent()
    check_invariants(world)


async def test_a_reservation_that_its_process_sends_in_that_instant_is_not_given_back(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left(services, wish(world.free()[0]), "reserved")
    time_passes(world)
    await services.keeper.stop()
    write = services.context.state.write

    async def after_the_other(work: Any, **how: bool) -> Any:
        world.change("UPDATE intents SET state = 'sending', not_after = ? WHERE state = 'reserved'", time.time())
        return await write(work, **how)

    monkeypatch.setattr(services.context.state, "write", after_the_other)
    assert await look(world, services) == (["sending"], 1)
    assert [row["state"] for row in world.rows("SELECT state FROM quotes")] == ["committing"]
    assert "abandoned" not in world.steps()


async def test_a_create_whose_process_ended_after_sending_is_looked_for_and_closed_once_its_time_is_over(
    world: World, services: Services
) -> None:
    await left(services, wish(world.free()[0]), "sending")
    assert await look(world, services) == (["sending"], 1)
    time_passes(world)
    assert await look(world, services) == (["failed"], 0)
    check_invariants(world)


async def test_the_order_of_a_create_whose_process_ended_after_sending_is_adopted(
    world: World, services: Services
) -> None:
    ask = wish(world.free()[0])
    _, quote = await left(services, ask, "sending")
    order_id = world.rent_elsewhere(ask.server_id, image=IMAGE)
    world.elsewhere.clear()
    world.advance(10)
    time_passes(world)
    assert await look(world, services) == (["adopted"], 1)
    told = await call(services, ask)
    assert (told.status, told.order_id, told.repeated) == ("created", order_id, True)
    assert [row["quote_id"] for row in world.intents()] == [quote.id]
    check_invariants(world)


@pytest.mark.parametrize("listed", [False, True])
async def test_a_look_that_comes_after_another_process_has_settled_the_create_says_what_that_one_said(
    world: World, services: Services, listed: bool
) -> None:
    ask = wish(world.free()[0])
    made, quote = await left(services, ask, "abandoned")
    world.change(
        "UPDATE quotes SET state = 'settled', outcome = ?", '{"status": "failed", "attempts": [], "next": "given up"}'
    )
    if listed:
        world.rent_elsewhere(ask.server_id, image=IMAGE)
        world.advance(10)
    outcome = await services.settler.settle(made, quote)
    assert (outcome.status, outcome.next) == ("failed", "given up")
    assert [row["state"] for row in world.intents()] == ["abandoned"]
    assert not world.rows("SELECT * FROM orders")


async def test_a_create_whose_record_is_gone_is_never_called_a_failure(world: World, services: Services) -> None:
    made, quote = await left(services, wish(world.free()[0]), "sending")
    world.change("DELETE FROM intents")
    outcome = await services.settler.settle(made, quote)
    assert outcome.status == "uncertain", "it may have made an order"
    assert not world.intents()


# A person's word


async def test_a_persons_word_that_there_is_no_order_frees_what_was_reserved(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    await left(services, ask, "uncertain")
    intent, quote = await services.settler.unsettled(LEFT)
    outcome = await services.settler.settle_by_hand(intent, quote, None, by="ann, terminal")
    assert outcome.status == "failed"
    assert ([row["state"] for row in world.intents()], world.reserved()) == (["failed"], [])
    assert world.steps()[-1] == "settled_by_hand"
    told = await call(services, ask)
    assert (told.status, told.repeated) == ("failed", True) and "found no order" in told.next
    with pytest.raises(ArgumentInvalid, match="is settled already: failed"):
        await services.settler.settle_by_hand(intent, quote, None, by="ann, terminal")


async def test_a_persons_word_binds_the_order_that_they_name_once(world: World, process: Processes) -> None:
    services, other = await process(), await process()
    ask = wish(world.free()[0])
    await left(services, ask, "uncertain")
    order_id = world.rent_elsewhere(ask.server_id, image="another/image")
    world.advance(10)
    row = (await services.context.readings.look(completed=False)).find(order_id)
    assert row is not None
    found = await services.settler.unsettled(LEFT)
    outcome = await services.settler.settle_by_hand(*found, row, by="ann, terminal")
    assert (outcome.status, outcome.order_id) == ("created", order_id)
    assert [(one["state"], one["order_id"]) for one in world.intents()] == [("adopted", order_id)]
    with pytest.raises(ArgumentInvalid, match="has just been settled elsewhere"):
        await other.settler.settle_by_hand(*found, row, by="bob, terminal")
    with pytest.raises(ArgumentInvalid, match=f"is settled already: adopted as order {order_id}"):
        await other.settler.unsettled(LEFT)
    assert len(world.reserved()) == 1


async def test_what_may_still_be_on_its_way_is_settled_by_nobodys_word(world: World, services: Services) -> None:
    await left(services, wish(world.free()[0]), "sending")
    world.change("UPDATE intents SET not_after = not_after + 60")
    with pytest.raises(ArgumentInvalid, match="is still on its way"):
        await services.settler.unsettled(LEFT)
    time_passes(world)
    time_passes(world)
    intent, _ = await services.settler.unsettled(LEFT)
    assert intent.state == "sending"
    assert len(world.reserved()) == 1
    assert (await rent(services, world.free()[1])).status == "created", "no other server is blocked by it"

"""What a create becomes when Clore refuses it in each of its words, in unknown ones, and without any."""

from __future__ import annotations

import time
from typing import Any

import pytest

from clore_mcp.errors import NotJson, Spent
from clore_mcp.rental.context import Patience
from clore_mcp.rental.create.settle import Settler
from clore_mcp.rental.results import Attempt
from clore_mcp.wiring import Services
from tests.guard.calls import call, cancel, patient, rent, wish
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.world import Json, World

pytestmark = pytest.mark.anyio

LATE = 90_000.0  # seconds of Clore's clock, which no test lives to see unless it advances it
# Which word is of which kind, tests/clore/test_refusal_words.py holds.
GO_ON = ["server-already-rented", "machine-is-on-gigaspot"]
END = ["not_enough_balance", "invalid_mrl"]


@pytest.mark.parametrize("word", GO_ON)
async def test_a_word_that_another_server_may_not_have_goes_on_to_it(
    world: World, services: Services, word: str
) -> None:
    first, second = world.free()[:2]
    world.fault("refused", "create_order", error=word)
    outcome = await call(services, wish(first, fallback_server_ids=[second]))
    assert (outcome.status, outcome.server_id) == ("created", second)
    assert outcome.attempts[0] == Attempt(first, word)
    assert len(world.sent()) == 2
    assert [row["state"] for row in world.intents()] == ["refused", "adopted"]
    check_invariants(world)


@pytest.mark.parametrize("word", END)
async def test_a_word_that_any_server_would_have_ends_the_chain_and_nothing_is_spent(
    world: World, services: Services, word: str
) -> None:
    first, second = world.free()[:2]
    world.fault("refused", "create_order", error=word, status=400)
    outcome = await call(services, wish(first, fallback_server_ids=[second]))
    assert outcome.status == "refused"
    assert "Nothing was spent" in outcome.next
    assert len(world.sent()) == 1
    assert not world.active() and not world.reserved()
    check_invariants(world)


async def test_a_wallet_under_clores_minimum_is_named_as_that_though_it_covers_the_hours(
    world: World, services: Services
) -> None:
    world.options(minimum_balance_usd=1_000.0)
    server_id = world.free()[0]
    appraised = await services.pricer.price(wish(server_id))
    assert (appraised.wallet_covers_hours or 0) > 2
    outcome = await call(services, wish(server_id))
    assert outcome.status == "refused"
    assert "minimum balance for each order type and coin" in outcome.next
    assert "top up" in outcome.next and "another server" not in outcome.next
    check_invariants(world)


def spot_with_a_fallback(world: World) -> Json:
    first, second = world.free()[:2]
    return {"server_id": first, "fallback_server_ids": [second], "order_type": "spot", "bid_usd_per_hour": 0.5}


@pytest.mark.parametrize("shows", [True, False])
async def test_a_spot_order_that_we_hold_already_is_looked_for_and_never_replaced_by_a_fallback(
    world: World, services: Services, shows: bool
) -> None:
    """An order made by hand after the evidence was read: Clore refuses the second one for its server."""
    ask = spot_with_a_fallback(world)
    send = services.context.client.create_order
    world.options(visible_after=0.0 if shows else LATE)

    async def after_another(*about: object, **more: object) -> object:
        if not world.orders():
            world.rent_elsewhere(ask["server_id"], type="spot", spotprice=world.price(ask["server_id"], "spot") * 2)
        return await send(*about, **more)  # type: ignore[arg-type]

    services.context.client.create_order = after_another  # type: ignore[method-assign, assignment]
    outcome = await call(services, wish(**ask))
    assert outcome.status == "refused"
    assert [order["server_id"] for order in world.active()] == [ask["server_id"]], "no second bill for one wish"
    assert outcome.attempts[0].outcome == ("held_by_you" if shows else "you_already_have_spot_order")
    assert len(world.sent()) == 1
    assert not world.reserved()
    check_invariants(world)


async def test_a_spot_order_of_this_very_call_is_its_outcome(world: World, services: Services) -> None:
    """The order of a create whose reply was lost is adopted when a second create is told that it exists."""
    ask = spot_with_a_fallback(world)
    world.options(visible_after=LATE)
    world.fault("lost_reply", "create_order")
    assert (await call(services, wish(**ask))).status == "failed"
    world.options(visible_after=0.0)
    send = services.context.client.create_order

    async def later(*about: object, **more: object) -> object:
        world.advance(LATE)
        return await send(*about, **more)  # type: ignore[arg-type]

    services.context.client.create_order = later  # type: ignore[method-assign, assignment]
    outcome = await call(services, wish(**ask))
    assert outcome.status == "created"
    assert [order["id"] for order in world.active()] == [outcome.order_id]
    assert len(world.reserved()) == 1


async def test_unknown_words_are_looked_at_once_after_a_pause_and_then_it_failed(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looks = Settler.look, []

    async def counted(self: Settler, *about: Any, **more: Any) -> Any:
        looks.append(time.monotonic())
        return await look(self, *about, **more)

    monkeypatch.setattr(Settler, "look", counted)
    services = await process(patient(look=60.0, look_after_refusal=1.0, answer=50.0))
    first, second = world.free()[:2]
    world.fault("refused", "create_order", error="the moon is \u202efull")
    outcome = await call(services, wish(first, fallback_server_ids=[second]))
    assert outcome.status == "failed"
    assert '("the moon is full")' in outcome.next
    [create] = world.sent()  # and no fallback
    [looked_at] = looks
    assert looked_at - create["arrived_ns"] / 1e9 >= 1.0
    assert not world.reserved()
    [answered] = world.rows("SELECT data FROM ledger WHERE step = 'answered'")
    assert "the moon is full" in answered["data"]
    check_invariants(world)


def test_a_person_waits_fifteen_seconds_for_that_look_and_less_than_for_an_answer() -> None:
    assert Patience().look_after_refusal == 15 < Patience().answer


async def test_unknown_words_over_an_order_that_was_made_find_it(world: World, services: Services) -> None:
    world.options(visible_after=0.0)
    world.fault("refused", "create_order", error="no-such-word", effect=True)
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "created"
    assert len(world.active()) == len(world.reserved()) == 1
    check_invariants(world)


async def test_an_order_that_shows_after_that_look_is_adopted_all_the_same(world: World, services: Services) -> None:
    world.options(visible_after=LATE)
    world.fault("refused", "create_order", error="no-such-word", effect=True)
    assert (await call(services, wish(world.free()[0]))).status == "failed"
    world.advance(LATE)
    await services.overview.orders(max_age_seconds=0)
    assert [row["state"] for row in world.intents()] == ["adopted"]
    assert len(world.reserved()) == 1
    check_invariants(world)


@pytest.mark.parametrize(("blind", "status"), [(1, "created"), (1000, "uncertain")])
async def test_after_unknown_words_a_look_that_can_not_be_read_decides_nothing(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch, blind: int, status: str
) -> None:
    read, looks = services.context.client.my_orders, []

    async def my_orders(**how: Any) -> Any:
        looks.append(how)
        if how.get("urgent") and world.sent() and sum(bool(one.get("urgent")) for one in looks) <= blind:
            raise NotJson("an outage", spent=Spent.NO)
        return await read(**how)

    monkeypatch.setattr(services.context.client, "my_orders", my_orders)
    world.options(visible_after=0.0)
    world.fault("refused", "create_order", error="no-such-word", effect=True)
    assert (await call(services, wish(world.free()[0]))).status == status
    assert len(world.active()) == len(world.reserved()) == 1
    check_invariants(world, settled=False)


@pytest.mark.parametrize("more", [{"error": ""}, {"error": " "}])
async def test_code_6_without_an_error_is_looked_at_to_the_end(world: World, process: Processes, more: Json) -> None:
    services = await process(patient(look=2.0))
    world.options(visible_after=60.0)  # a second of ours: beyond a first look
    world.fault("refused", "create_order", effect=True, **more)
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "created"
    check_invariants(world)


@pytest.mark.parametrize(("effect", "status"), [(False, 400), (False, 401), (True, 404), (True, 429), (True, 503)])
async def test_a_status_without_a_body_never_says_that_nothing_was_spent(
    world: World, services: Services, status: int, effect: bool
) -> None:
    world.options(visible_after=0.0)
    first, second = world.free()[:2]
    world.fault("bare_status", "create_order", status=status, effect=effect)
    outcome = await call(services, wish(first, fallback_server_ids=[second]))
    assert outcome.status == ("created" if effect else "failed")
    assert len(world.sent()) == 1, "neither sent again nor on to the fallback"
    assert len(world.active()) == effect
    check_invariants(world)


async def test_cancelling_what_is_over_is_its_end_and_no_error(world: World, services: Services) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    world.fault("refused", "cancel_order", error="order_not_active", effect=True)  # it had ended a moment before
    outcome = await cancel(services, order_id)
    assert outcome.status == "cancelled"
    assert outcome.receipt.total_usd >= 0
    assert not world.active() and not world.reserved()
    check_invariants(world)


async def test_not_active_over_an_order_that_is_listed_as_running_is_not_believed(
    world: World, services: Services
) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    world.fault("refused", "cancel_order", error="order_not_active", times=50)
    outcome = await cancel(services, order_id)
    assert outcome.status == "unverified"
    assert len(world.reserved()) == 1
    world.mend()
    assert (await cancel(services, order_id)).status == "cancelled"
    check_invariants(world)

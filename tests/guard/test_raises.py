"""A raised bid is new spending: its worst case is the true one, held to what was approved, and reserved throughout."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from clore_mcp.errors import Refused
from clore_mcp.rental.requests import SetSpotPrice
from clore_mcp.rental.terms import LONGEST_RENTAL_HOURS, hours_left
from clore_mcp.store import orders
from clore_mcp.wiring import Services
from tests.guard.calls import SHORT, call, cancel, rent
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.guard.spots import WIDE, limits_of, raised, rewrite, rich, spot, spot_elsewhere
from tests.world import USD, World

pytestmark = pytest.mark.anyio


def worst(world: World) -> float:
    [row] = world.reserved()
    return float(row["worst_micros"]) / 10**6


# The worst case


async def test_a_raise_of_a_spot_order_older_than_its_mrl_counts_the_longest_rental(
    world: World, process: Processes
) -> None:
    rich(world)
    services = await process(env={"CLORE_MAX_USD_PER_HOUR": "99"})
    server_id = world.free()[0]
    world.post(f"/servers/{server_id}", {"mrl": 3})
    order_id, _ = spot_elsewhere(world, server_id, age_seconds=4 * 3600)
    outcome = await call(services, SetSpotPrice(order_id=order_id, bid_usd_per_hour=4.5))
    assert outcome.status == "refused"
    assert limits_of(outcome) == ["usd_per_order", "usd_per_day"]
    assert "A lower one may fit" in outcome.next
    assert "cheaper server" not in outcome.next, "that would end the order"
    assert outcome.refusals[0].needed >= 4.4 * 3000
    assert not world.sent("set_spot_price")


@pytest.mark.parametrize("untold", ["max_rental_seconds", "created_at"])
async def test_a_raise_of_an_order_that_does_not_tell_its_times_counts_the_longest_rental(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch, untold: str
) -> None:
    rich(world)
    services = await process(env={"CLORE_MAX_USD_PER_HOUR": "99"})
    order_id, _ = spot_elsewhere(world, world.free()[0])
    rewrite(services, monkeypatch, lambda row: row.model_copy(update={untold: None}))
    outcome = await call(services, SetSpotPrice(order_id=order_id, bid_usd_per_hour=4.5))
    assert limits_of(outcome) == ["usd_per_order", "usd_per_day"]


async def test_a_listed_order_always_has_time_left(world: World, services: Services) -> None:
    order_id, _ = await spot(world, services)
    account = await services.context.readings.account()
    lease = await services.context.state.read(lambda tx: orders.get(tx, account, order_id))
    assert lease is not None
    assert hours_left(lease.ends_api_at, lease.ends_api_at - 3600, 0) == 1 + Decimal(2) / 60
    assert hours_left(lease.ends_api_at, lease.ends_api_at + 99_999, 0) == Decimal(2) / 60, (
        "it is overdue, and not gone"
    )
    assert hours_left(None, 0, 0) >= LONGEST_RENTAL_HOURS


async def test_an_order_whose_cancel_is_unproven_is_not_raised_and_stays_reserved_whole(
    world: World, services: Services
) -> None:
    order_id, bid = await spot(world, services)
    [before] = world.reserved()
    world.fault("cancel_ignored", times=99)
    assert (await cancel(services, order_id)).status == "unverified"
    outcome = await call(services, raised(order_id, bid, 2.0))
    assert (outcome.status, outcome.reason) == ("refused", "ending")
    assert not world.sent("set_spot_price")
    assert world.reserved() == [before]
    world.advance(700)
    assert (await call(services, raised(order_id, bid, 0.95), answer=None)).status == "updated"
    [after] = world.reserved()
    assert after["worst_micros"] == before["worst_micros"], "a lowering is free, and frees nothing now"
    check_invariants(world)


async def test_what_an_order_has_spent_counts_against_the_cap_of_a_raise(world: World, process: Processes) -> None:
    bid = round(world.price(world.free()[0], "spot") * 2 / 24, 4)
    services = await process(env={**WIDE, "CLORE_MAX_USD_PER_ORDER": str(round(bid * 22 + 0.2, 4))})
    rich(world)
    order_id, _ = await spot(world, services, hours=20)
    world.advance(10 * 3600)
    services.context.readings.changed()
    outcome = await call(services, raised(order_id, bid))  # 10 hours spent, and 10 more at half as much again
    assert limits_of(outcome) == ["usd_per_order"]
    assert outcome.refusals[0].needed >= bid * 24.9


# The limits


async def test_a_raise_above_a_cap_is_refused_before_anybody_is_asked(world: World, process: Processes) -> None:
    services = await process(env={"CLORE_MAX_USD_PER_ORDER": "1"})
    order_id, bid = await spot(world, services)
    outcome = await call(services, raised(order_id, bid, 1.2 / (bid * 2)), answer=False)
    assert (outcome.status, limits_of(outcome)) == ("refused", ["usd_per_order"])
    assert not world.sent("set_spot_price")


async def test_a_cap_that_fills_between_the_question_and_the_raise_stops_it(world: World, process: Processes) -> None:
    first = await process(env=WIDE)
    order_id, bid = await spot(world, first)
    cap = worst(world) * 2
    second = await process(env={**WIDE, "CLORE_MAX_USD_PER_DAY": str(round(cap, 4))})
    ask = raised(order_id, bid)
    held = await second.guard.hold(ask, caller="t", can_ask=True, replay=False)
    assert held.quote
    await rent(first, world.free()[0], hours=cap / world.price(world.free()[0]) * 24)
    second.context.readings.changed()
    before = world.reserved()
    outcome = await second.guard.conclude(held, ask, answer=True, caller="t")
    assert limits_of(outcome) == ["usd_per_day"]
    assert not world.sent("set_spot_price")
    assert world.reserved() == before


async def test_nothing_is_raised_beside_an_order_of_which_no_price_is_known(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = await process(env=WIDE)
    order_id, bid = await spot(world, services)
    other = world.rent_elsewhere(world.free()[0])
    world.advance(5)
    unpriced = {"currency": "USDT", "price": None, "server_id": None}
    rewrite(services, monkeypatch, lambda row: row.model_copy(update=unpriced) if row.id == other else row)
    assert "usd_per_hour" in limits_of(await call(services, raised(order_id, bid)))
    assert not world.sent("set_spot_price")


@pytest.mark.parametrize("when", ["before the question", "after it"])
async def test_nothing_is_raised_while_an_order_can_not_be_read(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    services = await process(env=WIDE)
    order_id, bid = await spot(world, services)
    other = world.rent_elsewhere(world.free()[0])
    world.advance(5)
    ask, unreadable = raised(order_id, bid), lambda row: None if row.id == other else row
    if when == "before the question":
        rewrite(services, monkeypatch, unreadable)
    services.context.readings.changed()
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    assert (held.quote is None) == (when == "before the question")
    if when == "after it":
        rewrite(services, monkeypatch, unreadable)
    outcome = await services.guard.conclude(held, ask, answer=True, caller="t")
    assert (outcome.status, outcome.reason) == ("refused", "unreadable_orders")
    assert not world.sent("set_spot_price")


# What was approved


async def test_a_raise_that_could_cost_more_than_was_approved_is_not_sent(world: World, process: Processes) -> None:
    services = await process(env=WIDE)
    rich(world)
    order_id, bid = await spot(world, services)
    before, ask = world.reserved(), raised(order_id, bid)
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    world.lose_the_keepers()  # nobody is there to end it at its lease's end
    outcome = await services.guard.conclude(held, ask, answer=True, caller="t")
    assert (outcome.status, outcome.reason) == ("refused", "worst_case_grew")
    assert not world.sent("set_spot_price")
    assert world.reserved() == before


async def test_a_raise_that_was_approved_a_while_ago_still_fits_what_was_approved(
    world: World, process: Processes
) -> None:
    services = await process(env=WIDE)
    rich(world)
    for order_id, bid in (await spot(world, services, hours=20), spot_elsewhere(world, world.free()[0])):
        services.context.readings.changed()
        ask = raised(order_id, bid)
        held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
        world.advance(1500)
        world.change("UPDATE quotes SET created_at = created_at - 1500")
        services.context.readings.changed()
        assert (await services.guard.conclude(held, ask, answer=True, caller="t")).status == "updated"


async def test_a_lowering_that_another_process_has_made_a_raise_a_moment_ago_is_not_sent(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await process(), await process()
    order_id, bid = await spot(world, one)
    before = await one.context.readings.orders()

    async def read_before(*_: Any) -> Any:
        return before

    monkeypatch.setattr(one.context.readings, "orders", read_before)
    assert (await call(two, raised(order_id, bid, 0.91), answer=None)).status == "updated"
    outcome = await call(one, raised(order_id, bid, 0.95), answer=None)
    assert (outcome.status, outcome.reason) == ("refused", "bid_changed")
    assert len(world.sent("set_spot_price")) == 1


async def test_an_untold_raise_is_not_told_as_the_present_bid(world: World, process: Processes) -> None:
    services = await process(env=WIDE)
    order_id, bid = await spot(world, services)
    up = raised(order_id, bid)
    held = await services.guard.hold(up, caller="tester", can_ask=True, replay=False)
    assert (await services.guard.conclude(held, up, answer=True, caller="tester")).status == "updated"  # untold
    assert (await call(services, up, answer=False)).status == "unchanged", "it is the bid still: nobody is asked"
    assert (await call(services, raised(order_id, bid, 1.4), answer=None)).status == "updated"
    assert (await call(services, up, answer=False)).status == "declined", "it is another bid now: it was asked anew"


# Two processes on one order


async def in_flight(
    services: Services, monkeypatch: pytest.MonkeyPatch, ask: SetSpotPrice, *, refused: bool
) -> tuple[asyncio.Future[Any], asyncio.Event]:
    """A raise that has used its yes and waits to be sent until the event is set."""
    send = services.context.client.set_spot_price
    reached, go = asyncio.Event(), asyncio.Event()

    async def slowly(*told: Any, **more: Any) -> Any:
        reached.set()
        await go.wait()
        if refused:
            raise Refused("Clore refused.", hint="")
        return await send(*told, **more)

    monkeypatch.setattr(services.context.client, "set_spot_price", slowly)
    raising = asyncio.ensure_future(call(services, ask, caller="another"))
    await asyncio.wait_for(reached.wait(), 20)
    return raising, go


@pytest.mark.parametrize("refused", [True, False])
async def test_two_raises_at_once_never_leave_less_reserved_than_either_may_cost(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    one, two = await process(env=WIDE), await process(env=WIDE)
    rich(world)
    order_id, bid = await spot(world, one)
    raising, go = await in_flight(one, monkeypatch, raised(order_id, bid, 3), refused=refused)
    high = worst(world)
    assert (await call(two, raised(order_id, bid, 2))).status == "updated"
    assert worst(world) >= high, "the dearer one may still arrive"
    go.set()
    assert (await raising).status == ("refused" if refused else "updated")
    assert worst(world) >= bid * 2 * 2
    check_invariants(world)


async def test_a_lowering_frees_what_it_saves_and_never_reserves_more(world: World, process: Processes) -> None:
    services = await process(env=WIDE)
    order_id, bid = await spot(world, services)
    before = worst(world)
    assert (await call(services, raised(order_id, bid, 0.95), answer=None)).status == "updated"
    after = worst(world)
    assert after < before
    world.advance(700)
    world.lose_the_keepers()
    services.context.readings.changed()
    assert (await call(services, raised(order_id, bid, 0.9), answer=None)).status == "updated"
    assert worst(world) <= after
    check_invariants(world)


async def test_a_raise_that_the_wallet_does_not_cover_is_refused_before_the_question(
    world: World, services: Services
) -> None:
    order_id, bid = await spot(world, services, hours=20)
    world.post("/wallets", {"balances": {USD: bid * 20}})
    services.context.readings.changed()  # as ten seconds would do
    outcome = await call(services, raised(order_id, bid, 3))
    assert outcome.status == "refused"
    assert limits_of(outcome) == ["wallet"]
    assert not world.sent("set_spot_price")
    assert (await call(services, raised(order_id, bid, 1.01), answer=False)).status == "refused"
    world.post("/wallets", {"balances": {USD: bid * 31}})
    services.context.readings.changed()
    assert (await call(services, raised(order_id, bid))).status == "updated", "what it costs now is not added"


async def test_a_wallet_that_empties_between_the_question_and_the_raise_stops_it(
    world: World, services: Services
) -> None:
    order_id, bid = await spot(world, services, hours=20)
    before = world.reserved()
    ask = raised(order_id, bid)
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    world.post("/wallets", {"balances": {USD: bid}})
    services.context.readings.changed()
    outcome = await services.guard.conclude(held, ask, answer=True, caller="t")
    assert limits_of(outcome) == ["wallet"]
    assert not world.sent("set_spot_price")
    assert world.reserved() == before


async def test_limits_mode_raises_no_bid_without_a_live_keeper(world: World, process: Processes) -> None:
    first = world.services()
    await first.keep_leases()
    order_id, bid = await spot(world, first)
    await first.aclose()
    roomy = {"CLORE_APPROVAL": "limits", "CLORE_MAX_USD_PER_ORDER": "9999", "CLORE_MAX_USD_PER_DAY": "9999"}
    world.post("/wallets", {"balances": {USD: 9999}})
    alone = world.services(SHORT, CLORE_WATCHDOG="off", **roomy)
    assert limits_of(await call(alone, raised(order_id, bid), answer=None)) == ["watchdog"]
    assert not world.sent("set_spot_price")
    await alone.aclose()
    kept = await process(env=roomy)
    assert (await call(kept, raised(order_id, bid), answer=None)).status == "updated"


async def test_a_raise_counted_to_the_end_of_a_lease_that_nobody_ends_any_more_is_not_sent(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id, bid = await spot(world, services)
    ask = raised(order_id, bid)
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    gather = services.pricer.evidence

    async def and_lose_the_keeper(max_age_seconds: float = 10.0) -> Any:
        world.lose_the_keepers()
        return await gather(max_age_seconds)

    monkeypatch.setattr(services.pricer, "evidence", and_lose_the_keeper)
    outcome = await services.guard.conclude(held, ask, answer=True, caller="t")
    assert limits_of(outcome) == ["watchdog"]
    assert not world.sent("set_spot_price")

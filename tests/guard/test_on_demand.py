"""A bid beside the on-demand price: the question, the quote and the raise name it wherever the bid is not below it. And
a bid that is left to us: the lowest that wins, within what the person said."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from clore_mcp.rental.requests import SetSpotPrice
from clore_mcp.wiring import Services
from tests.guard.calls import call, rent, wish
from tests.guard.invariants import check_invariants
from tests.guard.spots import WIDE, rich
from tests.world import USD, World

pytestmark = pytest.mark.anyio


def on_demand(world: World, server_id: int) -> float:
    return world.price(server_id) / 24 * 1.05


def spot_bid(world: World, server_id: int, factor: float) -> float:
    return round(world.price(server_id, "spot") * factor / 24 * 1.0125 + 0.0001, 4)


def stranger(world: World, server_id: int, factor: float) -> None:
    world.post("/bids", {"server_id": server_id, "bid": world.price(server_id, "spot") * factor, "currency": USD})


async def question_of(services: Services, ask: object) -> str:
    held = await services.guard.hold(ask, caller="asked", can_ask=True, replay=False)  # type: ignore[arg-type]
    assert held.quote, held.outcome
    return held.quote.question


@pytest.mark.parametrize(("factor", "named"), [(0.9, False), (1.0, True), (1.3, True), (3.5, True)])
async def test_the_question_names_the_on_demand_price_wherever_a_bid_is_not_below_it(
    world: World, services: Services, factor: float, named: bool
) -> None:
    server_id = world.free()[0]
    usd = on_demand(world, server_id)
    world.post(f"/servers/{server_id}", {"price": {"spot": {USD: world.price(server_id) / 10}}})
    bid = round(usd * factor + 0.0001, 4)
    ask = wish(server_id, order_type="spot", bid_usd_per_hour=bid)
    question = await question_of(services, ask)
    assert ("NOT below the on-demand price of $" in question) == named
    found = await services.pricer.price(ask)
    assert found.terms is not None
    [one] = found.terms.candidates
    assert float(one.on_demand_usd_per_hour or 0) == pytest.approx(usd, rel=0.001)
    assert (one.dear_on_demand_usd is not None) == named


async def test_a_default_bid_that_the_market_drives_above_on_demand_is_named(world: World, services: Services) -> None:
    server_id = world.free()[0]
    world.post("/bids", {"server_id": server_id, "bid": world.price(server_id) * 1.5, "currency": USD})
    question = await question_of(services, wish(server_id, order_type="spot"))
    assert "NOT below the on-demand price of $" in question


async def test_a_fallback_whose_on_demand_price_the_bid_reaches_is_named_on_its_line(
    world: World, services: Services
) -> None:
    cheap, dear = world.free()[0], world.free()[-1]
    bid = max(spot_bid(world, dear, 1.1), round(on_demand(world, cheap) * 1.2, 4))
    ask = wish(dear, order_type="spot", bid_usd_per_hour=bid, fallback_server_ids=[cheap])
    [line] = [row for row in (await question_of(services, ask)).splitlines() if row.startswith("If it is gone")]
    assert "NOT below its on-demand price of $" in line


async def test_a_raise_names_the_on_demand_price_and_what_the_bid_was(world: World, services: Services) -> None:
    server_id = world.free()[0]
    usd, bid = on_demand(world, server_id), spot_bid(world, server_id, 1.1)
    made = await rent(services, server_id, order_type="spot", bid_usd_per_hour=bid)
    high = SetSpotPrice(order_id=made.order_id, bid_usd_per_hour=round(usd * 1.4, 4))
    assert "NOT below the on-demand price of $" in await question_of(services, high)
    done = await call(services, high, caller="asked")
    assert done.status == "updated"
    assert done.on_demand_usd_per_hour == pytest.approx(usd, rel=0.001)
    assert done.was_usd_per_hour == pytest.approx(bid, rel=0.03)
    assert done.bid_usd_per_hour == pytest.approx(usd * 1.4, rel=0.03)


async def beaten(world: World, services: Services) -> tuple[int, int]:
    server_id = world.free()[0]
    stranger(world, server_id, 2.0)
    bid = spot_bid(world, server_id, 1.2)
    made = await rent(services, server_id, order_type="spot", bid_usd_per_hour=bid, hours=4.0)
    return made.order_id, server_id


async def test_a_bid_left_to_us_is_the_lowest_that_wins_and_is_asked_about(world: World, services: Services) -> None:
    order_id, server_id = await beaten(world, services)
    most = spot_bid(world, server_id, 4.0)
    ask = SetSpotPrice(order_id=order_id, to_win=True, max_usd_per_hour=most)
    no = await call(services, ask, answer=False)
    assert no.status == "declined" and not world.sent("set_spot_price")
    done = await call(services, ask)
    assert (done.status, done.rank) == ("updated", 1)
    [order] = world.active()
    rival = world.price(server_id, "spot") * 2.0
    assert rival < order["price"] <= rival + 0.011, "one step of the coin above the rival"
    assert done.bid_usd_per_hour <= most
    again = await call(services, ask)
    assert again.status == "unchanged" and len(world.sent("set_spot_price")) == 1
    check_invariants(world)


async def test_a_bid_left_to_us_is_never_above_what_was_said(world: World, services: Services) -> None:
    order_id, server_id = await beaten(world, services)
    ask = SetSpotPrice(order_id=order_id, to_win=True, max_usd_per_hour=spot_bid(world, server_id, 1.5))
    no = await call(services, ask)
    assert (no.status, no.reason) == ("refused", "above_max")
    needed = no.to_win_usd_per_hour
    assert needed > ask.exact_bid and not world.sent("set_spot_price")
    yes = await call(services, SetSpotPrice(order_id=order_id, to_win=True, max_usd_per_hour=needed))
    assert yes.status == "updated", "what it names is enough"


async def test_a_rival_that_rises_while_the_person_reads_gets_no_dearer_bid_than_was_approved(
    world: World, services: Services
) -> None:
    order_id, server_id = await beaten(world, services)
    ask = SetSpotPrice(order_id=order_id, to_win=True, max_usd_per_hour=spot_bid(world, server_id, 9.0))
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    stranger(world, server_id, 3.0)
    done = await services.guard.conclude(held, ask, answer=True, caller="tester")
    assert (done.status, done.reason) == ("refused", "outbid_meanwhile")
    assert not world.sent("set_spot_price")


async def test_a_bid_left_to_us_goes_by_the_limits_too(world: World, process: object) -> None:
    rich(world)
    services: Services = await process(env={**WIDE, "CLORE_MAX_USD_PER_HOUR": "0.2"})  # type: ignore[operator]
    order_id, server_id = await beaten(world, services)
    world.post("/bids", {"server_id": server_id, "bid": 24.0, "currency": USD})
    no = await call(services, SetSpotPrice(order_id=order_id, to_win=True, max_usd_per_hour=9))
    assert no.status == "refused" and no.refusals[0].limit == "usd_per_hour"


@pytest.mark.parametrize(
    "given",
    [{}, {"to_win": True}, {"to_win": True, "max_usd_per_hour": 1, "bid_usd_per_hour": 1}, {"max_usd_per_hour": 1}],
)
def test_a_bid_is_either_named_or_left_to_us_within_a_most(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="to_win"):
        SetSpotPrice.model_validate({"order_id": 1, **given})

"""Lowering a bid: it is sent, and where Clore refuses it, its ten minutes, its largest step and the host's minimum are
reported in seconds and USD per hour."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from clore_mcp.errors import StepTooLarge
from clore_mcp.rental.requests import SetSpotPrice
from clore_mcp.rental.results import Attempt
from clore_mcp.wiring import Services
from tests.guard.calls import Told, call, rent, wish
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.guard.spots import raised, spot
from tests.world import USD, World

pytestmark = pytest.mark.anyio
CLORE, BTC = "CLORE-Blockchain", "bitcoin"


async def lower(services: Services, order_id: int, bid: float, factor: float = 1.0) -> Told:
    """A lowering: nobody is asked."""
    services.context.readings.changed()
    return await call(services, SetSpotPrice(order_id=order_id, bid_usd_per_hour=round(bid * factor, 4)), answer=None)


async def slow_spot(world: World, services: Services, **more: Any) -> tuple[int, float]:
    """A spot order in a market whose clock goes as ours does from now on."""
    made = await spot(world, services, **more)
    world.post("/clock", {"speed": 1})
    return made


def bids_sent(world: World) -> int:
    return len(world.sent("set_spot_price"))


def named_in(text: str) -> float:
    """The USD per hour that a text names."""
    found = re.search(r"\$([\d.]+\d) per hour", text)
    assert found, text
    return float(found[1])


# The ten minutes


async def test_a_second_lowering_within_ten_minutes_is_refused_with_the_seconds_that_clore_names(
    world: World, process: Processes
) -> None:
    one, two = await process(), await process()
    order_id, bid = await slow_spot(world, one)
    assert (await lower(one, order_id, bid, 0.95)).status == "updated"
    reserved = world.reserved()
    began = time.monotonic()
    for services in (one, two):
        told = await lower(services, order_id, bid, 0.91)
        assert (told.status, told.reason) == ("refused", "lowering_too_soon")
        assert 1 <= told.retry_after_seconds <= 600
        assert f"again in {told.retry_after_seconds}." in told.next
        assert "The bid stays as it was" in told.next
    assert time.monotonic() - began < 60, "ten minutes are never sat out inside a call"
    assert world.reserved() == reserved
    world.advance(told.retry_after_seconds)
    assert (await lower(two, order_id, bid, 0.91)).status == "updated", "what it said is enough for Clore"
    check_invariants(world)


async def test_raising_is_not_limited_and_frees_no_lowering(world: World, services: Services) -> None:
    order_id, bid = await slow_spot(world, services)
    assert (await lower(services, order_id, bid, 0.95)).status == "updated"
    assert (await call(services, raised(order_id, bid, 1.1))).status == "updated"
    assert (await lower(services, order_id, bid, 1.05)).reason == "lowering_too_soon"


async def test_a_lowering_made_elsewhere_counts_too(world: World, services: Services) -> None:
    order_id, bid = await slow_spot(world, services)
    price = world.active()[0]["price"]
    theirs = world.api.post("/set_spot_price", json={"order_id": order_id, "desired_price": price * 0.97})
    assert theirs.json() == {"code": 0}
    world.advance(200)
    told = await lower(services, order_id, bid, 0.93)
    assert told.reason == "lowering_too_soon" and 380 <= told.retry_after_seconds <= 400


# The largest step


async def in_coin(world: World, services: Services, coin: str) -> tuple[int, float]:
    """A spot order that is paid in a coin, and its bid in USD per hour."""
    options = world.get("/options")
    rate = {USD: 1.0, CLORE: options["clore_usd"], BTC: options["btc_usd"]}[coin]
    for server_id in world.free():
        row = world.get(f"/servers/{server_id}")["row"]
        if coin in row["allowed_coins"] and row["price"]["spot"].get(coin):
            bid = round(row["price"]["spot"][coin] * rate * 2 / 24, 4)
            made = await rent(services, server_id, order_type="spot", bid_usd_per_hour=bid, currency=coin)
            world.post("/clock", {"speed": 1})
            return made.order_id, bid
    raise AssertionError(f"no server takes {coin}")


@pytest.mark.parametrize("coin", [USD, CLORE, BTC])
async def test_the_lowest_bid_that_the_named_step_allows_is_taken(world: World, services: Services, coin: str) -> None:
    order_id, bid = await in_coin(world, services, coin)
    first = await lower(services, order_id, bid, 0.7)
    assert (first.status, first.reason) == ("refused", "exceeded_max_step")
    lowest = first.lowest_usd_per_hour_now
    assert bid * 0.89 < lowest < bid * 0.92, "a tenth, fees in"
    assert named_in(first.next) == lowest and "currency" not in first.next
    done = await lower(services, order_id, lowest)
    assert done.status == "updated", "the number that was named is taken"
    assert done.bid_usd_per_hour == pytest.approx(lowest, abs=2e-4)


async def test_a_step_that_nobody_named_is_not_guessed(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id, bid = await slow_spot(world, services)
    asked = []

    async def unnamed(*told: Any, **more: Any) -> None:
        asked.append(told)
        raise StepTooLarge("Clore refused.")

    monkeypatch.setattr(services.context.client, "set_spot_price", unnamed)
    for _ in range(2):
        told = await lower(services, order_id, bid, 0.7)
        assert told.reason == "exceeded_max_step" and told.lowest_usd_per_hour_now is None
        assert "does not name its limit" in told.next
    assert len(asked) == 2


async def test_the_lowest_bid_is_never_under_the_hosts_minimum(world: World, services: Services) -> None:
    server_id = world.free()[0]
    least = world.price(server_id, "spot")
    made = await rent(services, server_id, order_type="spot", bid_usd_per_hour=round(least * 1.2 / 24, 4))
    world.post("/clock", {"speed": 1})
    world.options(max_step_percent=2.0)
    told = await lower(services, made.order_id, least * 1.05 / 24)
    assert told.lowest_usd_per_hour_now > least * 1.1 / 24
    under = await lower(services, made.order_id, least * 0.9 / 24)
    assert under.reason == "too_low_price" and bids_sent(world) == 1


# The minimum


async def test_a_bid_under_the_minimum_is_refused_unsent_and_the_bid_that_is_named_is_taken(
    world: World, services: Services
) -> None:
    server_id = world.free()[0]
    least = world.price(server_id, "spot")
    low = wish(server_id, order_type="spot", bid_usd_per_hour=round(least * 0.9 / 24, 4))
    refused = await call(services, low)
    assert refused.status == "refused" and not world.sent()
    assert refused.attempts == (Attempt(server_id, "bid_under_minimum"),)
    named = named_in(refused.next)
    made = await call(services, wish(server_id, order_type="spot", bid_usd_per_hour=named))
    assert made.status == "created", "the number that was named is taken"
    under = await lower(services, made.order_id, named, 0.9)
    assert (under.status, under.reason) == ("refused", "too_low_price")
    assert named_in(under.next) == named and not bids_sent(world)


async def test_a_minimum_that_only_clore_knows_is_told_in_usd_per_hour(world: World, services: Services) -> None:
    order_id, bid = await slow_spot(world, services)
    [order] = world.active()
    world.post(f"/servers/{order['server_id']}", {"price_factor": 1.99})  # after the market was read
    told = await lower(services, order_id, bid, 0.95)
    assert told.reason == "too_low_price" and bids_sent(world) == 1
    least = world.price(order["server_id"], "spot") / 24
    assert least < named_in(told.next) < least * 1.03

"""An extension that is refused for a limit or the wallet names the most hours that fit, and these do fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.rental.orders.extend_terms import most_seconds
from clore_mcp.wiring import Services
from tests.guard.calls import call, rent, wish
from tests.guard.conftest import Processes
from tests.guard.extensions import hourly, longer, ours, unmoved, worst
from tests.guard.invariants import check_invariants
from tests.guard.spots import WIDE, limits_of, rich
from tests.world import USD, World

pytestmark = pytest.mark.anyio


@given(st.integers(-5, 10**7), st.integers(0, 10**7))
def test_the_most_that_fits_fits_and_one_second_more_does_not(longest: int, fitting: int) -> None:
    found = most_seconds(lambda seconds: seconds <= fitting, longest)
    assert found == max(0, min(longest, fitting))


async def fits(services: Services, order_id: int, hours: float, limit: str) -> None:
    """The refusal names that many hours; they are moved, and a quarter of an hour more is not."""
    services.context.readings.changed()
    no = await call(services, longer(order_id, 20), answer=False)
    assert (no.status, limits_of(no)) == ("refused", [limit])
    most = no.most_hours
    assert most == pytest.approx(hours, abs=0.25) and f"Up to {most:g} more hours fit." in no.next
    too_many = await call(services, longer(order_id, round(most + 0.25, 2)), answer=False)
    assert limits_of(too_many) == [limit]
    less = round(most - 0.25, 2)  # a minute passes here in a second, and the bill with it
    assert (await call(services, longer(order_id, less))).status == "extended"


@pytest.mark.parametrize("limit", ["usd_per_order", "usd_per_day"])
async def test_a_limit_names_the_hours_that_it_leaves(world: World, process: Processes, limit: str) -> None:
    rich(world)
    order_id = await ours(world, await process(env=WIDE))
    cap = round(worst(world, order_id) + 2 * hourly(world, order_id), 4)
    await fits(await process(env={**WIDE, f"CLORE_MAX_{limit.upper()}": str(cap)}), order_id, 2.0, limit)
    check_invariants(world)


async def test_the_wallet_names_the_hours_that_it_pays_for_and_the_top_up_in_the_coin(
    world: World, process: Processes
) -> None:
    services = await process(env=WIDE)
    rich(world)
    order_id = await ours(world, services)  # for two hours
    world.post("/wallets", {"balances": {USD: 5 * hourly(world, order_id)}})
    services.context.readings.changed()
    no = await call(services, longer(order_id, 20), answer=False)
    assert "by topping up " in no.next and " USD on clore.ai" in no.next
    await fits(services, order_id, 3.0, "wallet")


async def test_where_nothing_fits_it_says_so(world: World, process: Processes) -> None:
    services = await process(env=WIDE)
    order_id = await ours(world, services)
    before = unmoved(world, order_id)
    world.post("/wallets", {"balances": {USD: hourly(world, order_id)}})
    services.context.readings.changed()
    no = await call(services, longer(order_id, 1), answer=False)
    assert no.most_hours == 0 and "No extension fits." in no.next
    assert unmoved(world, order_id) == before


async def test_beyond_the_hosts_longest_rental_a_limit_may_leave_still_fewer_hours(
    world: World, process: Processes
) -> None:
    rich(world)
    server_id = world.free()[0]
    world.post(f"/servers/{server_id}", {"mrl": 12})
    order_id = int((await rent(await process(env=WIDE), server_id)).order_id)
    cap = round(worst(world, order_id) + 2 * hourly(world, order_id), 4)
    services = await process(env={**WIDE, "CLORE_MAX_USD_PER_ORDER": str(cap)})
    no = await call(services, longer(order_id, 20), answer=False)
    assert (no.status, no.reason) == ("refused", "max_rental_hours") and no.latest_ends_at
    most = no.most_hours
    assert most == pytest.approx(2.0, abs=0.25) and f"allow up to {most:g} more hours" in no.next
    assert (await call(services, longer(order_id, round(most - 0.25, 2)))).status == "extended"
    check_invariants(world)


@pytest.mark.parametrize("others", [[], [9]], ids=["alone", "with a fallback of 9 hours"])
async def test_a_rental_longer_than_its_hosts_allow_names_the_most_hours_of_any(
    world: World, services: Services, others: list[int]
) -> None:
    rich(world)
    ids = world.free()[: 1 + len(others)]
    for server_id, mrl in zip(ids, [6, *others], strict=True):
        world.post(f"/servers/{server_id}", {"mrl": mrl})
    asked = wish(ids[0], hours=30, fallback_server_ids=ids[1:] or None)
    no = await call(services, asked)
    assert no.status == "refused" and no.most_hours == max([6, *others])
    assert "fewer hours" in no.next and not world.sent()
    quoted = await services.pricer.price(asked)
    assert quoted.most_hours == no.most_hours
    fits = await call(services, wish(ids[-1], hours=no.most_hours))
    assert fits.status == "created", fits

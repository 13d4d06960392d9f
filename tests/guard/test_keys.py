"""Whose orders these are when the key is new, or the wallets name no address or other ones: ours, until proven not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from clore_mcp.errors import NotJson
from clore_mcp.rental.account_summary import account_state
from clore_mcp.rental.requests import CancelOrder
from clore_mcp.sandbox import SANDBOX_KEY
from clore_mcp.wiring import Services
from tests.guard.calls import SHORT, call, rent, wish
from tests.guard.conftest import LocalTime
from tests.guard.invariants import check_invariants
from tests.world import Json, World

pytestmark = pytest.mark.anyio
HOURS_3 = 3 * 3_600.0
NEW = "rotated-key-000000000000000000000"


@asynccontextmanager
async def opened(world: World, key: str = SANDBOX_KEY, **env: str) -> AsyncIterator[Services]:
    """One process's worth of the program with a key."""
    services = world.services(SHORT, CLORE_API_KEY=key, **env)
    try:
        yield services
    finally:
        await services.aclose()


async def rented(world: World) -> int:
    """An order of the first key; the process that made it has ended."""
    async with opened(world) as services:
        await services.keep_leases()
        return int((await rent(services, world.free()[0])).order_id)


def rotate(world: World) -> None:
    world.post("/keys", {"key": NEW, "of": SANDBOX_KEY})


def accounts(world: World) -> set[str]:
    return {row["account"] for row in world.rows("SELECT account FROM orders")}


@pytest.mark.parametrize("deposits", ["own", "no", "other"])
async def test_a_rotated_key_keeps_the_orders_and_their_ends(world: World, deposits: str) -> None:
    if deposits == "no":
        world.fault("no_deposits", times=10_000)
    order_id = await rented(world)
    if deposits == "other":
        world.fault("other_deposits", times=10_000)
    rotate(world)
    async with opened(world, NEW) as services:
        [shown] = (await services.overview.orders(max_age_seconds=0)).orders
        assert (shown.order_id, shown.made_here) == (order_id, True)
        assert shown.ends_at
        world.advance(HOURS_3)
        await services.keeper.poll()
        assert not services.keeper.last.doubtful
    assert not world.active()
    check_invariants(world)


async def test_limits_and_a_cancel_without_a_question_follow_the_order(world: World) -> None:
    world.fault("no_deposits", times=10_000)
    order_id = await rented(world)
    rotate(world)
    async with opened(world, NEW) as services:
        await services.context.readings.account()
        [held] = world.reserved()
        [order] = world.rows("SELECT account FROM orders")
        assert held["account"] == order["account"] == await services.context.readings.account()
        told = await call(services, CancelOrder(order_id=order_id), can_ask=False)
        assert told.status == "cancelled", "it was made here"
    assert not world.active()


async def test_a_key_that_was_new_while_the_order_did_not_show_finds_it_when_it_does(world: World) -> None:
    world.fault("no_deposits", times=10_000)
    order_id = await rented(world)
    rotate(world)
    world.post(f"/orders/{order_id}", {"seems": "vanished"})
    async with opened(world, NEW) as services:
        await services.keeper.poll()
        assert services.keeper.last.doubtful == {order_id}, "it can't be known, and that is said"
        told = await account_state(services.context, services.pricer, services.approvals, services.overview)
        [event] = [one for one in told.events if one.what == "account doubtful"]
        assert event.order_id == order_id
        world.post(f"/orders/{order_id}", {"seems": "as_it_is"})
        world.advance(HOURS_3)
        await services.keeper.poll()
        assert not services.keeper.last.doubtful
        assert "account_recognized" in world.steps()
    assert not world.active()


async def test_an_order_that_has_ended_tells_the_account_of_a_new_key_too(world: World) -> None:
    world.fault("no_deposits", times=10_000)
    order_id = await rented(world)
    rotate(world)
    world.post(f"/orders/{order_id}", {"seems": "expired"})
    async with opened(world, NEW) as services:
        await services.keeper.poll()
        assert not services.keeper.last.doubtful
        assert not world.reserved(), "its receipt counts now"


async def test_a_create_on_its_way_while_the_key_was_rotated_is_found(world: World) -> None:
    world.fault("no_deposits", times=10_000)
    world.options(visible_after=50_000)
    async with opened(world) as services:
        await services.keep_leases()
        assert (await call(services, wish(world.free()[0]))).status == "uncertain"
    rotate(world)
    async with opened(world, NEW) as services:
        [sent] = world.intents()
        await services.keeper.poll()
        assert world.intents() == [sent], "nothing shows that the new key is of the same account"
        world.advance(50_000)
        await services.keeper.poll()
        await services.keeper.poll()
    assert not world.active(), "adopted, and over by then"
    assert [row["state"] for row in world.intents()] == ["adopted"]


@pytest.mark.parametrize("kind", ["no_deposits", "other_deposits"])
@pytest.mark.parametrize("times", [1, 10_000])
async def test_wallets_with_other_addresses_make_no_new_account(world: World, kind: str, times: int) -> None:
    order_id = await rented(world)
    before = accounts(world)
    world.fault(kind, times=times)
    async with opened(world) as services:
        [shown] = (await services.overview.orders(max_age_seconds=0)).orders
        assert shown.made_here
        assert {await services.context.readings.account()} == before
    world.mend()
    async with opened(world) as services:
        assert {await services.context.readings.account()} == before
        assert order_id


async def test_one_wrong_reading_of_the_wallets_names_no_account_for_a_new_key(world: World) -> None:
    await rented(world)
    rotate(world)
    world.fault("other_deposits")
    async with opened(world, NEW) as services:
        with pytest.raises(NotJson):
            await services.context.readings.account()
        assert {await services.context.readings.account()} == accounts(world)


async def test_an_address_that_one_reading_showed_wrongly_merges_no_two_accounts(world: World) -> None:
    await rented(world)
    world.fault("other_deposits")
    async with opened(world) as services:
        mine = await services.context.readings.account()
    other = world.services(SHORT, CLORE_API_KEY=NEW)
    world.post("/keys", {"key": NEW})
    await other.aclose()
    async with opened(world, NEW) as services:
        names = services.context.readings.identity._names(["sandboxnobodybitcoin"])
    known = {row["name"] for row in world.rows("SELECT name FROM accounts WHERE account = ?", mine)}
    assert not known & set(names)


async def test_orders_of_another_api_are_never_taken_for_ours(world: World) -> None:
    world.fault("no_deposits", times=10_000)
    order_id = await rented(world)
    rotate(world)
    other = world.running.url.replace("127.0.0.1", "localhost")
    async with opened(world, NEW, CLORE_API_URL=other) as services:
        [shown] = (await services.overview.orders(max_age_seconds=0)).orders
        assert (shown.order_id, shown.made_here) == (order_id, False)
        assert [lease.order_id for lease in await services.stopper.running()] == []
        assert not await services.context.readings.doubtful()


def two_keys(world: World) -> list[Json]:
    return world.rows("SELECT * FROM accounts WHERE kind = 'key'")


async def test_two_keys_of_one_account_at_once_agree(world: World, local: LocalTime) -> None:
    world.fault("no_deposits", times=10_000)
    rotate(world)
    async with opened(world) as first, opened(world, NEW) as second:
        await first.keep_leases()
        await second.context.readings.account()
        order_id = (await rent(first, world.free()[0])).order_id
        for _ in range(3):
            for one in (first, second):
                local.pass_by(15)
                one.context.readings.changed()
                [shown] = (await one.overview.orders(max_age_seconds=0)).orders
                assert (shown.order_id, shown.made_here) == (order_id, True)
        assert await first.context.readings.account() == await second.context.readings.account()
    assert world.steps().count("account_recognized") <= 1
    assert len(two_keys(world)) >= 2

"""A spot lease counts wall time, a bid that does not win is said not to before and after, and one that never won costs
nothing and says so."""

from __future__ import annotations

import re
from typing import Any

import pytest

from clore_mcp.rental.account_summary import account_state
from clore_mcp.rental.requests import SetSpotPrice
from clore_mcp.wiring import Services
from tests.guard.calls import Told, call, cancel, wish
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.guard.spots import WIDE, raised, rich, spot
from tests.world import USD, World

pytestmark = pytest.mark.anyio
HOUR = 3600


def stranger(world: World, server_id: int, factor: float, coin: str = USD) -> float:
    """A stranger bids so many times the minimum; that in USD per hour, our fee on it."""
    least = float(world.get(f"/servers/{server_id}")["row"]["price"]["spot"][coin])
    world.post("/bids", {"server_id": server_id, "bid": least * factor, "currency": coin})
    return least * factor / 24 * 1.0125


def spot_wish(world: World, server_id: int, factor: float, **more: Any) -> Any:
    bid = round(world.price(server_id, "spot") * factor / 24 * 1.0125 + 0.0001, 4)
    return wish(server_id, order_type="spot", bid_usd_per_hour=bid, **more)


def balance(world: World) -> float:
    return float(world.get("/state")["accounts"][0]["wallets"][USD])


def named_in(text: str) -> float:
    """The USD per hour that would win, as a text names it."""
    found = re.search(r"\$([\d.]+\d) per hour would", text)
    assert found, text
    return float(found[1])


async def asked(services: Services, ask: Any) -> str:
    held = await services.guard.hold(ask, caller="asked", can_ask=True, replay=False)
    assert held.quote, held.outcome
    return held.quote.question


async def events(services: Services) -> list[tuple[str, int | None]]:
    told = await account_state(services.context, services.pricer, services.approvals, services.overview)
    return [(one.what, one.order_id) for one in told.events]


async def end_of_lease(world: World, services: Services, made: Told, hours: float) -> None:
    world.advance(hours * HOUR + 5)
    services.context.readings.changed()
    await services.keeper.poll()
    world.await_state(lambda: not world.active())


# Before the yes


async def test_a_bid_that_would_not_win_is_said_not_to_and_the_bid_that_is_named_wins(
    world: World, services: Services
) -> None:
    server_id = world.free()[0]
    rival = stranger(world, server_id, 1.4)
    ask = spot_wish(world, server_id, 1.1)
    question = await asked(services, ask)
    spot = "Spot: the hours start with the order and run even while it waits or is outbid. You pay only while it wins."
    assert spot in question
    assert "The bid would NOT win now" in question
    named = named_in(question)
    assert rival < named < rival * 1.02
    better = ask.model_copy(update={"bid_usd_per_hour": named})
    told = await asked(services, better)
    assert "would NOT win" not in told and "You pay only while it wins" in told
    made = await call(services, better)
    assert made.status == "created" and "waits" not in made.next
    [order] = world.active()
    assert order["active"], "the bid that was named wins"


async def test_a_bid_that_nobody_gave_is_one_that_wins_in_its_own_coin(world: World, process: Processes) -> None:
    services = await process(env=WIDE)
    rich(world)
    server_id = next(one for one in world.free() if "CLORE-Blockchain" in _coins(world, one))
    stranger(world, server_id, 1.3, "CLORE-Blockchain")
    made = await call(services, wish(server_id, order_type="spot"))
    assert made.status == "created", made
    [order] = world.active()
    assert order["currency"] == USD and order["active"]


def _coins(world: World, server_id: int) -> set[str]:
    row = world.get(f"/servers/{server_id}")["row"]
    return set(row["allowed_coins"]) & set(row["price"]["spot"])


async def test_a_raise_that_would_not_win_says_so_and_the_answer_names_the_bid_that_would(
    world: World, process: Processes
) -> None:
    services = await process(env=WIDE)
    rich(world)
    order_id, bid = await spot(world, services)
    [order] = world.active()
    stranger(world, order["server_id"], 6)
    up = raised(order_id, bid, 1.5)
    assert "The bid would NOT win now" in await asked(services, up)
    outcome = await call(services, up)
    assert (outcome.status, outcome.rank) == ("updated", 2)
    assert "costs nothing" in outcome.next
    named = named_in(outcome.next)
    wins = SetSpotPrice(order_id=order_id, bid_usd_per_hour=named)
    assert "would NOT win" not in await asked(services, wins)
    won = await call(services, wins)
    assert (won.status, won.rank) == ("updated", 1) and won.next.startswith("It wins")
    assert (await services.overview.one(order_id)).view.status in ("deploying", "running"), "not the book of before"
    assert (await call(services, wins)).status == "unchanged"


# The lease


async def test_a_bid_that_never_wins_ends_with_its_lease_and_costs_nothing(world: World, services: Services) -> None:
    server_id = world.free()[0]
    stranger(world, server_id, 1.4)
    before = balance(world)
    made = await call(services, spot_wish(world, server_id, 1.1, hours=2))
    assert made.status == "created"
    assert "queued and costs nothing until this bid wins, but its hours run" in made.next
    world.advance(1.5 * HOUR)
    services.context.readings.changed()
    view = (await services.overview.one(made.order_id)).view
    assert (view.status, view.spent_usd) == ("queued", 0)
    assert world.active(), "its time is not over"
    await end_of_lease(world, services, made, 0.5)
    assert balance(world) == before
    ended = await cancel(services, made.order_id)
    assert ended.status == "already_ended"
    assert "never won" in ended.next and "nothing was billed" in ended.next
    assert {name: value for name, value in ended.receipt.as_json().items() if name.endswith("usd")} == {
        "rent_usd": 0, "fee_usd": 0, "creation_fee_usd": 0, "total_usd": 0
    }  # fmt: skip
    assert ended.receipt.hours >= 2, "wall time"
    assert ("never won nothing billed", made.order_id) in await events(services)
    check_invariants(world)


async def test_a_bid_that_is_cancelled_before_it_won_has_a_receipt_of_zero_and_says_why(
    world: World, services: Services
) -> None:
    server_id = world.free()[0]
    stranger(world, server_id, 1.4)
    made = await call(services, spot_wish(world, server_id, 1.1))
    world.advance(1800)
    gone = await cancel(services, made.order_id)
    assert gone.status == "cancelled"
    assert gone.receipt.total_usd == 0 and gone.receipt.creation_fee_usd == 0
    assert "never won" in gone.next and "meter" not in gone.next
    [order] = world.orders()
    assert order["total"] == 0
    [held] = world.rows("SELECT actual_micros FROM reservations")
    assert held["actual_micros"] == 100_000, "the limits count the creation fee all the same: nobody has it in writing"
    check_invariants(world)


async def test_an_order_that_was_outbid_pays_for_what_it_ran_and_ends_with_its_lease(
    world: World, services: Services
) -> None:
    server_id = world.free()[0]
    made = await call(services, spot_wish(world, server_id, 1.1, hours=2))
    assert made.status == "created" and "waits" not in made.next
    world.advance(1800)
    stranger(world, server_id, 3)
    world.advance(1800)
    services.context.readings.changed()
    assert (await services.overview.one(made.order_id)).view.status == "outbid"
    [reserved] = world.reserved()
    await end_of_lease(world, services, made, 1)
    [order] = world.orders()
    receipt = (await cancel(services, made.order_id)).receipt
    assert receipt.total_usd == pytest.approx(order["total"], abs=1e-5)
    assert receipt.rent_usd == pytest.approx(order["price"] * 1800 / 86_400, rel=0.1), "half an hour of two"
    assert receipt.hours >= 2
    assert order["total"] < reserved["worst_micros"] / 10**6
    assert ("never won nothing billed", made.order_id) not in await events(services)
    check_invariants(world)


async def test_a_bid_that_vanished_when_it_was_outbid_is_closed_with_what_it_cost(
    world: World, services: Services
) -> None:
    world.options(outbid="vanishes")
    server_id = world.free()[0]
    made = await call(services, spot_wish(world, server_id, 1.1, hours=2))
    world.advance(900)
    stranger(world, server_id, 3)
    services.context.readings.changed()
    await services.keeper.poll()
    ended = await cancel(services, made.order_id)
    [order] = world.orders()
    assert ended.status == "already_ended" and "never won" not in ended.next
    assert ended.receipt.total_usd == pytest.approx(order["total"], abs=1e-5)
    assert not world.reserved()


async def test_whether_a_bid_wins_is_read_from_the_order_if_the_book_can_not_be(
    world: World, services: Services
) -> None:
    order_id, _ = await spot(world, services)
    world.advance(600)
    world.fault("http502", "spot_marketplace", times=10_000)
    services.context.readings.changed()
    row = (await services.context.readings.orders()).find(order_id)
    assert row is not None and row.deployed
    assert await services.overview.books.status(row) == "running"
    assert await services.overview.books.status(row.model_copy(update={"server_id": None})) == "running"
    await cancel(services, order_id)
    over = (await services.context.readings.completed(0)).find(order_id)
    assert over is not None
    assert await services.overview.books.status(over) == "ended"

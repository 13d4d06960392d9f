"""Whoever is killed, fails or bids at the same time leaves the old end with the old reservation or the new end with the
new one: never a new end with what the old one cost."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

import pytest

from clore_mcp.errors import StateUnavailable
from clore_mcp.rental.requests import ExtendOrder
from clore_mcp.rental.spot.bid import BidVerb
from clore_mcp.store.database import Tx
from tests.guard.calls import call
from tests.guard.children import Child
from tests.guard.conftest import Processes
from tests.guard.extensions import end_of, hourly, longer, ours, unmoved, worst
from tests.guard.invariants import check_invariants
from tests.guard.spots import WIDE, raised, rich, spot
from tests.guard.stepping import Point
from tests.world import World

pytestmark = pytest.mark.anyio

# Spot


async def test_a_spot_lease_counts_wall_time_and_its_dearest_bid(world: World, process: Processes) -> None:
    services = await process(env=WIDE)
    rich(world)
    order_id, bid = await spot(world, services)
    before, reserved = end_of(world, order_id) or 0, worst(world, order_id)
    assert (await call(services, longer(order_id, 3))).status == "extended"
    assert end_of(world, order_id) == before + 3 * 3600
    assert worst(world, order_id) >= reserved + 3 * bid * 0.99
    services.context.readings.changed()
    assert (await call(services, raised(order_id, bid, 2))).status == "updated"
    assert worst(world, order_id) >= 5 * 2 * bid * 0.99, "a raise counts to the new end"
    check_invariants(world)


@pytest.mark.parametrize("factor", [2.0, 0.92])
async def test_a_bid_that_was_priced_for_the_old_end_is_not_sent(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    one, two = await process(env=WIDE), await process(env=WIDE)
    rich(world)
    order_id, bid = await spot(world, one)
    ask = raised(order_id, bid, factor)
    claim = BidVerb._claim

    async def after_an_extension(self: BidVerb, *told: Any, **more: Any) -> Any:
        monkeypatch.setattr(BidVerb, "_claim", claim)
        assert (await call(two, longer(order_id, 3), caller="another")).status == "extended"
        return await claim(self, *told, **more)

    monkeypatch.setattr(BidVerb, "_claim", after_an_extension)
    outcome = await call(one, ask)
    assert (outcome.status, outcome.reason) == ("refused", "end_moved")
    assert not world.sent("set_spot_price")
    assert worst(world, order_id) >= 5 * bid * 0.99
    check_invariants(world)


@pytest.mark.parametrize("factor", [3.0, 0.92])
async def test_an_extension_while_a_bid_is_on_its_way_counts_the_dearer_one_to_the_new_end(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    one, two = await process(env=WIDE), await process(env=WIDE)
    rich(world)
    order_id, bid = await spot(world, one)
    send = one.context.client.set_spot_price
    reached, go = asyncio.Event(), asyncio.Event()

    async def slowly(*told: Any, **more: Any) -> Any:
        reached.set()
        await go.wait()
        return await send(*told, **more)

    monkeypatch.setattr(one.context.client, "set_spot_price", slowly)
    bidding = asyncio.ensure_future(call(one, raised(order_id, bid, factor), answer=True if factor > 1 else None))
    await asyncio.wait_for(reached.wait(), 20)
    assert (await call(two, longer(order_id, 3), caller="another")).status == "extended"
    dearest = 5 * bid * max(factor, 1.0) * 0.99
    assert worst(world, order_id) >= dearest
    go.set()
    assert (ended := await bidding).status == "updated", ended
    assert worst(world, order_id) >= dearest, "the answer to the bid was reckoned with the old end"
    check_invariants(world)


# Killed, and what fails


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("made_here", [True, False])
async def test_an_extension_that_is_killed_anywhere_has_moved_both_or_neither(
    world: World, process: Processes, children: list[Child], made_here: bool
) -> None:
    later = await process(env=WIDE)
    rich(world)
    if made_here:
        order_id = await ours(world, later)
    else:
        order_id = world.rent_elsewhere(world.free()[0])
        world.advance(5)
        assert (await call(later, longer(order_id, 2))).status == "extended"
    world.post("/clock", {"speed": 1})  # or the order is over before the last child was, on a busy machine

    def begin(step: int, *, after: bool) -> Child:
        point = Point(step, after)
        ask = longer(order_id, 1 + step / 10 + after / 20)  # a wish of its own for each point
        child = Child(world, ask, env=WIDE, point=point, sign=signal.SIGKILL)
        children.append(child)
        return child

    undisturbed = await asyncio.to_thread(begin(0, after=False).outcome)
    assert undisturbed["status"] == "extended", undisturbed
    moved = 0
    for step in range(1, undisturbed["steps"] + 1):
        for after in (False, True):
            before, [reserved] = end_of(world, order_id) or 0, world.reserved()
            child = begin(step, after=after)
            await asyncio.to_thread(child.await_signal)
            came, [now] = end_of(world, order_id) or 0, world.reserved()
            assert isinstance(child.ask, ExtendOrder)
            seconds = child.ask.seconds
            if came == before:
                assert now == reserved, "the old end has its old reservation"
            else:
                moved += 1
                assert came == before + seconds
                extra = (came - before) / 3600 * hourly(world, order_id) * 0.98
                assert now["worst_micros"] >= reserved["worst_micros"] + extra * 10**6
            assert not world.rows("SELECT id FROM quotes WHERE state = 'committing'")
            later.context.readings.changed()
            again = await call(later, child.ask)
            assert again.status == "extended"
            assert end_of(world, order_id) == before + seconds, "once, wherever it was killed"
    assert moved >= 2, "some were killed after the move"


@pytest.mark.parametrize("place", ["reservation", "end", "settled", "recorded"])
async def test_a_state_that_fails_half_way_has_moved_nothing_and_keeps_the_yes(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    services = await process()
    order_id = await ours(world, services)
    before, ask = unmoved(world, order_id), longer(order_id)
    waiting = await call(services, ask, can_ask=False)
    quote = await services.approvals.get(waiting.approval_id)
    assert await services.approvals.decide(quote, yes=True, by="ann at a terminal")
    begins = {
        "reservation": "UPDATE reservations",
        "end": "UPDATE orders",
        "settled": "UPDATE quotes SET state = 'settled'",
        "recorded": "INSERT INTO ledger",
    }[place]
    with monkeypatch.context() as patch:
        patch.setattr(Tx, "run", _failing(Tx.run, begins))
        with pytest.raises(StateUnavailable):
            await call(services, ask, can_ask=False)
    assert unmoved(world, order_id) == before
    assert (await services.approvals.get(quote.id)).state == "approved"
    assert (await call(services, ask, can_ask=False)).status == "extended"
    check_invariants(world)


def _failing(run: Callable[..., int], begins: str) -> Callable[..., int]:
    def fails(tx: Tx, sql: str, *values: object) -> int:
        changed = run(tx, sql, *values)
        if sql.startswith(begins):
            raise sqlite3.OperationalError("disk I/O error")
        return changed

    return fails

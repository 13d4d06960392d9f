from __future__ import annotations

import asyncio
import tracemalloc
from decimal import Decimal

import pytest

from clore_mcp.clore.models import Rows, ServerRow
from clore_mcp.errors import NotFound, NotSent
from clore_mcp.market.pricing import Fees, OrderType
from clore_mcp.market.query import Query, SortBy
from clore_mcp.market.search import search
from clore_mcp.market.snapshot import Market
from clore_mcp.money import Coin
from clore_mcp.store.shared import Instant, Reading
from tests.market.rows import row, snapshot, wire

pytestmark = pytest.mark.anyio


class World:
    """A clock and a marketplace that tests turn."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.fetches = 0
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.market = Market(self.fetch, lambda: self.now)

    async def fetch(self, max_age_seconds: float) -> Reading[Rows[ServerRow]]:
        self.fetches += 1
        at = self.now
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return asked_at(at, Rows([row(self.fetches)]))


def asked_at(at: float, rows: Rows[ServerRow]) -> Reading[Rows[ServerRow]]:
    return Reading(rows, at, Instant(at, at))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_young_snapshot_is_used_again() -> None:
    world = World()
    first = await world.market.snapshot()
    world.now += 60
    assert await world.market.snapshot() is first
    world.now += 1
    assert (await world.market.snapshot()).fetched_at == 1061
    assert world.fetches == 2


async def test_a_caller_may_want_it_younger() -> None:
    world = World()
    await world.market.snapshot()
    world.now += 11
    assert (await world.market.snapshot(10)).by_id.keys() == {2}


async def test_a_clock_that_goes_back_makes_no_old_snapshot_young() -> None:
    world = World()
    await world.market.snapshot()
    world.now -= 3600
    assert (await world.market.snapshot(10, allow_stale=False)).by_id.keys() == {2}


async def test_callers_at_once_share_one_fetch() -> None:
    world = World()
    got = await asyncio.gather(*(world.market.snapshot() for _ in range(20)))
    assert world.fetches == 1
    assert all(one is got[0] for one in got)


async def test_a_caller_who_leaves_does_not_take_the_fetch_along() -> None:
    world = World()
    world.gate.clear()
    leaver = asyncio.create_task(world.market.snapshot())
    stayer = asyncio.create_task(world.market.snapshot())
    await turns()
    leaver.cancel()
    await turns()
    world.gate.set()
    assert (await stayer).by_id.keys() == {1}
    assert leaver.cancelled()
    assert world.fetches == 1


async def test_a_fetch_that_nobody_waits_for_any_more_is_still_kept() -> None:
    world = World()
    world.gate.clear()
    leaver = asyncio.create_task(world.market.snapshot())
    await turns()
    leaver.cancel()
    await turns()
    world.gate.set()
    assert (await world.market.snapshot()).by_id.keys() == {1}
    assert world.fetches == 1


async def test_an_old_snapshot_is_served_with_the_reason_when_it_can_not_be_renewed() -> None:
    world = World()
    await world.market.snapshot()
    world.failure = NotSent("Clore can't be reached.")
    world.now += 900
    old = await world.market.snapshot()
    assert old.stale_because == "Clore can't be reached."
    assert old.age_seconds(world.now) == 900
    with pytest.raises(NotSent):
        await world.market.snapshot(allow_stale=False)
    world.now += 1
    with pytest.raises(NotSent):
        await world.market.snapshot()
    world.failure = None
    assert (await world.market.snapshot()).stale_because is None


async def test_without_any_snapshot_the_failure_is_the_answer() -> None:
    world = World()
    world.failure = NotSent("Clore can't be reached.")
    with pytest.raises(NotSent):
        await world.market.snapshot()


async def test_a_fault_of_our_own_is_never_hidden_behind_old_data() -> None:
    world = World()
    await world.market.snapshot()
    world.now += 100
    world.failure = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        await world.market.snapshot()


async def test_rows_fetched_elsewhere_bring_their_age() -> None:
    async def fetch(max_age_seconds: float) -> Reading[Rows[ServerRow]]:
        return asked_at(970.0, Rows([row(1)]))

    assert (await Market(fetch, lambda: 1000.0).snapshot()).age_seconds(1000.0) == 30


async def test_who_wants_it_younger_does_not_take_what_another_waits_for() -> None:
    wanted: list[float] = []
    gate = asyncio.Event()

    async def fetch(max_age_seconds: float) -> Reading[Rows[ServerRow]]:
        wanted.append(max_age_seconds)
        await gate.wait()
        return asked_at(1000.0 - max_age_seconds, Rows([row(1)]))

    market = Market(fetch, lambda: 1000.0)
    content, strict = asyncio.create_task(market.snapshot(60)), asyncio.create_task(market.snapshot(10))
    await turns()
    gate.set()
    assert ((await content).fetched_at, (await strict).fetched_at) == (940, 990)
    assert wanted == [60, 10]


async def test_closing_ends_a_fetch_under_way() -> None:
    world = World()
    world.gate.clear()
    waiter = asyncio.create_task(world.market.snapshot())
    await turns()
    await world.market.aclose()
    await asyncio.wait([waiter])
    assert waiter.cancelled()
    await world.market.aclose()


async def test_of_a_repeated_id_the_first_row_counts() -> None:
    twice = snapshot(wire(1), wire(1, rented=True), wire(2), "no row")
    assert [listing.server_id for listing in twice.listings] == [1, 2]
    assert not twice.server(1).rented


async def test_a_server_that_left_is_not_found() -> None:
    with pytest.raises(NotFound, match="No server 9"):
        snapshot(wire(1)).server(9)


async def test_prices_are_worked_out_once_for_the_same_question() -> None:
    market, fees = snapshot(wire(1), wire(2)), Fees.highest_documented()
    once = market.priced(OrderType.ON_DEMAND, fees, wallet={Coin.USD: Decimal(5)})
    assert market.priced(OrderType.ON_DEMAND, fees, wallet={Coin.USD: Decimal(7)}) is once
    assert market.priced(OrderType.SPOT, fees) is not once
    assert market.models == ("RTX 4090",)


async def test_an_age_is_never_negative() -> None:
    assert snapshot(fetched_at=50).age_seconds(40) == 0


async def test_a_fetch_that_is_over_but_too_old_is_not_waited_for_again() -> None:
    asked = iter([900.0, 1000.0])

    async def fetch(max_age_seconds: float) -> Reading[Rows[ServerRow]]:
        return asked_at(next(asked), Rows([row(1)]))

    market = Market(fetch, lambda: 1000.0)
    over = asyncio.ensure_future(market._renew(200))
    await over
    market._renewal = over  # as in the instant before its callback has run
    assert (await asyncio.wait_for(market.snapshot(10), 20)).fetched_at == 1000.0


async def test_a_server_takes_little_memory() -> None:
    servers = 2000
    values = [wire(number, specs={"cpu": f"CPU {number}"}) for number in range(servers)]
    tracemalloc.start()
    try:
        market = snapshot(*values)
        for sort_by in SortBy:
            search(market, Query(gpu="4090", sort_by=sort_by, min_ram_gb=8), Fees.highest_documented(), None, 0)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(market.listings) == servers
    assert kept / servers < 4000, "bytes a server, with its prices and five orders"

"""A host that failed twice in a week: marked in searches, named in the question, passed over in failover."""

from __future__ import annotations

from typing import Any

import pytest

from clore_mcp.rental import hosts
from clore_mcp.store.database import Tx
from clore_mcp.tools.listings import found, in_full
from clore_mcp.tools.market import SearchServers
from clore_mcp.wiring import Services
from tests.guard.calls import call, cancel, let_time_pass, rent, wish
from tests.guard.conftest import Processes
from tests.guard.test_events import look
from tests.world import Json, World

pytestmark = pytest.mark.anyio
DAY = 86_400.0


async def marked(services: Services) -> dict[int, int]:
    account = await services.context.readings.account()

    def read(tx: Tx) -> dict[int, int]:
        now = services.context.clock()
        found = hosts.failed(tx, account, now)
        for servers in (list(found), [*found, 1], [1, 2]):
            alone = hosts.failed(tx, account, now, servers)
            assert alone == {one: found[one] for one in servers if one in found}, "asked for some, the same is said"
        return found

    return await services.context.state.read(read)


async def failing(world: World, services: Services, server_id: int) -> None:
    """It never deploys, is told so and cancelled."""
    world.fault("never_deploys")
    made = await rent(services, server_id)
    world.advance(900)
    await look(services)
    await cancel(services, made.order_id)
    let_time_pass(services)


def days_ago(world: World, days: float) -> None:
    """What is in the record happened so long before now."""
    world.change("DROP TRIGGER ledger_keeps_text")
    world.change("UPDATE ledger SET at = at - ?", days * DAY)
    world.change("UPDATE intents SET created_at = created_at - ?", days * DAY)
    world.change("UPDATE orders SET ended_at = ended_at - ?", days * DAY)


async def question(services: Services, server_id: int, **more: Any) -> str:
    ask = wish(server_id, hours=3.0, **more)
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    assert held.quote is not None, held
    return held.quote.question


async def test_a_host_that_failed_twice_is_marked_and_only_taken_by_name(
    world: World, services: Services, process: Processes
) -> None:
    bad, good, *_ = world.free()
    await failing(world, services, bad)
    days_ago(world, 1)
    assert await marked(services) == {}, "once may happen to anyone"
    assert "FAILED" not in await question(services, bad)
    await failing(world, services, bad)
    assert await marked(services) == {bad: 2}

    fresh = await process()
    shown: dict[int, int] = {}
    page = await found(fresh, SearchServers(limit=50, include_rented=True))
    while True:
        shown |= {row["server_id"]: row["failed_here"] for row in page.wire()["servers"] if "failed_here" in row}
        if page.next_cursor is None:
            break
        page = await found(fresh, SearchServers(limit=50, include_rented=True, cursor=page.next_cursor))
    assert shown == {bad: 2} and (await in_full(fresh, bad)).failed_here == 2
    assert (await in_full(fresh, good)).failed_here is None

    assert "Its host FAILED here 2 times in the last 7 days." in await question(services, bad, image="a/b")
    asked = await question(services, good, fallback_server_ids=[bad], image="a/c")
    assert f"server {bad}" not in asked and "FAILED" not in asked

    named = await call(services, wish(bad, hours=4.0))
    assert (named.status, named.server_id) == ("created", bad)


async def test_failover_passes_over_a_host_that_failed_since_the_question(world: World, services: Services) -> None:
    first, second, third, *_ = world.free()
    ask = wish(first, fallback_server_ids=[second, third])
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    assert held.quote is not None and f"server {second}" in held.quote.question
    account = await services.context.readings.account()

    def fail(tx: Any) -> None:
        for order_id in (1, 2):
            services.context.note(tx, "host_offline", "clore-mcp", account, order_id=order_id, server_id=second)

    await services.context.state.write(fail)
    world.change("DROP TRIGGER ledger_keeps_text")
    world.change("UPDATE ledger SET at = at - 7200 WHERE order_id = 1")
    world.fault("already_rented")
    outcome = await services.guard.conclude(held, ask, answer=True, caller="tester")
    assert outcome.status == "created" and outcome.server_id == third
    assert [one.outcome for one in outcome.attempts] == ["server-already-rented", "failed_here", "created"]


async def test_a_refusal_as_offline_counts_once_an_hour(world: World, services: Services) -> None:
    server_id = world.free()[0]
    for _ in range(2):
        world.fault("offline")
        assert (await call(services, wish(server_id))).status == "refused"
    assert await marked(services) == {}
    days_ago(world, 1)
    world.fault("offline")
    await call(services, wish(server_id))
    assert await marked(services) == {server_id: 2}
    world.change("UPDATE intents SET created_at = created_at - ?", hosts.DAYS * DAY)
    assert await marked(services) == {}, "a week has passed"


async def test_an_order_that_ends_early_without_us_counts_and_one_that_we_end_does_not(
    world: World, services: Services
) -> None:
    server_id, other = world.free()[:2]
    made = await rent(services, server_id, hours=10)
    ours = await rent(services, other, hours=10)
    world.advance(3600)
    world.api.post("/cancel_order", json={"id": made.order_id})  # as its host, or a person on clore.ai, would
    await cancel(services, ours.order_id)
    await look(services)
    assert "ended" in world.steps()
    account = await services.context.readings.account()

    def counted(tx: Any) -> list[int]:
        return [number for number, _ in hosts._failures(tx, account, 0.0)]

    assert await services.context.state.read(counted) == [server_id]


async def test_an_order_that_an_empty_wallet_ended_counts_against_no_host(world: World, services: Services) -> None:
    made = await rent(services, world.free()[0], hours=10)
    world.post("/wallets", {"balances": {"USD-Blockchain": 0.02}})
    await look(services)
    assert "wallet_short" in world.steps()
    world.advance(3 * 3600)
    await look(services)
    assert not world.active() and "ended" in world.steps(), made
    account = await services.context.readings.account()
    assert await services.context.state.read(lambda tx: list(hosts._failures(tx, account, 0.0))) == []


def test_a_search_row_carries_the_mark_only_where_there_is_one() -> None:
    from clore_mcp.tools.market_answers import ShownServer

    plain: Json = {"server_id": 1, "gpu": "RTX 4090", "gpu_count": 1, "rented": False}
    assert "failed_here" not in ShownServer(**plain).wire()
    assert ShownServer(**plain, failed_here=2).wire()["failed_here"] == 2

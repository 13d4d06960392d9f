"""Watches: approved once, rented within what was approved, never twice, and taken back for good."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from pydantic import ValidationError

from clore_mcp.errors import ArgumentInvalid, NotFound
from clore_mcp.rental.account_summary import account_state
from clore_mcp.rental.orders import stop
from clore_mcp.rental.watches.watch import WatchView, cancelled
from clore_mcp.rental.watches.watch import listed as watches_listed
from clore_mcp.store import ledger
from clore_mcp.store.database import Tx
from clore_mcp.store.ledger import Entry
from clore_mcp.wiring import Services
from tests.guard.calls import ENV_VALUE, call, let_time_pass, patient, rent
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.guard.watching import FEE, ask_for_coin, reprice, stock, watch, watched
from tests.world import USD, Json, World

pytestmark = pytest.mark.anyio

SERVER = 900_001
OTHER = 900_002


async def until(happened: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not await anyio.to_thread.run_sync(happened):
        assert time.monotonic() < give_up_at, f"not within {seconds:.0f} s: {what}"
        await anyio.sleep(0.05)


async def rounds(services: Services, world: World, count: int = 2) -> None:
    """So many whole rounds of whoever keeps the watches here."""
    for _ in range(count):
        services.marketplace.forget()
        services.market._held = None
        await services.keeper.poll()
        await services.keeper.finish()


async def listed(services: Services, *, include_ended: bool = True) -> tuple[WatchView, ...]:
    return (await watches_listed(services.context, include_ended=include_ended)).watches


def per_hour(order: Json) -> float:
    return float(order["price"]) / 24 * FEE


async def test_it_rents_when_the_price_falls_and_is_done(world: World, services: Services) -> None:
    stock(world, SERVER, 0.30)
    watch_id = await watched(services, watch())
    await rounds(services, world)
    (one,) = await listed(services)
    assert one.status == "waiting" and one.last_seen_usd_per_hour == pytest.approx(0.30, abs=1e-4)
    assert one.above_ceiling_usd_per_hour == pytest.approx(0.10, abs=1e-4)
    assert not world.active()
    reprice(world, SERVER, 0.19)
    await rounds(services, world)
    (order,) = world.active()
    assert order["server_id"] == SERVER and per_hour(order) <= 0.20
    (one,) = await listed(services)
    assert (one.status, one.order_ids, one.watch_id) == ("fired", (order["id"],), watch_id)
    assert one.best_seen_usd_per_hour == pytest.approx(0.19, abs=1e-4)
    reprice(world, stock(world, OTHER, 0.10), 0.05)
    await rounds(services, world, 3)
    assert len(world.active()) == 1, "one was all it was to make"
    assert world.steps().count("watch_fired") == 1
    assert all(lease["on_end"] == "cancel" for lease in world.rows("SELECT * FROM orders"))
    check_invariants(world)


async def test_an_order_of_a_watch_gets_what_was_approved_for_it(world: World, services: Services) -> None:
    stock(world, SERVER, 0.15)
    await watched(services, watch(ports={"8000": "http"}, command="echo hello"))
    await rounds(services, world)
    (sent,) = [one["body"] for one in world.sent() if one["effect"]]
    assert sent["env"]["HF_TOKEN"] == ENV_VALUE and sent["ports"] == {"22": "tcp", "8000": "http"}
    assert sent["command"] == "echo hello" and sent["required_price"] == pytest.approx(world.price(SERVER))
    (order,) = world.rows("SELECT * FROM orders")
    assert order["ends_api_at"] - order["started_api_at"] == 7_200
    assert [row["env"] for row in world.rows("SELECT env FROM watches")] == [None], "what it held is forgotten"
    check_invariants(world)


@pytest.mark.parametrize("can_ask", [True, False])
async def test_without_a_yes_nothing_watches(world: World, services: Services, can_ask: bool) -> None:
    stock(world, SERVER, 0.10)
    outcome = await call(services, watch(), answer=False, can_ask=can_ask)
    assert outcome.status == ("declined" if can_ask else "approval_required")
    await rounds(services, world)
    assert not world.rows("SELECT * FROM watches") and not world.sent()


async def test_the_same_call_is_the_same_watch(world: World, services: Services) -> None:
    stock(world, SERVER, 0.30)
    first = await watched(services, watch())
    again = await call(services, watch(), answer=False)
    assert again.repeated and again.watch_id == first
    await cancelled(services.context, first, by="tester")
    assert await watched(services, watch()) != first, "after its end the same call is a new wish"


async def test_what_could_never_be_rented_is_refused_before_the_question(world: World, process: Processes) -> None:
    stock(world, SERVER, 0.30)
    services = await process(env={"CLORE_MAX_USD_PER_HOUR": "1", "CLORE_MAX_USD_PER_ORDER": "3"})
    for ask, limit in ((watch(1.5), "usd_per_hour"), (watch(0.9, hours=4.0), "usd_per_order")):
        outcome = await call(services, ask)
        assert outcome.status == "refused" and limit in [one.limit for one in outcome.refusals], outcome
    unknown: tuple[Json, ...] = ({"gpu": "RTX 9999"}, {"min_gpus": 4, "max_gpus": 2})
    for wrong in unknown:
        with pytest.raises(ArgumentInvalid):
            await call(services, watch(**wrong))
    for wrong in (
        {"hours": 0},
        {"expires_hours": 721},
        {"max_orders": 0},
        {"env": {"A": "x&y"}},
        {"image": "No Image"},
    ):
        with pytest.raises(ValidationError):
            watch(**wrong)
    assert not world.rows("SELECT * FROM watches")


async def test_where_nobody_would_rent_or_end_nothing_is_asked(world: World, process: Processes) -> None:
    stock(world, SERVER, 0.10)
    services = await process(env={"CLORE_WATCHDOG": "off"})
    outcome = await call(services, watch())
    assert (outcome.status, outcome.refusals[0].limit) == ("refused", "watchdog")
    assert "clore-mcp watchdog" in outcome.next


async def test_a_cancelled_watch_rents_nothing_more(world: World, services: Services) -> None:
    stock(world, SERVER, 0.30)
    watch_id = await watched(services, watch(max_orders=2))
    reprice(world, SERVER, 0.10)
    await rounds(services, world)
    (order,) = world.active()
    told = await cancelled(services.context, watch_id, by="tester")
    assert told.status == "cancelled" and str(order["id"]) in (told.next or "")
    stock(world, OTHER, 0.10)
    await rounds(services, world)
    assert [one["id"] for one in world.active()] == [order["id"]], "it rents no more, and its order runs on"
    assert (await cancelled(services.context, watch_id, by="tester")).status == "cancelled"
    with pytest.raises(NotFound):
        await cancelled(services.context, "wnobody", by="tester")


async def test_a_watch_cancelled_just_before_its_create_leaves_sends_nothing(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock(world, SERVER, 0.30)
    watch_id = await watched(services, watch())
    create = services.context.client.create_order

    async def after_the_cancel(*told: Any, **more: Any) -> Any:
        await cancelled(services.context, watch_id, by="tester")
        return await create(*told, **more)

    monkeypatch.setattr(services.context.client, "create_order", after_the_cancel)
    reprice(world, SERVER, 0.10)
    await rounds(services, world)
    assert world.sent() == []
    (quote,) = world.rows("SELECT state, outcome FROM quotes WHERE watch_id = ?", watch_id)
    assert quote["state"] == "settled"
    assert "watch that this order was for has ended, so nothing was spent" in quote["outcome"]


@pytest.mark.parametrize("way", ["over", "from the future"])
async def test_a_watch_whose_time_is_over_rents_nothing(world: World, services: Services, way: str) -> None:
    stock(world, SERVER, 0.30)
    await watched(services, watch())
    moved = {"over": "expires_at = created_at - 1", "from the future": "created_at = created_at + 600"}[way]
    world.change(f"UPDATE watches SET {moved}")
    reprice(world, SERVER, 0.10)
    await rounds(services, world)
    assert not world.sent() and "watch_expired" in world.steps()
    assert [one.status for one in await listed(services)] == ["expired"]


async def test_stop_takes_watches_back_for_good(world: World, services: Services) -> None:
    stock(world, SERVER, 0.30)
    await watched(services, watch())
    await services.context.state.write(lambda tx: stop.freeze(tx, by="a person", now=time.time()))
    await services.context.state.write(lambda tx: stop.lift(tx, by="a person", now=time.time()))
    reprice(world, SERVER, 0.10)
    await rounds(services, world)
    assert not world.sent()
    assert [one.status for one in await listed(services)] == ["cancelled"]


async def test_a_limit_holds_a_watch_up_and_it_says_so(world: World, process: Processes) -> None:
    stock(world, SERVER, 0.15)
    services = await process(env={"CLORE_MAX_ACTIVE_ORDERS": "1"})
    held = (await rent(services, world.free()[0])).order_id
    await watched(services, watch())
    await rounds(services, world, 3)
    assert len(world.active()) == 1
    (one,) = await listed(services)
    assert one.status == "waiting" and "active order" in (one.held_up or "")
    assert world.steps().count("watch_held_up") == 1, "told once, not at each look"
    world.post("/clock", {"advance": 3 * 3600})  # the other order's lease is over
    await until(lambda: "watch_fired" in world.steps(), "it rents when there is room")
    assert [row["server_id"] for row in world.active()] == [SERVER]
    assert held not in [row["id"] for row in world.active()]
    told = await account_state(services.context, services.pricer, services.approvals, services.overview)
    assert {"watch held up", "watch fired"} <= {event.what for event in told.events}
    check_invariants(world)


async def test_a_gone_server_fails_over_to_the_next_that_fits(world: World, services: Services) -> None:
    stock(world, SERVER, 0.10)
    stock(world, OTHER, 0.15)
    world.fault("already_rented", "create_order", times=1)
    await watched(services, watch())
    await until(lambda: "watch_fired" in world.steps(), "the next")
    (order,) = world.active()
    assert order["server_id"] == OTHER
    check_invariants(world)


async def test_a_host_that_failed_twice_is_left_out(world: World, services: Services) -> None:
    stock(world, SERVER, 0.10)
    stock(world, OTHER, 0.15)
    account = await services.context.readings.account()
    failures = [
        Entry(time.time() - ago, account, "host_offline", "clore-mcp", server_id=SERVER, order_id=ago)
        for ago in (20_000, 10_000)
    ]

    def happened(tx: Tx) -> None:
        for one in failures:
            ledger.write(tx, one)

    await services.context.state.write(happened)
    await watched(services, watch())
    await until(lambda: "watch_fired" in world.steps(), "the one that did not fail")
    assert [order["server_id"] for order in world.active()] == [OTHER]


async def test_a_watch_that_an_earlier_version_took_stops_no_other(world: World, services: Services) -> None:
    stock(world, SERVER, 0.30)
    await watched(services, watch(hours=3.0))
    world.change("UPDATE watches SET ask = json_set(ask, '$.hours', 5000)")
    await watched(services, watch(0.25))
    reprice(world, SERVER, 0.19)
    await until(world.active, "the other one rents")
    assert len(world.sent()) == 1
    [held_up] = [row.held_up for row in await listed(services) if row.held_up]
    assert "cancel_watch" in held_up


async def test_only_the_models_of_the_question_are_rented(world: World, services: Services) -> None:
    stock(world, SERVER, 0.30, gpu="NVIDIA Quadro GV100")
    await watched(services, watch(gpu="GV100"))
    stock(world, OTHER, 0.05, gpu="NVIDIA Quadro GV100 NVL")
    await rounds(services, world)
    assert not world.sent(), "a model that came to the market after the question was not approved"
    await watched(services, watch(0.21, gpu="GV100"))
    await until(world.active, "a later question names it")


async def test_a_lost_reply_makes_no_second_order(world: World, process: Processes) -> None:
    for number in range(4):
        stock(world, SERVER + number, 0.10 + number / 100)
    services = await process(patient(look=0.6))
    world.fault("late_visible", "create_order", seconds=240)  # four seconds here: longer than the look
    await watched(services, watch())
    await until(lambda: "uncertain" in [row["state"] for row in world.intents()], "nobody knows")
    await rounds(services, world, 4)
    await until(lambda: [row["state"] for row in world.intents()] == ["adopted"], "it shows")
    await rounds(services, world, 2)
    assert len(world.active()) == 1 and len([one for one in world.sent() if one["effect"]]) == 1
    (one,) = await listed(services)
    assert one.status == "fired" and one.order_ids == (world.active()[0]["id"],)
    check_invariants(world)


async def test_a_create_that_failed_holds_its_watch_up_for_the_day_in_which_its_order_may_show(
    world: World, process: Processes
) -> None:
    stock(world, SERVER, 0.10)
    stock(world, OTHER, 0.11)
    services = await process(patient(look=0.6))
    world.fault("http502", "create_order")
    await watched(services, watch(expires_hours=72.0))
    await until(lambda: "failed" in [row["state"] for row in world.intents()], "Clore answers nothing")
    await rounds(services, world, 3)
    assert len(world.intents()) == 1 and not world.active()
    (held,) = await listed(services)
    assert held.status == "waiting" and "shows no order yet" in (held.held_up or "")
    world.change("UPDATE intents SET created_at = created_at - 86500")
    await rounds(services, world, 1)
    await until(world.active, "by now none can show")
    check_invariants(world)


async def test_two_processes_that_look_at_once_rent_once(world: World, process: Processes) -> None:
    for number in range(4):
        stock(world, SERVER + number, 0.30)
    all_of_us = [await process() for _ in range(4)]
    await watched(all_of_us[0], watch(max_orders=2))
    for number in range(4):
        reprice(world, SERVER + number, 0.10 + number / 100)
    async with anyio.create_task_group() as group:
        for one in all_of_us:
            group.start_soon(rounds, one, world, 4)
    await until(lambda: world.steps().count("watch_fired") == 2, "both")
    assert len([one for one in world.sent() if one["effect"]]) == 2
    check_invariants(world)


async def test_a_rise_between_the_look_and_the_send_is_not_paid(world: World, services: Services) -> None:
    stock(world, SERVER, 0.15)
    world.options(required_price="ignored")
    world.fault("price_moved", "create_order", times=1, factor=2.0)  # dearer at the very instant of the create
    await watched(services, watch())
    await until(lambda: [one for one in world.orders() if one["ended_at"]], "dearer than approved, it is ended at once")
    await rounds(services, world)
    assert not world.active() and len(world.orders()) == 1, "and not tried again"
    check_invariants(world)


async def test_the_room_for_a_coin_whose_rate_moves_ends_at_the_ceiling(world: World, services: Services) -> None:
    ask_for_coin(world, stock(world, SERVER, 0.30), 0.199)
    world.post("/wallets", {"balances": {"CLORE-Blockchain": 100_000.0}})
    world.options(required_price="ignored")
    world.fault("price_moved", "create_order", times=1, factor=1.02)  # an order outside a watch has more room than that
    await watched(services, watch())
    await until(lambda: [one for one in world.orders() if one["ended_at"]], "above the ceiling, it is ended at once")
    assert not world.active() and len(world.orders()) == 1


async def test_nothing_is_rented_beyond_the_worst_case_that_was_shown(world: World, services: Services) -> None:
    stock(world, SERVER, 0.30)
    await watched(services, watch())
    world.change("UPDATE watches SET worst_micros = 300000")
    reprice(world, SERVER, 0.15)
    await rounds(services, world)
    (one,) = await listed(services)
    assert not world.sent() and "more than was approved" in (one.held_up or "")


async def test_nothing_is_rented_while_nobody_would_end_it(world: World, process: Processes) -> None:
    stock(world, SERVER, 0.30)
    services = await process(env={"CLORE_WATCHDOG": "off"})  # its rounds are begun here
    await rounds(services, world, 1)
    await watched(services, watch())
    reprice(world, SERVER, 0.15)
    let_time_pass(services)
    current = await services.context.readings.look(completed=False)
    world.lose_the_keepers()
    await services.watch_runner.round(await services.context.readings.account(), current)
    (one,) = await listed(services)
    assert not world.sent() and "No process would end the order" in (one.held_up or "")


async def test_the_wallet_that_is_empty_is_said(world: World, services: Services) -> None:
    stock(world, SERVER, 0.15)
    world.post("/wallets", {"balances": {USD: 0.0}})
    services.context.readings.changed()
    await watched(services, watch())
    await rounds(services, world)
    (one,) = await listed(services)
    assert not world.sent() and "topping up" in (one.held_up or "")

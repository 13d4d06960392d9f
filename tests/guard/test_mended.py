"""What a hostile reader found: each of these spent, lost or promised something that it must not."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from typing import Any

import pytest

from clore_mcp.errors import NotFound, StateUnavailable
from clore_mcp.rental.desk import lease_end_is_enforced
from clore_mcp.services import Services
from clore_mcp.state import ledger
from clore_mcp.state.database import FILE_NAME
from tests.guard.conftest import Processes
from tests.guard.spots import limits_of, raised, rewrite, spot
from tests.guard.world import SHORT, USD, World, call, check_invariants, wish

pytestmark = pytest.mark.anyio
HOUR = 3600.0


# Read-only mode acts on nothing by itself


async def test_read_only_adopts_an_order_above_its_ceiling_and_leaves_the_cancel_to_who_may_act(
    world: World, process: Processes
) -> None:
    first = world.services()
    await first.keep_leases()
    world.options(required_price="ignored", visible_after=50_000)
    world.fault("price_moved", factor=1.5)
    ask = wish(world.free()[0])
    assert (await call(first, ask))["status"] == "uncertain"
    await first.aclose()
    world.advance(50_000)
    reader = world.services(CLORE_READ_ONLY="1")
    await reader.overview.orders(max_age_seconds=0)
    assert [row["state"] for row in world.intents()] == ["adopted"]
    assert not world.sent("cancel_order")
    [quote] = world.rows("SELECT outcome FROM quotes")
    assert "It still bills" in quote["outcome"]
    assert "cancelled at once" not in quote["outcome"]
    await reader.aclose()
    await process()  # its lease was over from the start
    await asyncio.to_thread(world.await_state, lambda: not world.active())
    check_invariants(world)


# A raised bid is held against wallet and watchdog


async def test_a_raise_that_the_wallet_does_not_cover_is_refused_before_the_question(
    world: World, services: Services
) -> None:
    order_id, bid = await spot(world, services, hours=20)
    world.post("/wallets", {"balances": {USD: bid * 20}})
    services.desk.readings.changed()  # as ten seconds would do
    outcome = await call(services, raised(order_id, bid, 3))
    assert outcome["status"] == "refused"
    assert limits_of(outcome) == ["wallet"]
    assert not world.sent("set_spot_price")
    assert (await call(services, raised(order_id, bid, 1.01), answer=False))["status"] == "refused"
    world.post("/wallets", {"balances": {USD: bid * 31}})
    services.desk.readings.changed()
    assert (await call(services, raised(order_id, bid)))["status"] == "updated", "what it costs now is not added"


async def test_a_wallet_that_empties_between_the_question_and_the_raise_stops_it(
    world: World, services: Services
) -> None:
    order_id, bid = await spot(world, services, hours=20)
    before = world.reserved()
    ask = raised(order_id, bid)
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    world.post("/wallets", {"balances": {USD: bid}})
    services.desk.readings.changed()
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
    assert (await call(kept, raised(order_id, bid), answer=None))["status"] == "updated"


async def test_a_raise_counted_to_the_end_of_a_lease_that_nobody_ends_any_more_is_not_sent(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id, bid = await spot(world, services)
    ask = raised(order_id, bid)
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    gather = services.appraiser.evidence

    async def and_lose_the_keeper(max_age_seconds: float = 10.0) -> Any:
        world.lose_the_keepers()
        return await gather(max_age_seconds)

    monkeypatch.setattr(services.appraiser, "evidence", and_lose_the_keeper)
    outcome = await services.guard.conclude(held, ask, answer=True, caller="t")
    assert limits_of(outcome) == ["watchdog"]
    assert not world.sent("set_spot_price")


# A state that was deleted while it was used


@pytest.mark.parametrize("background", ["quiet", "meets it first"])
async def test_nothing_is_spent_into_a_state_that_was_deleted(
    world: World, process: Processes, background: str
) -> None:
    services, ask = await process(), wish(world.free()[0])
    shutil.rmtree(world.state_dir)
    if background == "meets it first":
        await services.keeper.poll()
    with pytest.raises(StateUnavailable, match="deleted"):
        await call(services, ask)
    assert not world.sent()
    await services.keep_leases()
    assert (await call(services, ask))["status"] == "created", "a new state is begun"
    assert (world.state_dir / FILE_NAME).exists()
    other = await process()
    [seen] = (await other.overview.orders())["orders"]
    assert seen["made_here"], "other processes see its record"


async def test_a_yes_is_not_used_in_a_state_that_was_deleted_after_the_question(
    world: World, services: Services
) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    shutil.rmtree(world.state_dir)
    await services.keeper.poll()  # what works in the background meets it first
    with pytest.raises(StateUnavailable):
        await services.guard.conclude(held, ask, answer=True, caller="t")
    assert not world.sent()


# Work under way is not closed by another process


async def test_a_raise_that_was_approved_long_ago_is_not_settled_by_another_process_while_it_is_sent(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await process(env={"CLORE_APPROVAL": "outside"})
    server_id = world.free()[0]
    bid = round(world.price(server_id, "spot") * 2 / 24, 4)

    async def approve(ask: Any) -> str:
        quote_id: str = (await call(first, ask, can_ask=False))["approval_id"]
        await first.approvals.decide(await first.approvals.get(quote_id), yes=True, by="a person at a terminal")
        return quote_id

    rented = wish(server_id, order_type="spot", bid_usd_per_hour=bid)
    await approve(rented)
    order_id = (await call(first, rented, can_ask=False))["order_id"]
    ask = raised(order_id, bid)
    quote_id = await approve(ask)
    world.change("UPDATE quotes SET decided_at = decided_at - 600 WHERE id = ?", quote_id)
    send = first.desk.client.set_spot_price

    async def slowly(*told: Any, **more: Any) -> Any:
        other = await process()
        await other.overview.orders(max_age_seconds=0)
        return await send(*told, **more)

    monkeypatch.setattr(first.desk.client, "set_spot_price", slowly)
    assert (await call(first, ask, can_ask=False))["status"] == "updated"
    assert "orphaned" not in world.steps()


# Clocks that go back


async def test_evidence_from_the_future_decides_nothing(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id, bid = await spot(world, services)
    sent = len(world.sent())
    gather = services.appraiser.evidence

    async def ahead(max_age_seconds: float = 10.0) -> Any:
        found = await gather(max_age_seconds)
        return replace(found, wallets=replace(found.wallets, at=found.wallets.at + HOUR))

    monkeypatch.setattr(services.appraiser, "evidence", ahead)
    assert (await call(services, wish(world.free()[0])))["status"] == "failed"
    assert len(world.sent()) == sent
    outcome = await call(services, raised(order_id, bid))
    assert (outcome["status"], outcome["reason"]) == ("refused", "too_slow")
    assert not world.sent("set_spot_price")


async def test_a_heartbeat_from_the_future_is_no_sign_of_life(world: World) -> None:
    services = world.services()
    account = await services.desk.readings.account()

    async def enforced(ahead: float) -> bool:
        at = services.desk.clock() + ahead
        await services.desk.state.write(lambda tx: ledger.beat(tx, account, services.desk.owner, "its host", at))
        in_a_claim = await services.desk.state.read(lambda tx: lease_end_is_enforced(tx, services.desk, account))
        assert (await services.desk.enforced_by() is not None) is in_a_claim
        return in_a_claim

    assert await enforced(0)
    assert not await enforced(HOUR), "the clock went back, and nobody knows how old it is"
    await services.aclose()


# What Clore does not say about an order that it made


async def test_an_order_in_a_coin_that_nobody_knows_is_cancelled_at_once(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(services, monkeypatch, lambda row: row.model_copy(update={"currency": "USDT"}))
    outcome = await call(services, wish(world.free()[0]))
    assert outcome["status"] == "refused"
    assert "USDT" in outcome["next"]
    assert [order["end_reason"] for order in world.orders()] == ["cancelled"]


@pytest.mark.parametrize("factor", [1.0, 1.5])
async def test_a_price_that_clore_tells_later_is_waited_for_before_the_order_is_taken(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    untold = iter([True, True])
    rewrite(
        services,
        monkeypatch,
        lambda row: row.model_copy(update={"price": None}) if next(untold, False) else row,
    )
    world.options(required_price="ignored")
    world.fault("price_moved", factor=factor)
    outcome = await call(services, wish(world.free()[0]))
    assert outcome["status"] == ("created" if factor == 1.0 else "refused")
    assert len(world.active()) == (factor == 1.0)
    assert "price_unknown" not in world.steps()
    check_invariants(world)


async def test_an_order_whose_price_stays_unknown_is_taken_and_said(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(services, monkeypatch, lambda row: row.model_copy(update={"price": None}))
    outcome = await call(services, wish(world.free()[0]))
    assert outcome["status"] == "created"
    assert "does not tell this order's price" in outcome["next"]
    assert world.steps()[-2:] == ["created", "price_unknown"]
    check_invariants(world)


# What is quoted can be ordered


async def test_a_server_with_an_unsettled_create_is_quoted_as_not_allowed_also_as_a_fallback(
    world: World, services: Services
) -> None:
    server_id, other = world.free()[:2]
    world.fault("late_visible", seconds=50_000)
    assert (await call(services, wish(server_id)))["status"] == "uncertain"
    alone = await services.appraiser.appraise(wish(server_id, hours=3))
    assert alone.terms is None
    assert [(one.server_id, one.reason) for one in alone.unfit] == [(server_id, "unsettled")]
    assert "clore-mcp settle" in alone.unfit[0].message
    behind = await services.appraiser.appraise(wish(other, fallback_server_ids=[server_id]))
    assert behind.terms is not None
    assert [one.server_id for one in behind.terms.candidates] == [other]
    assert [(one.server_id, one.reason) for one in behind.unfit] == [(server_id, "unsettled")]
    before = len(world.sent())
    outcome = await call(services, wish(server_id, hours=3, fallback_server_ids=[other]))
    assert outcome["status"] == "refused", "never on to a fallback: the first may be running"
    assert len(world.sent()) == before


# Names of commands that reach this state


async def test_what_a_person_is_told_to_type_about_an_intent_reaches_this_state(services: Services) -> None:
    object.__setattr__(services.desk, "program", "clore-mcp --sandbox")
    with pytest.raises(NotFound) as caught:
        await services.settling.unsettled("i-nothing")
    assert "`clore-mcp --sandbox orders`" in caught.value.hint


async def test_a_state_deleted_while_a_create_is_looked_for_is_said_as_uncertain(
    world: World, services: Services
) -> None:
    world.fault("late_visible", seconds=50_000)
    renting = asyncio.ensure_future(call(services, wish(world.free()[0])))
    await asyncio.to_thread(world.await_request, "create_order", effect=True)
    await asyncio.to_thread(world.await_state, lambda: "answered" in world.steps())
    shutil.rmtree(world.state_dir)
    outcome = await renting
    assert outcome["status"] == "uncertain"
    assert len(world.sent()) == 1

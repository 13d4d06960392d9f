"""A moved end is new spending: asked about, held to the limits for what comes on top, and reserved in one step with it.
Nothing of it is sent to Clore."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import Any

import pytest

from clore_mcp.errors import NotFound, SpendingFrozen
from clore_mcp.rental.orders import stop
from clore_mcp.wiring import Services
from tests.guard.calls import call, cancel, rent, wish
from tests.guard.conftest import Processes
from tests.guard.extensions import at, end_of, hourly, iso_of, longer, look, ours, unmoved, worst
from tests.guard.invariants import check_invariants
from tests.guard.spots import WIDE, limits_of, rewrite, rich
from tests.world import USD, World

pytestmark = pytest.mark.anyio

# The yes


async def test_a_yes_moves_the_end_and_raises_what_is_reserved_by_what_comes_on_top(
    world: World, services: Services
) -> None:
    order_id = await ours(world, services)
    before, reserved = end_of(world, order_id), worst(world, order_id)
    sent = len(world.get("/requests")["requests"])
    held = await services.guard.hold(longer(order_id, 3), caller="tester", can_ask=True, replay=False)
    assert held.quote
    outcome = await services.guard.conclude(held, longer(order_id, 3), answer=True, caller="tester")
    assert before is not None
    assert outcome.status == "extended" and outcome.previous_ends_at and outcome.ends_at and outcome.reserved_usd
    assert at(outcome.previous_ends_at) == before
    assert at(outcome.ends_at) == end_of(world, order_id) == before + 3 * 3600
    assert worst(world, order_id) == pytest.approx(reserved + 3 * hourly(world, order_id), abs=0.01)
    assert outcome.reserved_usd >= worst(world, order_id)
    [view] = (await look(services)).orders
    assert view.ends_at == outcome.ends_at
    assert all(
        row["endpoint"] not in ("create_order", "set_spot_price", "cancel_order")
        for row in world.get("/requests")["requests"][sent:]
    ), "Clore knows no end of ours"
    assert world.steps().count("extended") == 1
    check_invariants(world)


async def test_the_question_says_both_ends_the_extra_cost_the_whole_cost_and_the_limits(
    world: World, services: Services
) -> None:
    order_id = await ours(world, services)
    before = end_of(world, order_id)
    held = await services.guard.hold(longer(order_id, 3), caller="tester", can_ask=True, replay=False)
    assert held.quote and before
    lines = held.quote.question.splitlines()
    assert lines[0].startswith(f"Extend order {order_id} by 3 hours, to {iso_of(before + 3 * 3600)}, for at most $")
    assert lines[0].endswith(f"It ends at {iso_of(before)} now.")
    assert f"End: cancelled and its data deleted at {iso_of(before + 3 * 3600)} by clore-mcp on " in held.quote.question
    assert f"Worst case then: ${Decimal(held.quote.terms['worst_usd']):.2f}"[:-1] in held.quote.question
    assert "if no one cancels: $" in held.quote.question
    assert " of $50.00 per order, $" in held.quote.question
    assert " of $100.00 per day, $" in held.quote.question


async def test_without_a_yes_nothing_moves(world: World, services: Services) -> None:
    order_id = await ours(world, services)
    before = unmoved(world, order_id)
    assert (await call(services, longer(order_id), answer=False)).status == "declined"
    waiting = await call(services, longer(order_id, 2), can_ask=False)
    assert waiting.status == "approval_required"
    assert f"approve {waiting.approval_id}" in waiting.next
    held = await services.guard.hold(longer(order_id, 4), caller="tester", can_ask=True, replay=False)
    world.change("UPDATE quotes SET expires_at = 1 WHERE state = 'pending'")
    late = await services.guard.conclude(held, longer(order_id, 4), answer=True, caller="tester")
    assert late.status == "failed"
    assert unmoved(world, order_id) == before
    check_invariants(world)


@pytest.mark.parametrize("mode", ["ask", "outside"])
async def test_a_yes_in_a_terminal_moves_the_end_for_the_same_call_once(
    world: World, process: Processes, mode: str
) -> None:
    services = await process(env={"CLORE_APPROVAL": mode})
    order_id = await _approved_rent(world, services)
    before = end_of(world, order_id)
    waiting = await call(services, longer(order_id), can_ask=False)
    quote = await services.approvals.get(waiting.approval_id)
    assert quote.question.startswith(f"Extend order {order_id} by 1 hour")
    assert await services.approvals.decide(quote, yes=True, by="ann at a terminal")
    outcomes = [await call(services, longer(order_id), can_ask=False) for _ in range(2)]
    assert before is not None
    assert [one.status for one in outcomes] == ["extended", "extended"]
    assert [one.repeated for one in outcomes] == [False, True]
    assert end_of(world, order_id) == before + 3600


async def _approved_rent(world: World, services: Services) -> int:
    ask = wish(world.free()[0])
    waiting = await call(services, ask, can_ask=False)
    assert await services.approvals.decide(
        await services.approvals.get(waiting.approval_id), yes=True, by="ann at a terminal"
    )
    return int((await call(services, ask, can_ask=False)).order_id)


async def test_within_the_limits_the_same_call_moves_the_end_once_in_ten_minutes(
    world: World, process: Processes
) -> None:
    services = await process(env={"CLORE_APPROVAL": "limits"})
    order_id = await ours(world, services)
    before = end_of(world, order_id) or 0
    first, again = [await call(services, longer(order_id)) for _ in range(2)]
    assert (first.status, again.status, again.repeated) == ("extended", "extended", True)
    assert "not moved again" in again.next
    assert end_of(world, order_id) == before + 3600
    world.change("UPDATE quotes SET decided_at = decided_at - 601")
    assert not (await call(services, longer(order_id))).repeated
    assert end_of(world, order_id) == before + 2 * 3600
    check_invariants(world)


async def test_two_processes_with_one_yes_move_the_end_once(world: World, process: Processes) -> None:
    one, two = await process(), await process()
    order_id = await ours(world, one)
    before = end_of(world, order_id) or 0
    outcomes = await asyncio.gather(*(call(each, longer(order_id)) for each in (one, two, one, two)))
    assert {outcome.status for outcome in outcomes} == {"extended"}
    assert end_of(world, order_id) == before + 3600
    assert world.steps().count("extended") == 1
    check_invariants(world)


async def test_a_second_yes_for_the_end_that_another_has_moved_meanwhile_moves_nothing(
    world: World, process: Processes
) -> None:
    one, two = await process(), await process()
    order_id = await ours(world, one)
    ask = longer(order_id, 2)
    held = await one.guard.hold(ask, caller="one", can_ask=True, replay=False)
    assert (await call(two, ask, caller="two")).status == "extended"
    moved = unmoved(world, order_id)
    late = await one.guard.conclude(held, ask, answer=True, caller="one")
    assert (late.status, late.reason) == ("refused", "end_moved")
    assert unmoved(world, order_id) == moved


async def test_a_replayed_answer_moves_the_end_once(world: World, services: Services) -> None:
    order_id = await ours(world, services)
    ask, before = longer(order_id), end_of(world, order_id) or 0
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    told = []
    for _ in range(3):
        told.append(await services.guard.conclude(held, ask, answer=True, caller="tester"))
        held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=True)
    assert [one.repeated for one in told] == [False, True, True]
    assert end_of(world, order_id) == before + 3600


# What stands against it


async def test_the_cap_of_an_order_counts_its_whole_life_and_the_day_what_comes_on_top(
    world: World, process: Processes
) -> None:
    first = await process(env=WIDE)
    rich(world)
    order_id = await ours(world, first)
    before, price, reserved = unmoved(world, order_id), hourly(world, order_id), worst(world, order_id)
    per_order = await process(env={**WIDE, "CLORE_MAX_USD_PER_ORDER": str(round(reserved + 2 * price, 4))})
    outcome = await call(per_order, longer(order_id, 2.5), answer=False)
    assert (outcome.status, limits_of(outcome)) == ("refused", ["usd_per_order"])
    assert float(outcome.refusals[0].needed) == pytest.approx(reserved + 2.5 * price, abs=0.01)
    assert f"Up to {outcome.most_hours:g} more hours fit" in outcome.next
    per_day = await process(env={**WIDE, "CLORE_MAX_USD_PER_DAY": str(round(reserved + 2 * price, 4))})
    outcome = await call(per_day, longer(order_id, 2.5), answer=False)
    assert limits_of(outcome) == ["usd_per_day"]
    assert float(outcome.refusals[0].needed) == pytest.approx(2.5 * price, abs=0.01)
    assert unmoved(world, order_id) == before
    assert (await call(per_day, longer(order_id, 1.5))).status == "extended", "what fits goes through"


async def test_a_cap_that_fills_between_the_question_and_the_yes_stops_it(world: World, process: Processes) -> None:
    services = await process(env=WIDE)
    rich(world)
    order_id = await ours(world, services)
    cap = worst(world, order_id) + 4 * hourly(world, order_id)
    capped = await process(env={**WIDE, "CLORE_MAX_USD_PER_DAY": str(round(cap, 4))})
    ask = longer(order_id, 3)
    held = await capped.guard.hold(ask, caller="t", can_ask=True, replay=False)
    assert held.quote
    await rent(services, world.free()[0], hours=cap)
    capped.context.readings.changed()
    before = unmoved(world, order_id)
    outcome = await capped.guard.conclude(held, ask, answer=True, caller="t")
    assert (outcome.status, limits_of(outcome)) == ("refused", ["usd_per_day"])
    assert unmoved(world, order_id) == before
    check_invariants(world)


async def test_a_wallet_that_lasts_to_the_old_end_only_stops_it(world: World, services: Services) -> None:
    order_id = await ours(world, services)
    before = unmoved(world, order_id)
    world.post("/wallets", {"balances": {USD: 3 * hourly(world, order_id)}})
    services.context.readings.changed()
    outcome = await call(services, longer(order_id, 2))
    assert limits_of(outcome) == ["wallet"]
    assert "topping up" in outcome.next
    assert unmoved(world, order_id) == before


async def test_an_end_beyond_the_hosts_longest_rental_is_refused_with_the_latest_possible(
    world: World, process: Processes
) -> None:
    services = await process(env=WIDE)
    rich(world)
    server_id = world.free()[0]
    world.post(f"/servers/{server_id}", {"mrl": 6})
    order_id = int((await rent(services, server_id)).order_id)
    before = unmoved(world, order_id)
    [row] = world.orders()
    outcome = await call(services, longer(order_id, 4.5), answer=False)
    assert (outcome.status, outcome.reason) == ("refused", "max_rental_hours")
    assert at(outcome.latest_ends_at) == row["ct"] + 6 * 3600
    assert outcome.most_hours == 4 and "up to 4 more hours are possible" in outcome.next
    assert unmoved(world, order_id) == before
    assert (await call(services, longer(order_id, 4))).status == "extended"
    none_left = await call(services, longer(order_id, 0.5), answer=False)
    assert none_left.most_hours == 0 and "no more hours are possible" in none_left.next
    check_invariants(world)


async def test_what_was_approved_does_not_cover_a_worst_case_that_grew(world: World, process: Processes) -> None:
    services = await process(env=WIDE)
    rich(world)
    order_id = await ours(world, services)
    before, ask = unmoved(world, order_id), longer(order_id)
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    world.lose_the_keepers()  # nobody is there to end it
    outcome = await services.guard.conclude(held, ask, answer=True, caller="t")
    assert (outcome.status, outcome.reason) == ("refused", "worst_case_grew")
    assert unmoved(world, order_id) == before


async def test_where_nobody_ends_it_the_host_s_longest_rental_is_counted(world: World, process: Processes) -> None:
    services = await process(env=WIDE)
    rich(world)
    order_id = await ours(world, services)
    world.lose_the_keepers()
    held = await services.guard.hold(longer(order_id), caller="t", can_ask=True, replay=False)
    assert held.quote
    assert "NOTHING ends it at " in held.quote.question
    [order] = world.orders()
    row = world.get(f"/servers/{order['server_id']}")["row"]
    outcome = await services.guard.conclude(held, longer(order_id), answer=True, caller="t")
    assert (outcome.status, outcome.enforced_by) == ("extended", "nobody")
    assert worst(world, order_id) >= hourly(world, order_id) * row["mrl"] * 0.99


@pytest.mark.parametrize("when", ["before the question", "after it"])
async def test_stopped_spending_moves_no_end_on(world: World, process: Processes, when: str) -> None:
    services = await process(env=WIDE)
    rich(world)
    order_id = await ours(world, services, hours=5)
    before, ask = unmoved(world, order_id), longer(order_id)

    async def freeze() -> None:
        await services.context.state.write(lambda tx: stop.freeze(tx, by="ann", now=time.time()))

    if when == "before the question":
        await freeze()
        with pytest.raises(SpendingFrozen):
            await call(services, ask)
    else:
        held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
        await freeze()
        late = await services.guard.conclude(held, ask, answer=True, caller="t")
        assert late.status == "failed", "the question is void"
    assert unmoved(world, order_id) == before


async def test_spending_that_stops_in_the_last_instant_moves_no_end(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = await ours(world, services)
    before, ask = unmoved(world, order_id), longer(order_id)
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    gather = services.pricer.evidence

    async def then_freeze(*told: Any) -> Any:
        found = await gather(*told)
        await services.context.state.write(lambda tx: stop.freeze(tx, by="ann", now=time.time()))
        return found

    monkeypatch.setattr(type(services.pricer), "evidence", lambda self, *told: then_freeze(*told))
    with pytest.raises(SpendingFrozen):
        await services.guard.conclude(held, ask, answer=True, caller="t")
    assert unmoved(world, order_id) == before


@pytest.mark.parametrize("when", ["before the question", "after it"])
async def test_nothing_moves_while_an_order_can_not_be_read(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    services = await process(env=WIDE)
    order_id = await ours(world, services)
    other = world.rent_elsewhere(world.free()[0])
    world.advance(5)
    before, ask = unmoved(world, order_id), longer(order_id)
    if when == "before the question":
        rewrite(services, monkeypatch, lambda row: None if row.id == other else row)
    services.context.readings.changed()
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    if when == "after it":
        rewrite(services, monkeypatch, lambda row: None if row.id == other else row)
    outcome = await services.guard.conclude(held, ask, answer=True, caller="t")
    assert (outcome.status, outcome.reason) == ("refused", "unreadable_orders")
    assert unmoved(world, order_id) == before


async def test_nothing_moves_while_nobody_says_what_an_order_costs(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = await process(env=WIDE)
    order_id = await ours(world, services)
    world.advance(5)
    rewrite(services, monkeypatch, lambda row: row.model_copy(update={"price": None}))
    before = unmoved(world, order_id)
    outcome = await call(services, longer(order_id))
    assert (outcome.status, outcome.reason) == ("refused", "unknown_rate")
    assert unmoved(world, order_id) == before


async def test_evidence_that_has_grown_old_moves_nothing_and_keeps_the_yes(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = await process()
    order_id = await ours(world, services)
    before, ask = end_of(world, order_id) or 0, longer(order_id)
    waiting = await call(services, ask, can_ask=False)
    quote = await services.approvals.get(waiting.approval_id)
    assert await services.approvals.decide(quote, yes=True, by="ann at a terminal")
    with monkeypatch.context() as patch:
        patch.setattr("clore_mcp.rental.rules.check.EXECUTION_AGE", -1.0)
        slow = await call(services, ask, can_ask=False)
    assert (slow.status, slow.reason, end_of(world, order_id)) == ("refused", "too_slow", before)
    assert (await call(services, ask, can_ask=False)).status == "extended"


# Ended, ending, unknown


async def test_an_order_that_has_ended_is_refused_with_what_to_do(world: World, services: Services) -> None:
    order_id = await ours(world, services)
    assert (await cancel(services, order_id)).status == "cancelled"
    outcome = await call(services, longer(order_id))
    assert (outcome.status, outcome.reason) == ("refused", "ended")
    assert "create_order" in outcome.next
    with pytest.raises(NotFound):
        await call(services, longer(424_242))


@pytest.mark.parametrize("when", ["before the question", "after it"])
async def test_an_order_that_is_being_ended_is_not_extended(world: World, services: Services, when: str) -> None:
    order_id = await ours(world, services, hours=5)
    ask = longer(order_id)
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False) if when == "after it" else None
    world.fault("cancel_ignored", times=99)
    assert (await cancel(services, order_id)).status == "unverified"
    before = unmoved(world, order_id)
    held = held or await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    outcome = await services.guard.conclude(held, ask, answer=True, caller="t")
    assert outcome.status == "refused"
    assert outcome.reason == ("ending" if when == "before the question" else "end_moved")
    assert unmoved(world, order_id) == before
    check_invariants(world)


async def test_an_order_whose_lease_is_over_is_not_extended(world: World, process: Processes) -> None:
    services = await process(env={"CLORE_WATCHDOG": "off"})
    order_id = await ours(world, services)
    world.advance(2 * 3600 + 60)
    services.context.readings.changed()
    outcome = await call(services, longer(order_id))
    assert (outcome.status, outcome.reason) == ("refused", "ending")
    check_invariants(world)


async def test_an_untold_extension_of_an_order_that_has_ended_since_is_not_told_as_running(
    world: World, services: Services
) -> None:
    order_id = await ours(world, services)
    ask = longer(order_id)
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    assert (await services.guard.conclude(held, ask, answer=True, caller="tester")).status == "extended"
    assert (await cancel(services, order_id)).status == "cancelled"
    replayed = await services.guard.conclude(
        await services.guard.hold(ask, caller="tester", can_ask=True, replay=True), ask, answer=True, caller="tester"
    )
    assert "has ended since this call moved its end" in replayed.next

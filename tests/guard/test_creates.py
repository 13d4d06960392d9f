"""A create under every fault: sent once, settled by looking, and the rows say what the person may pay for."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, cast

import pytest

from clore_mcp.errors import NotJson
from clore_mcp.rental.create.send import Send
from clore_mcp.rental.results import Attempt, Outcome
from clore_mcp.wiring import Services
from tests.guard.calls import call, let_time_pass, patient, rent, wish
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.world import IMAGE, World

pytestmark = pytest.mark.anyio

OUTCOMES = [
    ("lost_reply", {}, "created"),
    ("code1_before", {}, "failed"),
    ("code1_after", {}, "created"),
    ("http502", {}, "failed"),
    ("http502_after", {}, "created"),
    ("garbage", {}, "created"),
    ("truncate", {}, "created"),
    ("hang_before", {"seconds": 0.4}, "failed"),
    ("hang_after", {"seconds": 0.4}, "created"),
    ("late_effect", {"seconds": 0.4}, "created"),
    ("reset", {}, "failed"),
    ("already_rented", {}, "refused"),
    ("offline", {}, "refused"),
    ("not_enough_balance", {}, "refused"),
    ("never_deploys", {}, "created"),
]


@pytest.mark.parametrize(("kind", "more", "status"), OUTCOMES, ids=[row[0] for row in OUTCOMES])
async def test_a_faulty_create_is_sent_once_and_settled_by_looking(
    world: World, services: Services, kind: str, more: dict[str, Any], status: str
) -> None:
    server_id = world.free()[0]
    world.fault(kind, "create_order", **more)
    outcome = await call(services, wish(server_id))
    assert outcome.status == status, outcome
    assert len(world.sent()) == 1
    assert len(world.active()) == (status == "created")
    assert len(world.reserved()) == (status == "created")
    check_invariants(world)
    again = await call(services, wish(server_id))
    assert again.status == "created", again
    assert len(world.active()) == 1, "the same call afterwards leads to one order, never two"
    check_invariants(world)


MOVES = [
    ("equal", 1.1, "failed"),
    ("ceiling", 1.1, "failed"),
    ("code1", 1.1, "failed"),
    ("ignored", 1.1, "refused"),
    ("equal", 0.9, "failed"),
    ("ceiling", 0.9, "created"),
    ("ignored", 0.9, "created"),
]


@pytest.mark.parametrize(("mode", "factor", "status"), MOVES)
async def test_a_price_that_moves_at_the_last_instant_is_never_paid_above_the_approval(
    world: World, services: Services, mode: str, factor: float, status: str
) -> None:
    server_id = world.free()[0]
    approved = world.price(server_id)
    world.options(required_price=mode)
    world.fault("price_moved", factor=factor)
    outcome = await call(services, wish(server_id))
    assert outcome.status == status, outcome
    assert all(order["price"] <= approved for order in world.active())
    check_invariants(world)
    if mode == "ignored" and factor > 1:
        assert [order["end_reason"] for order in world.orders()] == ["cancelled"]
        assert outcome.receipt.total_usd >= 0
        assert not world.reserved(), "the reservation was replaced by what it cost"


async def test_an_order_above_its_ceiling_whose_cancel_is_ignored_is_ended_by_the_keeper(
    world: World, services: Services
) -> None:
    server_id = world.free()[0]
    world.options(required_price="ignored")
    world.fault("price_moved", factor=1.5)
    world.fault("cancel_ignored", times=99)
    outcome = await call(services, wish(server_id))
    assert outcome.status == "refused"
    assert "unverified" in outcome.next
    assert len(world.reserved()) == 1, "until it is proven gone its cost stays reserved"
    again = await call(services, wish(server_id))
    assert (again.status, again.order_id, again.repeated) == ("refused", outcome.order_id, True)
    assert len(world.sent()) == 1, "it is no second wish while the order runs"
    world.mend()
    await services.keeper.poll()
    assert not world.active()
    assert not world.reserved()
    check_invariants(world)


async def test_an_acknowledged_order_that_does_not_show_is_uncertain_and_adopted_when_it_does(
    world: World, services: Services
) -> None:
    server_id, other = world.free()[:2]
    world.fault("late_visible", seconds=50_000)
    outcome = await call(services, wish(server_id))
    assert outcome.status == "uncertain"
    check_invariants(world, settled=False)
    assert len(world.reserved()) == 1
    listed = await services.overview.orders(max_age_seconds=0)
    assert [one.server_id for one in listed.unsettled] == [server_id]
    same = await call(services, wish(server_id))
    assert (same.status, same.repeated) == ("uncertain", True)
    blocked = await call(services, wish(server_id, hours=3))
    assert blocked.status == "refused"
    assert (await call(services, wish(other))).status == "created", "only that server is blocked"
    assert len(world.sent()) == 2
    world.advance(50_000)
    await services.overview.orders(max_age_seconds=0)
    assert [row["state"] for row in world.intents()] == ["adopted", "adopted"]
    quote = world.rows("SELECT outcome FROM quotes ORDER BY created_at LIMIT 1")[0]
    assert '"status": "created"' in quote["outcome"]
    assert "late_order_adopted" in world.steps()
    check_invariants(world)


async def test_an_uncertain_order_is_found_by_the_keeper_even_when_nothing_else_runs(
    world: World, services: Services
) -> None:
    world.fault("late_visible", seconds=50_000)
    assert (await call(services, wish(world.free()[0]))).status == "uncertain"
    world.advance(50_000)
    await services.keeper.poll()
    assert [row["state"] for row in world.intents()] == ["adopted"]
    check_invariants(world)


async def test_an_uncertain_order_is_still_looked_for_after_two_days(world: World, services: Services) -> None:
    world.fault("late_visible", seconds=50_000)
    assert (await call(services, wish(world.free()[0]))).status == "uncertain"
    world.change("UPDATE intents SET created_at = created_at - 172800")
    world.advance(50_000)
    await services.overview.orders(max_age_seconds=0)
    assert [row["state"] for row in world.intents()] == ["adopted"]


async def test_a_failed_create_whose_order_shows_up_late_gets_its_lease_and_reservation_back(
    world: World, services: Services
) -> None:
    server_id = world.free()[0]
    world.fault("late_visible", seconds=50_000)
    held = await services.guard.hold(wish(server_id), caller="tester", can_ask=True, replay=False)
    outcome = await services.guard.conclude(held, wish(server_id), answer=True, caller="tester")
    assert outcome.status == "uncertain"
    # What a process leaves behind that never read Clore's code 0.
    world.change("UPDATE intents SET state = 'failed', acknowledged = 0")
    world.change("UPDATE reservations SET released_at = 1, actual_micros = 0")
    world.advance(50_000)
    await services.overview.orders(max_age_seconds=0)
    assert world.steps()[-1] == "late_order_adopted"
    assert len(world.reserved()) == 1
    check_invariants(world)


async def test_an_order_made_by_hand_long_after_a_failed_create_is_not_taken_for_its_own(
    world: World, services: Services
) -> None:
    server_id = world.free()[0]
    world.fault("code1_before", "create_order")
    assert (await call(services, wish(server_id))).status == "failed"
    world.advance(2 * 3600)
    by_hand = world.rent_elsewhere(server_id, image=IMAGE)
    await services.overview.orders(max_age_seconds=0)
    assert [row["state"] for row in world.intents()] == ["failed"]
    assert by_hand not in {row["order_id"] for row in world.rows("SELECT order_id FROM orders")}
    check_invariants(world)


async def test_a_create_whose_process_was_held_up_is_abandoned_and_adopts_nothing(
    world: World, process: Processes
) -> None:
    services = await process(patient(send_within=0.0))  # its time to send is over as soon as it is claimed
    server_id = world.free()[0]
    assert (await call(services, wish(server_id))).status == "failed"
    assert not world.sent()
    world.rent_elsewhere(server_id, image=IMAGE)
    await services.overview.orders(max_age_seconds=0)
    assert [row["state"] for row in world.intents()] == ["abandoned"]
    check_invariants(world)


async def test_an_order_is_never_taken_by_an_older_failed_create_of_the_same_server(
    world: World, process: Processes
) -> None:
    first, second = await process(), await process()
    server_id = world.free()[0]
    world.fault("code1_before", "create_order")
    assert (await call(first, wish(server_id))).status == "failed"
    world.fault("hang_after", "create_order", seconds=3.0)
    renting = asyncio.ensure_future(call(first, wish(server_id, hours=3)))
    await asyncio.to_thread(world.await_request, "create_order", effect=True)
    world.advance(10)
    await second.overview.orders(max_age_seconds=0)
    assert [row["state"] for row in world.intents()] == ["failed", "sending"], "not the failed one's"
    assert (await renting).status == "created"
    assert [row["state"] for row in world.intents()] == ["failed", "adopted"]
    check_invariants(world)


async def test_a_look_that_can_see_nothing_ends_uncertain_and_a_later_one_adopts(
    world: World, services: Services
) -> None:
    server_id = world.free()[0]
    world.fault("hang_after", "create_order", seconds=0.5)
    renting = asyncio.ensure_future(call(services, wish(server_id)))
    await asyncio.to_thread(world.await_request, "create_order", effect=True)
    world.fault("http502", "my_orders", times=1000)
    outcome = await renting
    assert outcome.status == "uncertain"
    check_invariants(world, settled=False)
    world.mend()
    again = await call(services, wish(server_id))
    assert (again.status, again.repeated) == ("created", True)
    check_invariants(world)


async def test_an_outage_without_an_answer_never_counts_as_failed(world: World, services: Services) -> None:
    world.fault("hang_before", "create_order", seconds=0.5)
    renting = asyncio.ensure_future(call(services, wish(world.free()[0])))
    await asyncio.to_thread(world.await_request, "create_order")
    world.fault("http502", "my_orders", times=1000)
    assert (await renting).status == "uncertain", "no valid reply: nobody can say that there is none"
    assert len(world.reserved()) == 1
    check_invariants(world, settled=False)


async def waiting_create(
    world: World, services: Services, server_id: int, seconds: float = 1.0
) -> asyncio.Future[Outcome]:
    """Begin a create that Clore refuses as too early, and that waits these seconds before it is sent again."""
    ask = wish(server_id)
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    world.options(rate_limit="arrival", interval=0.0, create_interval=seconds, retry_after=True)
    world.take_create_slot()
    renting = asyncio.ensure_future(services.guard.conclude(held, ask, answer=True, caller="t"))
    await asyncio.to_thread(world.await_request, "create_order", beyond=1)
    return renting


async def test_a_rate_limited_create_is_sent_again_after_the_pause(world: World, services: Services) -> None:
    server_id = world.free()[0]
    held = await services.guard.hold(wish(server_id), caller="t", can_ask=True, replay=False)
    world.options(rate_limit="arrival", interval=0.0, create_interval=1.0, retry_after=True)
    world.take_create_slot()
    outcome = await services.guard.conclude(held, wish(server_id), answer=True, caller="t")
    assert outcome.status == "created"
    assert [row["code"] for row in world.sent()] == [2, 5, 0]
    check_invariants(world)


async def test_a_rate_limited_create_is_sent_three_times_at_most(world: World, services: Services) -> None:
    server_id = world.free()[0]
    held = await services.guard.hold(wish(server_id), caller="t", can_ask=True, replay=False)
    world.options(rate_limit="arrival", interval=0.0, create_interval=60.0)
    world.take_create_slot()
    outcome = await services.guard.conclude(held, wish(server_id), answer=True, caller="t")
    assert outcome.status == "failed"
    assert [row["code"] for row in world.sent()] == [2, 5, 5, 5]
    assert not world.reserved()
    check_invariants(world)


async def test_a_price_that_rises_while_a_rate_limited_create_waits_stops_it(world: World, process: Processes) -> None:
    services = await process()
    server_id = world.free()[0]
    renting = await waiting_create(world, services, server_id)
    world.post(f"/servers/{server_id}", {"price_factor": 1.2})
    let_time_pass(services)
    outcome = await renting
    assert outcome.status == "refused"
    assert "price_moved" in outcome.attempts[0].outcome
    assert [row["code"] for row in world.sent()] == [2, 5]
    check_invariants(world)


FALLBACKS = [
    ("already_rented", "server-already-rented"),
    ("offline", "server-offline"),
]


@pytest.mark.parametrize(("kind", "word"), FALLBACKS)
async def test_a_definite_refusal_goes_on_to_the_next_server(
    world: World, services: Services, kind: str, word: str
) -> None:
    first, second = world.free()[:2]
    world.fault(kind)
    outcome = await call(services, wish(first, fallback_server_ids=[second]))
    assert (outcome.status, outcome.server_id) == ("created", second)
    assert outcome.attempts == (Attempt(first, word), Attempt(second, "created"))
    check_invariants(world)


@pytest.mark.parametrize("kind", ["code1_before", "http502", "reset", "hang_before"])
async def test_an_unclear_answer_never_goes_on_to_the_next_server(world: World, services: Services, kind: str) -> None:
    first, second = world.free()[:2]
    world.fault(kind, "create_order", seconds=0.2)
    outcome = await call(services, wish(first, fallback_server_ids=[second]))
    assert outcome.status == "failed"
    assert len(world.sent()) == 1
    check_invariants(world)


async def test_an_empty_wallet_at_clore_ends_the_chain(world: World, services: Services) -> None:
    first, second = world.free()[:2]
    world.fault("not_enough_balance")
    outcome = await call(services, wish(first, fallback_server_ids=[second]))
    assert outcome.status == "refused"
    assert outcome.attempts == (Attempt(first, "not_enough_balance"),)
    assert len(world.sent()) == 1
    check_invariants(world)


async def test_a_lost_connection_to_clore_before_the_create_leaves_the_yes_unused(
    world: World, services: Services
) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="t", can_ask=False, replay=False)
    assert held.quote is not None
    await services.approvals.decide(held.quote, yes=True, by="a person at a terminal")
    world.fault("outage", seconds=60)
    services.context.readings.changed()
    with pytest.raises(Exception, match="Clore"):
        await services.guard.conclude(held, ask, answer=None, caller="t")
    world.mend()
    outcome = await call(services, ask, can_ask=False, caller="t")
    assert outcome.status == "created", "the yes waited"
    check_invariants(world)


async def test_a_spot_bid_is_reserved_at_its_ceiling_to_the_end_of_its_lease(world: World, services: Services) -> None:
    server_id = world.free()[0]
    bid = round(world.price(server_id, "spot") * 1.5 / 24, 4)
    outcome = await rent(services, server_id, order_type="spot", bid_usd_per_hour=bid)
    [held] = world.reserved()
    assert held["hourly_micros"] == round(bid * 10**6), "the whole approved bid counts, not what it was cut to"
    assert held["worst_micros"] >= bid * 2 * 10**6
    [order] = world.active()
    assert order["price"] / 24 * 1.0125 <= bid
    assert outcome.usd_per_hour <= bid
    check_invariants(world)


async def test_an_answer_that_takes_long_is_in_progress_and_the_same_call_gets_the_outcome(
    world: World, process: Processes
) -> None:
    services = await process(patient(answer=0.5))
    ask = wish(world.free()[0])
    world.fault("hang_after", "create_order", seconds=1.2)
    assert (await call(services, ask)).status == "in_progress"
    again = await call(services, ask)
    while again.status == "in_progress":
        again = await call(services, ask)
    assert again.status == "created"
    assert again.repeated
    assert len(world.sent()) == 1
    check_invariants(world)


async def test_a_create_that_waits_is_not_abandoned_by_its_own_process(world: World, process: Processes) -> None:
    services = await process(patient(send_within=0.3, orphan=0.1))
    renting = await waiting_create(world, services, world.free()[0], seconds=5.0)
    await asyncio.sleep(0.8)
    assert [row["state"] for row in world.intents()] == ["reserved"]
    await services.overview.orders(max_age_seconds=0)
    assert (await renting).status == "created"
    check_invariants(world)


async def test_a_create_that_waits_is_not_sent_once_its_quote_is_settled(world: World, services: Services) -> None:
    renting = await waiting_create(world, services, world.free()[0])
    told = '{"status": "failed", "attempts": [], "next": "given up by another process"}'
    world.change("UPDATE quotes SET state = 'settled', outcome = ?", told)
    assert (await renting).status == "failed"
    assert [row["code"] for row in world.sent()] == [2, 5]
    check_invariants(world)


async def test_another_process_leaves_a_create_alone_while_its_owner_looks(world: World, process: Processes) -> None:
    brief = patient(look=60.0)
    first, second = await process(brief), await process(brief)
    world.fault("late_visible", seconds=50_000)
    renting = asyncio.ensure_future(call(first, wish(world.free()[0])))
    await asyncio.to_thread(world.await_request, "create_order", effect=True)
    await asyncio.to_thread(world.await_state, lambda: "answered" in world.steps())
    world.change("UPDATE intents SET not_after = not_after - 10")  # ten seconds later: its time to send is long over
    await second.overview.orders(max_age_seconds=0)
    assert [row["state"] for row in world.intents()] == ["sending"], "nobody else gives it up"
    world.advance(50_000)
    assert (await renting).status == "created"
    check_invariants(world)


async def test_a_market_that_can_not_be_read_after_the_first_attempt_ends_the_chain_and_uses_the_yes(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = world.free()[:2]
    world.fault("already_rented")
    gather, readings = services.pricer.evidence, itertools.count(1)

    async def evidence(max_age_seconds: float = 10.0) -> Any:
        if next(readings) == 3:  # for the question, the first attempt, the second
            raise NotJson("The market's reply is not Clore's.")
        return await gather(max_age_seconds)

    monkeypatch.setattr(services.pricer, "evidence", evidence)
    outcome = await call(services, wish(first, fallback_server_ids=[other]))
    assert outcome.status == "failed", outcome
    assert outcome.attempts == (Attempt(first, "server-already-rented"), Attempt(other, "not_sent"))
    assert "Nothing was sent." in outcome.next
    assert len(world.sent()) == 1
    assert [row["state"] for row in world.rows("SELECT state FROM quotes")] == ["settled"]
    assert not world.reserved()
    check_invariants(world)


async def test_no_reply_counts_for_a_create_whose_send_was_not_claimed(services: Services) -> None:
    nothing = cast("Any", None)
    send = Send(services.context, nothing, wish(1), nothing, nothing, "approved", "a person")
    with pytest.raises(RuntimeError, match="without its claim"):
        _ = send.claimed


async def test_a_create_that_gets_its_turn_too_late_is_not_sent(world: World, process: Processes) -> None:
    services = await process(patient(leave_within=0.0))
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "failed"
    assert "too long to get a turn" in outcome.next
    assert not world.sent() and not world.intents()
    assert [row["state"] for row in world.rows("SELECT state FROM quotes")] == ["pending"], "the yes was not used"
    check_invariants(world)


async def test_a_create_that_waits_is_not_sent_once_another_process_has_given_it_up(
    world: World, services: Services
) -> None:
    renting = await waiting_create(world, services, world.free()[0])
    await asyncio.to_thread(world.await_state, lambda: [row["state"] for row in world.intents()] == ["reserved"])
    world.change("UPDATE intents SET state = 'abandoned'")
    world.change("UPDATE reservations SET released_at = 1, actual_micros = 0")
    outcome = await renting
    assert outcome.status == "failed", outcome
    assert "too long to get a turn" in outcome.next
    assert [row["code"] for row in world.sent()] == [2, 5]
    assert not world.active()
    check_invariants(world)

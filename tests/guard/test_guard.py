"""The yes: one for each order, never used twice, never found where none was given."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from clore_mcp.errors import Failure, NotFound, NotJson, StateUnavailable
from clore_mcp.rental import results
from clore_mcp.rental.approvals import OF_A_CALLER, QUOTE_SECONDS, Approvals
from clore_mcp.rental.context import settle_quote
from clore_mcp.rental.guard import HeldQuote
from clore_mcp.rental.reply import QuestionReply, ReplyKind
from clore_mcp.rental.requests import CancelOrder, Request, SetSpotPrice
from clore_mcp.rental.results import Outcome, Status
from clore_mcp.store.database import Database
from clore_mcp.store.intents import Intent
from clore_mcp.tools.order_answers import BidAnswer, CancelAnswer, CreateAnswer
from clore_mcp.wiring import Services
from tests.guard.calls import call, cancel, let_time_pass, patient, rent, wish
from tests.guard.conftest import LocalTime, Processes
from tests.guard.invariants import check_invariants
from tests.world import World

pytestmark = pytest.mark.anyio


async def test_four_equal_calls_at_once_make_one_order(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    told = await asyncio.gather(*(call(services, ask) for _ in range(4)))
    assert {one.status for one in told} == {"created"}
    assert len({one.order_id for one in told}) == 1
    assert len(world.sent()) == 1
    check_invariants(world)


async def test_two_processes_with_the_same_call_make_one_order(world: World, process: Processes) -> None:
    first, second = await process(), await process()
    ask = wish(world.free()[0])
    told = await asyncio.gather(*(call(one, ask) for one in (first, second, first, second)))
    assert {one.status for one in told} == {"created"}
    assert len({one.order_id for one in told}) == 1
    assert len(world.sent()) == 1
    check_invariants(world)


async def test_the_same_call_again_is_the_order_that_runs(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    first = await call(services, ask)
    again = await call(services, ask, answer=False)
    assert (again.order_id, again.repeated) == (first.order_id, True), "nobody was asked"
    await cancel(services, first.order_id)
    assert (await call(services, ask, answer=False)).status == "declined", "a new wish is a new question"
    check_invariants(world)


@pytest.mark.parametrize("answer", [False, None])
async def test_without_a_yes_nothing_is_sent(world: World, services: Services, answer: bool | None) -> None:
    outcome = await call(services, wish(world.free()[0]), answer=answer)
    assert outcome.status == ("declined" if answer is False else "approval_required")
    assert not world.sent()
    assert not world.intents()


async def test_an_answer_after_the_quote_has_expired_spends_nothing(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    world.change("UPDATE quotes SET expires_at = 1")
    outcome = await services.guard.conclude(held, ask, answer=True, caller="t")
    assert outcome.status == "failed"
    assert "expired" in outcome.next
    assert [row["state"] for row in world.rows("SELECT state FROM quotes")] == ["expired"]
    assert not world.sent()


async def test_a_quote_that_expires_between_the_yes_and_the_claim_spends_nothing(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = wish(world.free()[0])
    gather = services.pricer.evidence

    async def slow(max_age_seconds: float = 10.0) -> Any:
        if max_age_seconds <= 10:
            world.change("UPDATE quotes SET expires_at = 1")
        return await gather(max_age_seconds)

    monkeypatch.setattr(services.pricer, "evidence", slow)
    outcome = await call(services, ask)
    assert outcome.status == "failed"
    assert "expired" in outcome.next
    assert not world.sent()


async def test_a_price_that_rises_after_the_question_is_refused_and_nothing_is_sent(
    world: World, process: Processes
) -> None:
    asking, later = await process(), await process()
    server_id = world.free()[0]
    held = await asking.guard.hold(wish(server_id), caller="t", can_ask=True, replay=False)
    world.post(f"/servers/{server_id}", {"price_factor": 1.05})
    let_time_pass(later)
    outcome = await later.guard.conclude(held, wish(server_id), answer=True, caller="t")
    assert outcome.status == "refused"
    assert "price_moved" in outcome.attempts[0].outcome
    assert not world.sent()
    await later.guard.told(held, outcome)
    new = await later.guard.hold(wish(server_id), caller="t", can_ask=True, replay=False)
    assert held.quote
    assert new.quote
    assert new.quote.id != held.quote.id, "the next question has the new price"


async def test_a_fee_that_rises_after_the_question_is_refused(world: World, process: Processes) -> None:
    asking, later = await process(), await process()
    ask = wish(world.free()[0])
    held = await asking.guard.hold(ask, caller="t", can_ask=True, replay=False)
    world.options(fee_on_demand=9.0)
    outcome = await later.guard.conclude(held, ask, answer=True, caller="t")
    assert outcome.status == "refused"
    assert not world.sent()


async def test_evidence_older_than_ten_seconds_decides_nothing(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather = services.pricer.evidence

    async def old(max_age_seconds: float = 10.0) -> Any:
        found = await gather(max_age_seconds)
        return replace(found, wallets=replace(found.wallets, at=found.wallets.at - 10.5))

    monkeypatch.setattr(services.pricer, "evidence", old)
    outcome = await call(services, wish(world.free()[0]))
    assert outcome.status == "failed"
    assert "slowly" in outcome.next
    assert not world.sent()
    assert not world.intents()


async def test_a_market_that_cannot_be_read_again_decides_nothing(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    world.fault("http502", "marketplace", times=100)
    snapshot = services.market._held
    assert snapshot is not None
    services.market._held = replace(snapshot, fetched_at=snapshot.fetched_at - 11)
    services.marketplace.forget()
    with pytest.raises(Failure):
        await services.guard.conclude(held, ask, answer=True, caller="t")
    assert not world.sent()


async def test_a_key_that_cannot_be_made_is_said_before_the_yes_is_used(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)

    def broken() -> Any:
        raise StateUnavailable("The SSH key can't be made.")

    whole = services.context.ssh_key
    object.__setattr__(services.context, "ssh_key", broken)
    with pytest.raises(StateUnavailable):
        await services.guard.conclude(held, ask, answer=True, caller="t")
    assert [row["state"] for row in world.rows("SELECT state FROM quotes")] == ["pending"]
    assert not world.sent()
    object.__setattr__(services.context, "ssh_key", whole)
    assert (await call(services, ask, caller="t")).status == "created"
    check_invariants(world)


async def test_a_state_that_breaks_after_the_send_is_said_as_uncertain_and_settled_later(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = await process(patient(answer=0.5))
    ask = wish(world.free()[0])

    async def full(*_: Any, **__: Any) -> Any:
        raise StateUnavailable("The disk is full.")

    whole = type(services.settler).settle
    monkeypatch.setattr(type(services.settler), "settle", full)
    outcome = await call(services, ask)
    assert outcome.status == "uncertain"
    monkeypatch.setattr(type(services.settler), "settle", whole)
    check_invariants(world, settled=False)
    again = await call(services, ask)
    while again.status == "in_progress":
        await asyncio.sleep(0.2)
        services.context.readings.changed()
        again = await call(services, ask)
    assert again.status == "created"
    assert len(world.sent()) == 1
    check_invariants(world)


async def test_a_no_takes_back_an_unused_yes(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    assert held.quote
    await services.approvals.decide(held.quote, yes=True, by="a person at a terminal")
    outcome = await services.guard.conclude(held, ask, answer=False, caller="t")
    assert outcome.status == "declined"
    assert not world.sent()
    lost = await call(services, ask, can_ask=False, caller="t")
    assert lost.status == "declined", "a no that nobody was told is told once"
    later = await call(services, ask, can_ask=False, caller="t")
    assert later.status == "approval_required", "then it is a new wish"


async def test_a_no_that_comes_too_late_is_not_told_as_declined(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    world.fault("hang_after", "create_order", seconds=0.5)
    renting = asyncio.ensure_future(services.guard.conclude(held, ask, answer=True, caller="t"))
    await asyncio.to_thread(world.await_request, "create_order")
    late = await services.guard.conclude(held, ask, answer=False, caller="t")
    assert late.status == "created"
    assert (await renting).status == "created"


async def test_a_yes_outside_the_chat_serves_one_call_of_that_caller(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    waiting = await call(services, ask, can_ask=False, caller="a")
    assert waiting.status == "approval_required"
    assert (await call(services, ask, can_ask=False, caller="a")).approval_id == waiting.approval_id
    quote = await services.approvals.get(waiting.approval_id)
    assert await services.approvals.decide(quote, yes=True, by="a person at a terminal")
    other = await call(services, ask, can_ask=False, caller="b")
    assert other.status == "approval_required"
    told = await asyncio.gather(*(call(services, ask, can_ask=False, caller="a") for _ in range(4)))
    assert {one.status for one in told} == {"created"}
    assert len(world.sent()) == 1
    check_invariants(world)


async def test_after_three_declines_spending_is_declined_unasked_and_cancelling_still_works(
    world: World, services: Services
) -> None:
    servers = world.free()
    order_id = (await rent(services, servers[0])).order_id
    waiting = wish(servers[5])
    await services.guard.hold(waiting, caller="tester", can_ask=True, replay=False)
    for server_id in servers[1:4]:
        assert (await call(services, wish(server_id), answer=False)).status == "declined"
    for ask in (wish(servers[4]), waiting):
        held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
        assert held.quote is None
        assert held.outcome
        assert held.outcome.status == "declined"
        assert "CLORE_APPROVAL=outside" in held.outcome.next
    assert (await cancel(services, order_id)).status == "cancelled"
    world.change("UPDATE quotes SET decided_at = decided_at - 601 WHERE state = 'declined'")
    assert (await call(services, wish(servers[4]))).status == "created"
    check_invariants(world)


async def test_declined_cancels_do_not_stop_spending(world: World, services: Services) -> None:
    servers = world.free()
    order_id = (await rent(services, servers[0])).order_id
    for _ in range(3):
        assert (await cancel(services, order_id, answer=False)).status == "declined"
    assert (await call(services, wish(servers[1]))).status == "created"


async def test_a_lost_outcome_is_told_again_and_a_told_one_is_not(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    world.fault("offline")
    outcome = await services.guard.conclude(held, ask, answer=True, caller="t")
    assert outcome.status == "refused"
    again = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    assert held.quote
    assert again.quote
    assert again.quote.id == held.quote.id, "nobody was told"
    told = await services.guard.conclude(again, ask, answer=None, caller="t")
    assert told.repeated
    await services.guard.told(again, told)
    new = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    assert new.quote
    assert new.quote.id != held.quote.id


async def test_being_told_that_it_is_in_progress_is_not_being_told(world: World, process: Processes) -> None:
    services = await process(patient(answer=0.3))
    ask = wish(world.free()[0])
    world.fault("hang_before", "create_order", seconds=0.8)
    assert (await call(services, ask)).status == "in_progress"
    outcome = await call(services, ask)
    while outcome.status == "in_progress":
        outcome = await call(services, ask)
    assert (outcome.status, outcome.repeated) == ("failed", True)
    assert len(world.sent()) == 1


async def test_a_spot_bid_is_raised_with_a_yes_and_lowered_without_one(world: World, services: Services) -> None:
    server_id = world.free()[0]
    bid = round(world.price(server_id, "spot") * 2 / 24, 4)
    order_id = (await rent(services, server_id, order_type="spot", bid_usd_per_hour=bid)).order_id
    before = world.reserved()[0]["worst_micros"]
    more = SetSpotPrice(order_id=order_id, bid_usd_per_hour=round(bid * 1.5, 4))
    assert (await call(services, more, answer=False)).status == "declined"
    assert (await call(services, more, can_ask=False)).status == "approval_required"
    assert not world.sent("set_spot_price")
    assert (await call(services, more)).status == "updated"
    assert world.reserved()[0]["worst_micros"] > before
    less = SetSpotPrice(order_id=order_id, bid_usd_per_hour=round(bid * 1.45, 4))
    assert (await call(services, less, answer=None)).status == "updated"
    check_invariants(world)


async def test_a_lowering_that_has_become_a_raise_needs_a_yes(world: World, process: Processes) -> None:
    first, second = await process(), await process()
    server_id = world.free()[0]
    bid = round(world.price(server_id, "spot") * 3 / 24, 4)
    order_id = (await rent(first, server_id, order_type="spot", bid_usd_per_hour=bid)).order_id
    less = SetSpotPrice(order_id=order_id, bid_usd_per_hour=round(bid * 0.95, 4))
    held = await first.guard.hold(less, caller="t", can_ask=True, replay=False)
    lower = SetSpotPrice(order_id=order_id, bid_usd_per_hour=round(bid * 0.91, 4))
    assert (await call(second, lower, answer=None)).status == "updated"
    first.context.readings.changed()
    outcome = await first.guard.conclude(held, less, answer=None, caller="t")
    assert outcome.status == "refused"
    assert len(world.sent("set_spot_price")) == 1


async def test_a_raise_that_clore_refuses_leaves_the_reservation_as_it_was(world: World, services: Services) -> None:
    server_id = world.free()[0]
    bid = round(world.price(server_id, "spot") * 2 / 24, 4)
    order_id = (await rent(services, server_id, order_type="spot", bid_usd_per_hour=bid)).order_id
    before = world.reserved()
    more = SetSpotPrice(order_id=order_id, bid_usd_per_hour=round(bid * 1.5, 4))
    held = await services.guard.hold(more, caller="t", can_ask=True, replay=False)
    world.post(f"/servers/{server_id}", {"price": {"spot": {"USD-Blockchain": 1000}}})
    outcome = await services.guard.conclude(held, more, answer=True, caller="t")
    assert outcome.status == "refused"
    assert world.reserved() == before


async def test_a_lease_that_nobody_would_end_any_more_is_not_begun(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    assert held.quote
    assert "NOTHING ends it" not in held.quote.question
    world.lose_the_keepers()
    outcome = await services.guard.conclude(held, ask, answer=True, caller="t")
    assert outcome.status == "failed"
    assert not world.sent()
    assert not world.reserved()


async def test_an_unfinished_quote_is_never_marked_as_told(world: World, services: Services) -> None:
    held = await services.guard.hold(wish(world.free()[0]), caller="t", can_ask=True, replay=False)
    await services.guard.told(held, Outcome(Status.UNCERTAIN, ""))
    assert world.rows("SELECT told FROM quotes") == [{"told": 0}]


async def test_a_no_that_loses_the_race_for_the_quote_tells_what_became_of_the_yes(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    assert held.quote
    assert (await services.guard.conclude(held, ask, answer=True, caller="t")).status == "created"
    look, before = services.approvals.get, [held.quote]

    async def get(quote_id: str, **how: bool) -> Any:
        return before.pop() if before else await look(quote_id, **how)

    monkeypatch.setattr(services.approvals, "get", get)
    assert (await services.guard.conclude(held, ask, answer=False, caller="t")).status == "created"


async def test_a_quote_that_was_declined_or_has_expired_is_never_settled(world: World, services: Services) -> None:
    held = await services.guard.hold(wish(world.free()[0]), caller="t", can_ask=True, replay=False)
    assert held.quote
    outcome = Outcome(Status.FAILED, "")
    for state in ("declined", "expired"):
        world.change("UPDATE quotes SET state = ?", state)
        await settle_quote(services.context, held.quote, outcome)
        assert world.rows("SELECT state, outcome FROM quotes") == [{"state": state, "outcome": None}]
    world.change("UPDATE quotes SET state = 'committing', owner = 'another process'")
    await settle_quote(services.context, held.quote, outcome)
    assert world.rows("SELECT state FROM quotes") == [{"state": "committing"}]


async def test_an_untold_order_that_has_ended_since_is_not_told_as_running(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    made = await services.guard.conclude(held, ask, answer=True, caller="tester")  # and the caller is gone: untold
    assert made.order_id is not None
    gone = await services.closer.cancel(made.order_id, issue=None, caller="a person", why="by hand")
    told = await call(services, ask)
    assert (told.status, told.repeated, told.order_id) == ("created", True, made.order_id)
    assert told.receipt == gone.receipt
    assert "has ended since" in told.next
    assert "wait_for_order" not in told.next
    CreateAnswer.model_validate(told.as_json())
    assert (await call(services, ask)).order_id != made.order_id, "it was told, so this is a new wish"


async def _asked(services: Services, ask: Request) -> HeldQuote:
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    assert held.quote
    return held


async def test_a_cancel_without_a_yes_says_that_the_order_bills_on(world: World, services: Services) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    theirs = world.rent_elsewhere(world.free()[0], age_seconds=60)
    ask = CancelOrder(order_id=order_id)
    declined = await call(services, ask, answer=False)
    held = await _asked(services, ask)
    world.change("UPDATE quotes SET expires_at = 1")
    expired = await services.guard.conclude(held, ask, answer=True, caller="t")
    waiting = await call(services, CancelOrder(order_id=theirs), can_ask=False)
    for outcome, status, of in (
        (declined, "declined", order_id),
        (expired, "declined", order_id),
        (waiting, "approval_required", theirs),
    ):
        assert (outcome.status, outcome.order_id) == (status, of)
        assert "keeps running and billing" in outcome.next
        assert "spent" not in outcome.next
        CancelAnswer.model_validate(outcome.as_json())
    assert not world.sent("cancel_order")


async def test_a_bid_without_a_yes_stays_and_is_never_uncertain(world: World, services: Services) -> None:
    server_id = world.free()[0]
    bid = round(world.price(server_id, "spot") * 2 / 24, 4)
    order_id = (await rent(services, server_id, order_type="spot", bid_usd_per_hour=bid)).order_id
    ask = SetSpotPrice(order_id=order_id, bid_usd_per_hour=round(bid * 1.5, 4))
    declined = await call(services, ask, answer=False)
    waiting = await call(services, ask, can_ask=False)
    held = await _asked(services, ask)
    world.change("UPDATE quotes SET expires_at = 1")
    expired = await services.guard.conclude(held, ask, answer=True, caller="t")
    assert [one.status for one in (declined, waiting, expired)] == ["declined", "approval_required", "refused"]
    assert expired.reason == "quote_expired"
    for outcome in (declined, waiting, expired):
        assert "The bid stays as it " in outcome.next
        assert outcome.order_id == order_id
        BidAnswer.model_validate(outcome.as_json())
    assert not world.sent("set_spot_price")


async def test_commands_for_a_person_name_the_program_that_reaches_this_state(services: Services) -> None:
    intent = Intent("i1", "a", "q1", "create_order", 5, "x", "spot", "USD", frozenset(), "uncertain", "o", 0)
    assert "`clore-mcp --sandbox settle i1 --order ID`" in results.blocked(intent, "clore-mcp --sandbox").next
    approvals = Approvals(services.context.state, time.time, "clore-mcp --sandbox")
    with pytest.raises(NotFound) as caught:
        await approvals.get("q0")
    assert "`clore-mcp --sandbox approvals`" in caught.value.hint


async def test_a_question_beyond_those_that_may_wait_is_declined_with_its_reason(
    world: World, services: Services
) -> None:
    *waiting, last = world.free()[: OF_A_CALLER + 1]
    for server_id in waiting:
        await _asked(services, wish(server_id))
    held = await services.guard.hold(wish(last), caller="t", can_ask=True, replay=False)
    assert held.quote is None and held.outcome is not None
    assert held.outcome.status == "declined"
    assert f"{OF_A_CALLER} questions of this client already wait" in held.outcome.next
    assert len(world.rows("SELECT * FROM quotes WHERE state = 'pending'")) == OF_A_CALLER


async def test_a_create_of_another_process_is_followed_though_the_orders_can_not_be_read(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await process(), await process()
    ask = wish(world.free()[0])
    world.fault("hang_after", "create_order", seconds=2.0)
    renting = asyncio.ensure_future(call(one, ask))
    await asyncio.to_thread(world.await_request, "create_order", effect=True)

    async def outage(max_age_seconds: float = 10.0) -> Any:
        raise NotJson("The list is not Clore's.")

    monkeypatch.setattr(other.context.readings, "orders", outage)
    followed = await call(other, ask)
    made = await renting
    assert (followed.status, followed.order_id) == ("created", made.order_id)
    assert len(world.sent()) == 1
    check_invariants(world)


def break_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be read or written from now on."""

    def broken(*_: Any, **__: Any) -> Any:
        raise StateUnavailable("disk I/O error")

    monkeypatch.setattr(Database, "_transact", broken)


async def test_without_the_state_a_cancel_of_an_order_that_has_ended_is_its_end_unasked(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    await services.context.client.cancel_order(order_id)
    break_state(monkeypatch)
    held = await services.guard.hold(CancelOrder(order_id=order_id), caller="t", can_ask=True, replay=False)
    assert held.quote is None and held.outcome is not None
    assert (held.outcome.status, held.outcome.order_id) == ("already_ended", order_id)
    assert len(world.sent("cancel_order")) == 1


async def test_without_the_state_a_cancel_that_nobody_answered_is_asked_anew(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = CancelOrder(order_id=(await rent(services, world.free()[0])).order_id)
    break_state(monkeypatch)
    held = await _asked(services, ask)
    silence = QuestionReply(ReplyKind.SILENCE, seconds=60.0)
    outcome = await services.guard.conclude(held, ask, answer=None, caller="t", reply=silence)
    assert outcome.status == "declined"
    assert "gave no answer in time" in outcome.next and "keeps running and billing" in outcome.next
    assert not world.sent("cancel_order")
    again = await _asked(services, ask)
    assert again.quote and held.quote and again.quote.id != held.quote.id
    assert (await services.guard.conclude(again, ask, answer=True, caller="t")).status == "cancelled"
    assert not world.active()


async def test_without_the_state_a_question_that_was_not_put_to_the_person_cancels_nothing(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = CancelOrder(order_id=(await rent(services, world.free()[0])).order_id)
    break_state(monkeypatch)
    held = await _asked(services, ask)
    with pytest.raises(StateUnavailable, match="it is unknown whether order"):
        await services.guard.conclude(held, ask, answer=None, caller="t")
    assert not world.sent("cancel_order")


async def test_without_the_state_a_yes_that_comes_after_its_time_cancels_nothing(
    world: World, local: LocalTime, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = await process()
    ask = CancelOrder(order_id=(await rent(services, world.free()[0])).order_id)
    break_state(monkeypatch)
    held = await _asked(services, ask)
    local.pass_by(QUOTE_SECONDS + 1)
    outcome = await services.guard.conclude(held, ask, answer=True, caller="t")
    assert outcome.status == "declined"
    assert "keeps running and billing" in outcome.next
    assert not world.sent("cancel_order")

"""A dead order gives way to the next server of its yes: cancelled, proven gone, then rented once; or all stays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clore_mcp.errors import NotJson
from clore_mcp.rental.orders import stop
from clore_mcp.rental.results import Attempt
from clore_mcp.rental.rules.check import Evidence
from clore_mcp.rental.ssh import access
from clore_mcp.rental.ssh.keys import SshKey
from clore_mcp.rental.terms import Terms
from clore_mcp.wiring import Services
from tests.guard.calls import Told, call, cancel, let_time_pass, wish
from tests.guard.conftest import Processes
from tests.guard.dead import Dead, dead, rented, running, ssh_market, waited
from tests.guard.invariants import check_invariants
from tests.guard.spots import rich
from tests.guard.test_yes import MALLORY
from tests.world import USD, World

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from ssh_market(tmp_path)


async def replaced(services: Services, lost: Dead, **more: Any) -> Told:
    let_time_pass(services)
    return await call(services, lost.replacing, **{"answer": None, **more})


def cancels(world: World) -> int:
    return len(world.sent("cancel_order"))


@pytest.mark.parametrize("ssh", ["ssh_refused", "ssh_name_unknown"])
async def test_the_dead_order_is_cancelled_and_the_next_server_rented_under_the_same_yes(
    world: World, services: Services, ssh: str
) -> None:
    lost = await dead(world, services, ssh=ssh)
    told = await waited(services, lost.order_id)
    assert f"replaces_order_id {lost.order_id}" in told.next, told
    assert f"server {lost.fallbacks[0]}" in told.next
    outcome = await replaced(services, lost)
    assert (outcome.status, outcome.server_id) == ("created", lost.fallbacks[0]), outcome
    assert running(world) == [lost.fallbacks[0]]
    assert outcome.replaced is not None and outcome.replaced.order_id == lost.order_id
    assert outcome.replaced.receipt is not None and 0 < outcome.replaced.receipt.total_usd < 0.1
    assert outcome.attempts == (Attempt(lost.fallbacks[0], "created"),)
    assert {"usd_per_hour", "ends_at", "reserved_usd", "enforced_by"} <= outcome.as_json().keys()
    (order,) = world.active()
    (lease,) = world.rows("SELECT * FROM orders WHERE ended_at IS NULL")
    assert lease["ends_api_at"] == lease["started_api_at"] + 2 * 3600, "the same hours, from its own start"
    assert order["image"] == lost.ask.image
    check_invariants(world)


async def test_the_same_call_again_and_the_first_one_are_the_replacement(world: World, services: Services) -> None:
    lost = await dead(world, services)
    made = await replaced(services, lost)
    for ask in (lost.replacing, lost.ask, lost.replacing):
        again = await call(services, ask, answer=None, can_ask=False)
        assert (again.status, again.order_id, again.repeated) == ("created", made.order_id, True), again
    assert len(world.sent()) == 2
    told = (await replaced(services, lost)).replaced
    assert told is not None and told.order_id == lost.order_id
    check_invariants(world)


async def test_a_replacement_is_never_replaced(world: World, services: Services) -> None:
    lost = await dead(world, services, ssh="ssh_times_out")
    world.fault("ssh_times_out")
    made = await replaced(services, lost)
    world.advance(420)
    told = await waited(services, made.order_id)
    assert told.ready is False and "replaces_order_id" not in told.next
    for ask in (lost.ask, lost.replacing):
        again = await call(services, ask.model_copy(update={"replaces_order_id": made.order_id}))
        assert again.status == "refused" and "Nothing was cancelled" in again.next, again
    assert running(world) == [lost.fallbacks[0]]


async def test_once_the_replacement_has_ended_the_call_rents_no_third(world: World, services: Services) -> None:
    lost = await dead(world, services)
    made = await replaced(services, lost)
    assert (await cancel(services, made.order_id)).status == "cancelled"
    again = await replaced(services, lost)
    assert again.repeated is True and not running(world), again
    assert f"Order {made.order_id} has ended" in again.next, again
    assert len(world.sent()) == 2


Prepare = Callable[[World, Services, pytest.MonkeyPatch], Awaitable[Dead]]


async def not_waited(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    return await rented(world, services)


async def answering(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    lost = await rented(world, services, ssh="")
    assert (await waited(services, lost.order_id)).ready is True
    return lost


async def answering_since(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    lost = await rented(world, services, ssh="")
    account = await services.context.readings.account()
    memory = f'{{"{lost.order_id}":[{lost.ask.server_id},"timed_out",{time.time()},true]}}'
    world.change("INSERT INTO meta VALUES (?, ?)", f"reached {account}", memory.encode())
    return lost


async def loading(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    return await dead(world, services, ssh="never_deploys")


async def young(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    return await dead(world, services, ssh="ssh_times_out", minutes=3)


async def old(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    lost = await dead(world, services)
    world.advance(23.5 * 60)
    return lost


async def offline(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    async def connects(*where: Any) -> bool:
        return False

    patch.setattr(access, "connects", connects)
    return await dead(world, services)


async def second_failure(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    other = await dead(world, services)
    assert (await cancel(services, other.order_id)).status == "cancelled"
    return await dead(world, services, hours=3.0)


async def no_fallback(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    return await dead(world, services, fallbacks=0)


async def last_fallback(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    world.fault("already_rented")
    return await dead(world, services, fallbacks=1)


async def spot(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    return await dead(world, services, order_type="spot", bid_usd_per_hour=0.5)


async def other_arguments(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    lost = await dead(world, services)
    return Dead(lost.ask.model_copy(update={"hours": 3.0}), lost.order_id)


async def dearer_bid(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    lost = await dead(world, services)
    return Dead(lost.ask.model_copy(update={"env": {"HF_TOKEN": "another"}}), lost.order_id)


async def elsewhere(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    lost = await dead(world, services)
    return Dead(lost.ask, world.rent_elsewhere(world.free()[4]))


async def ended(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    lost = await dead(world, services)
    assert (await cancel(services, lost.order_id)).status == "cancelled"
    world.post("/faults", {"kind": "http502", "endpoint": "nothing"})
    return lost


async def taken(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    lost = await dead(world, services)
    for server_id in lost.fallbacks:
        row = world.get(f"/servers/{server_id}")["row"]
        world.post("/servers", {**row, "rented": True})
    return lost


async def dearer(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    lost = await dead(world, services)
    for server_id in lost.fallbacks:
        row = world.get(f"/servers/{server_id}")["row"]
        prices = {**row["price"], "on_demand": {USD: row["price"]["on_demand"][USD] * 1.01}}
        world.post("/servers", {**row, "price": prices})
    return lost


async def poor(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    lost = await dead(world, services)
    world.post("/wallets", {"balances": {USD: 0.01}})
    return lost


async def frozen(world: World, services: Services, patch: pytest.MonkeyPatch) -> Dead:
    lost = await dead(world, services)
    await services.context.state.write(lambda tx: stop.freeze(tx, by="a person", now=time.time()))
    return lost


# Where the wait for such an order does not name the call either.
SAID_BY_NEXT = (answering, loading, young, old, offline, second_failure, no_fallback, last_fallback, spot, frozen)


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (not_waited, "wait_for_order has not found"),
        (answering, "answers over SSH"),
        (answering_since, "answers over SSH"),
        (loading, "may still be starting"),
        (young, "may still be starting"),
        (old, "older than the 30 minutes"),
        (offline, "its own network is probably down|only through a proxy"),
        (second_failure, "Find the cause first"),
        (no_fallback, "did not say"),
        (last_fallback, "No fallback is left"),
        (spot, "did not say"),
        (other_arguments, "other arguments"),
        (dearer_bid, "other arguments"),
        (elsewhere, "not made by a call of this client"),
        (ended, "has ended"),
        (taken, "None of the servers that are left"),
        (dearer, "None of the servers that are left"),
        (poor, "wallet"),
        (frozen, "stopped all spending"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
async def test_where_it_may_not_give_way_it_is_refused_in_plain_words_and_nothing_is_cancelled(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch, prepare: Prepare, said: str
) -> None:
    lost = await prepare(world, services, monkeypatch)
    before, sent, made = running(world), cancels(world), len(world.sent())
    outcome = await replaced(services, lost)
    assert outcome.status == "refused", outcome
    assert any(part in outcome.next for part in said.split("|")), outcome
    assert "Nothing was cancelled" in outcome.next and outcome.replaced is None
    assert (running(world), cancels(world), len(world.sent())) == (before, sent, made)
    assert not world.rows("SELECT * FROM quotes WHERE replaces IS NOT NULL")
    if prepare in SAID_BY_NEXT:
        assert "replaces_order_id" not in (await waited(services, lost.order_id)).next
    check_invariants(world)


async def test_next_names_the_call_to_the_client_that_made_the_order_alone(world: World, services: Services) -> None:
    lost = await dead(world, services)
    assert "replaces_order_id" in (await waited(services, lost.order_id)).next
    assert "replaces_order_id" not in (await waited(services, lost.order_id, "another client")).next
    outcome = await replaced(services, lost, caller="another client")
    assert outcome.status == "refused" and running(world) == [lost.ask.server_id]


async def test_nothing_is_rented_while_the_cancel_is_not_proven_and_the_same_call_goes_on(
    world: World, services: Services
) -> None:
    lost = await dead(world, services)
    world.fault("cancel_ignored", times=99)
    for _ in range(2):
        outcome = await replaced(services, lost)
        assert outcome.status == "in_progress", outcome
        assert "exactly the same arguments" in outcome.next and outcome.replaced is None
    plain = await call(services, lost.ask, answer=None, can_ask=False)
    assert plain.status == "in_progress" and f"replaces_order_id {lost.order_id}" in plain.next, plain
    assert running(world) == [lost.ask.server_id] and len(world.sent()) == 1
    world.mend()
    outcome = await replaced(services, lost)
    assert outcome.status == "created", outcome
    assert running(world) == [lost.fallbacks[0]]
    check_invariants(world)


@pytest.mark.parametrize("kind", ["lost_reply", "code1_after", "http502_after", "garbage", "reset", "http502"])
@pytest.mark.parametrize("endpoint", ["cancel_order", "create_order"])
async def test_a_fault_of_a_cancel_or_a_create_ends_in_one_order_or_none(
    world: World, services: Services, kind: str, endpoint: str
) -> None:
    lost = await dead(world, services)
    world.fault(kind, endpoint)
    outcome = await replaced(services, lost)
    for _ in range(3):
        if outcome.status != "in_progress":
            break
        outcome = await replaced(services, lost)
    no_order = endpoint == "create_order" and kind in ("reset", "http502")
    assert outcome.status == ("failed" if no_order else "created"), outcome
    assert running(world) == ([] if no_order else [lost.fallbacks[0]])
    assert outcome.replaced is not None and outcome.replaced.order_id == lost.order_id
    check_invariants(world)


async def test_where_none_can_be_rented_after_all_it_says_that_the_old_one_is_gone_and_nothing_new_runs(
    world: World, services: Services
) -> None:
    lost = await dead(world, services)
    world.fault("already_rented", times=2)
    outcome = await replaced(services, lost)
    assert outcome.status == "refused", outcome
    assert not running(world)
    assert [one.server_id for one in outcome.attempts] == lost.fallbacks
    for words in (f"Order {lost.order_id} is cancelled", "nothing new runs", "without replaces_order_id"):
        assert words in outcome.next
    assert "Nothing was spent." not in outcome.next
    assert outcome.replaced is not None and outcome.replaced.receipt is not None
    assert outcome.replaced.receipt.total_usd > 0
    again = await replaced(services, lost)
    assert (again.status, again.repeated) == ("refused", True) and "nothing new runs" in again.next
    assert len(world.sent()) == 3
    plain = await call(services, lost.ask, can_ask=False)
    assert plain.status == "approval_required", "without the lost order it is a new wish, for which a person is asked"
    assert len(world.sent()) == 3 and not running(world)
    check_invariants(world)


async def test_the_next_fallback_is_tried_where_the_first_is_gone(world: World, services: Services) -> None:
    lost = await dead(world, services)
    world.fault("already_rented")
    outcome = await replaced(services, lost)
    assert [one.outcome for one in outcome.attempts] == ["server-already-rented", "created"]
    assert running(world) == [lost.fallbacks[1]]
    check_invariants(world)


async def test_two_processes_at_once_make_one_replacement(world: World, process: Processes) -> None:
    one, other = await process(), await process()
    lost = await dead(world, one)
    outcomes = await asyncio.gather(*(replaced(services, lost) for services in (one, other, one, other)))
    assert {outcome.status for outcome in outcomes} == {"created"}, outcomes
    assert len({outcome.order_id for outcome in outcomes}) == 1
    assert running(world) == [lost.fallbacks[0]] and len(world.sent()) == 2
    check_invariants(world)


async def test_a_call_without_the_order_meanwhile_rents_nothing_beside_the_replacement(
    world: World, process: Processes
) -> None:
    env = {"CLORE_APPROVAL": "limits"}
    one, other = await process(env=env), await process(env=env)
    lost = await dead(world, one)
    outcomes = await asyncio.gather(replaced(one, lost), *(call(other, lost.ask) for _ in range(3)))
    assert outcomes[0].status == "created", outcomes
    assert running(world) == [lost.fallbacks[0]] and len(world.sent()) == 2
    check_invariants(world)


@pytest.mark.parametrize("mode", ["outside", "limits"])
async def test_the_same_yes_covers_it_in_every_mode(world: World, process: Processes, mode: str) -> None:
    services = await process(env={"CLORE_APPROVAL": mode})
    rich(world)
    world.fault("ssh_refused")
    first, *others = world.free()[:3]
    ask = wish(first, fallback_server_ids=others)
    if mode == "outside":
        asked = await call(services, ask)
        assert asked.status == "approval_required"
        assert await services.approvals.decide(await services.approvals.get(asked.approval_id), yes=True, by="a person")
    made = await call(services, ask)
    assert made.status == "created", made
    world.advance(420)
    await waited(services, made.order_id)
    outcome = await replaced(services, Dead(ask, made.order_id))
    assert outcome.status == "created", outcome
    assert running(world) == [others[0]]


async def test_a_stop_between_the_look_and_the_cancel_lets_nothing_be_rented(world: World, services: Services) -> None:
    lost = await dead(world, services)
    held = await services.guard.hold(lost.replacing, caller="tester", can_ask=True, replay=False)
    assert held.quote is not None and held.quote.state == "approved"
    await services.context.state.write(lambda tx: stop.freeze(tx, by="a person", now=time.time()))
    outcome = await services.guard.conclude(held, lost.replacing, answer=None, caller="tester")
    assert outcome.status != "created" and not cancels(world), outcome
    await services.context.state.write(lambda tx: stop.lift(tx, by="a person", now=time.time()))
    again = await replaced(services, lost)
    outcome = again
    assert outcome.status == "refused" and "replacement already" in outcome.next, outcome
    assert running(world) == [lost.ask.server_id], "its yes was taken back for good"


async def test_an_order_that_has_cost_more_than_the_yes_named_is_not_followed_by_another(
    world: World, services: Services
) -> None:
    lost = await dead(world, services)
    held = await services.guard.hold(lost.replacing, caller="tester", can_ask=True, replay=False)
    world.change("UPDATE quotes SET terms = json_set(terms, '$.lost_usd', '0.0001') WHERE replaces IS NOT NULL")
    outcome = await services.guard.conclude(held, lost.replacing, answer=None, caller="tester")
    assert outcome.status == "failed" and "more than the $0.0001" in outcome.next, outcome
    assert "nothing new runs" in outcome.next and not running(world)
    check_invariants(world)


async def test_what_was_reserved_and_asked_covers_a_lost_server_and_the_next_one(
    world: World, services: Services
) -> None:
    rich(world)
    first, *others = world.free()[:3]
    ask = wish(first, fallback_server_ids=others)
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    assert held.quote is not None
    terms = Terms.from_json(held.quote.terms)
    dearest = max(one.worst_usd for one in terms.candidates[1:])
    assert terms.worst_usd >= terms.candidates[0].lost_usd + dearest > replace(terms, replaceable=False).worst_usd
    (line,) = (one for one in held.quote.question.splitlines() if "within 30 minutes" in one)
    assert "next of these rented instead, once, for the same hours" in line and "is lost" in line
    await services.guard.conclude(held, ask, answer=True, caller="tester")
    (reserved,) = world.reserved()
    assert Decimal(reserved["worst_micros"]) / 10**6 == terms.reserved_usd(terms.candidates[0])


async def test_where_the_limits_have_no_room_for_both_the_question_does_not_offer_it(
    world: World, process: Processes
) -> None:
    services = await process()
    rich(world)
    first, *others = world.free()[:3]
    ask = wish(first, fallback_server_ids=others)
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    assert held.quote is not None
    terms = Terms.from_json(held.quote.terms)
    just_it = replace(terms, replaceable=False).worst_usd
    tight = await process(env={"CLORE_MAX_USD_PER_ORDER": f"{float(just_it) + 0.01:.6f}"})
    held = await tight.guard.hold(wish(first, fallback_server_ids=others, hours=1.99), caller="tester", can_ask=True,
                                  replay=False)  # fmt: skip
    assert held.quote is not None, held.outcome
    assert not Terms.from_json(held.quote.terms).replaceable
    assert "within 30 minutes" not in held.quote.question


async def freeze_and_lift(services: Services) -> None:
    """A person stops all spending and thinks better of it: each unused yes is taken back."""
    await services.context.state.write(lambda tx: stop.freeze(tx, by="a person", now=time.time()))
    await services.context.state.write(lambda tx: stop.lift(tx, by="a person", now=time.time()))


async def test_a_yes_that_another_process_used_and_lost_in_the_meantime_covers_no_second_replacement(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, other = await process(), await process()
    lost = await dead(world, services)
    gather = services.pricer.evidence

    async def meanwhile(max_age_seconds: float) -> Evidence:
        held = await other.guard.hold(lost.replacing, caller="tester", can_ask=True, replay=False)
        assert held.quote is not None, held
        await freeze_and_lift(other)
        return await gather(max_age_seconds)

    monkeypatch.setattr(services.pricer, "evidence", meanwhile)
    outcome = await replaced(services, lost)
    assert outcome.status == "refused" and "used for a replacement already" in outcome.next, outcome
    assert running(world) == [lost.ask.server_id] and not cancels(world)


async def test_with_another_ssh_key_than_in_the_question_nothing_is_replaced(world: World, process: Processes) -> None:
    services, other = await process(), await process(env={"CLORE_SSH_PUBLIC_KEY": MALLORY})
    lost = await dead(world, services)
    outcome = await replaced(other, lost)
    assert outcome.status == "refused" and "not the one that the question showed" in outcome.next, outcome
    assert running(world) == [lost.ask.server_id] and not cancels(world)


async def test_a_stop_just_before_the_replacement_is_held_cancels_nothing(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await dead(world, services)
    hold = services.approvals.hold_replacement

    async def frozen_first(*what: Any, **more: Any) -> Any:
        await services.context.state.write(lambda tx: stop.freeze(tx, by="a person", now=time.time()))
        return await hold(*what, **more)

    monkeypatch.setattr(services.approvals, "hold_replacement", frozen_first)
    outcome = await replaced(services, lost)
    assert outcome.status == "refused" and "stopped all spending" in outcome.next, outcome
    assert running(world) == [lost.ask.server_id] and not cancels(world)


TAKEN_BACK: list[tuple[str, str]] = [
    ("UPDATE quotes SET expires_at = 1 WHERE replaces IS NOT NULL", "The time for replacing order"),
    ("UPDATE quotes SET state = 'expired' WHERE replaces IS NOT NULL", "expired"),
]


@pytest.mark.parametrize(("change", "said"), TAKEN_BACK, ids=["its time is over", "it was taken back"])
async def test_a_yes_that_ends_just_before_the_cancel_cancels_nothing(
    world: World, services: Services, change: str, said: str
) -> None:
    lost = await dead(world, services)
    held = await services.guard.hold(lost.replacing, caller="tester", can_ask=True, replay=False)
    assert held.quote is not None and held.quote.state == "approved"
    key = services.context.ssh_key

    def meanwhile() -> SshKey:
        world.change(change)
        return key()

    object.__setattr__(services.context, "ssh_key", meanwhile)  # it is read right before the cancel
    outcome = await services.guard.conclude(held, lost.replacing, answer=None, caller="tester")
    assert outcome.status != "created" and said in outcome.next, outcome
    assert running(world) == [lost.ask.server_id] and not cancels(world)
    assert len(world.sent()) == 1


async def test_an_order_that_the_person_ended_after_the_look_is_not_cancelled_again_and_gives_way(
    world: World, services: Services
) -> None:
    lost = await dead(world, services)
    held = await services.guard.hold(lost.replacing, caller="tester", can_ask=True, replay=False)
    assert (await cancel(services, lost.order_id, caller="the person")).status == "cancelled"
    outcome = await services.guard.conclude(held, lost.replacing, answer=None, caller="tester")
    assert outcome.status == "created", outcome
    assert running(world) == [lost.fallbacks[0]] and cancels(world) == 1
    check_invariants(world)


async def test_an_outcome_is_told_though_the_lost_orders_cost_can_not_be_read(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await dead(world, services)
    held = await services.guard.hold(lost.replacing, caller="tester", can_ask=True, replay=False)
    account = services.context.readings.account

    async def unknown() -> str:
        if len(world.sent()) > 1:
            raise NotJson("The wallets can't be read.")
        return await account()

    monkeypatch.setattr(services.context.readings, "account", unknown)
    outcome = await services.guard.conclude(held, lost.replacing, answer=None, caller="tester")
    assert (outcome.status, outcome.server_id, outcome.replaced) == ("created", lost.fallbacks[0], None)
    assert running(world) == [lost.fallbacks[0]]

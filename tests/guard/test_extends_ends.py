"""A moved end is the one that counts: for whoever ends leases, for orders that are only told of, and for those that
nobody here made, which get their first end."""

from __future__ import annotations

from typing import Any

import pytest

from clore_mcp.rental.requests import CancelOrder
from clore_mcp.store import orders
from clore_mcp.store.database import FILE_NAME
from clore_mcp.wiring import Services
from tests.guard.calls import call
from tests.guard.conftest import Processes
from tests.guard.extensions import at, end_of, hourly, longer, look, ours, worst
from tests.guard.invariants import check_invariants
from tests.guard.spots import WIDE, raised, rich, spot_elsewhere
from tests.world import World

pytestmark = pytest.mark.anyio

# Told, not ended


async def test_an_order_that_is_only_told_of_is_extended_also_after_its_end_and_told_again(
    world: World, process: Processes
) -> None:
    services = await process(env=WIDE)
    rich(world)
    order_id = await ours(world, services, on_end="notify")
    reserved = worst(world, order_id)
    world.advance(3 * 3600)
    await services.keeper.poll()
    services.context.readings.changed()
    past = await call(services, longer(order_id, 0.5), answer=False)
    assert (past.status, past.reason) == ("refused", "past")
    held = await services.guard.hold(longer(order_id, 2), caller="tester", can_ask=True, replay=False)
    assert held.quote
    assert "clore-mcp notifies your assistant but cancels nothing" in held.quote.question
    outcome = await services.guard.conclude(held, longer(order_id, 2), answer=True, caller="tester")
    assert (outcome.status, outcome.enforced_by) == ("extended", "nobody")
    assert worst(world, order_id) == pytest.approx(reserved, abs=0.05), "it counted whole before"
    await services.keeper.poll()
    assert world.steps().count("lease_over") == 1
    world.advance(2 * 3600)
    for _ in range(2):
        await services.keeper.poll()
    assert world.steps().count("lease_over") == 2
    assert world.active()


# An order that nobody here made


async def test_an_order_made_elsewhere_is_given_an_end_with_a_reservation_and_ends_then(
    world: World, process: Processes
) -> None:
    services = await process()
    order_id = world.rent_elsewhere(world.free()[0])
    world.advance(5)
    seen = await look(services)
    assert "To give it one, use extend_order" in (seen.next or "")
    held = await services.guard.hold(longer(order_id, 3), caller="tester", can_ask=True, replay=False)
    assert held.quote
    assert held.quote.question.startswith(f"End order {order_id} in 3 hours, at ")
    assert "It was not made here: someone else may be using it." in held.quote.question
    assert "End: cancelled and its data deleted at " in held.quote.question
    assert not world.reserved()
    outcome = await services.guard.conclude(held, longer(order_id, 3), answer=True, caller="tester")
    assert outcome.status == "extended" and outcome.ends_at is not None
    assert outcome.previous_ends_at is None
    assert end_of(world, order_id) == at(outcome.ends_at)
    assert worst(world, order_id) >= 3 * hourly(world, order_id)
    assert worst(world, order_id) <= 4 * hourly(world, order_id) + 0.2
    seen = await look(services)
    assert [(one.ends_at, one.made_here) for one in seen.orders] == [(outcome.ends_at, False)]
    assert seen.next is None
    world.advance(3 * 3600 - 600)
    await services.keeper.poll()
    assert world.active(), "its end has not come"
    assert (await call(services, longer(order_id, 1))).status == "extended", "and can be moved on"
    assert end_of(world, order_id) == at(outcome.ends_at) + 3600
    world.advance(660)
    await services.keeper.poll()
    assert world.active(), "its old end counts no more"
    world.advance(3600)
    await services.keeper.poll()
    assert not world.active()
    assert not world.reserved()
    [paid] = world.rows("SELECT actual_micros FROM reservations")
    assert paid["actual_micros"] >= int(world.orders()[0]["total"] * 10**6) - 1
    assert world.steps().count("lease_ended") == 1


async def test_the_limits_are_no_yes_to_ending_someone_elses_work(world: World, process: Processes) -> None:
    services = await process(env={"CLORE_APPROVAL": "limits"})
    order_id = world.rent_elsewhere(world.free()[0])
    world.advance(5)
    for _ in range(2):
        outcome = await call(services, longer(order_id, 3))
        assert outcome.status == "approval_required"
    quote = await services.approvals.get(outcome.approval_id)
    assert await services.approvals.decide(quote, yes=True, by="ann at a terminal")
    assert (await call(services, longer(order_id, 3))).status == "extended"
    assert (await call(services, longer(order_id, 1))).status == "approval_required", "so with moving it on"


async def test_a_raise_of_a_spot_order_made_elsewhere_counts_to_the_end_that_was_given_to_it(
    world: World, process: Processes
) -> None:
    services = await process(env=WIDE)
    rich(world)
    order_id, bid = spot_elsewhere(world, world.free()[0])
    assert (await call(services, longer(order_id, 3))).status == "extended"
    held = await services.guard.hold(raised(order_id, bid), caller="t", can_ask=True, replay=False)
    assert held.quote
    assert "It was not made here" in held.quote.question
    assert "End: cancelled at 2" in held.quote.question
    assert (await services.guard.conclude(held, raised(order_id, bid), answer=True, caller="t")).status == "updated"
    assert 3 * bid * 1.49 <= worst(world, order_id) <= 4 * bid * 1.6 + 0.2


async def test_an_end_given_to_a_late_order_of_our_own_goes_over_to_its_lease(world: World, process: Processes) -> None:
    services = await process()
    order_id = await ours(world, services)
    [lease] = world.rows("SELECT * FROM orders")
    account, later = lease["account"], lease["ends_api_at"] + 3600
    # As it is while its create is unsettled: no lease yet, and an end that a person has given to the order.
    world.change("DELETE FROM orders")
    world.change("UPDATE intents SET state = 'uncertain', order_id = NULL")
    world.change("UPDATE reservations SET order_id = NULL")
    world.change(
        "INSERT INTO reservations (account, order_id, coin, worst_micros, hourly_micros, created_at, ends_api_at)"
        " SELECT account, ?, coin, worst_micros * 2, hourly_micros, created_at, ? FROM reservations",
        order_id, later,
    )  # fmt: skip
    assert await services.context.state.read(lambda tx: [end.ends_api_at for end in orders.ends(tx, account)]) == [
        later
    ]
    [view] = (await look(services)).orders
    assert (view.made_here, at(view.ends_at or "")) == (True, later)
    [held] = world.reserved()
    assert (held["intent_id"], held["order_id"]) == (lease["intent_id"], order_id)
    check_invariants(world)


async def test_a_cancel_of_an_order_made_elsewhere_that_fails_is_tried_again_at_its_end_now(
    world: World, process: Processes
) -> None:
    services = await process()
    order_id = world.rent_elsewhere(world.free()[0])
    world.advance(5)
    assert (await call(services, longer(order_id, 5))).status == "extended"
    world.fault("cancel_ignored", times=99)
    assert (await call(services, CancelOrder(order_id=order_id))).status == "unverified"
    assert (await call(services, longer(order_id, 2))).reason == "ending"
    world.mend()
    await services.keeper.poll()
    assert not world.active()
    assert not world.reserved()


# Whoever ends leases


async def test_a_lease_ends_at_its_new_end_and_not_at_its_old_one(world: World, services: Services) -> None:
    order_id = await ours(world, services)
    assert (await call(services, longer(order_id))).status == "extended"
    world.advance(2 * 3600 + 60)
    await services.keeper.poll()
    assert [one["id"] for one in world.active()] == [order_id]
    world.advance(3600)
    await services.keeper.poll()
    assert not world.active()
    check_invariants(world)


@pytest.mark.parametrize("made_here", [True, False])
async def test_an_end_that_is_moved_while_it_is_looked_at_is_not_enforced(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch, made_here: bool
) -> None:
    keeping, other = await process(env={"CLORE_WATCHDOG": "off"}), await process(env={"CLORE_WATCHDOG": "off"})
    if made_here:
        order_id = await ours(world, keeping)
    else:
        order_id = world.rent_elsewhere(world.free()[0])
        world.advance(5)
        assert (await call(other, longer(order_id, 2))).status == "extended"
    seen = keeping.keeper._look

    async def as_it_is_extended() -> Any:
        monkeypatch.setattr(keeping.keeper, "_look", seen)
        other.context.readings.changed()
        assert (await call(other, longer(order_id))).status == "extended"
        world.advance(2 * 3600 + 60)  # the end of before is over by now
        return await seen()

    monkeypatch.setattr(keeping.keeper, "_look", as_it_is_extended)
    await keeping.keeper.poll()
    assert not world.sent("cancel_order")
    assert "cancel_sent" not in world.steps()
    world.advance(3600)
    await keeping.keeper.poll()
    assert not world.active()


async def test_without_the_state_a_lease_ends_as_it_was_last_read(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = await ours(world, services)
    assert (await call(services, longer(order_id))).status == "extended"
    await services.keeper.stop()  # the round that misses the state must be the one that finds the end due
    await services.keeper.poll()
    await services.keeper.finish()
    world.advance(3 * 3600 + 60)
    for file in world.state.glob(f"{FILE_NAME}*"):
        file.unlink()
    await services.keeper.poll()
    assert not world.active()  # the new end: that was read

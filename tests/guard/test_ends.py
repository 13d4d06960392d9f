"""Ends: cancels that are proven, leases that are kept, and orders that leave by themselves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import anyio
import pytest

from clore_mcp.errors import NotFound, StateUnavailable
from clore_mcp.rental.account_summary import account_state
from clore_mcp.rental.ends import closure
from clore_mcp.rental.requests import CancelOrder
from clore_mcp.store.database import FILE_NAME
from clore_mcp.wiring import Services
from tests.guard.calls import cancel, patient, rent, wish
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.world import World

pytestmark = pytest.mark.anyio


async def test_a_cancel_is_proven_and_its_cost_replaces_the_reservation(world: World, services: Services) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    world.advance(1800)
    outcome = await cancel(services, order_id)
    assert outcome.status == "cancelled"
    [order] = world.orders()
    assert outcome.receipt.total_usd == pytest.approx(order["total"], abs=0.001)
    assert not world.reserved()
    assert (await cancel(services, order_id)).status == "already_ended"
    check_invariants(world)


async def test_an_ignored_cancel_is_unverified_and_then_retried_without_a_second_question(
    world: World, services: Services
) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    world.fault("cancel_ignored", times=2)
    outcome = await cancel(services, order_id)
    assert outcome.status == "unverified"
    assert "Still billing" in outcome.next
    assert len(world.reserved()) == 1
    world.mend()
    again = await cancel(services, order_id, answer=False)
    assert again.status in ("cancelled", "already_ended"), "the keeper may be first"
    assert not world.active()
    check_invariants(world)


async def test_a_cancel_that_failed_is_taken_up_by_the_keeper(world: World, services: Services) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    world.fault("cancel_ignored", times=2)
    assert (await cancel(services, order_id)).status == "unverified"
    world.mend()
    await services.keeper.poll()
    assert not world.active()
    check_invariants(world)


async def test_a_cancel_whose_reply_is_lost_is_proven_by_looking(world: World, services: Services) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    world.fault("lost_reply", "cancel_order")
    assert (await cancel(services, order_id)).status == "cancelled"
    check_invariants(world)


async def test_an_order_of_ours_is_cancelled_though_nobody_can_be_asked(world: World, services: Services) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    assert (await cancel(services, order_id, can_ask=False)).status == "cancelled"


async def test_an_order_made_elsewhere_is_not_cancelled_without_a_yes(world: World, services: Services) -> None:
    order_id = world.rent_elsewhere(world.free()[0], age_seconds=60)
    assert (await cancel(services, order_id, can_ask=False)).status == "approval_required"
    assert (await cancel(services, order_id, answer=False)).status == "declined"
    assert not world.sent("cancel_order")
    assert (await cancel(services, order_id)).status == "cancelled"


async def test_the_keeper_ends_a_lease_by_clores_clock(world: World, services: Services) -> None:
    await rent(services, world.free()[0], hours=1.0)
    await services.keeper.poll()
    assert len(world.active()) == 1
    world.advance(3600)
    await services.keeper.poll()
    assert not world.active()
    assert not world.reserved()
    check_invariants(world)


async def test_the_keeper_tries_again_when_a_cancel_fails_at_the_lease_end(world: World, services: Services) -> None:
    first, second = world.free()[:2]
    await rent(services, first, hours=1.0)
    await rent(services, second, hours=1.0)
    world.advance(3600)
    world.fault("cancel_ignored", times=4)
    await services.keeper.poll()
    assert len(world.active()) == 2
    assert len(world.reserved()) == 2
    world.mend()
    await services.keeper.poll()
    assert not world.active()
    check_invariants(world)


async def test_an_order_to_be_told_about_is_not_cancelled_at_its_end(world: World, services: Services) -> None:
    await rent(services, world.free()[0], hours=1.0, on_end="notify")
    world.advance(2 * 3600)
    await services.keeper.poll()
    assert len(world.active()) == 1


async def test_an_order_that_clore_ends_is_closed_with_its_cost(world: World, services: Services) -> None:
    await rent(services, world.free()[0])
    world.post("/wallets", {"balances": {"USD-Blockchain": 0.001}})
    world.advance(7000)
    await services.overview.orders(max_age_seconds=0)
    assert world.steps()[-1] == "ended"
    assert not world.reserved()


async def test_one_empty_list_is_no_proof_and_two_a_minute_apart_are(world: World, services: Services) -> None:
    await rent(services, world.free()[0])
    await services.keeper.stop()  # its rounds see what runs, and would take a proof back
    account = await services.context.readings.account()
    seen = await services.context.readings.look(completed=True)
    assert seen.api_at is not None

    def empty(after: float) -> object:
        assert seen.api_at is not None
        return replace(seen, rows=[], at=seen.at + after, api_at=seen.api_at + after)

    for after in (0, 59):
        await services.closer.reconcile(account, empty(after), empty(after))  # type: ignore[arg-type]
        assert len(world.reserved()) == 1, "not proven gone"
    await services.closer.reconcile(account, empty(61), empty(61))  # type: ignore[arg-type]
    assert world.steps()[-1] == "ended_unseen"
    [lease] = world.rows("SELECT * FROM orders")
    assert lease["ended_at"] is not None


async def test_an_order_that_is_seen_again_was_not_gone(world: World, services: Services) -> None:
    await rent(services, world.free()[0])
    await services.keeper.stop()  # its rounds see what runs, and would take a proof back
    account = await services.context.readings.account()
    seen = await services.context.readings.look(completed=True)
    assert seen.api_at is not None
    await services.closer.reconcile(account, replace(seen, rows=[]), replace(seen, rows=[]))
    later = replace(seen, at=seen.at + 30, api_at=seen.api_at + 30)
    await services.closer.reconcile(account, later, later)
    last = replace(seen, rows=[], at=seen.at + 61, api_at=seen.api_at + 61)
    await services.closer.reconcile(account, last, last)
    assert len(world.reserved()) == 1


async def test_a_list_with_unreadable_rows_proves_nothing(world: World, services: Services) -> None:
    await rent(services, world.free()[0])
    await services.keeper.stop()  # its rounds see what runs, and would take a proof back
    account = await services.context.readings.account()
    seen = await services.context.readings.look(completed=True)
    assert seen.api_at is not None
    for after in (0, 100):
        torn = replace(seen, rows=[], unreadable=1, at=seen.at + after, api_at=seen.api_at + after)
        whole = replace(torn, unreadable=0)
        await services.closer.reconcile(account, torn, whole)
        await services.closer.reconcile(account, whole, torn)
    assert len(world.reserved()) == 1


async def test_a_process_that_stops_takes_its_heartbeat_back(world: World, process: Processes) -> None:
    services = world.services()
    await services.keep_leases()
    assert await services.context.enforced_by() is not None
    await services.aclose()
    assert not world.rows("SELECT * FROM heartbeats")


async def test_two_first_calls_start_one_keeper(world: World) -> None:
    services = world.services(patient())
    await asyncio.gather(*(services.keep_leases() for _ in range(4)))
    assert sum(task.get_coro().__qualname__ == "Keeper._run" for task in asyncio.all_tasks()) == 1  # type: ignore[union-attr]
    await services.aclose()


async def test_without_a_keeper_the_whole_of_the_rental_is_reserved(world: World, process: Processes) -> None:
    services = world.services(CLORE_WATCHDOG="off", CLORE_MAX_USD_PER_ORDER="1000", CLORE_MAX_USD_PER_DAY="1000")
    try:
        held = await services.guard.hold(wish(world.free()[0]), caller="t", can_ask=True, replay=False)
        assert held.quote
        candidate = held.quote.terms["candidates"][0]
        assert candidate["worst_hours"] == candidate["max_rental_hours"]
        assert "NOTHING ends it" in held.quote.question
    finally:
        await services.aclose()


@pytest.mark.parametrize("endpoint", ["marketplace", "wallets", "my_orders"])
async def test_an_order_ends_though_nothing_else_can_be_read(world: World, endpoint: str) -> None:
    first = world.services()
    await first.keep_leases()
    order_id = (await rent(first, world.free()[0])).order_id
    await first.aclose()
    world.fault("http502", endpoint, times=10_000)
    second = world.services()
    try:
        await second.keep_leases()
        outcome = await cancel(second, order_id)
    finally:
        await second.aclose()
    assert outcome.status == ("unverified" if endpoint == "my_orders" else "cancelled")
    assert len(world.sent("cancel_order")) >= 1
    assert not world.active()


async def test_an_order_of_an_unknown_account_ends_with_a_yes_only(world: World) -> None:
    order_id = world.rent_elsewhere(world.free()[0], age_seconds=60)
    world.fault("http502", "wallets", times=10_000)
    services = world.services()
    try:
        assert (await cancel(services, order_id, can_ask=False)).status == "approval_required"
        assert not world.sent("cancel_order")
        assert (await cancel(services, order_id)).status == "cancelled"
    finally:
        await services.aclose()


async def test_a_cancel_is_answered_though_the_account_is_never_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closure, "_READING_SECONDS", 0.5)
    order_id = world.rent_elsewhere(world.free()[0], age_seconds=60)
    world.fault("hang_before", "wallets", times=10_000, seconds=600)
    services = world.services()
    try:
        with anyio.fail_after(10):  # one reading of the wallets alone takes longer to fail
            outcome = await cancel(services, order_id)
    finally:
        await services.aclose()
    assert outcome.status == "cancelled"
    assert outcome.watches_waiting is None, "whose they are is not known"
    assert outcome.next.endswith("Whether a watch may still rent can't be seen now. Call list_watches.")


async def test_an_order_ends_though_the_state_is_garbage(world: World) -> None:
    first = world.services()
    await first.keep_leases()
    order_id = (await rent(first, world.free()[0])).order_id
    await first.aclose()
    for file in world.state.glob(f"{FILE_NAME}*"):
        file.unlink()
    (world.state / FILE_NAME).write_bytes(b"garbage" * 1000)
    second = world.services()
    try:
        await second.keep_leases()
        with pytest.raises(StateUnavailable, match="it is unknown whether"):
            await cancel(second, order_id, can_ask=False)
        declined = await cancel(second, order_id, answer=False)
        assert (declined.status, declined.order_id) == ("declined", order_id)
        assert not world.sent("cancel_order")
        ask = CancelOrder(order_id=order_id)
        held = await second.guard.hold(ask, caller="t", can_ask=True, replay=False)
        again = await second.guard.hold(ask, caller="t", can_ask=True, replay=True)
        assert held.quote == again.quote is not None, "each round shows the same question"
        outcome = await second.guard.conclude(again, ask, answer=True, caller="t")
        await second.guard.told(again, outcome)
        assert outcome.status == "cancelled"
        assert not world.active()
    finally:
        await second.aclose()


async def test_a_price_that_nobody_knows_is_said_and_stops_no_question(world: World) -> None:
    first = world.services()
    await first.keep_leases()
    order_id = (await rent(first, world.free()[0])).order_id
    await first.aclose()
    world.fault("http502", "my_orders", times=10_000)
    second = world.services()
    try:
        theirs = CancelOrder(order_id=7)
        held = await second.guard.hold(theirs, caller="t", can_ask=True, replay=False)
        assert held.quote
        assert "Cancel order 7 (hardware unknown, price unknown)?" in held.quote.question
        assert "not made here" in held.quote.question
        ours = await second.guard.hold(CancelOrder(order_id=order_id), caller="t", can_ask=True, replay=False)
        assert ours.quote
        assert "per hour)?" in ours.quote.question
    finally:
        await second.aclose()


def _hidden(
    services: Services, order_id: int, monkeypatch: pytest.MonkeyPatch, *, completed: bool = True
) -> list[bool]:
    """Hide an order from the lists until the answer is emptied; `completed`: from that of completed ones too."""
    real, on = services.context.client.my_orders, [True]

    async def my_orders(**asked: Any) -> Any:
        reply = await real(**asked)
        if not on or (asked.get("completed") and not completed):
            return reply
        return replace(reply, rows=[row for row in reply.rows if row.id != order_id])

    monkeypatch.setattr(services.context.client, "my_orders", my_orders)
    services.context.readings.changed()
    return on


@pytest.mark.parametrize("completed", [False, True])
async def test_an_order_missing_from_a_list_is_cancelled_all_the_same(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch, completed: bool
) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    _hidden(services, order_id, monkeypatch, completed=completed)
    assert (await cancel(services, order_id)).status == ("unverified" if completed else "cancelled")
    assert not world.active()


async def test_a_running_order_is_not_ended_by_an_old_list(world: World, services: Services) -> None:
    await services.context.readings.completed()
    order_id = world.rent_elsewhere(world.free()[0], age_seconds=60)
    assert (await cancel(services, order_id)).status == "cancelled"


async def test_an_order_that_nobody_knows_is_not_found(world: World, services: Services) -> None:
    with pytest.raises(NotFound):
        await cancel(services, 7)


async def test_a_lease_closed_here_answers_with_its_receipt(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    gone = await cancel(services, order_id)
    _hidden(services, order_id, monkeypatch)
    again = await cancel(services, order_id)
    assert (again.status, again.receipt) == ("already_ended", gone.receipt)


async def test_an_expired_row_closes_its_lease(world: World, services: Services) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    await services.context.client.cancel_order(order_id, None)
    assert (await cancel(services, order_id)).status == "already_ended"
    assert not world.reserved()


async def test_an_order_that_comes_back_after_it_counted_as_gone_is_kept_again(
    world: World, services: Services
) -> None:
    order_id = (await rent(services, world.free()[0], hours=1.0)).order_id
    account = await services.context.readings.account()
    seen = await services.context.readings.look(completed=True)
    assert seen.api_at is not None
    for after in (-122, -61):  # in the past, so that the reply below is younger
        empty = replace(seen, rows=[], at=seen.at + after, api_at=seen.api_at + after)
        await services.closer.reconcile(account, empty, empty)
    assert world.steps()[-1] == "ended_unseen"
    assert not world.reserved()
    await services.closer.reconcile(account, replace(seen, at=seen.at - 100), None)
    assert not world.reserved(), "a reply from before it was closed proves nothing"
    await services.keeper.poll()
    assert "order_seen_again" in world.steps()
    assert [row["order_id"] for row in world.reserved()] == [order_id]
    world.advance(3600)
    await services.keeper.poll()
    assert not world.active()
    check_invariants(world)


async def test_an_order_that_is_back_is_cancelled_with_its_reservation(world: World, services: Services) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    world.change("UPDATE orders SET ended_at = 1, missed_at = 1, receipt = NULL")
    world.change("UPDATE reservations SET released_at = 1, actual_micros = 0")
    assert (await cancel(services, order_id)).status == "cancelled"
    assert "order_seen_again" in world.steps()
    [lease] = world.rows("SELECT * FROM orders")
    assert lease["ended_at"] > 1
    check_invariants(world)


@pytest.mark.parametrize(
    ("local", "clore", "gone"),
    [(61, 61, True), (1, 61, False), (61, 1, False), (61, None, True), (1, None, False), (61, -4000, False)],
)
async def test_every_clock_that_is_known_must_say_a_minute(
    world: World, services: Services, local: float, clore: float | None, gone: bool
) -> None:
    await rent(services, world.free()[0])
    await services.keeper.stop()  # its rounds see what runs, and would take a proof back
    account = await services.context.readings.account()
    seen = await services.context.readings.look(completed=True)
    first = replace(seen, rows=[], api_at=seen.at - 120)  # Clore's clock is two minutes behind ours
    await services.closer.reconcile(account, first, first)
    api_at = None if clore is None else seen.at - 120 + clore
    second = replace(seen, rows=[], at=seen.at + local, api_at=api_at)
    await services.closer.reconcile(account, second, second)
    assert (not world.reserved()) is gone


async def _events(services: Services) -> list[str]:
    told = await account_state(services.context, services.pricer, services.approvals, services.overview)
    return [event.what for event in told.events]


async def test_the_end_of_a_lease_to_be_told_about_is_told_once(world: World, services: Services) -> None:
    await rent(services, world.free()[0], hours=1.0, on_end="notify")
    await services.keeper.poll()
    assert "lease over" not in await _events(services)
    world.advance(2 * 3600)
    for _ in range(3):
        await services.keeper.poll()
    assert (await _events(services)).count("lease over") == 1


async def test_an_order_that_was_ended_at_its_end_is_an_event(world: World, services: Services) -> None:
    await rent(services, world.free()[0], hours=1.0)
    world.advance(3600)
    await services.keeper.poll()
    assert "lease ended" in await _events(services)

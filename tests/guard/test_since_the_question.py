"""What has changed since the question: a listing, and a list of orders that cannot be read or priced any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from clore_mcp.clore import OrderRow, OrdersReply
from clore_mcp.rental.results import Outcome
from clore_mcp.wiring import Services
from tests.guard.calls import call, let_time_pass, wish
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.world import Json, World

pytestmark = pytest.mark.anyio

WIDE = {"CLORE_MAX_USD_PER_ORDER": "99999", "CLORE_MAX_USD_PER_DAY": "99999", "CLORE_MAX_USD_PER_HOUR": "999"}
UNWATCHED = {"CLORE_WATCHDOG": "off", **WIDE}
DEAD: Json = {"specs": {"gpu": "1x NVIDIA GeForce GT 710"}, "gpu_array": ["NVIDIA GeForce GT 710"]}


async def after_the_question(
    world: World, asked: Services, sends: Services, ask: Any, then: Callable[[], Any]
) -> Outcome:
    """A yes to what `asked` showed, carried out by another process after something moved."""
    held = await asked.guard.hold(ask, caller="t", can_ask=True, replay=False)
    assert held.quote is not None, held.outcome
    then()
    let_time_pass(sends)
    return await sends.guard.conclude(held, ask, answer=True, caller="t")


@pytest.mark.parametrize(
    ("env", "more", "mrl"),
    [
        (UNWATCHED, {}, 1000),  # nobody ends it: it would bill a thousand hours under a reservation for 24
        ({}, {"on_end": "notify"}, 1000),
        ({}, {"hours": 20}, 1),  # Clore would end it after the first
    ],
)
async def test_a_host_that_moves_its_limit_after_the_question_gets_no_order(
    world: World, process: Processes, env: dict[str, str], more: Json, mrl: int
) -> None:
    one, two = await process(env=env), await process(env=env)
    server_id = world.free()[0]
    world.post(f"/servers/{server_id}", {"mrl": 24})
    outcome = await after_the_question(
        world, one, two, wish(server_id, **more), lambda: world.post(f"/servers/{server_id}", {"mrl": mrl})
    )
    assert outcome.status == "refused"
    assert [one.outcome.split(":")[0] for one in outcome.attempts] == ["listing_changed"]
    assert not world.sent() and not world.reserved()
    check_invariants(world)


async def test_a_server_that_became_another_is_passed_over_for_the_fallback(world: World, process: Processes) -> None:
    one, two = await process(), await process()
    first, second = world.free()[:2]
    ask = wish(first, fallback_server_ids=[second])
    outcome = await after_the_question(world, one, two, ask, lambda: world.post(f"/servers/{first}", DEAD))
    assert (outcome.status, outcome.server_id) == ("created", second)
    assert outcome.attempts[0].outcome.startswith("listing_changed: 1x GT 710 now, ")
    assert len(world.sent()) == 1
    check_invariants(world)


def altered(monkeypatch: pytest.MonkeyPatch, services: Services, change: Callable[[OrdersReply], OrdersReply]) -> None:
    """Every list of orders that this process reads from now on is another."""
    client = services.context.client
    listed = client.my_orders

    async def my_orders(**how: Any) -> OrdersReply:
        return change(await listed(**how))

    monkeypatch.setattr(client, "my_orders", my_orders)
    services.context.readings.changed()


async def test_nothing_is_rented_beside_an_order_of_which_no_price_is_known(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, server_id = world.free()[:2]
    world.rent_elsewhere(elsewhere)
    world.advance(10)

    def unpriced(row: OrderRow) -> OrderRow:
        return row.model_copy(update={"price": None, "server_id": None})

    altered(monkeypatch, services, lambda reply: replace(reply, rows=[unpriced(row) for row in reply.rows]))
    outcome = await call(services, wish(server_id))
    assert "usd_per_hour" in [refusal.limit for refusal in outcome.refusals]
    counted = "counts as $5.00, the highest that its known prices allow, because its cost is unknown."
    assert f"{counted} To end it, use cancel_order" in outcome.next
    assert not world.sent()


async def test_a_list_that_can_not_be_read_whole_lets_nothing_leave(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = wish(world.free()[0])
    outcome = await after_the_question(
        world,
        services,
        services,
        ask,
        lambda: altered(monkeypatch, services, lambda reply: replace(reply, dropped=1)),
    )
    assert outcome.status == "failed" and "can't be read" in outcome.next
    assert not world.sent() and not world.reserved()
    monkeypatch.undo()
    services.context.readings.changed()
    assert (await call(services, ask, caller="t")).status == "created"
    assert len(world.rows("SELECT * FROM quotes")) == 1, "the question was still open"

"""The ledger says what was asked, sent and answered, a row a step; and a state that fails hides no order."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from clore_mcp.errors import StateUnavailable
from clore_mcp.wiring import Services
from tests.guard.calls import SHORT, call, cancel, patient, rent, wish
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.world import IMAGE, USD, World

pytestmark = pytest.mark.anyio
ROOMY = {
    "CLORE_MAX_USD_PER_HOUR": "1000",
    "CLORE_MAX_USD_PER_DAY": "10000",
    "CLORE_MAX_ACTIVE_ORDERS": "100",
}


def data(world: World, step: str) -> list[dict[str, Any]]:
    return [json.loads(row["data"]) for row in world.rows("SELECT data FROM ledger WHERE step = ? ORDER BY seq", step)]


@pytest.mark.parametrize("order_type", ["on-demand", "spot"])
async def test_what_was_sent_is_in_the_ledger(world: World, services: Services, order_type: str) -> None:
    server_id = world.free()[0]
    await call(services, wish(server_id, order_type=order_type))
    [request] = world.sent()
    price = "spotprice" if order_type == "spot" else "required_price"
    [sent] = data(world, "sending")
    assert float(sent.pop(f"{price}_per_day")) == request["body"][price]
    assert sent == {"image": IMAGE, "order_type": order_type, "currency": "USD"}
    check_invariants(world)


async def test_the_question_is_in_the_ledger_with_names_of_env_values_only(world: World, services: Services) -> None:
    await call(services, wish(world.free()[0], command="sleep 1", ports={"8000": "http"}, jupyter=False))
    [quoted] = data(world, "quoted")
    for part in ("sleep 1", "8000", "HF_TOKEN", "SHA256:"):
        assert part in quoted["question"], part
    check_invariants(world)


async def test_each_create_that_clore_refuses_unread_is_in_the_ledger(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="t", can_ask=True, replay=False)
    world.options(rate_limit="arrival", interval=0.0, create_interval=60.0)
    world.take_create_slot()
    await services.guard.conclude(held, ask, answer=True, caller="t")
    assert world.steps() == [
        "quoted",
        "reserved",
        *["sending", "too_fast"] * 3,
        "attempt_refused",
        "failed",
    ]
    check_invariants(world)


async def test_a_cancel_ends_in_one_row(world: World, services: Services) -> None:
    await cancel(services, (await rent(services, world.free()[0])).order_id)
    assert world.steps().count("cancelled") == 1
    assert world.steps()[-1] == "cancelled"


def break_writes(services: Services, monkeypatch: pytest.MonkeyPatch, first: int, count: int) -> None:
    """The disk is full at some of the coming writes."""
    write, made = services.context.state.write, iter(range(1, 1000))

    async def full(work: Any, **how: bool) -> Any:
        if first <= next(made) < first + count:
            raise StateUnavailable("The disk is full.")
        return await write(work, **how)

    monkeypatch.setattr(services.context.state, "write", full)


@pytest.mark.parametrize("count", [3, 1000])
async def test_a_state_that_fails_at_any_write_hides_no_order(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    world.options(order_limit=100)
    world.post("/wallets", {"balances": {USD: 1000.0}})
    servers = iter(world.free())
    for first in range(2, 14):
        services = await process(SHORT, ROOMY)
        ask = wish(next(servers), fallback_server_ids=[next(servers)])
        before = len(world.active())
        with monkeypatch.context() as patch:
            break_writes(services, patch, first, count)
            try:
                told = str((await call(services, ask)).status)
            except StateUnavailable:
                told = "state_unavailable"
        made = len(world.active()) - before
        if made:
            assert told in ("created", "uncertain", "in_progress"), first
        assert made <= 1, first


async def test_a_create_is_in_progress_though_the_state_can_not_be_read_by_who_follows_it(
    world: World, process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await process(), await process(patient(answer=0.7))
    ask = wish(world.free()[0])
    world.fault("hang_after", "create_order", seconds=5.0)
    renting = asyncio.ensure_future(call(one, ask))
    await asyncio.to_thread(world.await_request, "create_order", effect=True)
    held = await other.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    break_writes(other, monkeypatch, 2, 1000)
    outcome = await other.guard.conclude(held, ask, answer=None, caller="tester")
    assert outcome.status == "in_progress"
    assert (await renting).status == "created"
    check_invariants(world)

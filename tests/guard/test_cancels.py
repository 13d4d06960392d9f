"""A cancel is sent until it has worked, each sending is in the ledger, and what still runs is told as far as known."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from clore_mcp.clore import OrdersReply
from clore_mcp.errors import NotJson
from clore_mcp.rental.requests import CancelOrder
from clore_mcp.rental.results import BillingOrder
from clore_mcp.wiring import Services
from tests.guard.calls import cancel, patient, rent
from tests.guard.conftest import Processes
from tests.world import World

pytestmark = pytest.mark.anyio


async def test_a_cancel_that_failed_is_sent_again_though_nothing_can_be_read(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = (await rent(services, world.free()[0])).order_id
    ask = CancelOrder(order_id=order_id)
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    world.fault("http502", "cancel_order", times=1)

    async def my_orders(**_: Any) -> OrdersReply:
        raise NotJson("outage")

    monkeypatch.setattr(services.context.client, "my_orders", my_orders)
    outcome = await services.guard.conclude(held, ask, answer=True, caller="tester")
    assert outcome.status == "unverified"
    assert not world.active()


async def test_each_cancel_that_is_sent_is_in_the_ledger_with_its_answer(world: World, process: Processes) -> None:
    services = await process(patient(proof=12.0))
    order_id = (await rent(services, world.free()[0])).order_id
    world.fault("cancel_ignored", times=1)
    assert (await cancel(services, order_id)).status == "cancelled"
    assert len(world.sent("cancel_order")) == 2
    rows = world.rows("SELECT step, data FROM ledger WHERE step IN ('cancel_sent', 'cancel_answered') ORDER BY seq")
    assert [row["step"] for row in rows] == ["cancel_sent", "cancel_answered"] * 2
    assert [json.loads(row["data"])["said"] for row in rows[1::2]] == ["Clore took the cancel"] * 2


async def test_what_still_runs_has_no_price_where_none_is_known(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.free()[:2]
    order_id = (await rent(services, first)).order_id
    other = world.rent_elsewhere(second, age_seconds=60)
    real = services.context.client.my_orders

    async def my_orders(**asked: Any) -> OrdersReply:
        reply = await real(**asked)
        unpriced = [row.model_copy(update={"price": None}) if row.id == other else row for row in reply.rows]
        return replace(reply, rows=unpriced)

    monkeypatch.setattr(services.context.client, "my_orders", my_orders)
    services.context.readings.changed()
    assert (await cancel(services, order_id)).still_running == (BillingOrder(other),)

"""The form that a question comes with: never an empty one, which one client accepts without showing it to anybody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from clore_mcp.sandbox import Running
from tests.conftest import environment
from tests.story.people import IMAGE
from tests.story.test_spot import spot_prices
from tests.story.wire import WIRE_ERAS, Json, wired

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("era", WIRE_ERAS)
async def test_every_question_has_a_box_that_only_a_person_ticks(market: Running, tmp_path: Path, era: str) -> None:
    asked: list[Json] = []

    def answer(question: Json) -> Json:
        asked.append(question)
        return {"result": {"action": "accept", "content": {"approve": True}}}

    spot_id = next(iter(await asyncio.to_thread(lambda: spot_prices(market))))
    async with wired(environment(market, tmp_path), era, {"elicitation": {"form": {}}}, answer) as wire:
        found = (await wire.call("search_servers", gpu="3060"))["servers"]
        made = await wire.call("create_order", server_id=found[0]["server_id"], image=IMAGE, hours=1)
        book = (await wire.call("get_server", server_id=spot_id))["spot"]
        bid = {"order_type": "spot", "bid_usd_per_hour": book["to_win_usd_per_hour"]}
        spot = await wire.call("create_order", server_id=spot_id, image=IMAGE, hours=1, **bid)
        raised = round(bid["bid_usd_per_hour"] * 1.5, 4)
        outcomes = {
            "extend_order": await wire.call("extend_order", order_id=made["order_id"], hours=1),
            "set_spot_price": await wire.call("set_spot_price", order_id=spot["order_id"], bid_usd_per_hour=raised),
            "create_watch": await wire.call(
                "create_watch", gpu="3090", max_usd_per_hour=0.01, hours=1, image=IMAGE, expires_hours=1
            ),
            "cancel_order": await wire.call("cancel_order", order_id=made["order_id"]),
        }
        assert (made["status"], spot["status"]) == ("created", "created"), (made, spot)
        assert len(asked) == 6, (outcomes, [one["message"][:80] for one in asked])
    for question in asked:
        form = question["requestedSchema"]
        assert form["type"] == "object"
        assert form["required"] == ["approve"], "without the tick there is no yes"
        assert form["properties"]["approve"]["type"] == "boolean"
        assert "default" not in form["properties"]["approve"], "nobody's yes is filled in beforehand"
        assert question.get("mode", "form") == "form"


@pytest.mark.parametrize("era", WIRE_ERAS)
async def test_a_form_that_is_accepted_unfilled_is_no_yes(market: Running, tmp_path: Path, era: str) -> None:
    def unfilled(question: Json) -> Json:
        return {"result": {"action": "accept", "content": {}}}

    async with wired(environment(market, tmp_path), era, {"elicitation": {"form": {}}}, unfilled) as wire:
        server_id = (await wire.call("search_servers", gpu="3060"))["servers"][0]["server_id"]
        told = await wire.call("create_order", server_id=server_id, image=IMAGE, hours=1)
        assert told.get("status") != "created", told
        assert (await wire.call("list_orders")).get("orders", []) == []

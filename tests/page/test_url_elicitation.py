"""A client that declares URL elicitation offers the person the page, in both eras; what it answers is no yes."""

from __future__ import annotations

from typing import Any

import pytest

from clore_mcp.page_process import PageOpener
from tests.page.conftest import House
from tests.story.wire import WIRE_ERAS, Json, wired

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("era", WIRE_ERAS)
@pytest.mark.parametrize("action", ["accept", "decline", "cancel"])
async def test_a_client_that_takes_addresses_offers_the_page_once(house: House, era: str, action: str) -> None:
    asked: list[Json] = []

    def answer(question: Json) -> Json:
        asked.append(question)
        return {"result": {"action": action}}

    env = {**house.env, "DISPLAY": ":9", "BROWSER": "/bin/false %s"}
    async with wired(env, era, {"elicitation": {"url": {}}}, answer) as wire:
        found = await wire.call("search_servers", currency="USD", min_rental_hours=24, limit=1)
        wish: dict[str, Any] = {"server_id": found["servers"][0]["server_id"], "hours": 1.0, "currency": "USD"}
        told = await wire.call("create_order", **wish)
        again = await wire.call("create_order", **wish)
        listed = await wire.call("list_orders")
    assert told["status"] == again["status"] == "approval_required", told
    (offer,) = asked
    assert offer["mode"] == "url" and f"approvals/{told['approval_id']}" in offer["url"] and "enter" not in offer["url"]
    in_front = "on the page that they have open in their browser" in told["next"]
    assert in_front is (action == "accept") and (in_front or "clore-mcp approve" in told["next"])
    assert listed["orders"] == [] and house.quote(told["approval_id"]).state == "pending"
    visitor = house.visitor()
    assert visitor.http.get(offer["url"]).status_code == 200, "a browser that is signed in sees the question"
    visitor.http.cookies.clear()
    assert visitor.http.get(offer["url"]).status_code == 403, "and no other"


async def test_no_address_is_offered_where_the_page_may_not_open(house: House) -> None:
    async with wired(house.env, WIRE_ERAS[0], {"elicitation": {"url": {}}}, lambda question: None) as wire:
        found = await wire.call("search_servers", currency="USD", min_rental_hours=24, limit=1)
        told = await wire.call("create_order", server_id=found["servers"][0]["server_id"], hours=1.0, currency="USD")
    assert told["status"] == "approval_required" and wire.asked == []
    assert PageOpener(house.wanted).address("q1") is None

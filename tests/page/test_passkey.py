"""CLORE_APPROVAL=passkey without a browser: whose yes counts, and which signatures do not."""

from __future__ import annotations

import asyncio
import json

import pytest
from mcp import Client
from mcp.types import ElicitResult

from clore_mcp.rental.approvals import BY_PASSKEY
from clore_mcp.server import create_server
from clore_mcp.store import passkeys
from tests.conftest import settings_for
from tests.page.conftest import Assistant, House

pytestmark = pytest.mark.anyio
PASSKEY = {"CLORE_APPROVAL": "passkey"}


async def decided(house: House, quote_id: str, by: str) -> None:
    services = house.services()
    try:
        assert await services.approvals.decide(await services.approvals.get(quote_id), yes=True, by=by)
    finally:
        services.context.state.close()


async def test_with_passkey_no_other_yes_counts(house: House) -> None:
    asked: list[str] = []

    async def yes(context: object, params: object) -> ElicitResult:
        asked.append("asked")
        return ElicitResult(action="accept", content={"approve": True})

    server = create_server(settings_for({**house.env, **PASSKEY}, house.folder))
    async with Client(server, elicitation_callback=yes) as client:
        us = Assistant(client)
        wish = await us.wish()
        told = await us.rent(wish)
        assert told["status"] == "approval_required" and asked == [], "the client's form is no way"
        assert "page` in their own terminal" in told["next"] and "passkey" in told["next"]
        await decided(house, told["approval_id"], "person at ann@laptop, terminal")
        assert (await us.rent(wish))["status"] == "approval_required", "a yes without a signature is none"
        assert (await us.call("list_orders"))["orders"] == []
        other = await us.wish(nth=1)
        told = await us.rent(other)
        await decided(house, told["approval_id"], f"{BY_PASSKEY}person at ann@laptop, page")
        assert (await us.rent(other))["status"] == "created"


async def test_a_page_of_that_mode_takes_no_yes_without_a_signature(house: House) -> None:
    async with house.assistant(**PASSKEY) as us:
        told = await us.rent(await us.wish())
    state = house.services().context.state
    await state.write(lambda tx: passkeys.add(tx, passkeys.Passkey("aWQ", "a2V5", "key", 1.0)))
    state.close()
    visitor = house.visitor()
    act = f"approvals/{told['approval_id']}/yes"
    for assertion in ("", "{}", "null", "[]", "x", json.dumps({"id": "aWQ", "rawId": "aWQ", "type": "public-key"})):
        await asyncio.to_thread(visitor.post, act.replace("yes", "challenge"), {})
        reply = await asyncio.to_thread(visitor.submit, act.rpartition("/")[0], act, assertion=assertion)
        assert reply.status_code == 403 and "nothing was approved" in reply.text, assertion
    assert house.quote(told["approval_id"]).state == "pending"


async def test_a_passkey_is_registered_only_by_an_address_of_a_terminal(house: House) -> None:
    visitor = house.visitor(to="passkey")
    assert "passkey add" in visitor.get("passkey").text
    assert visitor.post("passkey/challenge", {}).status_code == 403
    able = house.visitor(to="passkey", registers=True)
    assert able.post("passkey/challenge", {}).status_code == 200
    for credential in ("", "{}", "null", "x"):
        able.post("passkey/challenge", {})
        reply = able.submit("passkey", "passkey", credential=credential)
        assert reply.status_code == 403 and "nothing was registered" in reply.text

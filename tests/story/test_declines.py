"""A question and all that can come back on it: each is told apart, and only an accepted yes is one."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mcp import MCPError
from mcp.types import ElicitResult, ErrorData

from clore_mcp.sandbox import Running
from clore_mcp.store.database import FILE_NAME
from tests.conftest import environment
from tests.story.people import IMAGE, assistant
from tests.story.records import nothing_was_spent, orders, rows, states
from tests.story.wire import MODERN, WIRE_ERAS, Answer, Json, accept, wired

pytestmark = pytest.mark.anyio
ASKABLE: Json = {"elicitation": {}}
eras = pytest.mark.parametrize("era", WIRE_ERAS)


def no(action: str) -> Answer:
    return lambda question: {"result": {"action": action}}


def error(code: int, message: str) -> Answer:
    return lambda question: {"error": {"code": code, "message": message}}


async def wishes(caller: Any, how_many: int = 1) -> list[Json]:
    found = (await caller.call("search_servers", gpu="3060"))["servers"]
    return [{"server_id": row["server_id"], "image": IMAGE, "hours": 1} for row in found[:how_many]]


@eras
async def test_cancels_decide_nothing_and_count_for_no_pause(market: Running, tmp_path: Path, era: str) -> None:
    async with wired(environment(market, tmp_path), era, ASKABLE, no("cancel")) as us:
        [wish] = await wishes(us)
        for number in range(1, 5):
            told = await us.call("create_order", **wish)
            assert told["status"] == "declined" and len(us.asked) == number, told
            assert "wire-client after " in told["next"] and "answered 'cancel'" in told["next"]
            assert f"server {wish['server_id']}" in told["next"] and "$" in told["next"]
            assert "call again" in told["next"] and "said no" not in told["next"]
        assert len(set(us.asked)) == 4, "each has its own id, so that no answer to an older one fits"
        us.answer = no("decline")
        told = await us.call("create_order", **wish)
        assert "answered 'decline'" in told["next"] and "Asking the same question again does not help" in told["next"]
        nothing_was_spent(market, tmp_path)
        us.answer = accept(approve=True)
        assert (await us.call("create_order", **wish))["status"] == "created"
    assert states(tmp_path) == ["expired"] * 4 + ["declined", "settled"]


async def test_no_yes_to_a_question_that_was_cancelled_counts_later(market: Running, tmp_path: Path) -> None:
    async with wired(environment(market, tmp_path), MODERN, ASKABLE, no("cancel")) as us:
        [wish] = await wishes(us)
        question = await us.ask_only("create_order", **wish)
        cancels = {key: {"action": "cancel"} for key in question["inputRequests"]}
        more = {"inputResponses": cancels, "requestState": question["requestState"]}
        await us.request("tools/call", {"name": "create_order", "arguments": wish} | more)
        assert states(tmp_path) == ["expired"]
        yes = {key: {"action": "accept", "content": {"approve": True}} for key in question["inputRequests"]}
        more = {"inputResponses": yes, "requestState": question["requestState"]}
        late = await us.request("tools/call", {"name": "create_order", "arguments": wish} | more)
        assert late["result"]["resultType"] == "input_required", "another question, and this answer is not for it"
    nothing_was_spent(market, tmp_path)


@eras
@pytest.mark.parametrize(("code", "words"), [(-32601, "Method not found"), (-32603, "Internal error")])
async def test_an_error_makes_the_client_one_that_cannot_be_asked(
    market: Running, tmp_path: Path, era: str, code: int, words: str
) -> None:
    async with wired(environment(market, tmp_path), era, ASKABLE, error(code, words)) as us:
        one, other = await wishes(us, 2)
        told = await us.call("create_order", **one)
        assert told["status"] == "approval_required" and f"approve {told['approval_id']}" in told["next"], told
        assert f"error {code}: {words}" in told["next"]
        again = await us.call("create_order", **one)
        assert again["approval_id"] == told["approval_id"]
        us.answer = accept(approve=True)
        assert (await us.call("create_order", **other))["status"] == "approval_required"
        assert len(us.asked) == 1, "asked once, and never again in this session"
    assert states(tmp_path) == ["pending", "pending"]
    nothing_was_spent(market, tmp_path)


async def test_a_question_without_an_answer_lapses_and_says_so(market: Running, tmp_path: Path) -> None:
    async with wired(environment(market, tmp_path), "2025-11-25", ASKABLE, accept()) as us:
        [wish] = await wishes(us)
        assert (await us.call("create_order", **wish))["error"] == "invalid_argument", "it waits on"
        with closing(sqlite3.connect(tmp_path / "state" / FILE_NAME, timeout=60)) as db, db:
            db.execute("UPDATE quotes SET created_at = ?1, expires_at = ?1 + 6", (time.time(),))
        us.answer = lambda question: None
        told = await us.call("create_order", **wish)
        assert told["status"] == "declined" and "gave no answer in time" in told["next"], told
        assert len(us.asked) == 2 and states(tmp_path) == ["expired"]
        us.answer = accept(approve=True)
        assert (await us.call("create_order", **wish))["status"] == "created"
    assert len(orders(market)) == 1


@eras
async def test_a_cancel_of_ours_goes_ahead_where_the_client_answers_with_an_error(
    market: Running, tmp_path: Path, era: str
) -> None:
    async with wired(environment(market, tmp_path), era, ASKABLE, accept(approve=True)) as us:
        [wish] = await wishes(us)
        order_id = (await us.call("create_order", **wish))["order_id"]
        us.answer = no("cancel")
        told = await us.call("cancel_order", order_id=order_id)
        assert told["status"] == "declined" and "keeps running and billing" in told["next"]
        us.answer = error(-32601, "Method not found")
        assert (await us.call("cancel_order", order_id=order_id))["status"] == "cancelled"
    assert [row["ended_at"] is None for row in orders(market)] == [False]


async def fails(context: Any, params: Any) -> ElicitResult | ErrorData:
    return ErrorData(code=-32601, message="Method not found")


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_an_sdk_client_whose_callback_fails_is_led_outside_the_chat(
    market: Running, tmp_path: Path, mode: str
) -> None:
    """In the newer era this client keeps the error to itself: the server only sees that no answer ever comes."""
    async with assistant(market, tmp_path, mode, fails) as us:  # type: ignore[arg-type]
        [wish] = await wishes(us)
        if mode == "auto":
            for _ in range(2):
                with pytest.raises(MCPError):
                    await us.call("create_order", **wish)
                await asyncio.sleep(1.2)
        told = await us.call("create_order", **wish)
        assert told["status"] == "approval_required", told
    assert [row["state"] for row in rows(tmp_path, "quotes")] == ["pending"]
    nothing_was_spent(market, tmp_path)

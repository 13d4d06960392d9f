"""Many assistants at one moment on one state: the caps hold, the same call is one order, one yes is one order."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from clore_mcp.sandbox import Running
from tests.conftest import environment
from tests.story.people import IMAGE, Person, assistant
from tests.story.records import creates, nothing_was_spent, orders, rows, states
from tests.story.wire import MODERN, Json, accept, wired

pytestmark = pytest.mark.anyio
PROCESSES = 8
REPLAYS = 12
LIMIT = 2
ERAS = ("legacy", "auto")


async def one_of_many(
    market: Running, folder: Path, number: int, start: asyncio.Barrier, *, same: bool, **env: str
) -> Json:
    """A client with a server process of its own; its create leaves when all are ready, and its person says yes."""
    async with assistant(market, folder, ERAS[number % 2], Person(True, True), **env) as us:
        found = await us.call("search_servers", gpu="3090", limit=PROCESSES)
        server_id = found["servers"][0 if same else number]["server_id"]
        await start.wait()
        wish = {"server_id": server_id, "image": IMAGE, "hours": 1}
        while (told := await us.call("create_order", **wish))["status"] == "in_progress":
            pass  # a busy machine took longer than clients wait: the same call goes on to wait
        return told


async def all_at_once(market: Running, folder: Path, *, same: bool, **env: str) -> list[Json]:
    start = asyncio.Barrier(PROCESSES)
    return await asyncio.gather(
        *(one_of_many(market, folder, number, start, same=same, **env) for number in range(PROCESSES))
    )


async def test_eight_assistants_that_all_have_a_yes_make_two_orders_where_two_are_allowed(
    market: Running, tmp_path: Path
) -> None:
    outcomes = await all_at_once(market, tmp_path, same=False, CLORE_MAX_ACTIVE_ORDERS=str(LIMIT))
    assert Counter(one["status"] for one in outcomes) == {"created": LIMIT, "refused": PROCESSES - LIMIT}, outcomes
    for one in outcomes:
        for refusal in one.get("refusals", []):
            assert (refusal["limit"], refusal["cap"], refusal["left"]) == ("active_orders", LIMIT, 0)
            assert refusal["used"] == LIMIT, "one that is not confirmed yet counts once too"
            assert "the operator" in refusal["change"] and "CLORE_MAX_ACTIVE_ORDERS" in refusal["change"]
    assert all(len(one["refusals"]) == 1 for one in outcomes if one["status"] == "refused")
    made = {one["order_id"] for one in outcomes if one["status"] == "created"}
    assert {order["id"] for order in orders(market)} == made and len(made) == LIMIT
    assert len(creates(market)) == LIMIT, "what is refused is not sent"
    reserved = [row for row in rows(tmp_path, "reservations") if row["released_at"] is None]
    assert {row["order_id"] for row in reserved} == made and len(reserved) == LIMIT


def set_up(market: Running, part: str, **how: object) -> None:
    httpx2.post(f"{market.control_url}/{part}", json=how, verify=False).raise_for_status()


async def test_an_order_counts_once_while_its_reply_is_on_the_way(market: Running, tmp_path: Path) -> None:
    set_up(market, "clock", speed=1)
    set_up(market, "options", visible_after=0)
    set_up(market, "faults", kind="hang_after", endpoint="create_order", seconds=4)
    env = {"CLORE_MAX_ACTIVE_ORDERS": str(LIMIT)}
    async with (
        assistant(market, tmp_path, "auto", Person(True), **env) as first,
        assistant(market, tmp_path, "auto", Person(True), **env) as second,
    ):
        found = (await first.call("search_servers", gpu="3090", limit=2))["servers"]
        wishes = [{"server_id": row["server_id"], "image": IMAGE, "hours": 1} for row in found]
        making = asyncio.create_task(first.call("create_order", **wishes[0]))
        while not any(order["visible"] for order in await asyncio.to_thread(orders, market)):
            assert not making.done()
        active = (await second.call("get_account"))["limits"]["active_orders"]
        used = active["spent"] + active["reserved"]
        other = await second.call("create_order", **wishes[1])
        assert (await making)["status"] == "created"
    assert (used, other["status"]) == (1, "created"), "two are allowed, and this is the second"


async def test_eight_assistants_with_the_same_wish_make_one_order(market: Running, tmp_path: Path) -> None:
    outcomes = await all_at_once(market, tmp_path, same=True)
    assert {one["status"] for one in outcomes} == {"created"}, outcomes
    [order] = orders(market)
    assert {one["order_id"] for one in outcomes} == {order["id"]}
    assert len(creates(market)) == len(rows(tmp_path, "reservations")) == 1


async def test_one_answer_sent_twelve_times_at_once_makes_one_order(market: Running, tmp_path: Path) -> None:
    env = environment(market, tmp_path)
    taking_forms: Json = {"elicitation": {"form": {}}}
    async with (
        wired(env, MODERN, taking_forms, accept(approve=True)) as us,
        wired(env, MODERN, taking_forms, accept(approve=True)) as another,
    ):
        found = await us.call("search_servers", gpu="3090", limit=1)
        wish = {"server_id": found["servers"][0]["server_id"], "image": IMAGE, "hours": 1}
        question = await us.ask_only("create_order", **wish)
        stolen = await another.reply_to(question, "create_order", **wish)
        assert stolen["rpc_error"]["code"] == -32602, "the seal is that process's own"
        state = question["requestState"]
        forged = {**question, "requestState": state[:-9] + ("A" if state[-9] != "A" else "B") + state[-8:]}
        assert "rpc_error" in await us.reply_to(forged, "create_order", **wish), "one letter is another"
        nothing_was_spent(market, tmp_path)
        replies = (us.reply_to(question, "create_order", **wish) for _ in range(REPLAYS))
        outcomes = await asyncio.gather(*replies)
    assert {one["status"] for one in outcomes} == {"created"}, outcomes
    [order] = orders(market)
    assert {one["order_id"] for one in outcomes} == {order["id"]}
    assert len(creates(market)) == len(rows(tmp_path, "reservations")) == 1
    assert states(tmp_path) == ["settled"]

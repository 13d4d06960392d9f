"""What a client says it can be asked decides where the question is put; how badly it answers decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from clore_mcp.sandbox import Running
from tests.conftest import environment
from tests.preforked import python
from tests.story.people import IMAGE, Person, assistant
from tests.story.records import creates, nothing_was_spent, orders, rows, states
from tests.story.wire import MODERN, WIRE_ERAS, Answer, Json, accept, wired
from tests.terminal import Terminal

pytestmark = pytest.mark.anyio

VARIANTS: list[Any] = [
    pytest.param({}, False, id="nothing"),
    pytest.param({"elicitation": {}}, True, id="elicitation"),
    pytest.param({"elicitation": {"form": {}}}, True, id="form"),
    pytest.param({"elicitation": {"form": {}, "url": {}}}, True, id="form and url"),
    pytest.param({"elicitation": {"url": {}}}, False, id="url only"),
]
SDK_DECLARES: tuple[Json, ...] = (
    {},
    {"elicitation": {"form": {}, "url": {}}},
)  # what the SDK's client says without and with a callback
ASKABLE: Json = {"elicitation": {}}
eras = pytest.mark.parametrize("era", WIRE_ERAS)


class Caller(Protocol):
    """A connected client."""

    async def call(self, tool: str, /, **arguments: Any) -> Json: ...


@asynccontextmanager
async def client(market: Running, folder: Path, era: str, declares: Json, asked: list[str]) -> AsyncIterator[Caller]:
    """A client that declares exactly that, and whose person says yes: the SDK's own where it can be made to."""
    if declares in SDK_DECLARES:
        person = Person(True, True) if declares else None
        async with assistant(market, folder, era if era == MODERN else "legacy", person) as us:
            yield us
        asked += person.asked if person else []
    else:
        async with wired(environment(market, folder), era, declares, accept(approve=True)) as wire:
            yield wire
        asked += wire.asked


async def a_wish(caller: Caller, place: int = 0) -> Json:
    found = await caller.call("search_servers", gpu="3060")
    return {"server_id": found["servers"][place]["server_id"], "image": IMAGE, "hours": 1}


def approve(market: Running, folder: Path, approval_id: str) -> None:
    """What a person does in a terminal of their own."""
    command = [python(), "-m", "clore_mcp", "approve", approval_id]
    with Terminal(command, environment(market, folder)) as terminal:
        terminal.expect("anything else to leave it:")
        terminal.type("yes")
        assert terminal.end().code == 0


@eras
@pytest.mark.parametrize(("declares", "askable"), VARIANTS)
async def test_a_client_that_takes_forms_is_asked_and_any_other_leaves_it_to_a_terminal(
    market: Running, tmp_path: Path, era: str, declares: Json, askable: bool
) -> None:
    asked: list[str] = []
    async with client(market, tmp_path, era, declares, asked) as us:
        wish = await a_wish(us)
        made = await us.call("create_order", **wish)
        if not askable:
            assert made["status"] == "approval_required", made
            assert f"clore-mcp approve {made['approval_id']}" in made["next"]
            assert states(tmp_path) == ["pending"]
            nothing_was_spent(market, tmp_path)
            await asyncio.to_thread(approve, market, tmp_path, made["approval_id"])
            assert states(tmp_path) == ["approved"]
            nothing_was_spent(market, tmp_path)
            made = await us.call("create_order", **wish)
        assert made["status"] == "created", made
        again = await us.call("create_order", **wish)
        assert again["repeated"] and again["order_id"] == made["order_id"]
    assert [order["id"] for order in orders(market)] == [made["order_id"]]
    assert len(creates(market)) == len(rows(tmp_path, "reservations")) == 1
    [quote] = rows(tmp_path, "quotes")
    assert quote["state"] == "settled"
    assert len(asked) == askable, "asked once where it can be, and never where it can't"
    assert quote["decided_by"].endswith(", terminal") is not askable


def no(action: str) -> Answer:
    return lambda question: {"result": {"action": action}}


@eras
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_no_that_nobody_was_shown_says_where_to_ask_instead(
    market: Running, tmp_path: Path, era: str, action: str
) -> None:
    async with wired(environment(market, tmp_path), era, ASKABLE, no(action)) as us:
        outcome = await us.call("create_order", **await a_wish(us))
    assert outcome["status"] == "declined"
    assert "CLORE_APPROVAL=outside" in outcome["next"]
    assert f"answered '{action}'" in outcome["next"]
    assert states(tmp_path) == [{"decline": "declined", "cancel": "expired"}[action]]
    nothing_was_spent(market, tmp_path)


BAD_ANSWERS: dict[str, Answer] = {
    "a word": accept(approve="yes"),
    "a number": accept(approve=1),
    "a list": accept(approve=[True]),
    "an empty form": accept(),
    "other keys": accept(approved=True, yes=True, confirm="q2345678"),
    "no content": lambda question: {"result": {"action": "accept"}},
    "content that is text": lambda question: {"result": {"action": "accept", "content": "approve"}},
    "an unknown action": lambda question: {"result": {"action": "yes", "content": {"approve": True}}},
    "no action": lambda question: {"result": {"approve": True}},
    "nothing": lambda question: {"result": {}},
}


@eras
async def test_answers_that_make_no_sense_spend_nothing_and_leave_the_question_open(
    market: Running, tmp_path: Path, era: str
) -> None:
    answers = iter(BAD_ANSWERS.values())
    async with wired(environment(market, tmp_path), era, ASKABLE, lambda asked: next(answers)(asked)) as us:
        wish = await a_wish(us)
        for kind in BAD_ANSWERS:
            outcome = await us.call("create_order", **wish)
            assert outcome.get("error") == "invalid_argument", (kind, outcome)
            assert "wire-client after " in outcome["message"] and f"server {wish['server_id']}" in outcome["message"]
            assert states(tmp_path) == ["pending"], kind
            nothing_was_spent(market, tmp_path)
    assert len(us.asked) == len(BAD_ANSWERS)
    assert len(set(us.asked)) == 1, "the same question each time, for it has had no answer"


@eras
async def test_a_yes_with_keys_that_the_form_does_not_have_is_none(market: Running, tmp_path: Path, era: str) -> None:
    more = accept(approve=True, amount_usd=5)
    async with wired(environment(market, tmp_path), era, ASKABLE, more) as us:
        await us.call("create_order", **await a_wish(us))
    assert states(tmp_path) == ["pending"]
    nothing_was_spent(market, tmp_path)


def silence(question: Json) -> Json | None:
    return None


@eras
async def test_a_client_that_leaves_without_an_answer_is_asked_the_same_when_it_comes_back(
    market: Running, tmp_path: Path, era: str
) -> None:
    env = environment(market, tmp_path)
    async with wired(env, era, ASKABLE, silence) as gone:
        wish = await a_wish(gone)
        calling = asyncio.create_task(gone.call("create_order", **wish))
        await gone.question_came.wait()
    left_with = await calling
    assert "gone" in left_with or "rpc_error" in left_with or "unanswered" in left_with, left_with
    assert states(tmp_path) == ["pending"]
    nothing_was_spent(market, tmp_path)
    async with wired(env, era, ASKABLE, accept(approve=True)) as back:
        if era == MODERN:
            late = await back.reply_to(left_with["unanswered"], "create_order", **wish)
            assert late["rpc_error"]["code"] == -32602, "a question is answered where it was asked"
            nothing_was_spent(market, tmp_path)
        made = await back.call("create_order", **wish)
    assert made["status"] == "created"
    assert back.asked == gone.asked
    assert len(orders(market)) == 1 and states(tmp_path) == ["settled"]


async def test_a_yes_that_comes_after_the_client_has_given_up_spends_nothing(market: Running, tmp_path: Path) -> None:
    async with wired(environment(market, tmp_path), "2025-11-25", ASKABLE, silence) as us:
        wish = await a_wish(us)
        calling = asyncio.create_task(us.call("create_order", **wish))
        await us.question_came.wait()
        us.give_up()
        us.answer_late(us.question_id)
        account = await us.call("get_account")
        assert [one["approval_id"] for one in account["pending_approvals"]] == [rows(tmp_path, "quotes")[0]["id"]]
        assert not calling.done(), "a call that was taken back has no answer"
    assert (await calling) == {"gone": True}
    assert states(tmp_path) == ["pending"]
    nothing_was_spent(market, tmp_path)

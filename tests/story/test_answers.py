"""Answers that are no plain yes: refused, malformed, replayed, moved to other arguments, or given by nobody."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.types import CallToolResult, ElicitResult, InputRequiredResult

from clore_mcp.sandbox import Running
from clore_mcp.server import create_server
from tests.conftest import environment, settings_for
from tests.story.people import ERAS, IMAGE, Person, assistant


async def some_server(client: Client) -> int:
    found = await client.call_tool("search_servers", {"gpu": "3090", "limit": 1})
    return int(found.structured_content["servers"][0]["server_id"])


def creates(market: Running) -> int:
    """How many creates have reached the marketplace."""
    log = httpx2.get(f"{market.control_url}/requests", verify=False).json()
    rows = log["requests"] if isinstance(log, dict) else log
    return sum(row["endpoint"] == "create_order" for row in rows)


def told(result: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(result.content[0].text)
    return answer


NO_YES = {
    "decline": (ElicitResult(action="decline"), "declined"),
    "cancel": (ElicitResult(action="cancel"), "declined"),
    "accepts with no": (ElicitResult(action="accept", content={"approve": False}), "declined"),
    "accepts without content": (ElicitResult(action="accept"), "invalid_argument"),
    "accepts an empty form": (ElicitResult(action="accept", content={}), "invalid_argument"),
    "accepts with a maybe": (ElicitResult(action="accept", content={"approve": "perhaps"}), "invalid_argument"),
    "accepts with a word": (ElicitResult(action="accept", content={"approve": "yes"}), "invalid_argument"),
    "accepts with 1": (ElicitResult(action="accept", content={"approve": 1}), "invalid_argument"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ERAS)
async def test_whatever_is_not_a_yes_spends_nothing(market: Running, tmp_path: Path, mode: str) -> None:
    now = iter(NO_YES.values())

    async def reply(context: Any, params: Any) -> ElicitResult:
        return next(now)[0]

    server = create_server(settings_for(environment(market, tmp_path), tmp_path))
    async with Client(server, mode=mode, elicitation_callback=reply) as client:
        found = await client.call_tool("search_servers", {"gpu": "3090", "limit": len(NO_YES)})
        servers = found.structured_content["servers"]
        for row, (name, (_, status)) in zip(servers, NO_YES.items(), strict=True):  # a wish of its own for each
            wish = {"server_id": row["server_id"], "image": IMAGE, "hours": 1}
            outcome = told(await client.call_tool("create_order", wish))
            assert outcome.get("status", outcome.get("error")) == status, (name, outcome)
            assert "approve:" not in outcome.get("message", ""), "never read as an argument that is missing"
            assert creates(market) == 0, name
    assert next(now, None) is None, "each was asked for"


async def asked(client: Client, wish: dict[str, Any]) -> InputRequiredResult:
    result = await client.session.call_tool("create_order", wish, allow_input_required=True)
    assert isinstance(result, InputRequiredResult)
    return result


async def answered(client: Client, wish: dict[str, Any], question: InputRequiredResult) -> Any:
    yes = {key: ElicitResult(action="accept", content={"approve": True}) for key in question.input_requests or {}}
    return await client.session.call_tool(
        "create_order",
        wish,
        input_responses=yes,  # type: ignore[arg-type]
        request_state=question.request_state,
        allow_input_required=True,
    )


@pytest.mark.anyio
async def test_an_answer_replayed_three_times_and_four_at_once_rents_once(market: Running, tmp_path: Path) -> None:
    server = create_server(settings_for(environment(market, tmp_path), tmp_path))
    async with Client(server, elicitation_callback=Person()) as client:
        wish = {"server_id": await some_server(client), "image": IMAGE, "hours": 1}
        question = await asked(client, wish)
        together = await asyncio.gather(*(answered(client, wish, question) for _ in range(4)))
        later = [await answered(client, wish, question) for _ in range(3)]
        outcomes = [told(result) for result in [*together, *later] if isinstance(result, CallToolResult)]
    assert len(outcomes) == 7 and {outcome["status"] for outcome in outcomes} == {"created"}
    assert len({outcome["order_id"] for outcome in outcomes}) == 1
    assert creates(market) == 1


@pytest.mark.anyio
async def test_an_answer_moved_to_other_arguments_is_refused(market: Running, tmp_path: Path) -> None:
    server = create_server(settings_for(environment(market, tmp_path), tmp_path))
    async with Client(server, elicitation_callback=Person()) as client:
        wish = {"server_id": await some_server(client), "image": IMAGE, "hours": 1}
        changes: tuple[dict[str, Any], ...] = (
            {"hours": 9}, {"server_id": 1}, {"fallback_server_ids": [2]}, {"command": "echo hi"}, {"env": {"A": "b"}},
        )  # fmt: skip
        for change in changes:
            question = await asked(client, wish)
            with pytest.raises(MCPError):
                await answered(client, {**wish, **change}, question)
            assert creates(market) == 0, change


@pytest.mark.anyio
async def test_an_answer_that_nobody_asked_for_is_a_question(market: Running, tmp_path: Path) -> None:
    server = create_server(settings_for(environment(market, tmp_path), tmp_path))
    async with Client(server, elicitation_callback=Person()) as client:
        wish = {"server_id": await some_server(client), "image": IMAGE, "hours": 1}
        question = await asked(client, wish)
        blind = InputRequiredResult(input_requests=question.input_requests, request_state=None)
        again = await answered(client, wish, blind)
    assert isinstance(again, InputRequiredResult), "without the sealed state an answer counts for nothing"
    assert creates(market) == 0


@pytest.mark.anyio
async def test_consent_has_no_argument(market: Running, tmp_path: Path) -> None:
    async with assistant(market, tmp_path, "auto") as us:
        for smuggled in ("approve", "approved", "confirm", "code", "token", "permit", "outcome", "held", "yes"):
            refused = await us.call("create_order", server_id=1, image=IMAGE, hours=1, **{smuggled: True})
            assert refused["error"] == "invalid_argument" and "no such argument" in refused["message"], smuggled


@pytest.mark.anyio
async def test_after_three_declines_nothing_is_asked_for_a_while(market: Running, tmp_path: Path) -> None:
    person = Person(False, False, False)
    async with assistant(market, tmp_path, "auto", person) as us:
        found = await us.call("search_servers", gpu="3090")
        for row in found["servers"][:4]:
            outcome = await us.call("create_order", server_id=row["server_id"], image=IMAGE, hours=1)
            assert outcome["status"] == "declined"
    assert len(person.asked) == 3, "the fourth wish is declined unasked"


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ERAS)
async def test_four_identical_calls_at_once_ask_and_rent_once(market: Running, tmp_path: Path, mode: str) -> None:
    person = Person(True, True, True, True)
    async with assistant(market, tmp_path, mode, person) as us:
        found = await us.call("search_servers", gpu="3090")
        wish = {"server_id": found["servers"][0]["server_id"], "image": IMAGE, "hours": 1}
        outcomes = await asyncio.gather(*(us.call("create_order", **wish) for _ in range(4)))
    assert {outcome["status"] for outcome in outcomes} == {"created"}
    assert len({outcome["order_id"] for outcome in outcomes}) == 1
    assert len({question.rsplit("Quote", 1)[1] for question in person.asked}) == 1, "one quote, however often shown"
    assert creates(market) == 1

"""The kit on small functions: what it relies on in the SDK, and what a model reads when something is wrong."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from mcp import Client
from mcp.server import MCPServer
from mcp.types import CallToolResult
from pydantic import BaseModel, Field, model_validator

from clore_mcp.errors import NoApiKey, QueueFull
from clore_mcp.tools.kit import Answer, tool


class Wish(BaseModel):
    """Arguments with a rule across fields."""

    low: int
    high: Annotated[int | None, Field(description="No less than low.")] = None

    @model_validator(mode="after")
    def _ordered(self) -> Wish:
        if self.high is not None and self.high < self.low:
            raise ValueError("high is below low")
        return self


class Given(Answer):
    """A result with things to leave out."""

    low: float
    note: str | None = None
    plain: bool = False


async def take(ask: Wish) -> Given:
    """Take a wish."""
    return Given(low=float(ask.low))


async def fail(how: str) -> Given:
    """Fail in the way that is asked for."""
    if how == "ours":
        raise NoApiKey("No API key is set.")
    if how == "busy":
        raise QueueFull("Too many wait.", retry_after_seconds=3.21)
    if how == "answer":
        Given.model_validate({"low": "a secret that no model should read"})
    raise RuntimeError("a secret that no model should read")


async def call(name: str, arguments: dict[str, Any]) -> CallToolResult:
    server = MCPServer("t", tools=[tool(take, title="T", kind="reads"), tool(fail, title="F", kind="reads")])
    async with Client(server) as client:
        return await client.call_tool(name, arguments)


def text(result: CallToolResult) -> Any:
    return json.loads(result.content[0].text)  # type: ignore[union-attr]


@pytest.mark.anyio
async def test_a_model_is_flat_on_the_wire_and_one_object_in_the_code() -> None:
    made = tool(take, title="T", kind="reads")
    assert made.parameters["properties"].keys() == {"low", "high"}
    assert made.parameters["properties"]["high"] == {"description": "No less than low.", "type": "integer"}
    result = await call("take", {"low": 16})
    assert text(result) == {"low": 16} == result.structured_content
    assert result.content[0].text == '{"low":16}', "whole numbers without a fraction, nothing at its default"  # type: ignore[union-attr]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param({"low": 1, "hihg": 2}, "hihg: no such argument", id="a misspelled name"),
        pytest.param({}, "low: Field required", id="a missing argument"),
        pytest.param({"low": 5, "high": 1}, "high is below low", id="a rule across fields"),
        pytest.param({"low": "x" * 5000}, "low: Input should be a valid integer", id="a wrong type"),
    ],
)
async def test_a_bad_argument_is_named_and_nothing_runs(arguments: dict[str, Any], said: str) -> None:
    result = await call("take", arguments)
    told = text(result)
    assert result.is_error and result.structured_content is None
    assert told["error"] == "invalid_argument" and said in told["message"] and told["hint"]
    assert len(told["message"]) < 400


@pytest.mark.anyio
async def test_our_failures_reach_the_model_with_code_and_cure() -> None:
    told = text(await call("fail", {"how": "ours"}))
    assert told["error"] == "no_api_key" and "CLORE_API_KEY" in told["hint"]
    busy = text(await call("fail", {"how": "busy"}))
    assert busy["error"] == "rate_limited" and busy["retry_after_seconds"] == 3.2


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["crash", "answer"])
async def test_a_defect_of_ours_keeps_its_text_from_the_model(how: str, caplog: pytest.LogCaptureFixture) -> None:
    result = await call("fail", {"how": how})
    assert text(result)["error"] == "api_error", "never that it was not called: it may have spent"
    assert "secret" not in result.content[0].text  # type: ignore[union-attr]
    assert "a secret that no model should read" in caplog.text, "the operator's log has it"

"""The example for openai-agents, with a model that calls what it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from agents import ModelResponse, Runner, Tool, Usage, set_tracing_disabled
from agents.items import TResponseInputItem
from agents.models.interface import Model
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseStreamEvent,
)

from examples.openai_agents_agent import clore, renter
from tests.clients.programs import lines


class Told(Model):
    """A model whose next step is the next line."""

    async def get_response(
        self, system_instructions: Any, input: str | list[TResponseInputItem], model_settings: Any, tools: list[Tool],
        *_: Any, **__: Any,
    ) -> ModelResponse:  # fmt: skip
        last: Any = input[-1]
        if isinstance(last, dict) and last.get("type") == "function_call_output":
            lines.told(text_of(last["output"]))
        else:
            lines.ready("openai-agents", [tool.name for tool in tools])
        call = await lines.next_call()
        step: Any
        if call:
            name, arguments = call
            step = ResponseFunctionToolCall(
                type="function_call", call_id=f"call-{len(input)}", name=name, arguments=json.dumps(arguments)
            )
        else:
            done = ResponseOutputText(type="output_text", text="done", annotations=[])
            step = ResponseOutputMessage(type="message", id="end", role="assistant", status="completed", content=[done])
        return ModelResponse(output=[step], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[ResponseStreamEvent]:
        raise NotImplementedError("nothing here streams")


def text_of(output: Any) -> str:
    """A tool's output is a string, or a block of text that is JSON itself."""
    if isinstance(output, list):
        output = output[0]
    if isinstance(output, dict):
        return str(output["text"])
    inner = json.loads(output)
    return str(inner["text"]) if inner.get("type") == "text" else output


async def main() -> None:
    set_tracing_disabled(True)
    async with clore(lines.server()) as server:  # type: ignore[arg-type, unused-ignore]
        await Runner.run(renter(server, Told()), "rent something", max_turns=100)


asyncio.run(main())

"""The example for pydantic-ai, with a model that calls what it is told to."""

from __future__ import annotations

import json

from fastmcp.client.transports import StdioTransport
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from examples.pydantic_ai_agent import renter
from tests.clients.programs import lines


async def model(messages: list[ModelMessage], agent: AgentInfo) -> ModelResponse:
    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        lines.told(last.content if isinstance(last.content, str) else json.dumps(last.content))
    else:
        lines.ready("pydantic-ai-slim", [tool.name for tool in agent.function_tools])
    call = await lines.next_call()
    return ModelResponse(parts=[ToolCallPart(*call) if call else TextPart("done")])


renter(FunctionModel(model), StdioTransport(**lines.server())).run_sync("rent something")

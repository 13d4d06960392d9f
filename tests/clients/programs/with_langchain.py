"""The example for LangChain, with a model that calls what it is told to."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_mcp_adapters.sessions import StdioConnection

from examples.langchain_agent import renter
from tests.clients.programs import lines


class Told(BaseChatModel):
    """A model whose next step is the next line."""

    names: list[str] = []

    @property
    def _llm_type(self) -> str:
        return "told"

    def bind_tools(self, tools: Any, **_: Any) -> Told:
        return Told(names=[tool.name for tool in tools])

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError("everything here is asynchronous")

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            lines.told(last.text)
        else:
            lines.ready("langchain-mcp-adapters", self.names)
        call = await lines.next_call()
        calls = [{"name": call[0], "args": call[1], "id": f"call-{len(messages)}"}] if call else []
        return ChatResult(generations=[ChatGeneration(message=AIMessage("" if call else "done", tool_calls=calls))])


async def main() -> None:
    async with renter(Told(), StdioConnection(transport="stdio", **lines.server())) as agent:
        await agent.ainvoke({"messages": [("user", "rent something")]}, {"recursion_limit": 100})


asyncio.run(main())

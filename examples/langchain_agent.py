"""A LangChain agent that rents GPUs. clore-mcp's questions appear in this terminal, and the model can't answer them.

pipx install clore-mcp  # separately, because the adapters need an older MCP package
pip install langchain langchain-mcp-adapters langchain-openai
python examples/langchain_agent.py openai:gpt-5 'a 4090 in Europe for an hour, with Jupyter'
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_mcp_adapters.callbacks import Callbacks
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.sessions import StdioConnection
from langchain_mcp_adapters.tools import load_mcp_tools
from mcp.types import ElicitResult

# For real servers: args=[], env={"CLORE_API_KEY": …}. If clore-mcp is not on the PATH, give its full path as command.
SANDBOX = StdioConnection(transport="stdio", command="clore-mcp", args=["--sandbox"])


async def ask(_: Any, question: Any, __: Any) -> ElicitResult:
    """Show the question to the person. Any answer but yes declines."""
    print(question.message, "Type yes to approve:", sep="\n")
    if await asyncio.to_thread(input) == "yes":
        return ElicitResult(action="accept", content={"approve": True})
    return ElicitResult(action="decline")


@asynccontextmanager
async def renter(model: BaseChatModel | str, server: StdioConnection = SANDBOX) -> AsyncIterator[Any]:
    """Yield an agent with clore-mcp's tools and one server process for all its calls."""
    client = MultiServerMCPClient({"clore": server}, callbacks=Callbacks(on_elicitation=ask))
    async with client.session("clore") as session:
        yield create_agent(model, await load_mcp_tools(session))


async def main(model: str, wish: str) -> None:
    """Run the agent on one wish and print its answer."""
    async with renter(model) as agent:
        done = await agent.ainvoke({"messages": [("user", wish)]})
        print(done["messages"][-1].content)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))

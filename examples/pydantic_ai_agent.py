"""A pydantic-ai agent that rents GPUs. clore-mcp's questions appear in this terminal, and the model can't answer them.

pip install clore-mcp 'pydantic-ai-slim[mcp,openai]'
python examples/pydantic_ai_agent.py openai:gpt-5 'a 4090 in Europe for an hour, with Jupyter'
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from fastmcp.client.elicitation import ElicitResult
from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models import Model

SANDBOX = StdioTransport(command="clore-mcp", args=["--sandbox"])  # for real servers: args=[], env={"CLORE_API_KEY": …}


async def ask(question: str, *_: Any) -> ElicitResult[dict[str, bool]]:
    """Show the question to the person. Any answer but yes declines."""
    print(question, "Type yes to approve:", sep="\n")
    if await asyncio.to_thread(input) == "yes":
        return ElicitResult(action="accept", content={"approve": True})
    return ElicitResult(action="decline")


def renter(model: Model | str, server: StdioTransport = SANDBOX) -> Agent:
    """Return an agent with clore-mcp's tools."""
    return Agent(model, toolsets=[MCPToolset(server, elicitation_handler=ask, tool_error_behavior="failed")])


if __name__ == "__main__":
    print(renter(sys.argv[1]).run_sync(sys.argv[2]).output)

"""An openai-agents agent that rents GPUs. The framework can't pass questions on, so `clore-mcp approve` asks instead.

pip install clore-mcp openai-agents
python examples/openai_agents_agent.py 'a 4090 in Europe for an hour, with Jupyter'

The agent stops at `approval_required` and names a command. Run it in a terminal, then tell the agent to go on.
"""

from __future__ import annotations

import asyncio
import sys

from agents import Agent, Runner, SQLiteSession
from agents.mcp import MCPServerStdio, MCPServerStdioParams
from agents.models.interface import Model

SANDBOX = MCPServerStdioParams(command="clore-mcp", args=["--sandbox"])  # for real servers: "env": {"CLORE_API_KEY": …}


def clore(params: MCPServerStdioParams = SANDBOX) -> MCPServerStdio:
    """Return clore-mcp as a server of the framework. Its default of five seconds a call is too short to rent."""
    return MCPServerStdio(params, client_session_timeout_seconds=60)


def renter(server: MCPServerStdio, model: Model | str | None = None) -> Agent[None]:
    """Return an agent with clore-mcp's tools."""
    return Agent("renter", model=model, mcp_servers=[server])


async def main(wish: str) -> None:
    """Hold a conversation until an empty line."""
    async with clore() as server:
        session = SQLiteSession("rental")
        while wish:
            print((await Runner.run(renter(server), wish, session=session)).final_output)
            wish = await asyncio.to_thread(input, "> ")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

"""fastmcp's client."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from fastmcp.client import Client
from fastmcp.client.elicitation import ElicitResult
from fastmcp.client.transports import StdioTransport

from tests.clients.programs import lines


async def ask(question: str, *_: Any) -> ElicitResult[dict[str, bool]]:
    if await lines.answer(question):
        return ElicitResult(action="accept", content={"approve": True})
    return ElicitResult(action="decline")


async def main() -> None:
    async with Client(StdioTransport(**lines.server()), mode=sys.argv[2], elicitation_handler=ask) as client:
        lines.ready("fastmcp-slim", [tool.name for tool in await client.list_tools()])
        while call := await lines.next_call():
            result = await client.call_tool(*call, raise_on_error=False)
            lines.told(result.content[0].text)


asyncio.run(main())

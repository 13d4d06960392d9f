"""Who takes part in a story: the assistant (a client that calls tools) and the person (who answers questions)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.types import ElicitRequestParams, ElicitResult

from clore_mcp.sandbox import Running
from tests.conftest import environment
from tests.preforked import python

ERAS = [pytest.param("legacy", id="2025-11-25"), pytest.param("auto", id="2026-07-28")]
IMAGE = "cloreai/jupyter:ubuntu24.04-v2"


class Person:
    """Answers questions from a list and remembers what was asked."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, context: Any, params: ElicitRequestParams) -> ElicitResult:
        self.asked.append(params.message)
        return ElicitResult(action="accept", content={"approve": self.answers.pop(0)})


class Assistant:
    """A connected client that calls tools and reads their text as a model would."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.progress: list[str] = []
        self._progressed = asyncio.Event()

    async def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        async def heard(progress: float, total: float | None, message: str | None) -> None:
            self.progress.append(message or "")
            self._progressed.set()

        result = await self.client.call_tool(tool, arguments, progress_callback=heard)
        told: dict[str, Any] = json.loads(result.content[0].text)  # type: ignore[union-attr]
        if not result.is_error:
            assert told == result.structured_content, "the text is the structured result's twin"
        return told

    async def hears(self, words: str) -> None:
        """Return once a call that is under way has said that in its progress."""
        async with asyncio.timeout(60):
            while not any(words in message for message in self.progress):
                self._progressed.clear()
                await self._progressed.wait()


@asynccontextmanager
async def assistant(
    market: Running, folder: Path, mode: str, person: Person | None = None, **env: str
) -> AsyncIterator[Assistant]:
    server = StdioServerParameters(command=python(), args=["-m", "clore_mcp"], env=environment(market, folder, **env))
    async with Client(server, mode=mode, elicitation_callback=person) as client:
        yield Assistant(client)

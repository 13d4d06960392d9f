"""What a client's program and the test say to each other: a line for each call, and lines with what came of it.

In: `{"tool": …, "arguments": {…}}`, a call to make; the end of the input ends the program. Out: `{"result": …}`, what a
model would read of it; before the first, `{"ready": …}`. A question is printed as it is and ends with the line
"Type yes to approve:"; the next line in is its answer. Only the standard library: each program has its own environment.
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.metadata import version
from typing import Any

Json = dict[str, Any]


def server() -> Json:
    """The server to start: command, args, env."""
    given: Json = json.loads(sys.argv[1])
    return given


def ready(package: str, tools: list[str]) -> None:
    """The client is connected and sees these tools."""
    _print({"ready": {"version": version(package), "tools": tools}})


def told(text: str) -> None:
    """What a model would read of the last call."""
    _print({"result": json.loads(text)})


async def next_call() -> tuple[str, Json] | None:
    """The next call to make; None: that was all."""
    line = await asyncio.to_thread(sys.stdin.readline)
    if not line:
        return None
    asked = json.loads(line)
    return asked["tool"], asked["arguments"]


async def answer(question: str) -> bool:
    """Put a question to the person, for clients that bring no way of their own."""
    print(question, "Type yes to approve:", sep="\n", flush=True)
    return await asyncio.to_thread(input) == "yes"


def _print(value: Json) -> None:
    print(json.dumps(value), flush=True)

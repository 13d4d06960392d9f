"""A client that speaks JSON-RPC to the server's stdin and stdout by itself, in both protocol eras.

The SDK's client computes its capabilities from its callbacks and answers questions in good form. This one declares what
it is told to, and answers as badly as a test wants.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.preforked import python

Json = dict[str, Any]
Answer = Callable[[Json], Json | None]  # a question's params to {"result": …} or {"error": …}; None: no answer, ever

MODERN = "2026-07-28"
WIRE_ERAS = ("2025-11-25", MODERN)
PATIENCE_SECONDS = 60.0
_LONGEST_LINE = 1 << 20


def accept(**content: object) -> Answer:
    """An answerer that accepts with that content, whatever it is asked."""
    return lambda question: {"result": {"action": "accept", "content": content}}


class Wire:
    """One connection to one server process."""

    def __init__(self, process: asyncio.subprocess.Process, era: str, capabilities: Json, answer: Answer) -> None:
        self.asked: list[str] = []
        self.question_came = asyncio.Event()
        self._process = process
        self._era = era
        self._capabilities = capabilities
        self.answer = answer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self.last_id = 0
        self.killed = False

    async def greet(self) -> None:
        """What comes before the first call: a handshake in the older era, nothing in the newer one."""
        if self._era != MODERN:
            hello = {"protocolVersion": self._era, "capabilities": self._capabilities, "clientInfo": self._info}
            welcome = await self.request("initialize", hello)
            assert welcome["result"]["protocolVersion"] == self._era
            self._write({"method": "notifications/initialized"})

    async def call(self, tool: str, /, **arguments: Any) -> Json:
        """What a model would read, after as many rounds as there are questions; else `rpc_error` or `unanswered`."""
        wish: Json = {"name": tool, "arguments": arguments}
        reply = await self.request("tools/call", wish)
        while reply.get("result", {}).get("resultType") == "input_required":
            result = reply["result"]
            answers = {key: self._hear(asked["params"]) for key, asked in result["inputRequests"].items()}
            given = {key: one.get("result", one.get("error")) for key, one in answers.items() if one is not None}
            if not given:
                return {"unanswered": result}
            more = {"inputResponses": given, "requestState": result["requestState"]}
            reply = await self.request("tools/call", wish | more)
        return told(reply)

    async def ask_only(self, tool: str, **arguments: Any) -> Json:
        """The newer era's question with its sealed state, unanswered."""
        reply = await self.request("tools/call", {"name": tool, "arguments": arguments})
        result: Json = reply["result"]
        assert result["resultType"] == "input_required", result
        return result

    async def reply_to(self, question: Json, tool: str, **arguments: Any) -> Json:
        """What comes of a yes with that question's sealed state."""
        yes = {key: {"action": "accept", "content": {"approve": True}} for key in question["inputRequests"]}
        state = {"inputResponses": yes, "requestState": question["requestState"]}
        return told(await self.request("tools/call", {"name": tool, "arguments": arguments} | state))

    async def request(self, method: str, params: Json) -> Json:
        """The whole response to one request."""
        if self._era == MODERN:
            known = "io.modelcontextprotocol/"
            meta = {"protocolVersion": MODERN, "clientCapabilities": self._capabilities, "clientInfo": self._info}
            params = {**params, "_meta": {known + name: value for name, value in meta.items()}}
        self.last_id = number = next(self._ids)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self._write({"id": number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._waiting[number]

    def give_up(self) -> None:
        """Take the last request back, as a client does whose time is over."""
        self._write({"method": "notifications/cancelled", "params": {"requestId": self.last_id, "reason": "time-out"}})

    async def signal(self, name: str) -> int:
        """Send the server a signal; its exit code, its input being open all the while."""
        self._process.send_signal(getattr(signal, name))
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._process.wait()

    def kill(self) -> None:
        """End the server as nothing it could catch."""
        self.killed = True
        self._process.kill()

    def answer_late(self, number: int) -> None:
        """A yes to a question of the server's, from a client that had given its call up."""
        self._write({"id": number, "result": {"action": "accept", "content": {"approve": True}}})

    async def read(self) -> None:
        """Take in what the server sends, to its end; then nobody waits any more."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._take(json.loads(line))
        for future in self._waiting.values():
            if not future.done():
                future.set_result({"gone": True})

    def _take(self, message: Json) -> None:
        if message.get("method") == "elicitation/create":
            answer = self._hear(message["params"])
            self.question_id = message["id"]
            if answer is not None:
                self._write({"id": message["id"], **answer})
        elif "method" not in message and not (future := self._waiting[message["id"]]).done():
            future.set_result(message)

    def _hear(self, question: Json) -> Json | None:
        self.asked.append(question["message"])
        self.question_came.set()
        return self.answer(question)

    def _write(self, message: Json) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    @property
    def _info(self) -> Json:
        return {"name": "wire-client", "version": "1"}


def told(reply: Json) -> Json:
    """What a model would read of a response."""
    if "result" not in reply:
        return {"rpc_error": reply["error"]} if "error" in reply else reply
    read: Json = json.loads(reply["result"]["content"][0]["text"])
    return read


@asynccontextmanager
async def wired(
    env: Mapping[str, str], era: str, capabilities: Json, answer: Answer, program: Sequence[str] = ()
) -> AsyncIterator[Wire]:
    """A server process and its connection; at the end its input is closed and it must leave by itself."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(program or (python(), "-m", "clore_mcp")), stdin=pipe, stdout=pipe, env=dict(env), limit=_LONGEST_LINE
    )
    wire = Wire(process, era, capabilities, answer)
    reading = asyncio.create_task(wire.read())
    try:
        await wire.greet()
        yield wire
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await process.wait() == 0) is not wire.killed
            await reading
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        reading.cancel()

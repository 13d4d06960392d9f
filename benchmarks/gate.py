"""A stand-in for Clore's API in the benchmark's event loop, with canned replies, a rate limit and a record of
requests."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self

SECOND_NS: Final = 1_000_000_000
_TOO_FAST: Final = b'{"code":5}'


@dataclass(frozen=True, slots=True)
class Rule:
    """What the gate counts the second from, and how slow the network and the work are (seconds)."""

    counts_from: Literal["arrival", "completion", "nothing"] = "arrival"
    interval: float = 1.0
    way: tuple[float, float] = (0.0, 0.0)  # in each direction, drawn evenly between the two
    work: float = 0.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request at the moment when the gate judged it."""

    at_ns: int
    endpoint: str
    admitted: bool


@dataclass(slots=True)
class Gate:
    """One API for one key. `url` is valid once it is entered."""

    replies: Mapping[str, bytes]  # by endpoint
    rule: Rule = field(default_factory=Rule)
    seed: int = 7
    arrivals: list[Arrival] = field(default_factory=list)
    url: str = ""
    _mark_ns: int | None = None
    _in_flight: int = 0
    _server: asyncio.Server | None = None
    _connections: dict[asyncio.Task[object], asyncio.StreamWriter] = field(default_factory=dict)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._connections.values():
            writer.close()
        if self._connections:
            await asyncio.wait(self._connections)

    async def until_admitted(self, count: int) -> None:
        """Wait until that many requests were admitted."""
        while len(self.admitted) < count:
            self._arrived.clear()
            await self._arrived.wait()

    @property
    def admitted(self) -> list[Arrival]:
        """Return the requests that were admitted."""
        return [one for one in self.arrivals if one.admitted]

    @property
    def refused(self) -> list[Arrival]:
        """Return the requests that came too early."""
        return [one for one in self.arrivals if not one.admitted]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                target = head.split(" ", 2)[1]
                lengths = [
                    line.split(":")[1] for line in head.lower().splitlines() if line.startswith("content-length:")
                ]
                if lengths:
                    await reader.readexactly(int(lengths[0]))
                status, body = await self._answer(target.partition("?")[0].rsplit("/", 1)[1])
                fields = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write(f"HTTP/1.1 {status}\r\n{fields}".encode() + body)
                await writer.drain()
        writer.close()
        del self._connections[task]

    async def _answer(self, endpoint: str) -> tuple[str, bytes]:
        rule = self.rule
        await self._travel()
        admitted = self._admit(time.monotonic_ns())
        self.arrivals.append(Arrival(time.monotonic_ns(), endpoint, admitted))
        self._arrived.set()
        if admitted:
            if rule.work:
                await asyncio.sleep(rule.work)
            self._in_flight -= 1
            if rule.counts_from == "completion":
                self._mark_ns = time.monotonic_ns()
        await self._travel()
        if not admitted:
            return "429 Too Many Requests", _TOO_FAST
        return "200 OK", self.replies.get(endpoint, b'{"code":0}')

    def _admit(self, now_ns: int) -> bool:
        rule = self.rule
        if rule.counts_from != "nothing":
            busy = rule.counts_from == "completion" and self._in_flight > 0
            early = self._mark_ns is not None and now_ns - self._mark_ns < rule.interval * SECOND_NS
            if busy or early:
                return False
            self._mark_ns = now_ns
        self._in_flight += 1
        return True

    async def _travel(self) -> None:
        if self.rule.way[1]:
            await asyncio.sleep(self._rng.uniform(*self.rule.way))

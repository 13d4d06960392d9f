"""Processes that start together: each reports that it is ready, all are started at once, each reports its calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

_READY_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Made:
    """One call, as its process reports it."""

    called_ns: int
    done_ns: int
    failure: str


class Children(AbstractAsyncContextManager["Children"]):
    """Several processes that are ready once this is entered. Those that still run at the end are killed."""

    def __init__(self, commands: Sequence[Sequence[str]], env: Mapping[str, str]) -> None:
        self._commands = commands
        self._env = dict(env)
        self._running: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        for command in self._commands:
            child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=self._env)
            self._running.append(child)
        async with asyncio.timeout(_READY_SECONDS):
            for child in self._running:
                if (await _line(child)).strip() != b"ready":
                    raise RuntimeError("a process of the benchmark did not start; its error is above")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._running:
            if child.returncode is None:
                child.kill()
            await child.wait()

    def go(self) -> None:
        """Start them all."""
        for child in self._running:
            assert child.stdin is not None
            child.stdin.write(b"go\n")

    async def told(self, within_seconds: float) -> list[list[Made]]:
        """Return the calls of each process once all have finished. Raises TimeoutError."""
        async with asyncio.timeout(within_seconds):
            lines = [await _line(child) for child in self._running]
        return [[Made(**one) for one in json.loads(line)] for line in lines]


async def _line(child: asyncio.subprocess.Process) -> bytes:
    assert child.stdout is not None
    return await child.stdout.readline()

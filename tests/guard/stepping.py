"""The steps of a create after its approval: each write to the state, and the moment before its bytes are sent."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

from clore_mcp.clore import CloreClient, Created, CreateRequest
from clore_mcp.clore.exchange import BeforeSend
from clore_mcp.store.database import FILE_NAME, Database, Tx

T = TypeVar("T")


@dataclass(frozen=True)
class Point:
    """A place in a create: just before or after its n-th step."""

    step: int
    after: bool


class Steps:
    """Counts the steps of this process, and stops it at one of them by a signal."""

    def __init__(self, point: Point, sign: int) -> None:
        self.made = 0
        self._point = point
        self._sign = sign
        self._written: set[Database] = set()
        write, create = Database.write, CloreClient.create_order

        async def counted(state: Database, work: Callable[[Tx], T], **how: bool) -> T:
            self._written.add(state)
            if state.path.name != FILE_NAME:  # the schedule of requests, which holds nothing about money
                return await write(state, work, **how)
            with self._one():
                return await write(state, work, **how)

        async def leaving(client: CloreClient, request: CreateRequest, *, before_send: BeforeSend) -> Created:
            async def leave() -> None:
                await cast("Awaitable[None]", before_send())
                with self._one():
                    pass

            return await create(client, request, before_send=leave)

        Database.write = counted  # type: ignore[assignment, method-assign]
        CloreClient.create_order = leaving  # type: ignore[assignment, method-assign]

    @contextmanager
    def _one(self) -> Iterator[None]:
        self.made += 1
        here = self.made == self._point.step
        if here and not self._point.after:
            self._stop()
        yield
        if here and self._point.after:
            self._stop()

    def _stop(self) -> None:
        """Send the signal while no other thread is in a transaction, which would lock all other processes out."""
        with ExitStack() as locks:
            for database in self._written:
                locks.enter_context(database._lock)
            os.kill(os.getpid(), self._sign)

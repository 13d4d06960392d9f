"""A child process with the real server and a real client of the SDK, joined in memory and driven through a pipe.

The protocol (either era), the product, its SQLite file, its HTTP to the sandbox and the signals are real. The pauses
between looks are shorter. The clock is the machine's own plus an offset that all processes of a run share, so that
hours pass in no time, for a stopped process too.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
from mcp import Client
from mcp.types import INTERNAL_ERROR, ElicitRequestParams, ElicitResult, ErrorData, Implementation

from clore_mcp import server as server_module
from clore_mcp import wiring as services_module
from clore_mcp.clore import CloreClient
from clore_mcp.clore.exchange import Timing
from clore_mcp.clore.pacer import Pacer
from clore_mcp.first_use import FirstUse
from clore_mcp.rental import guard
from clore_mcp.rental.context import Patience
from clore_mcp.rental.create import adopt, order, settle
from clore_mcp.rental.ends import cancels
from clore_mcp.rental.orders import stop
from clore_mcp.rental.orders.keeper import Keeper
from clore_mcp.rental.orders.stop import Ended
from clore_mcp.rental.spot import bid
from clore_mcp.settings import Settings
from clore_mcp.store import database, folder
from tests.machine.clock import SharedClock
from tests.machine.halts import Halts, install
from tests.machine.market import SECRETS_OF_ALL, WATCH_VALUE

PATIENCE = Patience(answer=1.2, look=0.2, look_after_refusal=0.05, proof=0.15)
_QUICK = (0.01, 0.03, 0.06)
_STOP_PATIENCE = 0.3
_CHORES_SECONDS = 10.0
_TIMING = Timing(backoff_base_seconds=0.01, backoff_cap_seconds=0.03)


@dataclass(frozen=True, slots=True)
class Role:
    """The client's name, its protocol era, whether it can show a question, and the approval mode."""

    name: str
    era: str
    asks: bool
    mode: str = "ask"


@dataclass(frozen=True, slots=True)
class Birth:
    """What a process is started with."""

    role: Role
    env: dict[str, str] = field(repr=False)
    folder: str
    clock: str


class Process:
    """One client and its server."""

    def __init__(self, pipe: Connection, birth: Birth) -> None:
        self._pipe = pipe
        self._clock = SharedClock(birth.clock)
        self._birth = birth
        self._lock = threading.Lock()
        self._halts = Halts(lambda event, place: self.tell(event=event, place=place))
        self._answer = "yes"
        self._later: asyncio.Future[str] | None = None  # one answer for all copies of a call
        self._uses: list[FirstUse] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()

    def tell(self, **what: Any) -> None:
        """Send a message to the machine, from any thread. It is complete before a halt's signal is sent."""
        with self._lock:
            self._pipe.send({**what, "at": self._clock.now()})

    async def run(self) -> None:
        birth = self._birth
        folder = Path(birth.folder)
        shorten(birth, self._uses)
        install(self._halts)
        settings = Settings.from_env(birth.env, home=folder, config_dir=folder, state_dir_default=folder)
        role = birth.role
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._read)
        client = Client(
            server_module.create_server(settings),
            mode=role.era,
            client_info=Implementation(name=role.name, version="1"),
            elicitation_callback=self._asked if role.asks else None,
        )
        async with client:
            self._client = client
            self.tell(event="ready")
            await self._over.wait()

    def _read(self) -> None:
        try:
            wanted = self._pipe.recv()
        except EOFError:
            os._exit(0)  # the machine is gone
        task = asyncio.ensure_future(self._do(wanted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, wanted: dict[str, Any]) -> None:
        match wanted["do"]:
            case "call":
                await self._call(wanted)
            case "answer":
                if self._later is not None and not self._later.done():
                    self._later.set_result(wanted["answer"])
            case "poll":
                self._halts.arm(wanted["halt"])
                self._halts.anchor("call")
                told = await self._poll()
                self._halts.arm(None)
                self.tell(event="done", told=told)
            case "end_all":
                self._halts.arm(wanted["halt"])
                self._halts.anchor("call")
                told = await self._end_all()
                self._halts.arm(None)
                self.tell(event="done", told=told)
            case "leave":
                self._over.set()

    async def _poll(self) -> dict[str, Any]:
        """Do one round, and wait up to 10 s for what it began for watches."""
        services = self._uses[-1].services()
        try:
            await services.keep_leases()
            await services.keeper.poll()
            with anyio.move_on_after(_CHORES_SECONDS):
                await services.keeper.finish()
        except Exception as error:
            return {"error": type(error).__name__}
        return {"polled": True}

    async def _end_all(self) -> dict[str, Any]:
        """Do what `clore-mcp stop` does once spending is frozen."""
        ended = []
        try:
            async for step in (
                self._uses[-1].services().stopper.end_all(by="the person", patience_seconds=_STOP_PATIENCE)
            ):
                if isinstance(step, Ended) and step.proven:
                    ended.append(step.order_id)
        except Exception as error:
            return {"ended": ended, "error": type(error).__name__}
        return {"ended": ended}

    async def _call(self, wanted: dict[str, Any]) -> None:
        self._answer = wanted["answer"]
        self._halts.arm(wanted["halt"])
        self._halts.anchor("call")
        calls = [self._one(wanted["tool"], wanted["arguments"]) for _ in range(wanted["copies"])]
        told = await asyncio.gather(*calls)
        self._halts.arm(None)
        self.tell(event="done", told=[_briefly(one) for one in told], leaked=_leaks(told))

    async def _one(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            result = await self._client.call_tool(tool, arguments)
            told: dict[str, Any] = json.loads(result.content[0].text)  # type: ignore[union-attr]
        except Exception as error:  # any error that a client of the SDK sees
            return {"raised": type(error).__name__, "said": str(error)[:300]}
        return told

    async def _asked(self, context: Any, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        answer = self._answer
        self.tell(event="asked", text=params.message, answer=answer, leaked=_leaks(params.message))
        if answer == "later":
            if self._later is None or self._later.done():
                self._later = asyncio.get_running_loop().create_future()
            answer = await asyncio.shield(self._later)
        self._halts.anchor("asked")
        match answer:
            case "yes":
                return ElicitResult(action="accept", content={"approve": True})
            case "no":
                return ElicitResult(action="accept", content={"approve": False})
            case "decline" | "cancel":
                return ElicitResult(action=answer)
            case "empty":
                return ElicitResult(action="accept")
            case "word":
                return ElicitResult(action="accept", content={"approve": "yes"})
        return ErrorData(code=INTERNAL_ERROR, message="the client could not show it")


def _briefly(told: dict[str, Any]) -> str:
    """Return a tool's result in one word, because a signal could cut a long message."""
    return str(told.get("status") or told.get("error") or told.get("raised") or "ok")


def _leaks(told: Any) -> bool:
    """Return whether a secret is in what an assistant or a person sees."""
    text = json.dumps(told, default=str)
    return any(secret in text for secret in (*SECRETS_OF_ALL, WATCH_VALUE))


def put(where: object, name: str, value: object) -> None:
    """Replace `where.name`. Raises AttributeError if there is nothing to replace, because the product has changed."""
    getattr(where, name)
    setattr(where, name, value)


def shorten(birth: Birth, uses: list[FirstUse]) -> None:
    """Install short pauses, the shared clock, and a keeper that does its rounds only when the machine asks for them."""
    clock = SharedClock(birth.clock)
    put(services_module, "time", SimpleNamespace(time=clock.now, monotonic=clock.monotonic))
    # A pause that Clore asks for ends when that time has passed on the shared clock.
    put(services_module, "Pacer", functools.partial(Pacer, clock_ns=lambda: int(clock.monotonic() * 1e9)))
    put(services_module, "CloreClient", functools.partial(CloreClient, timing=_TIMING))
    put(settle, "_PAUSES", (*_QUICK, 0.1))
    put(cancels, "_LOOK_PAUSES", _QUICK)
    put(adopt, "_PRICE_PAUSES", _QUICK)
    put(bid, "_LOOK_PAUSES", _QUICK)
    put(database, "_BUSY_SECONDS", 1.0)
    put(folder, "_TICK_SECONDS", 0.15)
    put(folder, "_LOOK_SECONDS", 0.03)
    put(folder, "_LOOKS", 20)  # otherwise each question to a stopped process would take three seconds
    # A thread for each transaction costs more than the transaction, and a process stops or dies as a whole anyway.
    put(database, "anyio", SimpleNamespace(to_thread=SimpleNamespace(run_sync=_at_once)))
    put(guard, "_FOLLOW_PAUSE_SECONDS", 0.02)
    put(stop, "_LOOK_PAUSE_SECONDS", 0.05)
    put(order, "anyio", SimpleNamespace(sleep=_nap, to_thread=anyio.to_thread))

    async def wait(self: Keeper) -> None:
        await asyncio.Event().wait()

    async def never(self: FirstUse) -> None:
        uses.append(self)
        await asyncio.Event().wait()

    put(services_module, "build", functools.partial(services_module.build, patience=PATIENCE))
    put(Keeper, "_run", wait)
    put(FirstUse, "resume_leases", never)


async def _at_once(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run the work without a thread. Other tasks on this loop get a turn before and after."""
    await asyncio.sleep(0)
    try:
        return work(*arguments)
    finally:
        await asyncio.sleep(0)


async def _nap(seconds: float) -> None:
    await anyio.sleep(min(seconds, 0.05))


def main(pipe: Connection, birth: Birth) -> None:
    """Run the whole process."""
    os.environ["HOME"] = birth.folder
    logging.disable(logging.CRITICAL)
    asyncio.run(Process(pipe, birth).run())

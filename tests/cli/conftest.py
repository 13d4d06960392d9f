"""What tests of the commands share: real processes and terminals, one simulated market, an account for each test."""

from __future__ import annotations

import asyncio
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx2 as httpx
import pytest

from clore_mcp.rental.requests import CreateOrder
from clore_mcp.sandbox import Options, Running, start_in_thread
from clore_mcp.store.database import Database, Tx
from clore_mcp.wiring import Services, build
from tests.conftest import delete_state, environment, settings_for, watchdogs_started
from tests.preforked import python

if TYPE_CHECKING:
    from tests.cli.watchdogs import Kennel

T = TypeVar("T")

KEYS = tuple(f"test-account-{number:019}" for number in range(160))
IMAGE = "cloreai/jupyter:ubuntu24.04-v2"
PATIENCE = 60.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    """A marketplace that takes any pace, lives a minute in a second and has many accounts."""
    options = Options(servers=300, rate_limit="off", speed=60.0, keys=KEYS, ssh_listener=False)
    with start_in_thread(options) as running:
        yield running


@pytest.fixture(scope="session")
def fresh_key() -> Callable[[], str]:
    """The key of an account that nobody has used."""
    keys = iter(KEYS)
    return lambda: next(keys)


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str = ""


@dataclass
class Desk:
    """One person's machine: an account, a state folder, and the commands."""

    running: Running
    folder: Path
    key: str
    env: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return Path(self.env["CLORE_STATE_DIR"])

    def run(self, *words: str, stdin: str = "", **more: str) -> Done:
        """A command without a terminal."""
        done = subprocess.run(
            [python(), "-W", "error", "-m", "clore_mcp", *words],
            env=self.env | more, input=stdin, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def at_terminal(self, *words: str, **more: str) -> Terminal:
        """A command at a terminal of 80 columns."""
        return Terminal([python(), "-W", "error", "-m", "clore_mcp", *words], self.env | more)

    def ledger(self) -> str:
        return self.run("ledger", "--json").out

    def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """Rows of the state as it is now."""
        return self.write(lambda tx: [dict(row) for row in tx.all(sql, *values)])

    def write(self, work: Callable[[Tx], T]) -> T:
        database = Database(self.state)
        try:
            return database.write_now(work)
        finally:
            database.close()

    def control(self, path: str, body: Any) -> Any:
        """Change the simulated world behind everybody's back."""
        with httpx.Client(trust_env=False, verify=False) as http:
            reply = http.post(f"{self.running.control_url}{path}", json=body, timeout=60)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def calm(self) -> None:
        """Take all faults back."""
        with httpx.Client(trust_env=False, verify=False) as http:
            http.delete(f"{self.running.control_url}/faults", timeout=60)

    def with_services(self, work: Callable[[Services], Coroutine[Any, Any, T]], **more: str) -> T:
        """Do something with the wired parts, as a server process would."""

        async def inside() -> T:
            services = build(settings_for(self.env | more, self.folder))
            try:
                return await work(services)
            finally:
                await services.aclose()

        return asyncio.run(inside())

    def ask(self, place: int = 0, **changes: Any) -> CreateOrder:
        """A wish for one of the cheap servers, a different one for each account and place."""
        begin = KEYS.index(self.key) * 3
        return self.with_services(lambda services: _wish(services, begin, place, changes))

    def hold(self, ask: CreateOrder, caller: str = "claude-code") -> str:
        """A quote that waits for a person; its id."""

        async def work(services: Services) -> str:
            held = await services.guard.hold(ask, caller=caller, can_ask=False, replay=False)
            assert held.quote is not None, held
            return held.quote.id

        return self.with_services(work)

    def rent(self, ask: CreateOrder | None = None, **changes: Any) -> int:
        """An order, made within the limits and without a question; its id."""
        wish = ask or self.ask(**changes)

        async def work(services: Services) -> int:
            await services.keep_leases()
            held = await services.guard.hold(wish, caller="claude-code", can_ask=False, replay=False)
            outcome = await services.guard.conclude(held, wish, answer=None, caller="claude-code")
            assert outcome.status == "created" and outcome.order_id is not None, outcome
            return outcome.order_id

        return self.with_services(work, CLORE_APPROVAL="limits")


async def _wish(services: Services, begin: int, place: int, changes: dict[str, Any]) -> CreateOrder:
    listings = (await services.context.readings.snapshot()).by_id.values()
    single = [one for one in listings if not one.rented and one.gpu_count == 1 and one.max_rental_hours]
    ordered = sorted(single, key=lambda one: one.server_id)
    begin %= len(ordered)
    fitting = 0
    for listing in (*ordered[begin:], *ordered[:begin]):
        ask = CreateOrder.model_validate({"server_id": listing.server_id, "image": IMAGE, "hours": 1.5, **changes})
        found = await services.pricer.price(ask)
        if found.terms is not None and not found.refusals:
            if fitting == place:
                return ask
            fitting += 1
    raise AssertionError("no server left")


@pytest.fixture
def desk(running: Running, fresh_key: Callable[[], str], tmp_path: Path) -> Desk:
    key = fresh_key()
    usual = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "SYSTEMROOT") if name in os.environ}
    return Desk(running, tmp_path, key, usual | environment(running, tmp_path, CLORE_API_KEY=key, COLUMNS="200"))


@pytest.fixture
def kennel(desk: Desk) -> Iterator[Kennel]:
    """Watchdogs of the desk; what they or a server have started ends with the test."""
    from tests.cli.watchdogs import Kennel, lives, until  # it needs what stands above

    made = Kennel(desk)
    try:
        yield made
    finally:
        made.end()
        desk.calm()
        started = watchdogs_started(desk.state)
        delete_state(desk.state)
        until(lambda: not any(map(lives, started)), "no process is left")


class Terminal:
    """A process whose stdin, stdout and stderr are one pseudo-terminal."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        if sys.platform == "win32":
            pytest.skip("pseudo-terminals are a POSIX thing")
        import fcntl
        import pty
        import struct
        import termios

        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        env = {name: value for name, value in env.items() if name != "COLUMNS"} | {"TERM": "xterm-256color"}
        self._process = subprocess.Popen(
            command, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE)
        os.close(self._ours)

    def expect(self, text: str) -> None:
        """Read until the text is on the screen."""
        self._read(lambda: text in self.seen)
        assert text in self.seen, self.seen

    def type(self, line: str) -> None:
        os.write(self._ours, line.encode() + b"\n")

    def end(self) -> Done:
        """Read to the end; wrapped lines are put together again."""
        self._read(lambda: False)
        code = self._process.wait(PATIENCE)
        text = re.sub(r"\x1b\[[0-9;]*m", "", self.seen)
        assert "Traceback" not in text, text
        return Done(code, re.sub(r"\s*\r\n\s*", " ", text))

    def _read(self, enough: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + PATIENCE
        while not enough() and time.monotonic() < give_up_at:
            ready, _, _ = select.select([self._ours], [], [], 0.1)
            try:
                chunk = os.read(self._ours, 65_536) if ready else None
            except OSError:  # Linux says EIO when the last writer has gone
                return
            if chunk == b"":
                return
            self.seen += (chunk or b"").decode(errors="replace")

"""What tests share: a simulated marketplace, one person's machine, and the commands on it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2 as httpx

from clore_mcp.rental.context import Patience
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.sandbox import SANDBOX_KEY, Running
from clore_mcp.store.database import FILE_NAME, Database, Tx
from clore_mcp.wiring import Services, build
from tests.conftest import environment, settings_for
from tests.preforked import python
from tests.terminal import PATIENCE, Done, Terminal

T = TypeVar("T")
Json = dict[str, Any]

KEYS: Final = tuple(f"test-account-{number:019}" for number in range(160))
USD: Final = "USD-Blockchain"
IMAGE: Final = "cloreai/jupyter:ubuntu24.04-v2"


class Control:
    """A marketplace, controlled directly and not through its API: its clock, prices, faults and options, and the
    requests that it received."""

    def __init__(self, running: Running, key: str = SANDBOX_KEY) -> None:
        self.running = running
        self.elsewhere: set[int] = set()
        # verify=False: nothing is encrypted here, and loading certificates takes 30 ms for each client.
        self.api = httpx.Client(base_url=running.url, headers={"auth": key}, timeout=60, verify=False, trust_env=False)
        self._behind = httpx.Client(base_url=running.control_url, timeout=60, verify=False, trust_env=False)

    def close(self) -> None:
        self.api.close()
        self._behind.close()

    def post(self, path: str, body: Any) -> Json:
        reply = self._behind.post(path, json=body)
        assert reply.status_code == 200, reply.text
        answer: Json = reply.json()
        return answer

    def get(self, path: str) -> Json:
        answer: Json = self._behind.get(path).json()
        return answer

    def fault(self, kind: str, endpoint: str = "", **more: Any) -> None:
        self.post("/faults", {"kind": kind, "endpoint": endpoint, **more})

    def mend(self) -> None:
        self._behind.delete("/faults")

    def advance(self, seconds: float) -> None:
        self.post("/clock", {"advance": seconds})

    def options(self, **changes: Any) -> None:
        self.post("/options", changes)

    def orders(self) -> list[Json]:
        rows: list[Json] = self.get("/state")["orders"]
        return rows

    def active(self) -> list[Json]:
        return [row for row in self.orders() if row["ended_at"] is None]

    def sent(self, endpoint: str = "create_order") -> list[Json]:
        return [row for row in self.get("/requests")["requests"] if row["endpoint"] == endpoint]

    def free(self) -> list[int]:
        """Return free and cheap servers that accept USD and have no bids, cheapest first."""
        rows = self.api.get("/marketplace").json()["servers"]
        fit = [
            row
            for row in rows
            if not row["rented"]
            and USD in row["allowed_coins"]
            and 0.5 < row["price"]["on_demand"].get(USD, 0) < 12
            and row["price"]["spot"].get(USD)
            and row["mrl"] >= 24
        ]
        fit.sort(key=lambda row: float(row["price"]["on_demand"][USD]))
        bids = self.get("/bids")["bids"]
        return [row["id"] for row in fit if str(row["id"]) not in bids]

    def price(self, server_id: int, kind: str = "on_demand") -> float:
        return float(self.get(f"/servers/{server_id}")["row"]["price"][kind][USD])

    def rent_elsewhere(self, server_id: int, **more: Any) -> int:
        body = {"currency": USD, "image": "someone/else", "renting_server": server_id, "type": "on-demand", **more}
        order_id = int(self.post("/orders", body)["order_id"])
        self.elsewhere.add(order_id)
        return order_id

    def take_create_slot(self) -> None:
        """Use up the create slot, as another program on the same key would. The body is invalid, so no order is
        made."""
        assert self.api.post("/create_order", json={}).json()["code"] == 2

    def await_request(self, endpoint: str, seconds: float = 60.0, *, beyond: int = 0, effect: bool = False) -> None:
        """Wait until Clore has received more than `beyond` such requests."""
        until = time.monotonic() + seconds
        while sum(row["effect"] or not effect for row in self.sent(endpoint)) <= beyond:
            assert time.monotonic() < until, f"no {endpoint} was sent within {seconds} s"
            time.sleep(0.02)

    def await_state(self, wanted: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until `wanted` returns True."""
        until = time.monotonic() + seconds
        while not wanted():
            assert time.monotonic() < until, f"not within {seconds} s"
            time.sleep(0.02)


class World(Control):
    """A marketplace, one person's state folder on it, the program as processes would wire it, and the commands."""

    def __init__(
        self,
        running: Running,
        folder: Path,
        key: str = SANDBOX_KEY,
        env: Mapping[str, str] | None = None,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(running, key)
        self.folder = folder
        self.key = key
        self.patience = patience
        self.env = environment(running, folder, CLORE_API_KEY=key, **(env or {}))
        self.state = folder / "state"

    # The program

    def services(self, patience: Patience | None = None, /, **env: str) -> Services:
        """Return the services of one process."""
        return build(settings_for(self.env | env, self.folder), patience or self.patience)

    def with_services(self, work: Callable[[Services], Coroutine[Any, Any, T]], **more: str) -> T:
        """Run some work with the services, as a server process would, and return its result."""

        async def inside() -> T:
            services = self.services(**more)
            try:
                return await work(services)
            finally:
                await services.aclose()

        return asyncio.run(inside())

    def ask(self, place: int = 0, **changes: Any) -> CreateOrder:
        """Return a request for a server within the limits, a different one for each account and place."""
        begin = KEYS.index(self.key) * 3
        return self.with_services(lambda services: _wish(services, begin, place, changes))

    def hold(self, ask: CreateOrder, caller: str = "claude-code") -> str:
        """Return the id of a new quote that waits for a person."""

        async def work(services: Services) -> str:
            held = await services.guard.hold(ask, caller=caller, can_ask=False, replay=False)
            assert held.quote is not None, held
            return held.quote.id

        return self.with_services(work)

    def rent(self, ask: CreateOrder | None = None, **changes: Any) -> int:
        """Return the id of a new order, made within the limits and without a question."""
        wish = ask or self.ask(**changes)

        async def work(services: Services) -> int:
            await services.keep_leases()
            held = await services.guard.hold(wish, caller="claude-code", can_ask=False, replay=False)
            outcome = await services.guard.conclude(held, wish, answer=None, caller="claude-code")
            assert outcome.status == "created" and outcome.order_id is not None, outcome
            return outcome.order_id

        return self.with_services(work, CLORE_APPROVAL="limits")

    # The commands

    def run(self, *words: str, stdin: str = "", **more: str) -> Done:
        """Run a command without a terminal."""
        done = subprocess.run(
            [python(), "-W", "error", "-m", "clore_mcp", *words],
            env=self.env | more, input=stdin, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def at_terminal(self, *words: str, **more: str) -> Terminal:
        """Start a command at a terminal of 80 columns."""
        return Terminal([python(), "-W", "error", "-m", "clore_mcp", *words], self.env | more)

    def ledger(self) -> str:
        return self.run("ledger", "--json").out

    # The state behind the program's back

    def rows(self, sql: str, *values: object) -> list[Json]:
        with closing(sqlite3.connect(self.state / FILE_NAME, timeout=60)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(sql, values)]

    def beats(self) -> list[str]:
        """Return the owners of the heartbeats. Empty before the state exists."""
        try:
            return [row["owner"] for row in self.rows("SELECT owner FROM heartbeats")]
        except sqlite3.OperationalError:
            return []

    def change(self, sql: str, *values: object) -> None:
        with closing(sqlite3.connect(self.state / FILE_NAME, timeout=60)) as db, db:
            db.execute(sql, values)

    def lose_state(self) -> None:
        """Delete the whole folder at once, even while processes write to it."""
        gone = self.folder / "gone"
        self.state.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def lose_the_keepers(self) -> None:
        """Make it look as if no process ends orders: delete the heartbeats and drop new ones."""
        self.change("CREATE TRIGGER IF NOT EXISTS unheard BEFORE INSERT ON heartbeats BEGIN SELECT RAISE(IGNORE); END")
        self.change("DELETE FROM heartbeats")

    def intents(self) -> list[Json]:
        return self.rows("SELECT * FROM intents ORDER BY rowid")

    def reserved(self) -> list[Json]:
        return self.rows("SELECT * FROM reservations WHERE released_at IS NULL")

    def steps(self) -> list[str]:
        return [row["step"] for row in self.rows("SELECT step FROM ledger ORDER BY seq")]

    def write(self, work: Callable[[Tx], T]) -> T:
        database = Database(self.state)
        try:
            return database.write_now(work)
        finally:
            database.close()


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

"""A marketplace, a state folder, a person who answers, and an oracle that knows what Clore really did."""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, cast

import httpx2 as httpx

from clore_mcp.rental.context import Patience
from clore_mcp.rental.requests import CancelOrder, CreateOrder, Request
from clore_mcp.rental.results import BillingOrder, Outcome
from clore_mcp.sandbox import SANDBOX_KEY, Running
from clore_mcp.settings import Settings
from clore_mcp.store.database import FILE_NAME
from clore_mcp.store.orders import OrderReceipt
from clore_mcp.wiring import Services, build

USD: Final = "USD-Blockchain"
IMAGE: Final = "cloreai/jupyter:ubuntu24.04-v2"
ENV_VALUE: Final = "hf_env_value_that_nobody_may_keep"
SHORT: Final = Patience(
    answer=15.0,
    look=1.5,
    look_after_refusal=0.3,
    leave_within=20.0,
    send_within=2.0,
    window=0.5,
    orphan=0.5,
    proof=1.5,
    absence=60.0,
)
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told(Outcome):
    """An outcome as a test reads it: what it asks for is there, else the test fails."""

    order_id: int = 0
    server_id: int = 0
    approval_id: str = ""
    reason: str = ""
    receipt: OrderReceipt = field(default_factory=lambda: OrderReceipt(0, 0, 0, 0, 0))
    usd_per_hour: float = 0
    reserved_usd: float = 0
    previous_ends_at: str = ""
    ends_at: str = ""
    most_hours: float = 0
    retry_after_seconds: int = 0
    lowest_usd_per_hour_now: float = 0
    latest_ends_at: str = ""
    bid_usd_per_hour: float = 0
    on_demand_usd_per_hour: float = 0
    to_win_usd_per_hour: float = 0
    still_running: tuple[BillingOrder, ...] = ()
    watch_id: str = ""
    envelope: str = ""


class World:
    """One sandbox and one state folder; `services()` is one process's worth of the program on them."""

    def __init__(self, running: Running, folder: Path) -> None:
        self.running = running
        self.folder = folder
        self.state_dir = folder / "state"
        self.elsewhere: set[int] = set()
        self._api = httpx.Client(base_url=running.url, headers={"auth": SANDBOX_KEY}, timeout=60, verify=False)
        self._control = httpx.Client(base_url=running.control_url, timeout=60, verify=False)

    def close(self) -> None:
        self._api.close()
        self._control.close()

    # The program

    def env(self, **more: str) -> dict[str, str]:
        return {
            "CLORE_API_URL": self.running.url,
            "CLORE_API_KEY": SANDBOX_KEY,
            "CLORE_REQUEST_GAP_SECONDS": "0.01",
            "CLORE_STATE_DIR": str(self.state_dir),
            **more,
        }

    def services(self, patience: Patience = SHORT, **env: str) -> Services:
        settings = Settings.from_env(
            self.env(**env), home=self.folder, config_dir=self.folder, state_dir_default=self.folder
        )
        return build(settings, patience)

    # The marketplace behind the API's back

    def post(self, path: str, body: Any) -> Json:
        reply = self._control.post(path, json=body)
        assert reply.status_code == 200, reply.text
        answer: Json = reply.json()
        return answer

    def get(self, path: str) -> Json:
        answer: Json = self._control.get(path).json()
        return answer

    def fault(self, kind: str, endpoint: str = "", **more: Any) -> None:
        self.post("/faults", {"kind": kind, "endpoint": endpoint, **more})

    def mend(self) -> None:
        self._control.delete("/faults")

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
        """Free servers that take USD and cost little, cheapest first, without rival bids."""
        rows = self._api.get("/marketplace").json()["servers"]
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
        """Another program on the same key asks for an order just now (and is told that its body is wrong)."""
        assert self._api.post("/create_order", json={}).json()["code"] == 2

    def await_request(self, endpoint: str, seconds: float = 60.0, *, beyond: int = 0, effect: bool = False) -> None:
        """Wait until Clore has more than `beyond` such requests."""
        until = time.monotonic() + seconds
        while sum(row["effect"] or not effect for row in self.sent(endpoint)) <= beyond:
            assert time.monotonic() < until, f"no {endpoint} was sent within {seconds} s"
            time.sleep(0.02)

    def await_state(self, wanted: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until the rows say so."""
        until = time.monotonic() + seconds
        while not wanted():
            assert time.monotonic() < until, f"not within {seconds} s"
            time.sleep(0.02)

    # The state behind the program's back

    def rows(self, sql: str, *values: object) -> list[Json]:
        with closing(sqlite3.connect(self.state_dir / FILE_NAME, timeout=60)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(sql, values)]

    def change(self, sql: str, *values: object) -> None:
        with closing(sqlite3.connect(self.state_dir / FILE_NAME, timeout=60)) as db, db:
            db.execute(sql, values)

    def lose_the_keepers(self) -> None:
        """Nobody who would end an order is alive any more: no beat is there, and none that still comes is kept."""
        self.change("CREATE TRIGGER IF NOT EXISTS unheard BEFORE INSERT ON heartbeats BEGIN SELECT RAISE(IGNORE); END")
        self.change("DELETE FROM heartbeats")

    def intents(self) -> list[Json]:
        return self.rows("SELECT * FROM intents ORDER BY rowid")

    def reserved(self) -> list[Json]:
        return self.rows("SELECT * FROM reservations WHERE released_at IS NULL")

    def steps(self) -> list[str]:
        return [row["step"] for row in self.rows("SELECT step FROM ledger ORDER BY seq")]


def wish(server_id: int, **more: Any) -> CreateOrder:
    return CreateOrder(
        server_id=server_id,
        **{
            "image": IMAGE,
            "hours": 2.0,
            "currency": USD,
            "env": {"HF_TOKEN": ENV_VALUE},
            "jupyter": True,
            **more,
        },
    )


async def call(
    services: Services, ask: Request, *, answer: bool | None = True, can_ask: bool = True, caller: str = "tester"
) -> Told:
    """A tool call with a person behind it: `answer` is what they say if they are asked."""
    held = await services.guard.hold(ask, caller=caller, can_ask=can_ask, replay=False)
    asked = services.guard.asks(held, can_ask=can_ask)
    outcome = await services.guard.conclude(held, ask, answer=answer if asked else None, caller=caller)
    await services.guard.told(held, outcome)
    return cast(Told, outcome)


async def rent(services: Services, server_id: int, **more: Any) -> Told:
    outcome = await call(services, wish(server_id, **more))
    assert outcome.status == "created", outcome
    return outcome


async def cancel(services: Services, order_id: int, **more: Any) -> Told:
    return await call(services, CancelOrder(order_id=order_id), **more)


def let_time_pass(services: Services) -> None:
    """What this process has, and what it would take from another, is too old now."""
    services.market._held = None
    services.marketplace.forget()
    services.context.readings.changed()


def patient(**changes: float) -> Patience:
    return replace(SHORT, **changes)


def check_invariants(world: World, *, settled: bool = True) -> None:
    """What must hold after anything at all. `settled`: nothing is on its way any more, so nothing may be unknown."""
    intents = world.intents()
    quotes = {row["id"]: row for row in world.rows("SELECT * FROM quotes")}
    leases = {row["order_id"]: row for row in world.rows("SELECT * FROM orders")}
    reservations = {row["intent_id"]: row for row in world.rows("SELECT * FROM reservations")}
    ours = [order for order in world.orders() if order["id"] not in world.elsewhere]
    _every_order_has_its_own_yes(ours, intents, quotes)
    _nothing_is_sent_twice(world.sent(), intents)
    _every_order_is_known(ours, leases, intents, settled=settled)
    _reservations_cover_the_worst(world, ours, leases, intents, reservations)
    _ledger_is_append_only(world)
    _no_secret_is_kept(world)


def _every_order_has_its_own_yes(ours: Iterable[Json], intents: Iterable[Json], quotes: Mapping[str, Json]) -> None:
    """Each order at Clore falls to one intent of a quote that someone said yes to; no quote has two orders."""
    by_server: dict[int, list[Json]] = {}
    for intent in intents:
        if intent["state"] not in ("refused", "abandoned", "reserved"):
            by_server.setdefault(intent["server_id"], []).append(intent)
    covered: Counter[str] = Counter()
    for order in sorted(ours, key=lambda one: int(one["id"])):
        candidates = by_server.get(order["server_id"], [])
        exact = [one for one in candidates if one["order_id"] == order["id"]] or [
            one for one in candidates if one["order_id"] is None
        ]
        assert exact, f"order {order['id']} at Clore belongs to no intent"
        quote = quotes[exact[0]["quote_id"]]
        assert quote["decided_by"], f"order {order['id']} was made without a yes"
        covered[quote["id"]] += 1
    assert all(count == 1 for count in covered.values()), f"two orders for one yes: {covered}"


def _nothing_is_sent_twice(sent: Iterable[Json], intents: Iterable[Json]) -> None:
    wanted = Counter(intent["server_id"] for intent in intents)
    looked_at: Counter[int] = Counter()
    too_fast: Counter[int] = Counter()
    for request in sent:
        server_id = (request["body"] or {}).get("renting_server")
        if server_id is not None:
            (too_fast if request["code"] == 5 else looked_at)[server_id] += 1
    for server_id, count in looked_at.items():
        assert count <= wanted[server_id], f"{count} creates for server {server_id}, {wanted[server_id]} intents"
    for server_id, count in too_fast.items():
        assert count + looked_at[server_id] <= 3 * wanted[server_id]


def _every_order_is_known(
    ours: Iterable[Json], leases: Mapping[int, Json], intents: Iterable[Json], *, settled: bool
) -> None:
    for order in ours:
        doubtful = [
            one
            for one in intents
            if one["server_id"] == order["server_id"] and one["state"] in ("sending", "uncertain", "failed")
        ]
        assert order["id"] in leases or (not settled and doubtful), f"nobody knows order {order['id']}"
    for intent in intents:
        assert (intent["state"] == "adopted") == (intent["order_id"] in leases and intent["order_id"] is not None)
        assert not settled or intent["state"] not in ("reserved", "sending"), f"{intent['id']} is {intent['state']}"


def _reservations_cover_the_worst(
    world: World,
    ours: Iterable[Json],
    leases: Mapping[int, Json],
    intents: Iterable[Json],
    reservations: Mapping[str, Json],
) -> None:
    for order in ours:
        lease = leases.get(order["id"])
        if lease is None:
            continue
        held = reservations[lease["intent_id"]]
        if lease["ended_at"] is None:
            fee = Decimal("1.0125") if order["type"] == "spot" else Decimal("1.05")
            seconds = max(0, lease["ends_api_at"] - order["ct"])
            worst = Decimal(str(order["price"])) * seconds / 86_400 * fee + Decimal("0.1")
            assert held["released_at"] is None, f"order {order['id']} runs without a reservation"
            assert Decimal(held["worst_micros"]) / 10**6 >= worst, "a reservation is smaller than the worst case"
        else:
            assert order["ended_at"] is not None, f"order {order['id']} counts as ended and runs"
            assert held["actual_micros"] >= int(order["total"] * 10**6) - 1, "counted less than was paid"
    for intent in intents:
        held = reservations[intent["id"]]
        if intent["state"] in ("reserved", "sending", "uncertain"):
            assert held["released_at"] is None, f"{intent['id']} is {intent['state']} and nothing is reserved"
        if intent["state"] in ("failed", "refused", "abandoned"):
            assert (held["released_at"] is not None) and held["actual_micros"] == 0, f"{intent['id']} blocks money"


def _ledger_is_append_only(world: World) -> None:
    rows = world.rows("SELECT seq, at FROM ledger ORDER BY seq")
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(earlier["at"] <= later["at"] + 0.05 for earlier, later in itertools.pairwise(rows))
    for attack in (
        "DELETE FROM ledger",
        "UPDATE ledger SET step = 'x'",
        "INSERT OR REPLACE INTO ledger SELECT * FROM ledger",
    ):
        try:
            world.change(attack)
        except sqlite3.IntegrityError:
            continue
        assert not rows, f"the ledger let itself be changed: {attack}"


def _no_secret_is_kept(world: World) -> None:
    secrets = [SANDBOX_KEY, ENV_VALUE, *(row["value"] for row in world.rows("SELECT value FROM secrets"))]
    for table in ("quotes", "intents", "reservations", "orders", "ledger", "heartbeats"):
        text = json.dumps(world.rows(f"SELECT * FROM {table}"), default=str)
        for secret in secrets:
            assert secret not in text, f"a secret stands in {table}"

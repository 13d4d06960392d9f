"""A sandbox for each test, over a real socket, with a helper that speaks to both of its paths."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx
import pytest

from clore_mcp.sandbox import SANDBOX_KEY, Options, Running, start_in_thread

USD = "USD-Blockchain"
Json = dict[str, Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Market:
    """A client of one sandbox: `api` speaks as an account, `control` behind its back."""

    def __init__(self, running: Running) -> None:
        self.running = running
        # verify=False: nothing is encrypted here, and loading certificates for each client takes 30 ms.
        self.api = httpx.Client(base_url=running.url, headers={"auth": SANDBOX_KEY}, timeout=60, verify=False)
        self.control = httpx.Client(base_url=running.control_url, timeout=60, verify=False)

    def close(self) -> None:
        self.api.close()
        self.control.close()

    def servers(self) -> list[Json]:
        rows: list[Json] = self.api.get("/marketplace").json()["servers"]
        return rows

    def server(self, server_id: int) -> Json:
        return next(row for row in self.servers() if row["id"] == server_id)

    def free(self, place: int = 0) -> Json:
        """A free server that takes USD and has no rival bids."""
        rows = [r for r in self.servers() if not r["rented"] and USD in r["allowed_coins"]]
        cheap = (r for r in rows if r["price"]["on_demand"][USD] < 10)
        quiet = (r for r in cheap if not self.get(f"/servers/{r['id']}")["bids"])
        return next(itertools.islice(quiet, place, None))

    def wish(self, server: Json, **changes: Any) -> Json:
        wish = {
            "currency": USD,
            "image": "cloreai/jupyter:ubuntu24.04-v2",
            "renting_server": server["id"],
            "type": "on-demand",
            "ports": {"22": "tcp", "8888": "http"},
            **changes,
        }
        return {key: value for key, value in wish.items() if value is not ...}

    def create(self, server: Json, **changes: Any) -> httpx.Response:
        return self.api.post("/create_order", json=self.wish(server, **changes))

    def rent(self, server: Json, **changes: Any) -> Json:
        """Rent and return the order as it shows once visible."""
        reply = self.create(server, **changes)
        assert (reply.status_code, reply.json()) == (200, {"code": 0})
        self.advance(3)
        return next(o for o in self.orders() if o["si"] == server["id"])

    def orders(self, completed: bool = False) -> list[Json]:
        params = {"return_completed": "true"} if completed else {}
        rows: list[Json] = self.api.get("/my_orders", params=params).json()["orders"]
        return rows

    def order(self, order_id: int, completed: bool = False) -> Json:
        return next(o for o in self.orders(completed) if o["id"] == order_id)

    def balance(self, coin: str = USD) -> float:
        wallets = self.api.get("/wallets").json()["wallets"]
        return float(next(w["balance"] for w in wallets if w["name"] == coin))

    def advance(self, seconds: float) -> None:
        self.post("/clock", {"advance": seconds})

    def post(self, path: str, body: Any) -> Json:
        reply = self.control.post(path, json=body)
        assert reply.status_code == 200, reply.text
        result: Json = reply.json()
        return result

    def get(self, path: str) -> Json:
        result: Json = self.control.get(path).json()
        return result

    def fault(self, kind: str, endpoint: str = "", **changes: Any) -> None:
        self.post("/faults", {"kind": kind, "endpoint": endpoint, **changes})


Start = Callable[..., Market]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts sandboxes with options of one's own; small, unpaced and with a still clock unless told."""
    with contextlib.ExitStack() as stack:

        def begin(**changes: Any) -> Market:
            wanted: Json = {"servers": 120, "rate_limit": "off", "speed": 0.0, "ssh_listener": False} | changes
            market = Market(stack.enter_context(start_in_thread(Options(**wanted))))
            stack.callback(market.close)
            return market

        yield begin


@pytest.fixture(scope="module")
def shared() -> Iterator[Market]:
    """One sandbox for all tests of a module that leave it as it was."""
    with start_in_thread(Options(servers=60, rate_limit="off", speed=0.0, ssh_listener=False)) as running:
        market = Market(running)
        yield market
        market.close()


@pytest.fixture
def market(start: Start) -> Market:
    return start()

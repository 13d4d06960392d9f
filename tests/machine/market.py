"""The marketplace, controlled without its API: a sandbox of six servers, its clock, prices, rates and true state."""

from __future__ import annotations

import itertools
import json
import struct
import time
from decimal import Decimal
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path
from typing import Any, Final

from clore_mcp.sandbox import SANDBOX_KEY, Options, start_in_thread
from tests.machine.clock import SharedClock

Json = dict[str, Any]
ENV_VALUE: Final = "hf_env_value_that_nobody_may_keep"
WATCH_VALUE: Final = "hf_env_value_that_a_watch_keeps_while_it_waits"
SECRETS_OF_ALL: Final = (SANDBOX_KEY, ENV_VALUE)
"""Secrets that may be in no row, question or result."""
USD, CLORE, BTC = "USD-Blockchain", "CLORE-Blockchain", "bitcoin"
COINS: Final = (USD, CLORE, BTC)
TICKERS: Final = {"USD": USD, "CLORE": CLORE, "BTC": BTC}
FEES: Final = {"on-demand": Decimal("0.05"), "spot": Decimal("0.0125")}
CREATION_USD: Final = Decimal("0.1")
FIRST_TAG: Final = 20_000
MODELS: Final = ("4090", "3090")
_PLACES: Final = {USD: 2, CLORE: 2, BTC: 8}
_RATES: Final = {USD: Decimal(1), CLORE: Decimal("0.00125"), BTC: Decimal(64_000)}
_USD_BLOCK: Final = {USD: "on_demand_usd", CLORE: "on_demand_clore", BTC: "on_demand_btc"}
_DAY_PRICES: Final = ("2.4", "3.6", "4.8", "7.2", "9.6", "14.4")  # USD
_HEADERS: Final = {"user-agent": "machine", "content-type": "application/json"}
_MRL_HOURS: Final = (24, 12, 48, 24, 12, 24)
_BALANCES: Final = {USD: 400.0, CLORE: 300_000.0, BTC: 0.01}


def tags_of(row: Json) -> list[int]:
    """Return the tags of a request, from the ports of a create's body or of an order."""
    return [int(port) for port in row.get("ports") or {} if int(port) >= FIRST_TAG]


class Market:
    """A sandbox of its own, and the clock that it shares with the processes."""

    def __init__(self, folder: Path) -> None:
        options = Options(
            servers=6, rate_limit="off", visible_after=0.0, ssh_listener=False, retry_after=True, create_interval=0.05
        )
        self._running = start_in_thread(options)
        self.url = self._running.url
        self._http = HTTPConnection("127.0.0.1", self._running.port, timeout=60)
        self.clock_path = folder / "clock"
        self.clock_path.write_bytes(struct.pack("d", 0.0))
        self.clock = SharedClock(str(self.clock_path))
        self._jumps: list[tuple[float, float]] = [(0.0, 0.0)]  # this machine's time, and the offset from then on
        self.rates = dict(_RATES)
        self._rated: list[tuple[float, dict[str, Decimal]]] = [(0.0, dict(_RATES))]
        self.elsewhere: set[int] = set()
        self.doubted: set[int] = set()  # orders that a list has shown wrongly
        self._seen = 0
        self._broken = False  # a fault was added or an option changed
        self.creates: dict[int, Json] = {}  # every create request, by its number
        self.bids: dict[int, Json] = {}  # every request for another bid
        found = self._ask("GET", "/v1/marketplace")
        self.servers: list[int] = sorted(row["id"] for row in found["servers"])
        self.mrl_hours = dict(zip(self.servers, _MRL_HOURS, strict=True))
        self.models = {one: f"RTX {MODELS[place // 3]}" for place, one in enumerate(self.servers)}
        for server_id, model in self.models.items():
            gpu = f"NVIDIA GeForce {model}"
            self.post(f"/servers/{server_id}", {"specs": {"gpu": f"1x {gpu}"}, "gpu_array": [gpu]})
        for server_id, day in zip(self.servers, _DAY_PRICES, strict=True):
            self._list(server_id, Decimal(day))
        self.post("/wallets", {"balances": _BALANCES})

    def close(self) -> None:
        self._http.close()
        self._running.stop()

    def post(self, path: str, body: Any) -> Json:
        return self._ask("POST", f"/_sandbox{path}", body)

    def get(self, path: str) -> Json:
        return self._ask("GET", f"/_sandbox{path}")

    def _ask(self, method: str, path: str, body: Any = None) -> Json:
        told = None if body is None else json.dumps(body)
        try:
            self._http.request(method, path, told, _HEADERS)
            reply = self._http.getresponse()
        except (RemoteDisconnected, BrokenPipeError, ConnectionResetError):  # the server closed the idle connection
            self._http.close()
            self._http.request(method, path, told, _HEADERS)
            reply = self._http.getresponse()
        text = reply.read()
        assert reply.status in (200, 409), text
        answer: Json = json.loads(text)
        return answer

    # What moves

    def advance(self, seconds: float) -> None:
        """Let time pass for Clore and for every process, including stopped ones."""
        self.post("/clock", {"advance": seconds})
        self.clock.advance(seconds)
        self._jumps.append((time.time(), self.clock.offset))

    def fault(self, kind: str, endpoint: str, **more: Any) -> None:
        self._broken = True
        self.post("/faults", {"kind": kind, "endpoint": endpoint, **more})

    def mend(self) -> bool:
        """Remove the faults and restore the options. Returns False if nothing was broken."""
        if not self._broken:
            return False
        self._ask("DELETE", "/_sandbox/faults")
        self.options(
            required_price="equal", rate_limit="off", unknown_order="error", ct="seconds", ct_off=0.0, repeat_rows=False
        )
        for order_id in self.doubted:
            self.post(f"/orders/{order_id}", {"seems": "as_it_is"})
        self._broken = False
        return True

    def options(self, **changes: Any) -> None:
        self._broken = True
        self.post("/options", changes)

    def move_price(self, server_id: int, factor: float) -> None:
        self.post(f"/servers/{server_id}", {"price_factor": factor})

    def offer(self, server_id: int, usd_per_hour: Decimal | None) -> None:
        """Free a server at that price including the fee, or let someone else rent it if the price is None."""
        ours = any(one["server_id"] == server_id and one["ended_at"] is None for one in self.orders())
        change: Json = {} if ours else {"rented": usd_per_hour is None}
        if usd_per_hour is not None:
            day = usd_per_hour * 24 / (1 + FEES["on-demand"])
            on_demand = {coin: float(round(day / self.rates[coin], _PLACES[coin])) for coin in COINS}
            change["price"] = {"on_demand": on_demand, "usd": self._in_usd(on_demand)}
        self.post(f"/servers/{server_id}", change)

    def move_rate(self, coin: str, factor: Decimal) -> None:
        """Multiply a coin's worth by a factor, in every listing too."""
        self.rates[coin] *= factor
        self.options(**{{BTC: "btc_usd", CLORE: "clore_usd"}[coin]: float(self.rates[coin])})
        for server_id in self.servers:
            prices = self.get(f"/servers/{server_id}")["row"]["price"]["on_demand"]
            self.post(f"/servers/{server_id}", {"price": {"usd": self._in_usd(prices)}})
        self._rated.append((self.clock.now(), dict(self.rates)))

    def rent_elsewhere(self, server_id: int, coin: str, image: str) -> bool:
        body = {"currency": coin, "image": image, "renting_server": server_id, "type": "on-demand"}
        made = self.post("/orders", body).get("order_id")
        if made is not None:
            self.elsewhere.add(int(made))
        return made is not None

    def seem(self, order_id: int, seems: str, seconds: int) -> None:
        """Let a list show an order as ended, or not at all."""
        self._broken = True
        self.doubted.add(order_id)
        self.post(f"/orders/{order_id}", {"seems": seems, "seconds": seconds})

    def outbid(self, server_id: int, coin: str, bid: float) -> None:
        self.post("/bids", {"server_id": server_id, "bid": bid, "currency": coin})

    # What is true

    def orders(self) -> list[Json]:
        rows: list[Json] = self.get("/state")["orders"]
        requests = self.get(f"/requests?since={self._seen + 1}")["requests"]
        for entry in requests:
            kept = {"create_order": self.creates, "set_spot_price": self.bids}.get(entry["endpoint"])
            if kept is not None and isinstance(entry["body"], dict):
                kept[entry["sequence"]] = {**entry, "at": self.shared_time(entry["wall"])}
        done = itertools.takewhile(lambda entry: entry["completed_ns"] is not None, requests)
        self._seen = max((entry["sequence"] for entry in done), default=self._seen)
        return rows

    def price(self, server_id: int, kind: str, coin: str) -> Decimal:
        row = self.get(f"/servers/{server_id}")["row"]["price"]
        return Decimal(str(row["spot" if kind == "spot" else "on_demand"][coin]))

    def shared_time(self, wall: float) -> float:
        """Return the processes' time at a moment of this machine's clock."""
        return wall + next(offset for since, offset in reversed(self._jumps) if since <= wall)

    def lowest_rate(self, coin: str, since: float, until: float) -> Decimal:
        """Return the least that a coin was worth between two moments of the shared clock."""
        before = [rates for at, rates in self._rated if at <= since][-1:]
        return min(rates[coin] for rates in [*before, *(rates for at, rates in self._rated if since < at <= until)])

    def _list(self, server_id: int, day_usd: Decimal) -> None:
        demand = {coin: float(round(day_usd / self.rates[coin], _PLACES[coin])) for coin in COINS}
        spot = {coin: float(round(day_usd / 2 / self.rates[coin], _PLACES[coin])) for coin in COINS}
        price = {"on_demand": demand, "spot": spot, "usd": self._in_usd(demand)}
        mrl = self.mrl_hours[server_id]
        self.post(f"/servers/{server_id}", {"price": price, "rented": False, "allowed_coins": list(COINS), "mrl": mrl})

    def _in_usd(self, on_demand: dict[str, float]) -> dict[str, float]:
        usd = {_USD_BLOCK[coin]: float(Decimal(str(on_demand[coin])) * self.rates[coin]) for coin in COINS}
        return {**usd, "spot": 0}


def environment(market: Market, folder: Path, mode: str, caps: dict[str, str]) -> dict[str, str]:
    """Return the operator's settings for a process of the product."""
    return {
        "CLORE_API_URL": market.url,
        "CLORE_API_KEY": SANDBOX_KEY,
        "CLORE_REQUEST_GAP_SECONDS": "0",
        "CLORE_STATE_DIR": str(folder / "state"),
        "CLORE_APPROVAL": mode,
        **caps,
    }

"""The sandbox's control path, `/_sandbox/`: what a test or a demo reads and changes without the API."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .engine import Engine
from .intake import COINS, parse_create
from .journal import digest
from .options import changed
from .orders import SEEMINGS, Server, SimulatedOrder
from .refusals import ApiRefusal

Handler = Callable[[Request], Awaitable[Response]]


class Control:
    """Routes that answer on loopback only and need no key."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        """Return all routes below the control path."""
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/state", self.state),
            ("GET", "/requests", self.requests),
            ("DELETE", "/requests", self.forget_requests),
            ("GET", "/faults", self.faults),
            ("POST", "/faults", self.add_fault),
            ("DELETE", "/faults", self.clear_faults),
            ("POST", "/clock", self.clock),
            ("POST", "/servers", self.add_server),
            ("GET", "/servers/{id:int}", self.server),
            ("POST", "/servers/{id:int}", self.patch_server),
            ("GET", "/bids", self.bids),
            ("POST", "/bids", self.bid),
            ("POST", "/wallets", self.wallets),
            ("GET", "/options", self.options),
            ("POST", "/options", self.set_options),
            ("POST", "/orders", self.make_order),
            ("POST", "/orders/{id:int}", self.show_order),
            ("POST", "/keys", self.add_key),
        ]
        return [Route(path, self._guarded(handler), methods=[method]) for method, path, handler in table]

    async def state(self, request: Request) -> Response:
        """Return the whole state, including what the API doesn't show."""
        engine, world = self._engine, self._engine.world
        await engine.tick()
        now = engine.clock.now()
        rented = sum(world.is_rented(s) for s in world.servers.values())
        return _shown(
            {
                "clock": {"now": now, "speed": engine.clock.speed},
                "orders": [self._order(order, now) for order in world.orders.values()],
                "accounts": [
                    {"key": digest(a.key), "wallets": {w.name: w.balance for w in a.wallets.values()}}
                    for a in {id(a): a for a in world.accounts.values()}.values()
                ],
                "counts": {
                    "servers": len(world.servers) + len(world.stray_rows),
                    "rented": rented,
                    "orders": len(world.orders),
                    "open_orders": sum(o.ended_at is None for o in world.orders.values()),
                    "requests": len(engine.journal.entries),
                },
            }
        )

    async def requests(self, request: Request) -> Response:
        """Return the journal. `?since=N` omits entries before N."""
        since = int(request.query_params.get("since", "0"))
        return _shown({"requests": [asdict(e) for e in self._engine.journal.entries if e.sequence >= since]})

    async def forget_requests(self, request: Request) -> Response:
        """Empty the journal."""
        self._engine.journal.clear()
        return _shown({})

    async def faults(self, request: Request) -> Response:
        """Return the pending faults."""
        return _shown({"faults": self._engine.faults.as_json()})

    async def add_fault(self, request: Request) -> Response:
        """Arm one fault, or a list of them."""
        wanted = await request.json()
        for each in wanted if isinstance(wanted, list) else [wanted]:
            self._engine.faults.add(each)
        return await self.faults(request)

    async def clear_faults(self, request: Request) -> Response:
        """Disarm all faults."""
        self._engine.faults.clear()
        return await self.faults(request)

    async def clock(self, request: Request) -> Response:
        """Move the market's time forward, or change its speed."""
        wanted = await request.json()
        clock = self._engine.clock
        if "speed" in wanted:
            clock.set_speed(float(wanted["speed"]))
        clock.advance(float(wanted.get("advance", 0)))
        await self._engine.tick()
        return _shown({"now": clock.now(), "speed": clock.speed})

    async def server(self, request: Request) -> Response:
        """Return one server's row and what isn't in it."""
        return self._server(self._engine.world.servers[request.path_params["id"]])

    async def add_server(self, request: Request) -> Response:
        """List one more row, well-formed or not. It replaces a row with the same id."""
        return _shown({"server_id": self._engine.world.add_row(await request.json())})

    async def patch_server(self, request: Request) -> Response:
        """Change a server: price_factor, rented, online, listed, allowed_coins, price, specs, any other row key."""
        wanted: dict[str, Any] = await request.json()
        world, now = self._engine.world, self._engine.clock.now()
        world.settle(now)
        server = world.servers[request.path_params["id"]]
        server.elsewhere = wanted.pop("rented", server.elsewhere)
        server.online = wanted.pop("online", server.online)
        server.listed = wanted.pop("listed", server.listed)
        world.move_price(server.id, float(wanted.pop("price_factor", 1.0)))
        row = world.own_row(server)
        for key, value in wanted.items():
            _merge(row, key, value)
        world.resolve(server.id, now)
        await self._engine.tick()
        return self._server(server)

    async def bids(self, request: Request) -> Response:
        """Return every bid on each server that has one, the winner first."""
        world = self._engine.world
        found = {server.id: world.bids(server) for server in world.servers.values()}
        return _shown(
            {"bids": {str(server_id): [asdict(bid) for bid in bids] for server_id, bids in found.items() if bids}}
        )

    async def bid(self, request: Request) -> Response:
        """Add a stranger's bid on a server."""
        wanted = await request.json()
        world, now = self._engine.world, self._engine.clock.now()
        if wanted["currency"] not in COINS:
            raise ValueError("no such coin")
        world.settle(now)
        rival = world.add_rival(world.servers[wanted["server_id"]], float(wanted["bid"]), wanted["currency"], now)
        await self._engine.tick()
        return _shown({"offer_id": rival.offer_id})

    async def wallets(self, request: Request) -> Response:
        """Set balances: `{"key"?: KEY, "balances": {coin: amount}}`."""
        wanted = await request.json()
        world = self._engine.world
        world.settle(self._engine.clock.now())
        account = world.accounts[self._key(wanted)]
        for coin, balance in wanted["balances"].items():
            account.wallets[coin].balance = balance
        await self._engine.tick()
        return _shown({"wallets": {w.name: w.balance for w in account.wallets.values()}})

    async def options(self, request: Request) -> Response:
        """Return the current options, with digests instead of keys."""
        options = asdict(self._engine.live.options)
        return _shown({**options, "keys": [digest(key) for key in options["keys"]]})

    async def set_options(self, request: Request) -> Response:
        """Change options of the running sandbox. Those that shape the market at its start no longer have any effect."""
        live = self._engine.live
        before, live.options = live.options, changed(live.options, await request.json())
        if live.options.speed != before.speed:
            self._engine.clock.set_speed(live.options.speed)
        await self._engine.tick()
        return await self.options(request)

    async def make_order(self, request: Request) -> Response:
        """Rent outside the API: a create_order body, with optional `key` and `age_seconds`. Rate limits and faults
        don't apply."""
        wanted = await request.json()
        world, now = self._engine.world, self._engine.clock.now()
        world.settle(now)
        begun = now - float(wanted.get("age_seconds", 0.0))
        ask = parse_create(wanted, self._engine.live.options)
        order = world.create(world.accounts[self._key(wanted)], ask, begun)
        await self._engine.tick()
        return _shown({"order_id": order.id})

    async def show_order(self, request: Request) -> Response:
        """Make my_orders show an order wrongly: `{"seems": "expired", "seconds": 12}`. `row` has values of its row,
        `twin` those of a second row of it."""
        wanted, now = await request.json(), self._engine.clock.now()
        order = self._engine.world.orders[request.path_params["id"]]
        seems = wanted.get("seems", "as_it_is")
        if seems not in SEEMINGS:
            raise ValueError(f"no order seems {seems!r}; known: {', '.join(SEEMINGS)}")
        order.seeming, order.seeming_until = seems, now + float(wanted.get("seconds", "inf"))
        order.row = dict(wanted.get("row", order.row))
        order.twin = wanted.get("twin", order.twin)
        return _shown(self._order(order, now))

    async def add_key(self, request: Request) -> Response:
        """Add a key to an account, as after a rotation: `{"key": NEW, "of"?: KEY, "revoke"?: true}`."""
        wanted = await request.json()
        accounts = self._engine.world.accounts
        old = str(wanted.get("of") or next(iter(accounts)))
        accounts[str(wanted["key"])] = accounts[old]
        if wanted.get("revoke"):
            del accounts[old]
        return _shown({"keys": [digest(key) for key in accounts]})

    def _key(self, wanted: dict[str, Any]) -> str:
        return str(wanted.get("key") or next(iter(self._engine.world.accounts)))

    def _server(self, server: Server) -> Response:
        world = self._engine.world
        return _shown(
            {
                "server_id": server.id,
                "row": server.row,
                "rented": world.is_rented(server),
                "online": server.online,
                "listed": server.listed,
                "bids": [asdict(bid) for bid in world.bids(server)],
            }
        )

    def _order(self, order: SimulatedOrder, now: float) -> dict[str, Any]:
        return {
            "id": order.id,
            "key": digest(order.key),
            "server_id": order.server_id,
            "type": "spot" if order.spot else "on-demand",
            "currency": order.currency,
            "price": order.price,
            "image": order.image,
            "ct": order.ct,
            "active": order.running,
            "visible": now >= order.visible_at,
            "ended_at": order.ended_at,
            "end_reason": order.end_reason,
            "spend": order.spend,
            "fee_paid": order.fee_paid,
            "creation_fee_paid": order.creation_paid,
            "total": order.total,
            "ports": order.ports,
            "public_ports": order.public_ports,
            "sshd": order.inside.sshd,
            "jupyter": order.inside.jupyter,
        }

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            if request.client is not None and request.client.host not in ("127.0.0.1", "::1"):
                return _shown({"error": "loopback only"}, 403)
            try:
                return await handler(request)
            except ApiRefusal as refused:
                return _shown(refused.body, 409)
            except (AttributeError, KeyError, TypeError, ValueError) as wrong:
                return _shown({"error": f"{type(wrong).__name__}: {wrong}"}, 400)

        return guarded


def _shown(body: dict[str, Any], status: int = 200) -> Response:
    # Starlette's own JSON rejects lone surrogates and NaN, which a hostile row or a request's body may hold.
    return Response(json.dumps(body), status, media_type="application/json")


def _merge(row: dict[str, Any], key: str, value: Any) -> None:
    """Merge objects, replace other values, and remove a key whose value is None."""
    if value is None:
        row.pop(key, None)
    elif isinstance(value, dict) and isinstance(row.get(key), dict):
        for inner, each in value.items():
            _merge(row[key], inner, each)
    else:
        row[key] = value

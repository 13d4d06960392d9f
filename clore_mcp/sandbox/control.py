"""The sandbox's control path, `/_sandbox/`: what a test or a demo reads and changes without the API."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .engine import Engine, digest
from .faults import Fault
from .intake import COINS, ApiRefusal, parse_create
from .options import changed
from .orders import SEEMINGS, SimulatedOrder

Body = dict[str, Any]


class Control:
    """Routes that need no key. Each handler gets the JSON or the query of a request, and returns the reply's JSON."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        table: list[tuple[str, str, Callable[..., Body]]] = [
            ("GET", "/state", self._state),
            ("GET", "/requests", self._requests),
            ("DELETE", "/requests", self._forget_requests),
            ("GET", "/faults", self._faults),
            ("POST", "/faults", self._add_fault),
            ("DELETE", "/faults", self._clear_faults),
            ("POST", "/clock", self._clock),
            ("POST", "/servers", self._add_server),
            ("GET", "/servers/{id:int}", self._server),
            ("POST", "/servers/{id:int}", self._patch_server),
            ("GET", "/bids", self._bids),
            ("POST", "/bids", self._bid),
            ("POST", "/wallets", self._wallets),
            ("GET", "/options", self._options),
            ("POST", "/options", self._set_options),
            ("POST", "/orders", self._make_order),
            ("POST", "/orders/{id:int}", self._show_order),
            ("POST", "/keys", self._add_key),
        ]
        return [Route(path, self._answered(handler), methods=[method]) for method, path, handler in table]

    def _answered(self, handler: Callable[..., Body]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                wanted = await request.json() if request.method == "POST" else dict(request.query_params)
                await self._engine.tick()
                body, status = handler(wanted, *request.path_params.values()), 200
                await self._engine.tick()
            except ApiRefusal as refusal:
                body, status = refusal.body, 409
            except (AttributeError, KeyError, TypeError, ValueError) as wrong:
                body, status = {"error": f"{type(wrong).__name__}: {wrong}"}, 400
            # Starlette's own JSON rejects lone surrogates and NaN, which a hostile row or a request's body may hold.
            return Response(json.dumps(body), status, media_type="application/json")

        return answer

    def _state(self, wanted: Body) -> Body:
        """Return the whole state, including what the API doesn't show."""
        engine, world, now = self._engine, self._engine.world, self._engine.clock.now()
        accounts = {id(account): account for account in world.accounts.values()}.values()
        return {
            "clock": {"now": now, "speed": engine.clock.speed},
            "orders": [_order(order, now) for order in world.orders.values()],
            "accounts": [
                {"key": digest(a.key), "wallets": {w.name: w.balance for w in a.wallets.values()}} for a in accounts
            ],
            "counts": {
                "servers": len(world.servers) + len(world.stray_rows),
                "rented": sum(world.is_rented(server) for server in world.servers.values()),
                "orders": len(world.orders),
                "open_orders": len(world.open_orders()),
                "requests": len(engine.requests),
            },
        }

    def _requests(self, wanted: Body) -> Body:
        """Return the record of requests. `?since=N` omits entries before N."""
        since = int(wanted.get("since", "0"))
        return {"requests": [asdict(entry) for entry in self._engine.requests if entry.sequence >= since]}

    def _forget_requests(self, wanted: Body) -> Body:
        self._engine.requests.clear()
        return {}

    def _faults(self, wanted: object) -> Body:
        pending = [asdict(fault) for fault in self._engine.faults.pending]
        return {"faults": [{k: v for k, v in fault.items() if k != "until"} for fault in pending]}

    def _add_fault(self, wanted: Any) -> Body:
        for each in wanted if isinstance(wanted, list) else [wanted]:
            self._engine.faults.pending.append(Fault(**each))
        return self._faults(wanted)

    def _clear_faults(self, wanted: Body) -> Body:
        self._engine.faults.pending.clear()
        return self._faults(wanted)

    def _clock(self, wanted: Body) -> Body:
        clock = self._engine.clock
        if "speed" in wanted:
            clock.set_speed(float(wanted["speed"]))
        clock.advance(float(wanted.get("advance", 0)))
        return {"now": clock.now(), "speed": clock.speed}

    def _server(self, wanted: Body, server_id: int) -> Body:
        world = self._engine.world
        server = world.servers[server_id]
        return {
            "server_id": server.id,
            "row": server.row,
            "rented": world.is_rented(server),
            "online": server.online,
            "listed": server.listed,
            "bids": [asdict(bid) for bid in world.bids(server)],
        }

    def _add_server(self, wanted: object) -> Body:
        """List one more row, well-formed or not. It replaces a row with the same id."""
        return {"server_id": self._engine.world.add_row(wanted)}

    def _patch_server(self, wanted: Body, server_id: int) -> Body:
        """Change a server: price_factor, rented, online, listed, or any key of its row."""
        world = self._engine.world
        server = world.servers[server_id]
        server.elsewhere = wanted.pop("rented", server.elsewhere)
        server.online = wanted.pop("online", server.online)
        server.listed = wanted.pop("listed", server.listed)
        world.move_price(server.id, float(wanted.pop("price_factor", 1.0)))
        row = world.own_row(server)
        for key, value in wanted.items():
            _merge(row, key, value)
        world.resolve(server.id, self._engine.clock.now())
        return self._server(wanted, server_id)

    def _bids(self, wanted: Body) -> Body:
        """Return every bid on each server that has one, the winner first."""
        world = self._engine.world
        found = {server.id: world.bids(server) for server in world.servers.values()}
        return {"bids": {str(server_id): [asdict(bid) for bid in bids] for server_id, bids in found.items() if bids}}

    def _bid(self, wanted: Body) -> Body:
        world, now = self._engine.world, self._engine.clock.now()
        if wanted["currency"] not in COINS:
            raise ValueError("no such coin")
        rival = world.add_rival(world.servers[wanted["server_id"]], float(wanted["bid"]), wanted["currency"], now)
        return {"offer_id": rival.offer_id}

    def _wallets(self, wanted: Body) -> Body:
        """Set balances: `{"key"?: KEY, "balances": {coin: amount}}`."""
        account = self._engine.world.accounts[self._key(wanted)]
        for coin, balance in wanted["balances"].items():
            account.wallets[coin].balance = balance
        return {"wallets": {w.name: w.balance for w in account.wallets.values()}}

    def _options(self, wanted: Body) -> Body:
        """Return the current options, with digests instead of keys."""
        options = asdict(self._engine.live.options)
        return {**options, "keys": [digest(key) for key in options["keys"]]}

    def _set_options(self, wanted: Body) -> Body:
        """Change options of the running sandbox. Those that shape the market at its start no longer have any effect."""
        live = self._engine.live
        before, live.options = live.options, changed(live.options, wanted)
        if live.options.speed != before.speed:
            self._engine.clock.set_speed(live.options.speed)
        return self._options(wanted)

    def _make_order(self, wanted: Body) -> Body:
        """Rent outside the API: a create_order body, with optional `key` and `age_seconds`."""
        world = self._engine.world
        begun = self._engine.clock.now() - float(wanted.get("age_seconds", 0.0))
        ask = parse_create(wanted, self._engine.live.options)
        return {"order_id": world.create(world.accounts[self._key(wanted)], ask, begun).id}

    def _show_order(self, wanted: Body, order_id: int) -> Body:
        """Set what my_orders shows of an order, true or not. `row` replaces keys of its row, `twin` adds another."""
        now = self._engine.clock.now()
        order = self._engine.world.orders[order_id]
        seems = wanted.get("seems", "as_it_is")
        if seems not in SEEMINGS:
            raise ValueError(f"no order seems {seems!r}; known: {', '.join(SEEMINGS)}")
        order.seeming, order.seeming_until = seems, now + float(wanted.get("seconds", "inf"))
        order.row = dict(wanted.get("row", order.row))
        order.twin = wanted.get("twin", order.twin)
        return _order(order, now)

    def _add_key(self, wanted: Body) -> Body:
        """Add a key to an account, as after a rotation: `{"key": NEW, "of"?: KEY, "revoke"?: true}`."""
        accounts = self._engine.world.accounts
        old = str(wanted.get("of") or next(iter(accounts)))
        accounts[str(wanted["key"])] = accounts[old]
        if wanted.get("revoke"):
            del accounts[old]
        return {"keys": [digest(key) for key in accounts]}

    def _key(self, wanted: Body) -> str:
        return str(wanted.get("key") or next(iter(self._engine.world.accounts)))


def _order(order: SimulatedOrder, now: float) -> Body:
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


def _merge(row: Body, key: str, value: Any) -> None:
    """Merge objects, replace other values, and remove a key whose value is None."""
    if value is None:
        row.pop(key, None)
    elif isinstance(value, dict) and isinstance(row.get(key), dict):
        for inner, each in value.items():
            _merge(row[key], inner, each)
    else:
        row[key] = value

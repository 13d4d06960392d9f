"""The path of an API request: journal, proxy, endpoint, key, limiter, fault, effect, reply.

By default, the limiter accepts one call a second for a key, and one create in five seconds.
"""

import asyncio
import json
import time
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from .api import Api, ApiRequest, FaultEffect
from .clock import Clock
from .faults import SSH_FAULTS, Fault, Faults
from .journal import Journal, Recorded
from .options import Live
from .orders import Account
from .refusals import ApiRefusal, already_rented, application_error
from .wire import WireReply, deliver, json_reply, keep_silent, proxy_error, read_body
from .world import World

NANO = 1_000_000_000


@dataclass(slots=True)
class _Lane:
    """When a lane last admitted a call, or completed one if that is what counts, and how many calls are in flight."""

    mark_ns: int | None = None
    in_flight: int = 0


class Limiter:
    """Admits a call or returns how long to wait. A rejected call is not processed and does not move the window."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._lanes: dict[tuple[str, str], _Lane] = {}

    def admit(self, who: str, create: bool, now_ns: int) -> float | None:
        """Return None and count the call if it is admitted, or the seconds until the next chance. It uses real time."""
        if self._live.options.rate_limit == "off":
            return None
        lanes = self._lanes_of(who, create)
        waits = [self._wait(lane, seconds, now_ns) for lane, seconds in lanes]
        if max(waits) > 0:
            return max(waits)
        for lane, _ in lanes:
            lane.mark_ns = now_ns
            lane.in_flight += 1
        return None

    def complete(self, who: str, create: bool, now_ns: int) -> None:
        """Record that an admitted call's reply was sent."""
        for lane, _ in self._lanes_of(who, create):
            lane.in_flight = max(0, lane.in_flight - 1)
            if self._live.options.rate_limit == "completion":
                lane.mark_ns = now_ns

    def _lanes_of(self, who: str, create: bool) -> list[tuple[_Lane, float]]:
        options = self._live.options
        names = [("call", options.interval), ("create", options.create_interval)][: 2 if create else 1]
        return [(self._lanes.setdefault((who, name), _Lane()), seconds) for name, seconds in names]

    def _wait(self, lane: _Lane, seconds: float, now_ns: int) -> float:
        if lane.in_flight and self._live.options.rate_limit == "completion":
            return seconds
        if lane.mark_ns is None:
            return 0.0
        return max(0, lane.mark_ns + round(seconds * NANO) - now_ns) / NANO


_MALFORMED = object()  # a body that is not JSON, which no endpoint accepts


@dataclass(slots=True)
class _Visit:
    """One request and what is known about it."""

    method: str
    endpoint: str
    query: QueryParams
    body: Any
    headers: Headers
    client: str
    receive: Receive
    entry: Recorded
    admitted: tuple[str, bool] | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """The ASGI application below the API's base path."""

    live: Live
    clock: Clock
    world: World
    api: Api
    limiter: Limiter
    faults: Faults
    journal: Journal
    closing: asyncio.Event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = await self._arrive(scope, receive)
        reply = self._turned_away(visit) or await self._carry_out(visit)
        await keep_silent(receive, self.live.options.latency, self.closing)
        if reply.silence and not await keep_silent(receive, reply.silence, self.closing):
            reply = reply.broken("closed")
        self._note(visit.entry, reply)
        try:
            await deliver(reply, self._date(reply), scope, receive, send)
        finally:
            visit.entry.completed_ns = time.monotonic_ns()
            if visit.admitted is not None:
                self.limiter.complete(*visit.admitted, visit.entry.completed_ns)

    def _date(self, reply: WireReply) -> str | None:
        options = self.live.options
        if options.date == "right":
            return self.clock.http_date(options.date_off + reply.date_off)
        return "the day before yesterday" if options.date == "garbage" else None

    async def _arrive(self, scope: Scope, receive: Receive) -> _Visit:
        raw = await read_body(receive)
        headers, query = Headers(scope=scope), QueryParams(scope.get("query_string", b""))
        endpoint = scope["path"].removeprefix(scope.get("root_path", "")).strip("/")
        body = _json(raw)
        entry = self.journal.open(
            scope["method"],
            endpoint,
            dict(query),
            headers.get("auth"),
            headers.get("user-agent", ""),
            raw.decode("utf-8", "replace") if body is _MALFORMED else body,
        )
        client = scope.get("client")
        return _Visit(scope["method"], endpoint, query, body, headers, client[0] if client else "local", receive, entry)

    def _turned_away(self, visit: _Visit) -> WireReply | None:
        agent = visit.headers.get("user-agent", "")
        if not agent or agent.lower().startswith("python-urllib"):
            return WireReply(403, b"error code: 1010", "text/plain; charset=UTF-8")
        if self.faults.outage():
            return proxy_error()
        if (visit.method, visit.endpoint) not in self.api.endpoints:
            return json_reply({"code": 4}, 404)
        key = visit.headers.get("auth")
        if key not in self.world.accounts and not (key is None and visit.endpoint == "marketplace"):
            return json_reply({"code": 3}, 401)
        return self._limited(visit, f"key {key}" if key else f"ip {visit.client}")

    def _limited(self, visit: _Visit, who: str) -> WireReply | None:
        create = visit.endpoint == "create_order"
        wait = self.limiter.admit(who, create, visit.entry.arrived_ns)
        if wait is None:
            visit.admitted = (who, create)
            return None
        headers = (("retry-after", str(max(1, -int(-wait // 1)))),) if self.live.options.retry_after else ()
        return replace(json_reply({"code": 5}, 429), headers=headers)

    async def _carry_out(self, visit: _Visit) -> WireReply:
        fault = self.faults.take(visit.endpoint)
        if fault is None:
            return self._process(visit, FaultEffect())
        visit.entry.fault = fault.kind
        if fault.kind == "late_effect":
            await _real_time(fault.seconds, self.closing)
        if fault.kind in ("flood_objects", "flood_rows"):
            return _flood(fault, visit.endpoint)
        reply = self._process(visit, _twist(fault)) if fault.effect else None
        refusal = _refusal(fault)
        return _spoiled(fault, reply) if refusal is None else json_reply(refusal.body, refusal.status)

    def _process(self, visit: _Visit, twist: FaultEffect) -> WireReply:
        visit.entry.effect = True
        return self.api.process(
            visit.method, visit.endpoint, ApiRequest(self._account(visit), visit.query, visit.body, twist)
        )

    def _account(self, visit: _Visit) -> Account | None:
        return self.world.accounts.get(visit.headers.get("auth", ""))

    def _note(self, entry: Recorded, reply: WireReply) -> None:
        entry.code, entry.error = reply.code, reply.error
        entry.status = reply.status if reply.manner in ("whole", "truncated") else None


def _twist(fault: Fault) -> FaultEffect:
    return FaultEffect(
        visible_after=fault.seconds if fault.kind == "late_visible" else None,
        never_deploys=fault.kind == "never_deploys",
        ssh=fault.kind if fault.kind in SSH_FAULTS else "ssh_answers",
        cancel_ignored=fault.kind == "cancel_ignored",
        deposits=fault.kind.removesuffix("_deposits") if fault.kind.endswith("_deposits") else "own",
        price_factor=fault.factor if fault.kind == "price_moved" else 1.0,
    )


def _spoiled(fault: Fault, reply: WireReply | None) -> WireReply:
    """Return what the client receives under a fault. `reply` is None if the request was not processed."""
    if fault.kind == "bare_status":
        return WireReply(fault.status, b"")
    whole = reply or json_reply({"code": 1}, 500)
    spoiled = {
        "code1_before": json_reply({"code": 1}, 500),
        "code1_after": json_reply({"code": 1}, 500),
        "http502": proxy_error(),
        "http502_after": proxy_error(),
        "garbage": WireReply(200, b"\x00\xff<<< {code: 0,, not json", "application/json"),
        "lost_reply": whole.broken("closed"),
        "truncate": whole.broken("truncated"),
        "reset": whole.broken("reset"),
        "hang_before": whole.broken("closed", fault.seconds),
        "hang_after": replace(whole, silence=fault.seconds),
        "wrong_date": replace(whole, date_off=fault.seconds),
        "too_fast": _too_fast(f"{fault.seconds:.0f}"),
        "too_fast_until": _too_fast(formatdate(time.time() + min(fault.seconds, 1e9), usegmt=True)),
    }
    return spoiled.get(fault.kind, whole)


def _too_fast(retry_after: str) -> WireReply:
    return replace(json_reply({"code": 5}, 429), headers=(("retry-after", retry_after),))


def _flood(fault: Fault, endpoint: str) -> WireReply:
    """Return a list of `factor` MB of meaningless rows."""
    name = {"my_orders": b"orders", "marketplace": b"servers"}.get(endpoint, endpoint.encode())
    row = b"{}," if fault.kind == "flood_objects" else b'{"id":1},'
    rows = row * int(fault.factor * 1024**2 / len(row))
    return WireReply(200, b'{"' + name + b'":[' + rows[:-1] + b'],"code":0}', code=0)


def _refusal(fault: Fault) -> ApiRefusal | None:
    match fault.kind:
        case "refused":
            return application_error(fault.error, status=fault.status)
        case "already_rented":
            return already_rented()
        case "offline":
            return application_error("server-offline")
        case "not_enough_balance":
            return application_error("not_enough_balance")
    return None


async def _real_time(seconds: float, closing: asyncio.Event) -> None:
    """Wait, even if the client has disconnected."""
    try:
        async with asyncio.timeout(seconds):
            await closing.wait()
    except TimeoutError:
        return


def _json(raw: bytes) -> Any:
    if not raw:
        return None
    try:
        return json.loads(raw)
    except ValueError:
        return _MALFORMED

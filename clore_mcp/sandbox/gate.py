"""The path of an API request: proxy, endpoint, key, limiter, fault, effect, reply.

By default, the limiter accepts one call a second for a key, and one create in five seconds.
"""

import asyncio
import contextlib
import json
import math
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from .api import Api, ApiRequest
from .engine import Engine, Recorded, digest
from .faults import PROXY_ERROR, too_fast
from .options import Live
from .orders import Account
from .wire import WireReply, deliver, json_reply, keep_silent, read_body

NANO = 1_000_000_000
_NOBODY = Account(key="", wallets={})  # who may read the marketplace without a key


@dataclass(slots=True)
class _Lane:
    """When a lane last admitted a call, or completed one if that is what counts, and how many calls are in flight."""

    mark_ns: float = -math.inf
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
        wait = max(self._wait(lane, seconds, now_ns) for lane, seconds in lanes)
        if wait > 0:
            return wait
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
        return max(0, lane.mark_ns + round(seconds * NANO) - now_ns) / NANO


class Gate:
    """The ASGI application below the API's base path."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._api = Api(engine)
        self._limiter = Limiter(engine.live)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        live, closing = self._engine.live, self._engine.closing
        entry = self._record(scope, await read_body(receive))
        key = Headers(scope=scope).get("auth")
        # Every client is on loopback, so all calls without a key come from one address.
        who, create = f"key {key}" if key else "address", entry.endpoint == "create_order"
        account = self._engine.world.accounts.get(key or "")
        reply, admitted = self._turned_away(entry, account, key), False
        if reply is None:
            wait = self._limiter.admit(who, create, entry.arrived_ns)
            admitted = wait is None
            if wait is None:
                reply = await self._carry_out(entry, account or _NOBODY)
            else:
                reply = too_fast(str(math.ceil(wait)) if live.options.retry_after else None)
        await keep_silent(receive, live.options.latency, closing)
        if reply.silence and not await keep_silent(receive, reply.silence, closing):
            reply = reply.broken("closed")
        entry.code, entry.error = reply.code, reply.error
        entry.status = reply.status if reply.manner in ("whole", "truncated") else None
        try:
            await deliver(reply, self._date(reply), scope, receive, send)
        finally:
            entry.completed_ns = time.monotonic_ns()
            if admitted:
                self._limiter.complete(who, create, entry.completed_ns)

    def _record(self, scope: Scope, body: bytes) -> Recorded:
        headers = Headers(scope=scope)
        key = headers.get("auth")
        entry = Recorded(
            sequence=next(self._engine.sequence),
            method=scope["method"],
            endpoint=scope["path"].removeprefix(scope.get("root_path", "")).strip("/"),
            query=dict(QueryParams(scope.get("query_string", b""))),
            key=None if key is None else digest(key),
            user_agent=headers.get("user-agent", ""),
            body=_json(body),
        )
        self._engine.requests.append(entry)
        return entry

    def _turned_away(self, entry: Recorded, account: Account | None, key: str | None) -> WireReply | None:
        if not entry.user_agent or entry.user_agent.lower().startswith("python-urllib"):
            return WireReply(403, b"error code: 1010", "text/plain; charset=UTF-8")
        if self._engine.faults.outage():
            return PROXY_ERROR
        if (entry.method, entry.endpoint) not in self._api.endpoints:
            return json_reply({"code": 4}, 404)
        if account is None and not (key is None and entry.endpoint == "marketplace"):
            return json_reply({"code": 3}, 401)
        return None

    async def _carry_out(self, entry: Recorded, account: Account) -> WireReply:
        fault = self._engine.faults.take(entry.endpoint)
        if fault is not None:
            entry.fault = fault.kind
            if fault.kind == "late_effect":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(fault.seconds):  # even if the client has disconnected
                        await self._engine.closing.wait()
            flood = fault.flood(entry.endpoint)
            if flood is not None or not fault.effect:
                return flood or fault.reply(None)
        entry.effect = True
        reply = self._api.process(entry.method, entry.endpoint, ApiRequest(account, entry.query, entry.body, fault))
        return reply if fault is None else fault.reply(reply)

    def _date(self, reply: WireReply) -> str | None:
        options = self._engine.live.options
        if options.date == "right":
            return formatdate(self._engine.clock.now() + options.date_off + reply.date_off, usegmt=True)
        return "the day before yesterday" if options.date == "garbage" else None


def _json(raw: bytes) -> Any:
    """Return a request's body, or its text if it is not JSON, which no endpoint accepts."""
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw.decode("utf-8", "replace")

"""Sends one request to Clore and reads its reply: the turn, the connection, the departure, the deadline and failures.

Only this module and network.py import the HTTP library. The key is added to a request as it leaves and is stored in
nothing that prints. Failures are raised outside the handler that caught the transport's exception, because that
exception holds the request and with it the key.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import httpx2 as httpx

from clore_mcp import __version__
from clore_mcp.clore.network import NetworkRoute, network_is_named, way_to, why_unreached
from clore_mcp.clore.pacer import Lane, Pacer, Turn
from clore_mcp.clore.replies import Endpoint, unclear
from clore_mcp.errors import (
    CloreError,
    ConnectionLost,
    NoApiKey,
    NotJson,
    NotSent,
    RateLimited,
    SettingsInvalid,
    TimedOut,
    Truncated,
)

USER_AGENT: Final = f"clore-mcp/{__version__} (+https://pypi.org/project/clore-mcp/)"  # Cloudflare blocks some defaults
_LARGE_REPLY: Final = 256 * 1024  # reading more would block the event loop too long
# A connection kept longer than the other end keeps it breaks the next request. Cloudflare keeps one far longer.
_KEEP_ALIVE_SECONDS: Final = 4.0

_UNTRUSTED: Final = (
    "A proxy or certificate that the environment names is not used for a key from a file; trust_environment_network ="
    " true in the account's limits.toml allows it, and `clore-mcp doctor` names that file."
)

Answer = TypeVar("Answer")
BeforeSend = Callable[[], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a call may take and how often a read is tried. Seconds are for one attempt unless a comment differs."""

    connect_seconds: float = 5.0
    read_seconds: float = 20.0
    write_seconds: float = 20.0
    create_seconds: float = 30.0
    patience_seconds: float | None = None  # for the turn of a request that is not urgent; None leaves it to the pacer
    attempts: int = 4
    refused_write_attempts: int = 3
    refused_cancel_attempts: int = 8  # each waits for its turn: as long as people wait, because the order bills
    retry_within_seconds: float = 45.0  # from the first attempt: people and their clients give up after a minute
    backoff_base_seconds: float = 0.5
    backoff_cap_seconds: float = 8.0


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One call, ready to be attempted: its endpoint and body, how to read the reply, and its lane."""

    endpoint: Endpoint
    read: Callable[[Reply], Answer]
    seconds: float
    params: Mapping[str, str] | None = None
    json: Mapping[str, Any] | None = None
    lane: Lane = Lane.GENERAL
    urgent: bool = False
    before_send: BeforeSend | None = None
    needs_key: bool = True


class Exchange:
    """Sends requests for one key, each in its turn. Opens nothing before the first one."""

    def __init__(
        self,
        *,
        api_url: str,
        api_key: str | None,
        pacer: Pacer,
        timing: Timing,
        trusts_network: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
        rand: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api_url = api_url
        self._key = _Key(api_key) if api_key else None
        self._pacer = pacer
        self._timing = timing
        self._trusts_network = trusts_network
        self._transport = transport
        self._rand = rand
        self._clock = clock
        self._pools: _Pools | None = None
        self._opening = asyncio.Lock()

    async def aclose(self) -> None:
        """Close the connections."""
        pools, self._pools = self._pools, None
        if pools is not None:
            await pools.reads.aclose()
            await pools.writes.aclose()

    async def retrying(self, call: Call[Answer], again_on: tuple[type[CloreError], ...], attempts: int) -> Answer:
        self._require_key(call)
        await self.open()  # an unusable network is not retried: nothing fixes it meanwhile
        give_up_at = self._clock() + self._timing.retry_within_seconds
        for made in range(1, attempts):
            try:
                return await self.attempt(call)
            except again_on:
                if self._clock() >= give_up_at:
                    raise
            await asyncio.sleep(backoff_seconds(made, self._timing, self._rand()))
        return await self.attempt(call)

    async def attempt(self, call: Call[Answer]) -> Answer:
        """Wait for a turn, send one request and return its reply."""
        endpoint = call.endpoint
        self._require_key(call)
        pools = await self.open()
        patience_seconds = None if call.urgent else self._timing.patience_seconds
        turn_for = self._pacer.turn(call.lane, urgent=call.urgent, patience_seconds=patience_seconds)
        async with turn_for as turn:
            reply = await self._exchange(pools.writes if endpoint.writes else pools.reads, call, turn)
            try:
                if len(reply.body) > _LARGE_REPLY:
                    return await asyncio.to_thread(call.read, reply)
                return call.read(reply)
            except RateLimited as limited:
                seconds = turn.refused(limited.retry_after_seconds)
                if limited.retry_after_seconds is None:
                    limited.retry_after_seconds = round(seconds, 1)
                raise

    async def _exchange(self, pool: httpx.AsyncClient, call: Call[Any], turn: Turn) -> Reply:
        departure = _Departure(turn, call.before_send, self._within(call.seconds) if call.before_send else lambda: True)
        failure: BaseException
        try:
            async with asyncio.timeout(call.seconds):
                if self._transport is not None:  # a test transport does not report its connections
                    await departure.now()
                request = pool.build_request(
                    call.endpoint.method,
                    f"{self._api_url}/{call.endpoint.path}",
                    params=call.params,
                    content=None if call.json is None else json.dumps(call.json, allow_nan=False),
                    headers=None if call.json is None else {"content-type": "application/json"},
                    extensions={"trace": departure.trace},
                )
                async with aclosing(await pool.send(request, auth=self._key, stream=True)) as response:
                    departure.answered = True
                    body = await _read_body(response, call.endpoint)
                    return Reply(response.status_code, response.headers, body)
        except (TimeoutError, OSError, httpx.HTTPError, httpx.InvalidURL) as error:
            failure = departure.stopped_by or _failure(error, departure, call.endpoint)
            if isinstance(failure, NotSent):
                failure.hint = f"{failure.hint} {self._proxy_word}".strip()
        raise failure

    def _within(self, seconds: float) -> Callable[[], bool]:
        """Return a check that at most that time has passed, by both clocks: one stops while the machine sleeps."""
        until, wall_until = self._clock() + seconds, time.time() + seconds
        return lambda: self._clock() < until and time.time() < wall_until

    @property
    def _proxy_word(self) -> str:
        """Return what to say about a proxy if no connection was made."""
        if not self._trusts_network:
            return _UNTRUSTED if network_is_named() else ""
        name = self._pools.proxy_from if self._pools else ""
        return f"Requests go through a proxy ({name}): check it too." if name else ""

    def _require_key(self, call: Call[Any]) -> None:
        if self._key is None and call.needs_key:
            raise NoApiKey(f"No API key is set, so Clore was not asked to {call.endpoint.verb}.")

    async def open(self) -> _Pools:
        """Prepare to connect. Raises NotSent if the environment names a network that can't be used."""
        async with self._opening:
            if self._pools is None:
                self._pools = await self._build_pools()
            return self._pools

    async def _build_pools(self) -> _Pools:
        """Make two pools over one TLS context. A write always gets a fresh connection, because a connection that the
        other end has just closed would break and leave an order in doubt."""
        way = NetworkRoute(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        if self._transport is None:  # reading the certificates takes 40 to 150 ms
            way = await asyncio.to_thread(way_to, self._api_url, trusts_network=self._trusts_network)
        timeout = httpx.Timeout(None, connect=self._timing.connect_seconds)  # the rest is under the attempt's deadline

        def pool(kept: int) -> httpx.AsyncClient:
            return httpx.AsyncClient(
                headers={"user-agent": USER_AGENT, "accept": "application/json"},
                verify=way.trusted,
                timeout=timeout,
                limits=httpx.Limits(max_keepalive_connections=kept, keepalive_expiry=_KEEP_ALIVE_SECONDS),
                follow_redirects=False,
                transport=self._transport,
                proxy=way.proxy,
                trust_env=False,  # network.py reads the environment
            )

        return _Pools(reads=pool(4), writes=pool(0), proxy_from=way.proxy_from)


@dataclass(frozen=True, slots=True)
class _Pools:
    reads: httpx.AsyncClient
    writes: httpx.AsyncClient
    proxy_from: str


class _Key(httpx.Auth):
    """Adds the key to a request as it leaves."""

    def __init__(self, text: str) -> None:
        if not (text.isascii() and text.isprintable()) or " " in text:
            raise SettingsInvalid(
                "The API key holds characters that no key has.", hint="Copy it again from clore.ai; check for blanks."
            )
        self._text = text

    def __repr__(self) -> str:
        return "_Key(hidden)"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["auth"] = self._text
        yield request


class _Departure:
    """Notices when a request's bytes leave, as the transport reports it, then runs the hook and counts the turn."""

    def __init__(self, turn: Turn, before_send: BeforeSend | None, in_time: Callable[[], bool]) -> None:
        self._turn = turn
        self._before_send = before_send
        self._in_time = in_time
        self.left = False
        self.answered = False
        self.stopped_by: Exception | None = None

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Handle each step that the transport reports. The request leaves when its headers are sent, except for the
        CONNECT to a proxy."""
        tunnel = getattr(info.get("request"), "method", None) == b"CONNECT"
        if event.endswith(".send_request_headers.started") and not tunnel:
            await self.now()

    async def now(self) -> None:
        if self.left:
            return
        if self._before_send is not None:
            try:
                waiting = self._before_send()
                if inspect.isawaitable(waiting):
                    await waiting
            except Exception as error:
                self.stopped_by = error
                raise
            if not self._in_time():  # frozen just now: the event loop would only notice after sending
                raise TimeoutError
        self.left = True
        self._turn.leaving()


def backoff_seconds(made: int, timing: Timing, rand: float) -> float:
    """Return the pause after `made` attempts: random up to a bound that doubles, so that many callers spread out."""
    return rand * min(timing.backoff_cap_seconds, timing.backoff_base_seconds * float(2 ** (made - 1)))


async def _read_body(response: httpx.Response, endpoint: Endpoint) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > endpoint.most_bytes:
            raise unclear(NotJson, endpoint, f"the reply is larger than {endpoint.most_bytes // 1024**2} MB")
    return bytes(body)


def _failure(error: Exception, departure: _Departure, endpoint: Endpoint) -> CloreError:
    never = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.InvalidURL)
    if not departure.left or isinstance(error, (*never, httpx.UnsupportedProtocol)):
        why, hint = why_unreached(error)
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
            hint = "Ask the operator to check CLORE_API_URL (default https://api.clore.ai/v1)."
        message = f"No connection to Clore could be made to {endpoint.verb}{why and f': {why}'}; nothing was sent."
        return NotSent(message, why=why, hint=hint)
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return unclear(TimedOut, endpoint, "no complete reply came in time")
    if isinstance(error, httpx.DecodingError):
        return unclear(NotJson, endpoint, "the reply could not be unpacked")
    if departure.answered:
        return unclear(Truncated, endpoint, "the reply broke off in the middle")
    return unclear(ConnectionLost, endpoint, "the connection broke before a reply came")

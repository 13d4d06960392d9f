"""The Clore API as typed calls: each either answers or raises a failure that says whether money may have moved.

Every attempt waits for its turn (pacing.py) and is judged in one place (replies.py). Reads are tried again; a write
leaves once, except where Clore refused it unread ("too fast") and doing it twice changes nothing. A create is never
sent again here: whoever makes one looks at the orders first.

The key is added to a request as it leaves and is kept nowhere that prints. Failures are raised outside of the handler
that caught the transport's own exception, because that one holds the request and with it the key.
"""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, TypeVar

import httpx2 as httpx

from clore_mcp import __version__
from clore_mcp.clore.models import (
    OrderRow,
    PohBalance,
    RenterFees,
    Row,
    Rows,
    ServerRow,
    SpotBook,
    Wallet,
    read_market,
    read_row,
    read_rows,
)
from clore_mcp.clore.pacing import Lane, Pacer, Turn
from clore_mcp.clore.replies import Endpoint, header_time, read_reply, unclear, unexpected
from clore_mcp.errors import (
    ArgumentInvalid,
    CloreError,
    ConnectionLost,
    NoApiKey,
    NotJson,
    NotSent,
    RateLimited,
    SettingsInvalid,
    TimedOut,
    Truncated,
    Unclear,
)
from clore_mcp.money import Coin, DayPrice, wire_number

DEFAULT_API_URL: Final = "https://api.clore.ai/v1"
USER_AGENT: Final = f"clore-mcp/{__version__} (+https://pypi.org/project/clore-mcp/)"  # Cloudflare blocks some defaults
MOST_CANCELLED_AT_ONCE: Final = 64
ISSUE_LENGTH: Final = 2048
_LARGEST_REPLY: Final = 64 * 1024 * 1024  # the market is 2 to 5 MB
# A connection kept longer than its far end keeps it breaks the next request; Cloudflare keeps far longer than this.
_KEEP_ALIVE_SECONDS: Final = 4.0

_WALLETS: Final = Endpoint("GET", "wallets", "list the wallets")
_MARKETPLACE: Final = Endpoint("GET", "marketplace", "list the marketplace")
_MY_ORDERS: Final = Endpoint("GET", "my_orders", "list the orders")
_SPOT_MARKETPLACE: Final = Endpoint("GET", "spot_marketplace", "show the server's spot market")
_RENTER_FEES: Final = Endpoint("GET", "renter_fees", "show the fees")
_POH_BALANCE: Final = Endpoint("GET", "poh_balance", "show the Proof-of-Holding balance")
_CREATE_ORDER: Final = Endpoint("POST", "create_order", "make the order", "the order was made")
_CANCEL_ORDER: Final = Endpoint("POST", "cancel_order", "cancel the order", "the order was cancelled")
_CANCEL_ORDERS: Final = Endpoint("POST", "cancel_orders", "cancel the orders", "the orders were cancelled")
_SET_SPOT_PRICE: Final = Endpoint("POST", "set_spot_price", "change the bid", "the bid was changed")

Answer = TypeVar("Answer")
BeforeSend = Callable[[], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a call may take and how often a read is tried; seconds are of one attempt unless they say otherwise."""

    connect_seconds: float = 5.0
    read_seconds: float = 20.0
    write_seconds: float = 20.0
    create_seconds: float = 30.0
    patience_seconds: float | None = None  # for a turn; None leaves it to the pacer
    attempts: int = 4
    refused_write_attempts: int = 3
    retry_within_seconds: float = 45.0  # of the first attempt: people and their clients give up after a minute
    backoff_base_seconds: float = 0.5
    backoff_cap_seconds: float = 8.0


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """One order to make (docs/clore-api.md 4.4). Prices are per day in `coin`; what may hold a secret has no repr."""

    server_id: int
    image: str
    coin: Coin
    order_type: Literal["on-demand", "spot"] = "on-demand"
    spot_price: Decimal | None = None
    required_price: Decimal | None = None
    ports: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ssh_key: str | None = None
    ssh_password: str | None = field(default=None, repr=False)
    jupyter_token: str | None = field(default=None, repr=False)
    command: str | None = field(default=None, repr=False)
    autossh_entrypoint: bool = False

    def body(self) -> dict[str, Any]:
        """The request by Clore's names; what is not set is left out."""
        optional: dict[str, Any] = {
            "spotprice": None if self.spot_price is None else wire_number(self.spot_price),
            "required_price": None if self.required_price is None else wire_number(self.required_price),
            "ports": dict(self.ports) or None,
            "env": dict(self.env) or None,
            "ssh_key": self.ssh_key,
            "ssh_password": self.ssh_password,
            "jupyter_token": self.jupyter_token,
            "command": self.command,
            "autossh_entrypoint": self.autossh_entrypoint or None,
        }
        return {
            "currency": self.coin.value,
            "image": self.image,
            "renting_server": self.server_id,
            "type": self.order_type,
            **{name: value for name, value in optional.items() if value is not None},
        }


@dataclass(frozen=True, slots=True)
class OrdersReply:
    """The orders as Clore lists them now; `dropped` counts rows that could not be read at all."""

    rows: list[OrderRow]
    dropped: int
    limit: int | None  # most orders at once
    api_time: float | None  # Clore's clock at the reply, unix seconds


@dataclass(frozen=True, slots=True)
class Created:
    """Clore said yes; it does not say which order. `api_time` is its clock at the reply, unix seconds."""

    api_time: float | None


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Call(Generic[Answer]):
    """One call, ready to be attempted: where to, what with, how to read the reply, whose turn."""

    endpoint: Endpoint
    read: Callable[[_Reply], Answer]
    seconds: float
    params: Mapping[str, str] | None = None
    json: Mapping[str, Any] | None = None
    lane: Lane = Lane.GENERAL
    urgent: bool = False
    before_send: BeforeSend | None = None


class CloreClient:
    """The Clore API for one key. Opens nothing before the first call; `aclose()` or `async with` ends it."""

    def __init__(
        self,
        *,
        pacer: Pacer,
        api_url: str = DEFAULT_API_URL,
        api_key: str | None = None,
        timing: Timing | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        rand: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api_url = api_url.rstrip("/")
        self._key = _Key(api_key) if api_key else None
        self._pacer = pacer
        self._timing = timing or Timing()
        self._transport = transport
        self._rand = rand
        self._clock = clock
        self._pools: _Pools | None = None
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        return f"CloreClient({self._api_url!r}, {'with a key' if self._key else 'without a key'})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        pools, self._pools = self._pools, None
        if pools is not None:
            await pools.reads.aclose()
            await pools.writes.aclose()

    async def wallets(self) -> Rows[Wallet]:
        """The wallets; a legacy one may have no balance."""
        return await self._read(_WALLETS, lambda reply: _rows(Wallet, reply, _WALLETS, "wallets"))

    async def marketplace(self) -> Rows[ServerRow]:
        """Every server listed, rented ones too. Needs no key."""
        return await self._read(_MARKETPLACE, _market)

    async def my_orders(self, *, completed: bool = False, urgent: bool = False) -> OrdersReply:
        """This account's orders, with `completed` the ended ones too. Urgent: the look after a create or a cancel."""
        params = {"return_completed": "true" if completed else "false"}
        return await self._read(_MY_ORDERS, _orders, params=params, urgent=urgent)

    async def spot_marketplace(self, server_id: int) -> SpotBook:
        """The bids on one server."""

        def read(reply: _Reply) -> SpotBook:
            return _one(SpotBook, reply, _SPOT_MARKETPLACE)

        return await self._read(_SPOT_MARKETPLACE, read, params={"market": str(server_id)})

    async def renter_fees(self) -> RenterFees:
        """What a renter pays on top of a price."""
        return await self._read(_RENTER_FEES, lambda reply: _one(RenterFees, reply, _RENTER_FEES))

    async def poh_balance(self) -> PohBalance:
        """The account's Proof-of-Holding."""
        return await self._read(_POH_BALANCE, lambda reply: _one(PohBalance, reply, _POH_BALANCE))

    async def create_order(self, request: CreateRequest, *, before_send: BeforeSend | None = None) -> Created:
        """Ask for an order, once. `before_send` runs when the turn has come and the connection stands, right before the
        bytes leave; what it raises stops the request and comes out as it is."""

        def read(reply: _Reply) -> Created:
            _fields(reply, _CREATE_ORDER)
            return Created(header_time(reply.headers))

        seconds = self._timing.create_seconds
        return await self._attempt(
            _Call(_CREATE_ORDER, read, seconds, json=request.body(), lane=Lane.CREATE, before_send=before_send)
        )

    async def cancel_order(self, order_id: int, issue: str | None = None) -> None:
        """End an order of either type, at the next free slot. A longer `issue` is cut: the meter matters more."""
        body = {"id": order_id} if issue is None else {"id": order_id, "issue": issue[:ISSUE_LENGTH]}
        await self._write(_CANCEL_ORDER, lambda reply: _fields(reply, _CANCEL_ORDER), body, urgent=True)

    async def cancel_orders(self, order_ids: Sequence[int]) -> list[int]:
        """End up to 64 orders of any type at once, at the next free slot; returns those that Clore could not end."""
        ids = list(order_ids)
        if len(ids) > MOST_CANCELLED_AT_ONCE:
            raise ArgumentInvalid(f"{len(ids)} orders to cancel at once; Clore takes {MOST_CANCELLED_AT_ONCE}.")
        if not ids:
            return []

        def read(reply: _Reply) -> list[int]:
            failed = _fields(reply, _CANCEL_ORDERS).get("failed_to_cancel", [])
            try:
                return [int(one) for one in failed]
            except (TypeError, ValueError):
                return ids  # it says that some failed but not legibly which: none counts as ended

        return await self._write(_CANCEL_ORDERS, read, {"order_ids": ids}, urgent=True)

    async def set_spot_price(self, order_id: int, price: DayPrice) -> None:
        """Change the bid of a spot order; `price` is in the order's own coin."""
        body = {"order_id": order_id, "desired_price": wire_number(price.value)}
        await self._write(_SET_SPOT_PRICE, lambda reply: _fields(reply, _SET_SPOT_PRICE), body)

    async def _read(
        self,
        endpoint: Endpoint,
        read: Callable[[_Reply], Answer],
        *,
        params: Mapping[str, str] | None = None,
        urgent: bool = False,
    ) -> Answer:
        call = _Call(endpoint, read, self._timing.read_seconds, params=params, urgent=urgent)
        return await self._retrying(call, (Unclear, NotSent, RateLimited), self._timing.attempts)

    async def _write(
        self, endpoint: Endpoint, read: Callable[[_Reply], Answer], body: Mapping[str, Any], *, urgent: bool = False
    ) -> Answer:
        """For writes that change nothing when done twice; "too fast" came before Clore looked at the request."""
        call = _Call(endpoint, read, self._timing.write_seconds, json=body, urgent=urgent)
        return await self._retrying(call, (RateLimited,), self._timing.refused_write_attempts)

    async def _retrying(self, call: _Call[Answer], again_on: tuple[type[CloreError], ...], attempts: int) -> Answer:
        give_up_at = self._clock() + self._timing.retry_within_seconds
        for made in range(1, attempts):
            try:
                return await self._attempt(call)
            except again_on:
                if self._clock() >= give_up_at:
                    raise
            await asyncio.sleep(backoff_seconds(made, self._timing, self._rand()))
        return await self._attempt(call)

    async def _attempt(self, call: _Call[Answer]) -> Answer:
        """One turn, one request, one reply."""
        endpoint = call.endpoint
        if self._key is None and endpoint is not _MARKETPLACE:
            raise NoApiKey(f"No API key is set, so Clore was not asked to {endpoint.verb}.")
        pools = await self._open()
        turn_for = self._pacer.turn(call.lane, urgent=call.urgent, patience_seconds=self._timing.patience_seconds)
        async with turn_for as turn:
            reply = await self._exchange(pools.writes if endpoint.writes else pools.reads, call, turn)
            try:
                return call.read(reply)
            except RateLimited as limited:
                seconds = turn.refused(limited.retry_after_seconds)
                if limited.retry_after_seconds is None:
                    limited.retry_after_seconds = round(seconds, 1)
                raise

    async def _exchange(self, pool: httpx.AsyncClient, call: _Call[Any], turn: Turn) -> _Reply:
        departure = _Departure(turn, call.before_send)
        failure: BaseException
        try:
            async with asyncio.timeout(call.seconds):
                if self._transport is not None:  # a stand-in for the network tells nothing of its connections
                    await departure.now()
                request = pool.build_request(
                    call.endpoint.method,
                    f"{self._api_url}/{call.endpoint.path}",
                    params=call.params,
                    content=None if call.json is None else json.dumps(call.json, allow_nan=False),
                    headers=None if call.json is None else {"content-type": "application/json"},
                    extensions={"trace": departure.trace},
                )
                async with _streamed(pool, request, self._key) as response:
                    departure.answered = True
                    body = await _read_body(response, call.endpoint)
                    return _Reply(response.status_code, response.headers, body)
        except (TimeoutError, OSError, httpx.HTTPError, httpx.InvalidURL) as error:
            failure = departure.stopped_by or _failure(error, departure, call.endpoint)
        raise failure

    async def _open(self) -> _Pools:
        async with self._opening:
            if self._pools is None:
                self._pools = await self._build_pools()
            return self._pools

    async def _build_pools(self) -> _Pools:
        """Two pools over one TLS context: a write always gets a fresh connection, since one that the far end has just
        closed would break under it and leave an order in doubt."""
        tls = self._api_url.startswith("https:") and self._transport is None
        # Reading the certificates takes 40 to 150 ms; without TLS a context that trusts nobody does.
        context = await asyncio.to_thread(httpx.create_ssl_context) if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        timeout = httpx.Timeout(None, connect=self._timing.connect_seconds)  # the rest is under the attempt's deadline

        def pool(kept: int) -> httpx.AsyncClient:
            return httpx.AsyncClient(
                headers={"user-agent": USER_AGENT, "accept": "application/json"},
                verify=context,
                timeout=timeout,
                limits=httpx.Limits(max_keepalive_connections=kept, keepalive_expiry=_KEEP_ALIVE_SECONDS),
                follow_redirects=False,
                transport=self._transport,
                trust_env=not _is_loopback(self._api_url),  # the simulated marketplace is not behind a proxy
            )

        return _Pools(reads=pool(4), writes=pool(0))


@dataclass(frozen=True, slots=True)
class _Pools:
    reads: httpx.AsyncClient
    writes: httpx.AsyncClient


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
    """The instant at which a request's bytes leave, told by the transport: the hook runs and the turn is counted."""

    def __init__(self, turn: Turn, before_send: BeforeSend | None) -> None:
        self._turn = turn
        self._before_send = before_send
        self.left = False
        self.answered = False
        self.stopped_by: Exception | None = None

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Told of every step. The first that is neither about connecting nor about a proxy's tunnel is the request."""
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
        self.left = True
        self._turn.leaving()


def backoff_seconds(made: int, timing: Timing, rand: float) -> float:
    """The pause after `made` attempts: anything up to a bound that doubles, so that many callers spread out."""
    return rand * min(timing.backoff_cap_seconds, timing.backoff_base_seconds * float(2 ** (made - 1)))


@asynccontextmanager
async def _streamed(pool: httpx.AsyncClient, request: httpx.Request, key: _Key | None) -> AsyncIterator[httpx.Response]:
    response = await pool.send(request, auth=key, stream=True)
    try:
        yield response
    finally:
        await response.aclose()


async def _read_body(response: httpx.Response, endpoint: Endpoint) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _LARGEST_REPLY:
            raise unclear(NotJson, endpoint, f"the reply is larger than {_LARGEST_REPLY // 1024**2} MB")
    return bytes(body)


def _failure(error: Exception, departure: _Departure, endpoint: Endpoint) -> CloreError:
    """What a transport's exception means, given how far the request had come."""
    never = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.InvalidURL)
    if not departure.left or isinstance(error, (*never, httpx.UnsupportedProtocol)):
        return _not_sent(error, endpoint)
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return unclear(TimedOut, endpoint, "no complete reply came in time")
    if isinstance(error, httpx.DecodingError):
        return unclear(NotJson, endpoint, "the reply could not be unpacked")
    if departure.answered:
        return unclear(Truncated, endpoint, "the reply broke off in the middle")
    return unclear(ConnectionLost, endpoint, "the connection broke before a reply came")


def _not_sent(error: Exception, endpoint: Endpoint) -> NotSent:
    message = f"No connection to Clore could be made to {endpoint.verb}; nothing was sent."
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return NotSent(message, hint="Ask the operator to check CLORE_API_URL (default https://api.clore.ai/v1).")
    if _caused_by_tls(error):
        return NotSent(
            message,
            hint="The server's certificate or TLS was not accepted: check the computer's clock and for a proxy that"
            " opens TLS (SSL_CERT_FILE names its certificate).",
        )
    return NotSent(message)


def _caused_by_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_loopback(api_url: str) -> bool:
    try:
        host = httpx.URL(api_url).host
    except httpx.InvalidURL:
        return False
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _fields(reply: _Reply, endpoint: Endpoint) -> dict[str, Any]:
    return read_reply(reply.status, reply.headers, reply.body, endpoint)


def _list(fields: dict[str, Any], endpoint: Endpoint, name: str) -> list[object]:
    """A list that must be there: an order that is missing from a reply without orders is not an order that is gone."""
    values = fields.get(name)
    if not isinstance(values, list):
        raise unexpected(endpoint, f"no list of {name}")
    return values


def _rows(model: type[Row], reply: _Reply, endpoint: Endpoint, name: str) -> Rows[Row]:
    return read_rows(model, _list(_fields(reply, endpoint), endpoint, name))


def _market(reply: _Reply) -> Rows[ServerRow]:
    quick = read_market(reply.body) if 200 <= reply.status < 300 else None
    return quick or _rows(ServerRow, reply, _MARKETPLACE, "servers")


def _orders(reply: _Reply) -> OrdersReply:
    fields = _fields(reply, _MY_ORDERS)
    read = read_rows(OrderRow, _list(fields, _MY_ORDERS, "orders"))
    limit = fields.get("limit")
    whole = limit if isinstance(limit, int) and not isinstance(limit, bool) else None
    return OrdersReply(read.rows, read.dropped, whole, header_time(reply.headers))


def _one(model: type[Row], reply: _Reply, endpoint: Endpoint) -> Row:
    row = read_row(model, _fields(reply, endpoint))
    if row is None:
        raise unexpected(endpoint, "fields that can't be read")
    return row

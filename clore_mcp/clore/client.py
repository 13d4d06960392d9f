"""The Clore API as typed calls. Each returns its result or raises a failure that says whether money may have moved.

Every attempt waits for its turn (pacer.py), and replies.py reads every reply. Reads are retried. A write is sent once,
unless Clore refused it unread ("too fast") and repeating it changes nothing. A create is never resent here: its caller
checks the orders first.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import anyio

from clore_mcp.clore.exchange import Answer, BeforeSend, Call, Exchange, Reply, Timing
from clore_mcp.clore.models import (
    OrderRow,
    RenterFees,
    Row,
    Rows,
    ServerRow,
    SpotBook,
    Wallet,
    read_row,
    read_rows,
)
from clore_mcp.clore.pacer import Lane, Pacer
from clore_mcp.clore.replies import Endpoint, header_time, read_reply, unexpected
from clore_mcp.errors import InvalidInput, IssueTooLong, NotSent, ParametersMissing, RateLimited, Unclear
from clore_mcp.money import Coin, DayPrice, wire_number

if TYPE_CHECKING:
    import httpx2 as httpx

DEFAULT_API_URL: Final = "https://api.clore.ai/v1"
ISSUE_LENGTH: Final = 2048

_WALLETS: Final = Endpoint("GET", "wallets", "list the wallets")
# The largest market seen has 3,500 servers in 2.1 MB. A row of 2026 takes twice as much.
_MARKETPLACE: Final = Endpoint(
    "GET", "marketplace", "list the marketplace", most_bytes=32 * 1024 * 1024, most_rows=25_000
)
# An order takes 1.4 kB. With ended ones, the list holds every order that the account ever had.
_MY_ORDERS: Final = Endpoint("GET", "my_orders", "list the orders", most_bytes=16 * 1024 * 1024, most_rows=10_000)
_SPOT_MARKETPLACE: Final = Endpoint("GET", "spot_marketplace", "show the server's spot market")
_RENTER_FEES: Final = Endpoint("GET", "renter_fees", "show the fees")
_CREATE_ORDER: Final = Endpoint("POST", "create_order", "make the order", "the order was made", spends=True)
_CANCEL_ORDER: Final = Endpoint("POST", "cancel_order", "cancel the order", "the order was cancelled")
_SET_SPOT_PRICE: Final = Endpoint("POST", "set_spot_price", "change the bid", "the bid was changed", spends=True)


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """One order to make (docs/clore-api.md 4.4). Prices are per day in `coin`. Possible secrets have no repr."""

    server_id: int
    image: str
    coin: Coin
    order_type: Literal["on-demand", "spot"] = "on-demand"
    spot_price: Decimal | None = None
    required_price: Decimal | None = None
    ports: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ssh_key: str | None = None
    jupyter_token: str | None = field(default=None, repr=False)
    command: str | None = field(default=None, repr=False)
    autossh_entrypoint: bool = False

    def body(self) -> dict[str, Any]:
        """Return the request with Clore's names, without fields that are not set."""
        optional: dict[str, Any] = {
            "spotprice": None if self.spot_price is None else wire_number(self.spot_price),
            "required_price": None if self.required_price is None else wire_number(self.required_price),
            "ports": dict(self.ports) or None,
            "env": dict(self.env) or None,
            "ssh_key": self.ssh_key,
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
    """The orders as Clore lists them now. `dropped` counts the rows that could not be read."""

    rows: list[OrderRow]
    dropped: int
    limit: int | None  # the most orders at once
    api_time: float | None  # Clore's clock at the reply, unix seconds


@dataclass(frozen=True, slots=True)
class Created:
    """Clore accepted the create, without naming the order. `api_time` is its clock at the reply, in unix seconds."""

    api_time: float | None


class CloreClient:
    """The Clore API for one key. It opens nothing before the first call; `aclose()` or `async with` closes it.
    `after_write` is called at the end of each write, whatever its outcome."""

    def __init__(
        self,
        *,
        pacer: Pacer,
        api_url: str = DEFAULT_API_URL,
        api_key: str | None = None,
        timing: Timing | None = None,
        trusts_network: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
        rand: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        after_write: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._after_write = after_write
        self._has_key = bool(api_key)
        self._api_url = api_url.rstrip("/")
        self._timing = timing or Timing()
        self._exchange = Exchange(
            api_url=self._api_url,
            api_key=api_key,
            pacer=pacer,
            timing=self._timing,
            trusts_network=trusts_network,
            transport=transport,
            rand=rand,
            clock=clock,
        )

    def __repr__(self) -> str:
        return f"CloreClient({self._api_url!r}, {'with' if self._has_key else 'without'} a key)"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Prepare to connect. Raises NotSent if the environment's proxy or certificates can't be used."""
        await self._exchange.open()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._exchange.aclose()

    async def wallets(self) -> Rows[Wallet]:
        """Return the wallets. A legacy one may have no balance."""
        return await self._read(_WALLETS, lambda reply: _rows(Wallet, reply, _WALLETS, "wallets"))

    async def marketplace(self) -> Rows[ServerRow]:
        """Return every listed server, including rented ones. Needs no key."""
        return (await self.marketplace_as_sent())[0]

    async def marketplace_as_sent(self, *, before_send: BeforeSend | None = None) -> tuple[Rows[ServerRow], bytes]:
        """Return the marketplace, and the body for `read_marketplace`. `before_send`: as for `my_orders`."""
        return await self._read(
            _MARKETPLACE, lambda reply: (_market(reply), reply.body), needs_key=False, before_send=before_send
        )

    async def my_orders(
        self, *, completed: bool = False, urgent: bool = False, before_send: BeforeSend | None = None
    ) -> OrdersReply:
        """Return this account's orders, with `completed` also the ended ones. `urgent` is for the look after a create
        or a cancel. `before_send`: see `create_order`, at each try."""
        params = {"return_completed": "true" if completed else "false"}
        return await self._read(_MY_ORDERS, _orders, params=params, urgent=urgent, before_send=before_send)

    async def spot_marketplace(self, server_id: int) -> SpotBook:
        """Return the bids on one server."""
        return await self._read(
            _SPOT_MARKETPLACE,
            lambda reply: _one(SpotBook, reply, _SPOT_MARKETPLACE),
            params={"market": str(server_id)},
        )

    async def renter_fees(self) -> RenterFees:
        """Return the fees that a renter pays on top of a price."""
        return await self._read(_RENTER_FEES, lambda reply: _one(RenterFees, reply, _RENTER_FEES))

    async def create_order(self, request: CreateRequest, *, before_send: BeforeSend | None = None) -> Created:
        """Ask for an order, once. `before_send` runs right before the bytes leave, when the turn has come and the
        connection is open. If it raises, nothing is sent and the exception is passed on."""

        def read(reply: Reply) -> Created:
            _fields(reply, _CREATE_ORDER)
            return Created(header_time(reply.headers))

        seconds = self._timing.create_seconds
        call = Call(_CREATE_ORDER, read, seconds, json=request.body(), lane=Lane.CREATE, before_send=before_send)
        async with self._writing():
            return await self._exchange.attempt(call)

    async def cancel_order(self, order_id: int, issue: str | None = None) -> bool:
        """Cancel an order of either type at the next free slot. A longer `issue` is cut, and if Clore refuses it, the
        cancel is sent without it, because ending the bill matters more. Returns whether `issue` was sent unchanged."""
        if not issue:
            await self._write(_CANCEL_ORDER, {"id": order_id}, urgent=True)
            return True
        try:
            await self._write(_CANCEL_ORDER, {"id": order_id, "issue": issue[:ISSUE_LENGTH]}, urgent=True)
        except (IssueTooLong, InvalidInput, ParametersMissing):  # only the comment of the request is in doubt
            await self._write(_CANCEL_ORDER, {"id": order_id}, urgent=True)
            return False
        return len(issue) <= ISSUE_LENGTH

    async def set_spot_price(self, order_id: int, price: DayPrice, *, before_send: BeforeSend | None = None) -> None:
        """Change the bid of a spot order. `price` is in the order's own coin. `before_send`: see `create_order`."""
        body = {"order_id": order_id, "desired_price": wire_number(price.value)}
        await self._write(_SET_SPOT_PRICE, body, before_send=before_send)

    async def _read(
        self,
        endpoint: Endpoint,
        read: Callable[[Reply], Answer],
        *,
        params: Mapping[str, str] | None = None,
        urgent: bool = False,
        needs_key: bool = True,
        before_send: BeforeSend | None = None,
    ) -> Answer:
        seconds = self._timing.read_seconds
        call = Call(endpoint, read, seconds, params=params, urgent=urgent, needs_key=needs_key, before_send=before_send)
        return await self._exchange.retrying(call, (Unclear, NotSent, RateLimited), self._timing.attempts)

    async def _write(
        self,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        *,
        urgent: bool = False,
        before_send: BeforeSend | None = None,
    ) -> None:
        """Send a write that is safe to repeat. Sends it again if Clore answers "too fast", because Clore does that
        before it reads a request."""

        def read(reply: Reply) -> None:
            _fields(reply, endpoint)

        call = Call(endpoint, read, self._timing.write_seconds, json=body, urgent=urgent, before_send=before_send)
        attempts = self._timing.refused_cancel_attempts if urgent else self._timing.refused_write_attempts
        async with self._writing():
            await self._exchange.retrying(call, (RateLimited,), attempts)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        """Call `after_write` after any outcome of a write, even a cancelled one: readings may be out of date."""
        try:
            yield
        finally:
            if self._after_write is not None:
                with anyio.CancelScope(shield=True):
                    await self._after_write()


def read_marketplace(body: bytes) -> Rows[ServerRow]:
    """Return the marketplace of a stored reply. Raises CloreError if it is not one."""
    return _market(Reply(200, {}, body))


def _fields(reply: Reply, endpoint: Endpoint) -> dict[str, Any]:
    return read_reply(reply.status, reply.headers, reply.body, endpoint)


def _list(fields: dict[str, Any], endpoint: Endpoint, name: str) -> list[object]:
    """Return a list that must be in the reply, because a reply without a list does not prove that an order is gone."""
    values = fields.get(name)
    if not isinstance(values, list):
        raise unexpected(endpoint, f"no list of {name}")
    if len(values) > endpoint.most_rows:
        raise unexpected(endpoint, f"more than {endpoint.most_rows:,} {name}")
    return values


def _rows(model: type[Row], reply: Reply, endpoint: Endpoint, name: str) -> Rows[Row]:
    return read_rows(model, _list(_fields(reply, endpoint), endpoint, name))


def _market(reply: Reply) -> Rows[ServerRow]:
    return _rows(ServerRow, reply, _MARKETPLACE, "servers")


def _orders(reply: Reply) -> OrdersReply:
    fields = _fields(reply, _MY_ORDERS)
    read = read_rows(OrderRow, _list(fields, _MY_ORDERS, "orders"))
    limit = fields.get("limit")
    whole = limit if isinstance(limit, int) and not isinstance(limit, bool) else None
    return OrdersReply(read.rows, read.dropped, whole, header_time(reply.headers))


def _one(model: type[Row], reply: Reply, endpoint: Endpoint) -> Row:
    row = read_row(model, _fields(reply, endpoint))
    if row is None:
        raise unexpected(endpoint, "fields that can't be read")
    return row

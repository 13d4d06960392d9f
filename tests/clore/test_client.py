"""What the client sends, how often, and what it makes of the replies; the network is a function or a bare socket."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import pytest

import clore_mcp.clore
from clore_mcp import errors
from clore_mcp.clore import USER_AGENT, CloreClient, CreateRequest, Gaps, Pacer, Timing
from clore_mcp.clore import exchange as exchange_module
from clore_mcp.clore.exchange import backoff_seconds
from clore_mcp.errors import CloreError, Spent
from clore_mcp.money import Coin, DayPrice
from tests.clore.conftest import MS, QUICK, always, canned, quick_pacer

REQUEST = CreateRequest(server_id=7, image="cloreai/jupyter:ubuntu24.04-v2", coin=Coin.USD)
ORDERS = {"orders": [], "limit": 5, "code": 0}
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

pytestmark = pytest.mark.anyio

READS: dict[str, Callable[[CloreClient], Awaitable[object]]] = {
    "wallets": lambda client: client.wallets(),
    "marketplace": lambda client: client.marketplace(),
    "my_orders": lambda client: client.my_orders(),
    "spot_marketplace": lambda client: client.spot_marketplace(6),
    "renter_fees": lambda client: client.renter_fees(),
}
REPEATABLE: dict[str, Callable[[CloreClient], Awaitable[object]]] = {
    "cancel_order": lambda client: client.cancel_order(5, "no ssh"),
    "set_spot_price": lambda client: client.set_spot_price(39, DayPrice(Decimal("0.000003"), Coin.BTC)),
}
WRITES: dict[str, Callable[[CloreClient], Awaitable[object]]] = {
    **REPEATABLE,
    "create_order": lambda client: client.create_order(REQUEST),
}


class Network:
    """A transport that answers by a list, the last one again and again, and keeps what it was sent."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        return httpx.Response(status, json=body) if isinstance(body, dict) else httpx.Response(status, content=body)


@asynccontextmanager
async def bare_server(handler: Handler) -> AsyncIterator[str]:
    """A socket that speaks whatever the test wants; gives its API URL."""
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()
        await asyncio.sleep(0)


async def request_head(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            await reader.readexactly(int(line.split(b":")[1]))
    return head


def reply(body: bytes, *headers: str, length: int | None = None, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def local(url: str, **settings: Any) -> CloreClient:
    return CloreClient(api_url=url, **{"api_key": "k" * 32, "timing": QUICK, "pacer": quick_pacer(), **settings})


def test_the_public_surface_is_what_is_promised() -> None:
    for name in clore_mcp.clore.__all__:
        assert getattr(clore_mcp.clore, name) is not None


def test_the_package_is_usable_without_mcp_and_opens_nothing() -> None:
    script = (
        "import sys, clore_mcp.clore as c; k = c.CloreClient(pacer=c.Pacer(), api_key='x');"
        "assert not any(m == 'mcp' or m.startswith('mcp.') for m in sys.modules); assert k._exchange._pools is None"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("name", [*READS, *WRITES])
async def test_each_call_asks_its_own_path_with_the_key_and_our_name(name: str) -> None:
    body = {"orders": [], "wallets": [], "servers": [], "failed_to_cancel": [], "code": 0}
    network = Network((200, body))
    async with canned(network) as client:
        await {**READS, **WRITES}[name](client)
    (request,) = network.sent
    assert request.url.path == f"/v1/{name}"
    assert request.method == ("GET" if name in READS else "POST")
    assert request.headers["auth"] == "k" * 32
    assert request.headers["user-agent"] == USER_AGENT
    assert "authorization" not in request.headers


async def test_queries_and_bodies_carry_clores_names() -> None:
    network = Network((200, ORDERS))
    async with canned(network) as client:
        await client.my_orders()
        await client.my_orders(completed=True, urgent=True)
        await client.spot_marketplace(6)
        await client.cancel_order(38)
        await client.cancel_order(38, "x" * 3000)
        await client.set_spot_price(39, DayPrice(Decimal("0.000003"), Coin.BTC))
    assert [request.url.query for request in network.sent[:3]] == [
        b"return_completed=false",
        b"return_completed=true",
        b"market=6",
    ]
    assert [json.loads(request.content) for request in network.sent[3:]] == [
        {"id": 38},
        {"id": 38, "issue": "x" * 2048},
        {"order_id": 39, "desired_price": 0.000003},
    ]


def test_a_create_request_has_clores_names_and_the_listings_own_number() -> None:
    assert REQUEST.body() == {
        "currency": "USD-Blockchain",
        "image": "cloreai/jupyter:ubuntu24.04-v2",
        "renting_server": 7,
        "type": "on-demand",
    }
    whole = CreateRequest(
        server_id=7,
        image="i",
        coin=Coin.BTC,
        order_type="spot",
        spot_price=Decimal(3),
        required_price=Decimal("0.00015609"),
        ports={"22": "tcp", "8888": "http"},
        env={"A": "b"},
        ssh_key="ssh-ed25519 AAAA",
        jupyter_token="secret",
        command="#!/bin/sh",
        autossh_entrypoint=True,
    )
    assert json.dumps(whole.body()) == json.dumps(
        {
            "currency": "bitcoin",
            "image": "i",
            "renting_server": 7,
            "type": "spot",
            "spotprice": 3,
            "required_price": 0.00015609,
            "ports": {"22": "tcp", "8888": "http"},
            "env": {"A": "b"},
            "ssh_key": "ssh-ed25519 AAAA",
            "jupyter_token": "secret",
            "command": "#!/bin/sh",
            "autossh_entrypoint": True,
        }
    )
    assert not any(secret in repr(whole) for secret in ("secret", "#!", "'A'"))


@pytest.mark.parametrize("number", ["10", "0.00015609", "8002.07", "1E-8", "1.83", "4329.12", "0.1"])
async def test_a_price_goes_back_as_the_number_that_the_listing_showed(number: str) -> None:
    listing = b'{"servers":[{"id":1,"price":{"on_demand":{"bitcoin":%s}}}],"code":0}' % number.encode()
    network = Network((200, listing), (200, {"code": 0}))
    async with canned(network) as client:
        row = (await client.marketplace()).rows[0]
        assert row.on_demand is not None
        await client.create_order(
            CreateRequest(server_id=1, image="i", coin=Coin.BTC, required_price=row.on_demand["bitcoin"])
        )
    assert json.loads(network.sent[1].content)["required_price"] == json.loads(number)


@pytest.mark.parametrize("name", [name for name in {**READS, **WRITES} if name != "marketplace"])
async def test_without_a_key_nothing_is_sent(name: str) -> None:
    network = Network((200, ORDERS))
    async with canned(network, api_key=None) as client:
        with pytest.raises(errors.NoApiKey):
            await {**READS, **WRITES}[name](client)
    assert network.sent == []


async def test_the_marketplace_needs_no_key_and_then_sends_none() -> None:
    network = Network((200, {"servers": [{"id": 6}], "code": 0}))
    async with canned(network, api_key="") as client:
        assert [row.id for row in (await client.marketplace()).rows] == [6]
    assert "auth" not in network.sent[0].headers


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize(
    "broken",
    [
        (500, {"code": 1}),
        (429, {"code": 5}),
        (502, b"<html>"),
        (200, b'{"code":'),
        httpx.ReadTimeout("x"),
        httpx.ConnectError("x"),
        httpx.RemoteProtocolError("x"),
        httpx.DecodingError("x"),
    ],
    ids=str,
)
async def test_a_read_is_tried_again_until_it_answers(name: str, broken: Any) -> None:
    body = {"orders": [], "wallets": [], "servers": [], "code": 0}
    network = Network(broken, broken, broken, (200, body))
    async with canned(network) as client:
        await READS[name](client)
    assert len(network.sent) == 4


async def test_a_read_is_tried_four_times_and_no_longer_than_its_time() -> None:
    network = Network((500, {"code": 1}))
    async with canned(network) as client:
        with pytest.raises(errors.InternalFault):
            await client.wallets()
    assert len(network.sent) == 4
    network = Network((500, {"code": 1}))
    clock = iter([0.0, 100.0])
    async with canned(network, clock=lambda: next(clock)) as client:
        with pytest.raises(errors.InternalFault):
            await client.wallets()
    assert len(network.sent) == 1


@pytest.mark.parametrize("body", [{"code": 2}, {"code": 3}, {"code": 4}, {"code": 6, "error": "server-offline"}])
async def test_a_plain_no_is_not_asked_twice(body: dict[str, Any]) -> None:
    network = Network((200, body))
    async with canned(network) as client:
        with pytest.raises(errors.Refused):
            await client.wallets()
    assert len(network.sent) == 1


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize(
    ("broken", "kind", "spent"),
    [
        ((500, {"code": 1}), errors.InternalFault, Spent.UNKNOWN),
        ((200, {"code": 6, "error": "?"}), errors.UnknownRefusal, Spent.UNKNOWN),
        ((502, b"<html>"), errors.NotJson, Spent.UNKNOWN),
        ((302, b""), errors.NotJson, Spent.UNKNOWN),
        ((200, b'{"co'), errors.Truncated, Spent.UNKNOWN),
        (httpx.ReadTimeout("x"), errors.TimedOut, Spent.UNKNOWN),
        (httpx.WriteTimeout("x"), errors.TimedOut, Spent.UNKNOWN),
        (httpx.ReadError("x"), errors.ConnectionLost, Spent.UNKNOWN),
        (httpx.WriteError("x"), errors.ConnectionLost, Spent.UNKNOWN),
        (httpx.RemoteProtocolError("x"), errors.ConnectionLost, Spent.UNKNOWN),
        (httpx.DecodingError("x"), errors.NotJson, Spent.UNKNOWN),
        (httpx.ConnectError("x"), errors.NotSent, Spent.NO),
        (httpx.ConnectTimeout("x"), errors.NotSent, Spent.NO),
        (httpx.PoolTimeout("x"), errors.NotSent, Spent.NO),
        (httpx.ProxyError("x"), errors.NotSent, Spent.NO),
    ],
    ids=str,
)
async def test_a_write_that_failed_is_never_sent_again(
    name: str, broken: Any, kind: type[CloreError], spent: Spent
) -> None:
    network = Network(broken, (200, {"code": 0}))
    async with canned(network) as client:
        with pytest.raises(kind) as caught:
            await WRITES[name](client)
    assert len(network.sent) == 1
    assert caught.value.spent is spent
    if spent is Spent.UNKNOWN:
        assert caught.value.hint == "Don't send it again. Check list_orders first."


@pytest.mark.parametrize("name", REPEATABLE)
async def test_too_fast_was_before_the_request_was_read_so_repeatable_writes_go_out_again(name: str) -> None:
    network = Network((429, {"code": 5}), (429, {"code": 5}), (200, {"code": 0}))
    async with canned(network) as client:
        await REPEATABLE[name](client)
    assert len(network.sent) == 3
    network = Network((429, {"code": 5}))
    async with canned(network) as client:
        with pytest.raises(errors.RateLimited):
            await REPEATABLE[name](client)
    assert len(network.sent) == (8 if name.startswith("cancel") else 3), "an order bills while its cancel waits"


async def test_a_create_that_came_too_fast_is_left_to_its_maker_with_the_seconds_to_wait() -> None:
    network = Network((429, {"code": 5}))
    pacer = Pacer(Gaps(general_ns=MS, create_ns=2000 * MS))
    async with canned(network, pacer=pacer) as client:
        with pytest.raises(errors.RateLimited) as caught:
            await client.create_order(REQUEST)
    assert len(network.sent) == 1
    assert caught.value.retry_after_seconds == pytest.approx(2.0, abs=0.2)


async def test_retry_after_holds_up_every_request_and_is_said() -> None:
    async with always(429, {"code": 5}, headers={"retry-after": "30"}) as client:
        with pytest.raises(errors.RateLimited) as limited:
            await client.create_order(REQUEST)
        assert limited.value.retry_after_seconds == 30
        with pytest.raises(errors.QueueFull) as full:
            await client.wallets()
    assert full.value.retry_after_seconds == pytest.approx(30, abs=1)


async def test_the_hook_runs_last_and_what_it_raises_comes_out_untouched() -> None:
    class Frozen(Exception):
        pass

    async def late() -> None:
        raise Frozen

    def timed_out() -> None:
        raise TimeoutError

    network = Network((200, {"code": 0}))
    async with canned(network) as client:
        with pytest.raises(Frozen):
            await client.create_order(REQUEST, before_send=late)
        with pytest.raises(TimeoutError):
            await client.create_order(REQUEST, before_send=timed_out)
        assert network.sent == []
        told: list[int] = []
        await client.create_order(REQUEST, before_send=lambda: told.append(len(network.sent)))
    assert told == [0]
    assert len(network.sent) == 1


async def test_on_a_real_connection_the_hook_runs_once_after_connecting_and_before_any_byte() -> None:
    connected, arrived = asyncio.Event(), bytearray()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        arrived.extend(await request_head(reader))
        writer.write(reply(b'{"code":0}', "date: Fri, 10 Jul 2026 17:18:10 GMT"))
        await writer.drain()

    calls: list[bytes] = []

    async def hook() -> None:
        await asyncio.wait_for(connected.wait(), 20)
        await asyncio.sleep(0.02)
        calls.append(bytes(arrived))

    async with bare_server(handler) as url, local(url) as client:
        assert (await client.create_order(REQUEST, before_send=hook)).api_time == 1783703890
    assert calls == [b""]

    async def stop() -> None:
        raise PermissionError("frozen")

    arrived.clear()
    async with bare_server(handler) as url, local(url) as client:
        with pytest.raises(PermissionError, match="frozen"):
            await client.create_order(REQUEST, before_send=stop)
        await asyncio.sleep(0.02)
    assert not arrived


async def test_a_hook_that_never_ends_sends_nothing() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read(1) == b""

    async def hook() -> None:
        await asyncio.sleep(60)

    async with bare_server(handler) as url, local(url, timing=Timing(create_seconds=0.1)) as client:
        with pytest.raises(errors.NotSent) as caught:
            await client.create_order(REQUEST, before_send=hook)
    assert caught.value.spent is Spent.NO


@pytest.mark.parametrize("which", ["monotonic", "time"])
async def test_a_process_that_is_frozen_when_the_hook_has_just_allowed_the_send_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """The clock moves without the event loop having had a turn: its own time-out would come after the bytes."""
    now = {"monotonic": 0.0, "time": 1_800_000_000.0}
    monkeypatch.setattr(
        exchange_module, "time", SimpleNamespace(**{name: partial(now.__getitem__, name) for name in now})
    )
    arrived = asyncio.get_running_loop().create_future()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set_result(await reader.read(1))

    def freeze() -> None:
        now[which] += 31

    async with bare_server(handler) as url, local(url, clock=partial(now.__getitem__, "monotonic")) as client:
        with pytest.raises(errors.NotSent) as caught:
            await client.create_order(REQUEST, before_send=freeze)
        assert await asyncio.wait_for(arrived, 20) == b""
    assert caught.value.spent is Spent.NO


async def test_nobody_at_the_address_means_that_nothing_was_sent() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("nobody comes")

    async with bare_server(handler) as url:
        pass
    async with local(url) as client:
        with pytest.raises(errors.NotSent) as caught:
            await client.create_order(REQUEST)
    assert caught.value.spent is Spent.NO


async def test_tls_that_fails_is_named_and_sent_nothing() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"this is not TLS at all\r\n\r\n")

    async with bare_server(handler) as url, local(url.replace("http:", "https:")) as client:
        with pytest.raises(errors.NotSent) as caught:
            await client.cancel_order(1)
    assert "certificate" in caught.value.hint


async def test_a_proxys_tunnel_is_not_the_request_so_the_hook_does_not_run_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heads: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await request_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await reader.read(10)
        writer.write(b"this is not TLS at all\r\n\r\n")

    told: list[None] = []
    async with bare_server(handler) as url:
        monkeypatch.setenv("HTTPS_PROXY", url.removesuffix("/v1"))
        async with local("https://api.clore.invalid/v1") as client:
            with pytest.raises(errors.NotSent):
                await client.create_order(REQUEST, before_send=lambda: told.append(None))
    assert heads[0].startswith(b"CONNECT api.clore.invalid:443")
    assert b"k" * 32 not in heads[0]
    assert told == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_simulated_marketplace_is_not_sought_behind_a_proxy(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(reply(b'{"code":0}'))

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with bare_server(handler) as url, local(url.replace("127.0.0.1", host)) as client:
        await client.cancel_order(1)


async def test_text_that_is_no_unicode_is_sent_as_escapes_and_breaks_nothing() -> None:
    network = Network((200, {"code": 0}))
    async with canned(network) as client:
        await client.create_order(CreateRequest(server_id=1, image="i", coin=Coin.USD, env={"A": "\ud800 \u00e9"}))
    assert network.sent[0].content.isascii()
    assert network.sent[0].headers["content-type"] == "application/json"
    assert json.loads(network.sent[0].content)["env"] == {"A": "\ud800 \u00e9"}


@pytest.mark.parametrize("url", ["http://a:b/v1", "ftp://127.0.0.1/v1", "nothing"])
async def test_a_broken_address_is_the_operators_to_mend(url: str) -> None:
    async with local(url) as client:
        with pytest.raises(errors.NotSent) as caught:
            await client.cancel_order(1)
    assert "CLORE_API_URL" in caught.value.hint


@pytest.mark.parametrize(
    ("sends", "kind"),
    [
        (b"", errors.ConnectionLost),
        (b"HTTP/1.1 200 O", errors.ConnectionLost),
        (b"\x00\x01garbage\r\n\r\n", errors.ConnectionLost),
        (reply(b'{"code":0}', length=99), errors.Truncated),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{", errors.Truncated),
        (b'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{"code"', errors.Truncated),
        (reply(b"not gzip", "content-encoding: gzip"), errors.NotJson),
        (reply(b"", "location: http://127.0.0.1:9/v1/", status="307 Temporary Redirect"), errors.NotJson),
        (reply(b"error code: 1010", status="403 Forbidden"), errors.NotJson),
    ],
    ids=[
        "nothing",
        "half a status line",
        "noise",
        "short body",
        "half a chunk",
        "half",
        "not gzip",
        "redirect",
        "1010",
    ],
)
async def test_whatever_a_socket_does_after_a_create_it_leaves_once_and_money_is_in_doubt(
    sends: bytes, kind: type[CloreError]
) -> None:
    heads: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await request_head(reader))
        writer.write(sends)
        await writer.drain()

    async with bare_server(handler) as url, local(url) as client:
        with pytest.raises(kind) as caught:
            await client.create_order(REQUEST)
    assert type(caught.value) is kind
    assert caught.value.spent is Spent.UNKNOWN
    assert len(heads) == 1


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{"], ids=["silent", "halfway"])
async def test_the_deadline_is_for_the_whole_attempt(begun: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(begun)
        while not reader.at_eof():  # a drip feed, so that no single read waits long
            if begun:
                writer.write(b" ")
            await asyncio.sleep(0.02)

    timing = Timing(create_seconds=1.0)  # time enough to leave
    async with bare_server(handler) as url, local(url, timing=timing) as client:
        async with asyncio.timeout(20):
            with pytest.raises(errors.TimedOut) as caught:
                await client.create_order(REQUEST)
    assert caught.value.spent is Spent.UNKNOWN


async def test_a_write_never_uses_a_connection_that_was_used_before() -> None:
    connections: list[list[bytes]] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append([])
        while not reader.at_eof():
            connections[-1].append((await request_head(reader)).split()[1])
            writer.write(reply(b'{"code":0,"orders":[]}'))

    async with bare_server(handler) as url, local(url) as client:
        for _ in range(2):
            await client.my_orders()
            await client.create_order(REQUEST)
            await client.cancel_order(1)
    assert [len(paths) for paths in connections] == [2, 1, 1, 1, 1]


async def test_an_endless_reply_is_cut_off() -> None:
    async with always(200, content=b" " * (1024**2 + 1)) as client:
        with pytest.raises(errors.NotJson, match="larger"):
            await client.cancel_order(1)


async def test_cancelling_a_call_gives_its_turn_back_and_the_client_goes_on() -> None:
    on_its_way = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            if b"wallets" in await request_head(reader):
                on_its_way.set()
            else:
                writer.write(reply(b'{"code":0,"orders":[]}'))

    async with bare_server(handler) as url, local(url) as client:
        stuck = asyncio.create_task(client.wallets())
        await asyncio.wait_for(on_its_way.wait(), 20)
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        await asyncio.wait_for(client.my_orders(), 20)


async def test_a_reply_without_its_list_is_no_list_of_nothing() -> None:
    bodies: list[dict[str, Any]] = [{"code": 0}, {"code": 0, "orders": None, "wallets": {}, "servers": "x"}]
    for body in bodies:
        async with always(200, body) as client:
            for call in (client.my_orders, client.wallets, client.marketplace):
                with pytest.raises(errors.NotJson, match="no list of"):
                    await call()


async def test_rows_that_cannot_be_read_are_counted_and_cost_no_other_row() -> None:
    orders = [{"id": 1, "si": 5, "price": "?", "ct": 1783703890}, {"si": 9}, "x", None, {"id": 2, "specs": 4}]
    async with always(200, {"orders": orders, "limit": True, "code": 0}, headers={"date": "x"}) as client:
        got = await client.my_orders()
    assert [(row.id, row.server_id, row.price) for row in got.rows] == [(1, 5, None), (2, None, None)]
    assert (got.dropped, got.limit, got.api_time) == (3, None, None)
    servers = [{"id": 1, "mrl": "?"}, {"owner": 2}, {"id": 3, "gpu_array": [["GTX 745"]]}]
    async with always(200, {"servers": servers, "code": 0}) as client:
        market = await client.marketplace()
    assert ([row.id for row in market.rows], market.dropped) == ([1, 3], 1)


async def test_an_empty_market_is_an_answer() -> None:
    async with always(200, {"servers": [], "code": 0}) as client:
        assert (await client.marketplace()).rows == []


async def test_the_orders_come_with_clores_clock_and_limit() -> None:
    async with always(200, ORDERS, headers={"date": "Fri, 10 Jul 2026 17:18:10 GMT"}) as client:
        got = await client.my_orders()
    assert (got.limit, got.api_time) == (5, 1783703890)


async def test_a_spot_book_keeps_each_readable_bid_once() -> None:
    offers: list[Any] = [{"offer_id": 1, "bid": 3.0}, {"offer_id": "?", "bid": "?"}]
    async with always(200, {"market": {"offers": offers}, "code": 0}) as client:
        assert [(offer.id, offer.bid) for offer in (await client.spot_marketplace(1)).offers] == [(1, 3), (None, None)]
    async with always(200, {"market": {"offers": [5, *offers, offers[0]]}, "code": 0}) as client:
        assert [offer.bid for offer in (await client.spot_marketplace(1)).offers] == [3, None]


def test_the_back_off_doubles_to_a_bound_and_is_jittered_in_full() -> None:
    timing = Timing()
    assert [backoff_seconds(made, timing, 1.0) for made in (1, 2, 3, 9)] == [0.5, 1, 2, 8]
    assert math.isclose(backoff_seconds(3, timing, 0.25), 0.5)
    assert backoff_seconds(3, timing, 0.0) == 0


async def test_every_attempt_takes_a_slot_of_its_own() -> None:
    network = Network((500, {"code": 1}))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with canned(network, pacer=Pacer(Gaps(general_ns=30 * MS)), rand=lambda: 0.0) as client:
        with pytest.raises(errors.InternalFault):
            await client.wallets()
    assert loop.time() - begun >= 0.09

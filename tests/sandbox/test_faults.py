"""Each fault as a client meets it on the socket, and whether its effect took place."""

import socket
import threading
import time
from collections.abc import Callable

import httpx2 as httpx
import pytest

from clore_mcp.sandbox import SANDBOX_KEY
from clore_mcp.sandbox.faults import EFFECT

from .conftest import USD, Market, Start


def raw(market: Market, path: str = "/v1/wallets", patience: float = 5.0) -> bytes:
    """All bytes that a request brings until the connection closes; ConnectionResetError passes through."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: test\r\nauth: {SANDBOX_KEY}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", market.running.port), timeout=patience) as peer:
        peer.sendall(request.encode())
        chunks = []
        while chunk := peer.recv(65_536):
            chunks.append(chunk)
    return b"".join(chunks)


def orders_made(market: Market) -> int:
    return int(market.get("/state")["counts"]["orders"])


def test_lost_reply_closes_without_a_byte_after_the_effect(market: Market) -> None:
    market.fault("lost_reply", "create_order")
    with pytest.raises(httpx.RemoteProtocolError):
        market.create(market.free())
    assert orders_made(market) == 1
    market.fault("lost_reply", "wallets")
    assert raw(market) == b""


def test_truncate_sends_half_a_body_under_the_whole_length(market: Market) -> None:
    whole = market.api.get("/wallets").content
    market.fault("truncate", "wallets")
    head, _, body = raw(market).partition(b"\r\n\r\n")
    assert f"content-length: {len(whole)}".encode() in head
    assert body == whole[: len(whole) // 2]
    market.fault("truncate", "create_order")
    with pytest.raises(httpx.RemoteProtocolError):
        market.create(market.free())
    assert orders_made(market) == 1


@pytest.mark.parametrize("effect", [False, True])
def test_reset_is_a_tcp_reset_with_or_without_the_effect(market: Market, effect: bool) -> None:
    market.fault("reset", "wallets")
    with pytest.raises(ConnectionResetError):
        raw(market)
    market.fault("reset", "create_order", effect=effect)
    with pytest.raises(httpx.ReadError):
        market.create(market.free())
    assert orders_made(market) == effect


@pytest.mark.parametrize(
    ("kind", "made", "status", "start_of_body"),
    [
        ("code1_before", 0, 500, b'{"code":1}'),
        ("code1_after", 1, 500, b'{"code":1}'),
        ("http502", 0, 502, b"<html>"),
        ("http502_after", 1, 502, b"<html>"),
        ("garbage", 1, 200, b"\x00\xff"),
    ],
)
def test_wrong_replies(market: Market, kind: str, made: int, status: int, start_of_body: bytes) -> None:
    market.fault(kind, "create_order")
    reply = market.create(market.free())
    assert reply.status_code == status
    assert reply.content.startswith(start_of_body)
    assert orders_made(market) == made
    entry = market.get("/requests")["requests"][-1]
    assert (entry["fault"], entry["effect"], entry["status"]) == (kind, bool(made), status)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("already_rented", "server-already-rented"),
        ("offline", "server-offline"),
        ("not_enough_balance", "not_enough_balance"),
    ],
)
def test_refusals_to_order_hit_creates_only(market: Market, kind: str, error: str) -> None:
    market.fault(kind)
    assert market.api.get("/wallets").json()["code"] == 0
    reply = market.create(market.free())
    assert (reply.status_code, reply.json()["code"], reply.json()["error"]) == (200, 6, error)
    assert orders_made(market) == 0


@pytest.mark.parametrize(("kind", "made"), [("hang_before", 0), ("hang_after", 1)])
def test_a_hanging_create_outlasts_its_client(market: Market, kind: str, made: int) -> None:
    server = market.free()
    market.fault(kind, "create_order", seconds=60)
    with pytest.raises(httpx.ReadTimeout):
        market.api.post("/create_order", json=market.wish(server), timeout=0.1)
    assert orders_made(market) == made


def test_a_hanging_request_ends_in_its_reply_or_in_a_closed_connection(market: Market) -> None:
    market.fault("hang_after", "wallets", seconds=0.1)
    assert raw(market).endswith(b'"code":0}')
    market.fault("hang_before", "wallets", seconds=0.1)
    assert raw(market) == b""


def test_a_late_effect_happens_after_the_client_has_left(market: Market) -> None:
    server = market.free()
    market.fault("late_effect", "create_order", seconds=2.0)
    with pytest.raises(httpx.ReadTimeout):
        market.api.post("/create_order", json=market.wish(server), timeout=0.05)
    assert orders_made(market) == 0
    eventually(lambda: orders_made(market) == 1)


def test_a_hanging_client_does_not_hold_up_the_stop(start: Start) -> None:
    market = start()
    market.fault("hang_after", "wallets", seconds=60)
    caller = threading.Thread(target=_ignore_failure, args=(lambda: raw(market),))
    caller.start()
    eventually(lambda: bool(market.get("/requests")["requests"]))
    market.close()
    begun = time.monotonic()
    market.running.stop()
    caller.join()
    assert time.monotonic() - begun < 20  # the request would hang for 60


def test_the_price_moves_just_before_the_create(market: Market) -> None:
    server = market.free()
    listed = server["price"]["on_demand"][USD]
    market.fault("price_moved", factor=1.5)
    reply = market.create(server, required_price=listed)
    assert reply.json() == {"error": "price-changed", "code": 6}
    assert market.server(server["id"])["price"]["on_demand"][USD] == pytest.approx(listed * 1.5)
    market.fault("price_moved", factor=1.5)
    assert market.rent(server)["price"] == pytest.approx(listed * 2.25)


def test_an_order_may_be_visible_late(market: Market) -> None:
    market.fault("late_visible", seconds=100)
    assert market.create(market.free()).json() == {"code": 0}
    market.advance(99)
    assert market.orders() == market.orders(completed=True) == []
    market.advance(2)
    assert len(market.orders()) == 1


def test_a_container_may_never_deploy(start: Start) -> None:
    market = start(balance_usd=1e6)
    market.fault("never_deploys")
    order = market.rent(market.free())
    market.advance(7200)
    assert market.order(order["id"])["mon_container"] == 0
    assert market.order(order["id"])["spend"] > 0


def test_a_cancel_may_be_ignored(market: Market) -> None:
    order = market.rent(market.free())
    market.fault("cancel_ignored")
    assert market.api.post("/cancel_order", json={"id": order["id"]}).json() == {"code": 0}
    assert len(market.orders()) == 1
    market.api.post("/cancel_order", json={"id": order["id"]})
    assert market.orders() == []


def test_an_outage_hits_everything_and_passes(market: Market) -> None:
    market.fault("outage", seconds=0.3)
    assert market.api.get("/wallets").status_code == 502
    assert market.api.get("/marketplace").status_code == 502
    eventually(lambda: market.api.get("/wallets").status_code == 200)


def test_faults_skip_count_and_can_be_disarmed(market: Market) -> None:
    market.fault("code1_before", "wallets", skip=1, times=2)
    assert [market.api.get("/wallets").status_code for _ in range(4)] == [200, 500, 500, 200]
    market.fault("code1_before", "*", times=9)
    market.control.delete("/faults")
    assert market.get("/faults") == {"faults": []}
    assert market.api.get("/my_orders").status_code == 200


def test_faults_can_be_armed_from_the_start(start: Start) -> None:
    market = start(faults=("wallets:http502:2", "create_order:hang_before:1:0.5"))
    assert [market.api.get("/wallets").status_code for _ in range(3)] == [502, 502, 200]
    (fault,) = market.get("/faults")["faults"]
    assert (fault["kind"], fault["seconds"]) == ("hang_before", 0.5)


def test_a_request_over_the_limit_does_not_use_up_a_fault(start: Start) -> None:
    market = start(rate_limit="arrival", interval=60.0)
    market.api.get("/wallets")
    market.fault("http502", "wallets")
    assert market.api.get("/wallets").status_code == 429
    assert len(market.get("/faults")["faults"]) == 1


@pytest.mark.parametrize("kind", sorted(EFFECT))
def test_every_kind_can_be_armed(shared: Market, kind: str) -> None:
    shared.fault(kind, seconds=0)


@pytest.mark.parametrize("body", [{"kind": "nonsense"}, {}, {"kind": "reset", "colour": 1}, 5])
def test_a_fault_that_makes_no_sense_is_refused(shared: Market, body: object) -> None:
    assert shared.control.post("/faults", json=body).status_code == 400


def eventually(fits: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not fits():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _ignore_failure(deed: Callable[[], object]) -> None:
    try:
        deed()
    except OSError:
        return

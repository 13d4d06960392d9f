"""An order's life: invisible, deploying, reachable, over."""

import contextlib
import socket
import time

import pytest

from .conftest import Json, Market, Start


def test_an_order_shows_after_a_while_and_its_endpoints_later(start: Start) -> None:
    market = start()
    server = market.free()
    market.create(server)
    assert market.orders() == []
    market.advance(3)
    (young,) = market.orders()
    assert young["si"] == server["id"]
    assert young["mon_container"] == 0
    assert young.keys().isdisjoint({"pub_cluster", "tcp_ports", "http_port", "http_pub"})
    market.advance(6)
    (mapped,) = market.orders()
    assert mapped["mon_container"] == 0
    country = server["specs"]["net"]["cc"].lower()
    assert mapped["pub_cluster"] == [f"n1.{country}.sandbox.invalid"]
    assert [port.split(":")[0] for port in mapped["tcp_ports"]] == ["22"]
    assert mapped["http_port"] == "8888"
    assert mapped["http_pub"].endswith(".sandbox.invalid")
    market.advance(60)
    assert market.orders()[0]["mon_container"] == 2
    assert market.orders()[0]["tcp_ports"] == mapped["tcp_ports"]


def test_an_order_has_the_keys_of_the_real_one_and_no_others(market: Market) -> None:
    order = market.rent(market.free())
    assert set(order) == {
        "id", "creation_fee", "price", "mrl", "image", "currency", "spend", "ct", "specs", "si", "mon_container",
        "online", "rating", "reliability", "owner", "cuda_version", "gpu_array",
    }  # fmt: skip
    assert "pl" not in order["specs"]
    assert order["creation_fee"] == 0.1


def test_a_rented_server_is_listed_as_rented_and_free_again_after_cancelling(market: Market) -> None:
    server = market.free()
    order = market.rent(server)
    assert market.server(server["id"])["rented"] is True
    market.api.post("/cancel_order", json={"id": str(order["id"]), "issue": "done"})
    assert market.server(server["id"])["rented"] is False
    assert market.create(server).json() == {"code": 0}


def test_a_cancelled_order_shows_only_among_the_completed(market: Market) -> None:
    order = market.rent(market.free())
    market.advance(300)
    assert market.api.post("/cancel_order", json={"id": order["id"]}).json() == {"code": 0}
    assert market.orders() == []
    (ended,) = market.orders(completed=True)
    assert ended["expired"] is True
    assert ended["tcp_ports"] == []
    assert ended["order_end"] - ended["ct"] == 303
    assert ended["mon_container"] == 2
    assert ended["gpu_count"] == ended["total_gpus"] >= 1
    assert ended.keys().isdisjoint({"pub_cluster", "http_port", "http_pub"})
    assert ended["spend"] == pytest.approx(ended["price"] * 303 / 86_400)


def test_an_order_ends_when_its_longest_rental_is_over(start: Start) -> None:
    market = start(balance_usd=1e6)
    server = market.free()
    market.post(f"/servers/{server['id']}", {"mrl": 6})
    order = market.rent(server)
    assert order["mrl"] == 6 * 3600
    market.advance(6 * 3600 + 1)
    assert market.orders() == []
    ended = market.order(order["id"], completed=True)
    assert ended["order_end"] == ended["ct"] + 6 * 3600
    assert market.server(server["id"])["rented"] is False


@pytest.mark.parametrize(
    ("mode", "status", "ended", "unknown"),
    [
        ("error", 200, {"error": "order_not_active", "code": 6}, {"error": "order_dont_exist", "code": 6}),
        ("ok", 200, {"code": 0}, {"code": 0}),
        ("code2", 400, {"code": 2}, {"code": 2}),
    ],
)
def test_cancelling_an_unknown_or_ended_order(start: Start, mode: str, status: int, ended: Json, unknown: Json) -> None:
    market = start(unknown_order=mode)
    order = market.rent(market.free())
    market.api.post("/cancel_order", json={"id": order["id"]})
    for order_id, body in ((order["id"], ended), (5, unknown)):
        reply = market.api.post("/cancel_order", json={"id": order_id})
        assert (reply.status_code, reply.json()) == (status, body)


def test_many_orders_are_cancelled_at_once_and_the_unknown_named(market: Market) -> None:
    orders = [market.rent(market.free(place))["id"] for place in range(2)]
    reply = market.api.post("/cancel_orders", json={"order_ids": [*orders, 5]})
    assert reply.json() == {"failed_to_cancel": ["5"], "code": 0}
    assert market.orders() == []
    assert market.api.post("/cancel_orders", json={"order_ids": [1] * 65}).json() == {"code": 2}


def test_hostile_endpoints_are_shown_for_the_chosen_server(start: Start) -> None:
    server = start().free()
    market = start(hostile_endpoints=(server["id"],))
    order = market.rent(server)
    market.advance(10)
    shown = market.order(order["id"])
    assert shown["pub_cluster"] == ["n1.x.invalid; rm -rf ~"]
    assert shown["tcp_ports"] == ["22:99999", "22:-oProxyCommand=x"]


def test_ssh_answers_only_some_time_after_the_port_is_known(start: Start) -> None:
    market = start(ssh_listener=True)
    order = market.rent(market.free())
    market.advance(10)
    address = ssh_address(market.order(order["id"]))
    assert greeting(address) is None
    market.advance(50)
    assert market.order(order["id"])["mon_container"] == 2
    assert greeting(address) is None
    market.advance(6)
    assert greeting(address) == b"SSH-2.0-sandbox\r\n"
    market.api.post("/cancel_order", json={"id": order["id"]})
    wait_for_silence(address)


def test_an_ssh_guest_is_shown_out_when_the_order_ends_or_the_sandbox_stops(start: Start) -> None:
    market = start(ssh_listener=True)
    orders = [market.rent(market.free(place))["id"] for place in range(2)]
    market.advance(70)
    guests = [socket.create_connection(ssh_address(market.order(i)), timeout=60) for i in orders]
    for guest in guests:
        assert guest.recv(64).startswith(b"SSH-2.0-")
    market.api.post("/cancel_order", json={"id": orders[0]})
    assert gone(guests[0])
    market.close()
    market.running.stop()
    assert gone(guests[1])
    for guest in guests:
        guest.close()


def test_two_orders_never_share_a_port(start: Start) -> None:
    market = start(ssh_listener=True)
    orders = [market.rent(market.free(place))["id"] for place in range(2)]
    market.advance(10)
    assert len({ssh_address(market.order(i)) for i in orders}) == 2


def ssh_address(order: Json) -> tuple[str, int]:
    inner, _, outer = order["tcp_ports"][0].partition(":")
    assert inner == "22"
    return order["pub_cluster"][0], int(outer)


def greeting(address: tuple[str, int]) -> bytes | None:
    try:
        with socket.create_connection(address, timeout=60) as guest:
            return guest.recv(64)
    except ConnectionRefusedError:
        return None


def wait_for_silence(address: tuple[str, int]) -> None:
    deadline = time.monotonic() + 60
    while greeting(address) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(guest: socket.socket) -> bool:
    with contextlib.suppress(ConnectionError):
        return guest.recv(64) == b""
    return True

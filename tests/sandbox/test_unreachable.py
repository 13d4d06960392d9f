"""Hosts that cannot be reached: each way, on a real loopback socket."""

import socket
import sys

import pytest

from .conftest import Start


def hello(host: str, port: int, seconds: float = 1.0) -> bytes:
    with socket.create_connection((host, port), timeout=seconds) as guest:
        return guest.recv(100)


@pytest.mark.parametrize(
    ("kind", "fails"),
    [
        ("ssh_name_unknown", socket.gaierror),
        ("ssh_refused", ConnectionRefusedError),
        pytest.param(
            "ssh_times_out", TimeoutError, marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows refuses")
        ),
        ("ssh_no_banner", TimeoutError),
    ],
)
def test_an_order_whose_ssh_cannot_be_reached_stays_so(start: Start, kind: str, fails: type[OSError]) -> None:
    market = start(ssh_listener=True)
    market.fault(kind)
    dead, well = market.rent(market.free()), market.rent(market.free(1))
    market.advance(3600)
    places = {}
    for order in (dead, well):
        shown = market.order(order["id"])
        assert shown["mon_container"] == 2, "to Clore it is up"
        places[order["id"]] = shown["pub_cluster"][0], int(shown["tcp_ports"][0].split(":")[1])
    with pytest.raises(fails):
        hello(*places[dead["id"]])
    assert hello(*places[well["id"]]).startswith(b"SSH-2.0-"), "the next order is well again"


def test_a_port_without_a_banner_takes_the_connection(start: Start) -> None:
    market = start(ssh_listener=True)
    market.fault("ssh_no_banner")
    order = market.rent(market.free())
    market.advance(3600)
    port = int(market.order(order["id"])["tcp_ports"][0].split(":")[1])
    socket.create_connection(("127.0.0.1", port), timeout=1).close()

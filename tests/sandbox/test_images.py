"""What an image does in the sandbox: whether its container starts, and whether SSH and Jupyter answer in it."""

import contextlib
import socket

import pytest

from .conftest import Json, Market, Start

JUPYTER = "cloreai/jupyter:ubuntu24.04-v2"
CUDA = "nvidia/cuda:12.8.0-base-ubuntu22.04"


def inside(market: Market, order: Json) -> Json:
    rows: list[Json] = market.get("/state")["orders"]
    return next(row for row in rows if row["id"] == order["id"])


def greets(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as guest:
        return guest.recv(64).startswith(b"SSH-2.0")
    return False


@pytest.mark.parametrize(
    ("image", "asked", "answers"),
    [
        (JUPYTER, {}, True),
        ("docker.io/" + JUPYTER, {}, True),
        ("cloreai/torch:2.0.1", {}, True),
        ("me/own:1", {}, False),
        ("me/own:1", {"autossh_entrypoint": True}, True),
        ("me/own:1", {"autossh_entrypoint": "ssh_autoinstall"}, True),
        ("me/closed:1", {"autossh_entrypoint": True}, False),
        ("me/with:1", {}, True),
    ],
)
def test_ssh_answers_where_the_image_brings_it_or_takes_clores_entrypoint(
    start: Start, image: str, asked: Json, answers: bool
) -> None:
    market = start(ssh_listener=True, images=("me/closed:1=closed", "me/with:1=sshd"))
    order = market.rent(market.free(), image=image, **asked)
    market.advance(300)
    shown = market.order(order["id"])
    assert shown["mon_container"] == 2
    (port,) = (int(entry.split(":")[1]) for entry in shown["tcp_ports"] if entry.startswith("22:"))
    assert greets(port) is inside(market, order)["sshd"] is answers


@pytest.mark.parametrize(
    ("image", "asked", "answers"),
    [
        (JUPYTER, {"jupyter_token": "t"}, True),
        (JUPYTER, {}, False),
        (JUPYTER, {"jupyter_token": "t", "ports": {"22": "tcp", "8080": "http"}}, False),
        (CUDA, {"jupyter_token": "t"}, False),
        ("me/lab:1", {"jupyter_token": "t"}, True),
    ],
)
def test_jupyter_answers_where_the_image_has_it_and_its_port_and_token_were_asked_for(
    start: Start, image: str, asked: Json, answers: bool
) -> None:
    market = start(images=("me/lab:1=sshd,jupyter",))
    order = market.rent(market.free(), image=image, **asked)
    assert inside(market, order)["jupyter"] is answers


@pytest.mark.parametrize(
    ("host", "image", "options", "starts"),
    [
        ("12.8", CUDA, {}, True),
        ("13.0", CUDA, {}, True),
        ("12.10", CUDA, {}, True),
        ("12.4", CUDA, {}, False),
        ("12.4", CUDA, {"newer_cuda": "deploys"}, True),
        (None, CUDA, {}, True),
        ("11.7", JUPYTER, {}, True),
        ("12.2", "me/own:1", {"images": ("me/own:1=cuda12.4",)}, False),
        ("13.0", "me/own:1", {"images": ("me/own:1=private",)}, False),
    ],
)
def test_an_image_for_a_newer_cuda_or_behind_a_login_never_starts(
    start: Start, host: str | None, image: str, options: Json, starts: bool
) -> None:
    market = start(**options)
    server = market.free()
    market.post(f"/servers/{server['id']}", {"cuda_version": host})
    order = market.rent(server, image=image)
    market.advance(3600)
    shown = market.order(order["id"])
    assert (shown["mon_container"] == 2) is starts
    assert shown["spend"] > 0, "it bills either way"


def test_a_word_that_says_nothing_of_an_image_is_refused(market: Market) -> None:
    for wrong in ("me/own:1=gold", "me/own:1", "me/own:1=sshd,", "=sshd"):
        assert market.control.post("/options", json={"images": [wrong]}).status_code == 400, wrong
    market.post("/options", {"images": ["me/own:1=sshd,jupyter,cuda12.4"]})

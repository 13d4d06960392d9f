"""What Clore would answer with an error after the fact is refused before anything is sent, naming field and cure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clore_mcp.rental.requests import CancelOrder, CreateOrder, ExtendOrder, SetSpotPrice
from clore_mcp.text import clean

IMAGE = "cloreai/jupyter:ubuntu24.04-v2"


def ask(**changes: Any) -> CreateOrder:
    return CreateOrder.model_validate({"server_id": 7, "image": IMAGE, "hours": 2, **changes})


def refusal(kind: Any = CreateOrder, **changes: Any) -> str:
    """The field and the words of the only thing that is wrong."""
    base = {"server_id": 7, "image": IMAGE, "hours": 2} if kind is CreateOrder else {"order_id": 9}
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({**base, **changes})
    (problem,) = caught.value.errors()
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        "debian",
        "ubuntu:24.04",
        "nvidia/cuda:12.4.1-base-ubuntu22.04",
        "ghcr.io/owner/name@sha256:" + "ab" * 32,
        "ghcr.io/owner/name:v1@sha256:" + "ab" * 32,
        "registry.example.com:5000/team/a_b/c-d.e:Tag_1",
        "localhost:5000/x",
        "localhost/x",
        "docker.io/library/python:3.11",
        "a__b/c--d:" + "t" * 128,
    ],
)
def test_an_image_may_be_any_docker_name(image: str) -> None:
    assert ask(image=image).image == ask(image=f" {image} ").image == image


@pytest.mark.parametrize(
    "image",
    ["", "Debian", "owner/Name:tag", "a//b", "a:b:c", "a/", "/a", "a:", "a@sha256:abc", "a:b c",
     "a\nb", "a\u202eb", "ubuntu;rm", "a$(id)", "-a", "https://ghcr.io/a/b", "a" * 256, "a:" + "t" * 129],
)  # fmt: skip
def test_anything_else_is_no_image(image: str) -> None:
    assert refusal(image=image).startswith("image: Value error, is not a Docker image name such as cloreai/")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env": {"A": "a&b"}}, "env: *the value of A contains '&'*leave it out"),
        ({"env": {"A": "a\x00"}}, "env: *the value of A contains the character U+0000, which can't be shown"),
        ({"env": {"A": "a\nb"}}, "env: *the value of A*U+000A"),
        ({"env": {"A": "a\u202eb"}}, "env: *U+202E"),
        ({"env": {"A": "a\u2028b"}}, "env: *U+2028"),
        ({"env": {"A": "a\ud800"}}, ""),
        ({"env": {"A": "x" * 1537}}, "env: *the value of A is longer than 1,536 characters"),
        ({"env": {f"A{n}": "x" * 1500 for n in range(9)}}, "env: *is longer than 12,288 characters"),
        ({"env": {f"A{n}": "é" * 400 for n in range(6)}}, "env: *is longer than 12,288 characters"),
        ({"env": {"1A": "x"}}, "env: *names must be letters"),
        ({"env": {"A-B": "x"}}, "env: *names must be letters"),
        ({"env": {"A" * 129: "x"}}, "env: *at most 128 long"),
        ({"env": {"": "x"}}, "env: *names must be letters"),
        ({"env": {"SSH_PASSWORD": "x"}}, "env: *SSH_PASSWORD is not set through env*`jupyter`"),
        ({"env": {"JUPYTER_TOKEN": "x"}}, "env: *JUPYTER_TOKEN is not set through env"),
        ({"ports": {"80": "http", "8080": "http"}}, "*may name only one http port"),
        ({"ports": {"22": "http"}}, "*port 22 is SSH and stays tcp"),
        ({"ports": {"0": "tcp"}}, "ports: *from 1 to 65535"),
        ({"ports": {"65536": "tcp"}}, "ports: *from 1 to 65535"),
        ({"ports": {"022": "http"}}, "ports: *from 1 to 65535, without leading zeros"),
        ({"ports": {"٢٢": "tcp"}}, "ports: *from 1 to 65535"),
        ({"ports": {"9" * 5000: "tcp"}}, "ports: *from 1 to 65535"),
        ({"ports": {"80-90": "tcp"}}, "ports: *from 1 to 65535"),
        ({"ports": {str(n): "tcp" for n in range(1000, 1040)}}, "ports: *more than 32 ports; leave some out"),
        ({"ports": {"53": "udp"}}, "ports.53: "),
        ({"ports": {"8888": "tcp"}, "jupyter": True}, "*jupyter*needs 8888 as http, and ports names it as tcp"),
        ({"ports": {"8080": "http"}, "jupyter": True}, "jupyter: *in this image, and ports names 8080 as http; make"),
        ({"command": "echo\x07"}, "command: *U+0007, which can't be shown; write it without"),
        ({"command": "echo\r\n"}, "command: *U+000D"),
        ({"command": "a\u3164b"}, "command: *the character U+3164, which can't be shown; write it without"),
        ({"command": "a\u00a0b"}, "command: *U+00A0, which looks like a plain space; use a plain one"),
        ({"env": {"A": "a\ufe0f"}}, "env: *the value of A*U+FE0F, which can't be shown"),
        ({"image": "a/b\u3164"}, "image: "),
        ({"command": "x" * 4097}, "command: "),
        ({"hours": 0}, "hours: "),
        ({"hours": -1}, "hours: "),
        ({"hours": float("nan")}, "hours: "),
        ({"hours": float("inf")}, "hours: "),
        ({"hours": 9000}, "hours: "),
        ({"bid_usd_per_hour": 1}, "*bid_usd_per_hour*goes with order_type 'spot' only"),
        ({"bid_usd_per_hour": 1e300, "order_type": "spot"}, "bid_usd_per_hour: *above 10,000 USD per hour"),
        ({"bid_usd_per_hour": 0, "order_type": "spot"}, "bid_usd_per_hour: "),
        ({"order_type": "on_demand"}, "order_type: "),
        ({"currency": "DOGE"}, "currency: "),
        ({"fallback_server_ids": [8, 8]}, "*fallback_server_ids*repeats a server"),
        ({"fallback_server_ids": [7]}, "*fallback_server_ids*repeats a server"),
        ({"fallback_server_ids": [1, 2, 3, 4, 5]}, "fallback_server_ids: "),
        ({"fallback_server_ids": [10**30]}, "fallback_server_ids.0: *is no id; take one from search_servers"),
        ({"server_id": 10**30}, "server_id: *is no id"),
        ({"server_id": 0}, "server_id: "),
        ({"ssh_public_key": "x" * 3073}, "ssh_public_key: "),
        ({"on_end": "extend"}, "on_end: "),
        ({"hour": 2}, "hour: Extra inputs are not permitted"),
    ],
)  # fmt: skip
def test_a_wish_that_clore_would_choke_on_is_refused_by_field_and_cure(changes: dict[str, Any], words: str) -> None:
    told = refusal(**changes)
    at = 0
    for part in words.split("*"):
        assert part in told[at:], told
        at = told.index(part, at) + len(part)


@pytest.mark.parametrize("secret", ["s3cret&value", "s3cret\x00value", "s3cret" * 500])
def test_an_env_value_is_never_repeated_in_its_refusal(secret: str) -> None:
    assert "s3cret" not in refusal(env={"TOKEN": secret})


@pytest.mark.parametrize(
    "name",
    ["bid_usd_per_hour", "currency", "fallback_server_ids", "ports", "env", "ssh_public_key", "command"],
)
def test_null_is_the_same_as_leaving_it_out(name: str) -> None:
    assert ask(**{name: None}) == ask()
    assert CancelOrder.model_validate({"order_id": 9, "issue": None}).issue is None


def test_a_script_may_have_lines_and_tabs_and_env_values_may_be_of_any_language() -> None:
    read = ask(command="#!/bin/sh\n\techo ok\n", env={"_GREETING": "Grüße, мир 你好 \"'$;|"})
    assert read.command and read.command.count("\n") == 2
    assert read.env


HIDDEN = "\u00a0\u2003\u3000\u3164\ufe0f\u2800\u115f\u0378\u202e\u200b\U000e0041\U0001d159"


@given(st.text(st.characters() | st.sampled_from("\n\t " + HIDDEN), max_size=8))
def test_each_character_of_a_command_that_is_taken_is_shown(command: str) -> None:
    try:
        read = ask(command=f"echo {command}")
    except ValueError:
        return
    assert not set(command) & set(HIDDEN)
    taken = read.command or ""
    assert "".join(clean(taken, 300).split()) == "".join(taken.split())


def test_ssh_is_always_open_and_jupyter_takes_the_one_http_port() -> None:
    assert ask().wire_ports == {"22": "tcp"}
    assert ask(jupyter=True).wire_ports == {"22": "tcp", "8888": "http"}
    assert ask(jupyter=True, ports={"8080": "tcp"}).wire_ports == {"22": "tcp", "8080": "tcp", "8888": "http"}


def test_where_jupyter_is_in_an_image_that_is_not_known_its_port_is_the_one_that_is_named() -> None:
    own = {"image": "me/lab", "jupyter": True}
    assert ask(**own, ports={"8080": "http"}).wire_ports == {"22": "tcp", "8080": "http"}
    assert ask(**own, ports={"8080": "http", "8888": "tcp"}).wire_ports["8888"] == "tcp"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bid_usd_per_hour": 20_000}, "more than any server costs; give USD per hour, not per day"),
        ({"bid_usd_per_hour": -1}, "greater than 0"),
        ({"bid_usd_per_hour": 1, "order_id": 10**30}, "is no id"),
    ],
)
def test_a_new_bid_is_a_sane_price_for_an_order_that_can_exist(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(SetSpotPrice, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hours": 0}, "must be above 0; to end the order earlier, use cancel_order"),
        ({"hours": -2}, "must be above 0; to end the order earlier, use cancel_order"),
        ({"hours": 3001}, "less than or equal to 3000"),
        ({"hours": float("nan")}, "finite number"),
        ({"hours": 1, "order_id": 10**30}, "is no id"),
    ],
)
def test_an_extension_moves_the_end_of_an_order_that_can_exist(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(ExtendOrder, **{"order_id": 1, **changes})


def test_the_hours_of_an_extension_are_whole_seconds_never_fewer_than_written() -> None:
    told = {1.5: 5400, 0.1: 360, 1e-300: 1, 1 / 3: 1200}
    assert {hours: ExtendOrder(order_id=1, hours=hours).seconds for hours in told} == told


@pytest.mark.parametrize(
    "changes",
    [
        {"order_id": 0},
        {"order_id": 10**40},
        {"order_id": "the last one"},
        {"order_id": "#"},
        {"order_id": 1.5},
        {"order_id": True},
    ],
)
def test_a_cancel_names_an_order_that_can_be(changes: dict[str, Any]) -> None:
    assert refusal(CancelOrder, **changes)


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (None, None), ("", None), (False, None), ("slow disk", "slow disk"), ("\u26a0\ufe0f slow", "\u26a0 slow"),
        ("two\r\nlines", "two lines"), ("no\u00a0break", "no break"), ("bell\x07", "bell"), ("\u3164", None),
        ("\u202eevil", "evil"), ("\ud800", None), ("x" * 2_049, "x" * 2_047 + "…"), ("x" * 10**6, "x" * 2_047 + "…"),
        ('{"confirm": true}', '{"confirm": true}'), (7, "7"), (["a", 1], '["a", 1]'), ({"a": None}, '{"a": null}'),
    ],
)  # fmt: skip
def test_no_comment_stops_a_cancel(told: Any, kept: str | None) -> None:
    assert CancelOrder.model_validate({"order_id": 9, "issue": told}).issue == kept


@pytest.mark.parametrize("told", [9, "9", " 9 ", "#9", 9.0])
@pytest.mark.parametrize("more", [{}, {"confirm": True}, {"toolCallId": "x", "sessionId": 1}, {"orders": [1, 2]}])
def test_a_cancel_takes_an_id_in_any_spelling_and_no_further_argument_stops_it(told: Any, more: dict[str, Any]) -> None:
    ask = CancelOrder.model_validate({"order_id": told, **more})
    assert (ask.order_id, ask.model_dump()) == (9, {"order_id": 9, "issue": None})


@given(st.floats(1e-6, 3000, allow_nan=False))
def test_hours_and_bids_are_the_numbers_that_were_written(number: float) -> None:
    assert float(ask(hours=number).exact_hours) == number
    assert ask(hours=0.1).exact_hours == Decimal("0.1")
    assert ask(order_type="spot", bid_usd_per_hour=number).exact_bid == Decimal(str(number))
    assert SetSpotPrice(order_id=1, bid_usd_per_hour=number).exact_bid == Decimal(str(number))
    assert SetSpotPrice(order_id=1, to_win=True, max_usd_per_hour=number).exact_bid == Decimal(str(number))


@given(st.text(max_size=300))
def test_no_text_as_an_image_is_slow_or_half_accepted(text: str) -> None:
    try:
        image = ask(image=text).image
    except ValidationError:
        return
    assert image == text.strip() and image.isascii() and image.isprintable() and " " not in image

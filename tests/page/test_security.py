"""Who gets in and whose forms count: asked over plain HTTP, as an attacker would ask."""

from __future__ import annotations

import re
import socket
import time

import httpx2 as httpx
import pytest

from clore_mcp.page.security import Session, Sessions
from tests.page.conftest import House


def test_an_address_works_once_and_leaves_no_secret_in_the_next_one(house: House) -> None:
    address = house.address()
    visitor = house.come(address)
    assert visitor.first.status_code == 200 and "set-cookie" in visitor.first.headers
    cookie = visitor.first.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", f"Path={visitor.room}"))
    assert not re.search("expires|max-age", cookie, re.I), "it ends with the browser, and its session with the process"
    secret = address.rpartition("/")[2]
    assert secret not in visitor.first.text and secret not in visitor.get().text
    again = httpx.get(address, trust_env=False)
    assert again.status_code == 403 and "set-cookie" not in again.headers and "not signed in" in again.text


def test_without_the_cookie_nothing_is_shown_or_done(house: House) -> None:
    visitor = house.visitor()
    token = visitor.token(visitor.get("stop"), "stop")
    visitor.http.cookies.clear()
    for path in ("", "account", "ledger", "ledger.csv", "prices", "watches", "stop", "live", "passkey", "approvals/q1"):
        assert visitor.get(path).status_code == 403, path
    for act in (
        "stop",
        "approvals/q1/yes",
        "approvals/q1/no",
        "orders/1/cancel",
        "orders/1/access",
        "passkey/challenge",
    ):
        assert visitor.post(act, {"token": token}).status_code == 403, act
    assert not house.services().context.state.exists, "nothing was frozen"


def test_secrets_end_with_their_time_and_sessions_are_few() -> None:
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    late, first = sessions.hand_out("a"), sessions.hand_out("")
    entered = sessions.enter(first)
    assert entered and sessions.of(entered[0]) and not sessions.of(entered[0] + "x") and not sessions.of(None)
    now[0] = 601.0
    assert sessions.enter(late) is None
    for _ in range(20):
        assert sessions.enter(sessions.hand_out(""))
    assert sessions.of(entered[0]) is None, "the oldest goes"


def test_a_token_is_for_one_form_one_act_and_one_hour() -> None:
    session, other, now = Session(), Session(), time.time()
    token = session.token("/a", now)
    assert not other.accepts("/a", token, now) and not session.accepts("/b", token, now)
    for forged in ("", ".", "a.b.c", f"{token}0", token.replace(".", "", 1), "é.1.ü"):
        assert not session.accepts("/a", forged, now), forged
    assert session.accepts("/a", token, now) and not session.accepts("/a", token, now), "replayed"
    assert not session.accepts("/a", session.token("/a", now - 3601), now)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1:{port}", "localhost", "localhost:1", "localhost.:{port}", ""]
)
def test_a_name_that_is_rebound_to_this_machine_gets_nothing(house: House, host: str) -> None:
    visitor = house.visitor()
    port = visitor.origin.rpartition(":")[2]
    reply = visitor.get("", host=host.format(port=port))
    assert reply.status_code in (400, 403) and "Waits for you" not in reply.text
    address = house.address()
    reply = httpx.get(address, headers={"host": host.format(port=port)}, trust_env=False)
    assert reply.status_code in (400, 403) and "set-cookie" not in reply.headers
    assert house.come(address).first.status_code == 200, "the secret was not spent by it"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"}, {"origin": "null"}, {"origin": ""}, {"origin": "http://localhost:1"},
        {"origin": "http://127.0.0.1:{port}"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
    ],
)  # fmt: skip
def test_a_form_of_another_page_is_refused(house: House, headers: dict[str, str]) -> None:
    visitor = house.visitor()
    token = visitor.token(visitor.get("stop"), "stop")
    port = visitor.origin.rpartition(":")[2]
    reply = visitor.post("stop", {"token": token}, **{name: text.format(port=port) for name, text in headers.items()})
    assert reply.status_code == 403 and "another page" in reply.text
    assert "is frozen" not in visitor.get("stop").text
    assert visitor.post("stop", {"token": token}).status_code == 303, "the same form from here counts"


def test_a_form_that_is_sent_twice_counts_once(house: House) -> None:
    visitor = house.visitor()
    token = visitor.token(visitor.get("stop"), "stop")
    assert visitor.post("stop", {"token": token}).status_code == 303
    assert visitor.post("stop", {"token": token}).status_code == 409
    assert visitor.post("stop", {}).status_code == 409
    assert visitor.post("stop", {"token": "x" * 40_000}).status_code == 409
    assert visitor.post("stop", {"token": token, **{f"f{n}": "1" for n in range(30)}}).status_code == 409


def test_every_reply_forbids_what_the_page_does_not_need(house: House) -> None:
    visitor = house.visitor()
    for reply in (visitor.first, visitor.get(), visitor.get("nowhere"), visitor.get("static/style.css"),
                  visitor.get("", host="evil.example"), visitor.post("stop", {})):  # fmt: skip
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert "frame-ancestors 'none'" in policy and reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["cache-control"] == "no-store" and reply.headers["referrer-policy"] == "same-origin"
        assert "access-control-allow-origin" not in reply.headers and "server" not in reply.headers
    for page in (visitor.get(), visitor.get("prices"), visitor.get("account")):
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]* src=)|https?://", page.text), page.url


def test_it_listens_on_loopback_alone_and_on_both_of_its_addresses(house: House) -> None:
    port = int(house.visitor().origin.rpartition(":")[2])
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as one:
            try:
                one.connect((address, port))
            except OSError:
                assert family == socket.AF_INET6 and not _has_ipv6()
    with socket.socket() as outside, pytest.raises(OSError):
        outside.settimeout(1)
        outside.connect((_own_address(), port))


def _has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as one:
        try:
            one.bind(("::1", 0))
        except OSError:
            return False
    return True


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))
        except OSError:
            return "192.0.2.1"
        return str(one.getsockname()[0])


def test_a_browser_without_a_session_can_only_have_the_page_opened_elsewhere(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def opens(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr("webbrowser.open", opens)
    visitor = house.visitor()
    visitor.http.cookies.clear()
    for _ in range(2):
        reply = visitor.post("open", {})
        assert reply.status_code == 200 and "set-cookie" not in reply.headers
    assert len(opened) == 1, "not again and again"
    assert opened[0].rpartition("/")[2] not in reply.text

"""The key goes to Clore and nowhere else: not into a repr, a log line, a failure or what is chained to it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

from clore_mcp.clore import CloreClient, CreateRequest
from clore_mcp.errors import CloreError, SettingsInvalid
from clore_mcp.money import Coin
from tests.clore.conftest import Sandbox, canned, quick_pacer

KEY = "SECRETSECRETSECRETSECRETSECRET42"
CREATE = CreateRequest(
    server_id=7, image="i", coin=Coin.USD, env={"TOKEN": "ENVSECRET"}, jupyter_token="PWSECRET", command="CMDSECRET"
)
SECRETS = (KEY, "ENVSECRET", "PWSECRET", "CMDSECRET")

pytestmark = pytest.mark.anyio


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def assert_silent(text: str) -> None:
    assert not any(secret in text for secret in SECRETS), text


def broken(request: httpx.Request) -> httpx.Response:
    """Fails as the real transport does: the exception holds the request, and the request the key."""
    assert request.headers["auth"] == KEY
    raise httpx.ReadError(f"broke on {request.headers}", request=request)


def html(request: httpx.Request) -> httpx.Response:
    return httpx.Response(502, text=f"<html>{request.headers['auth']} {request.content!r}</html>")


def echo(request: httpx.Request) -> httpx.Response:
    return httpx.Response(500, json={"code": 1, "error": KEY})


@pytest.mark.parametrize("answer", [broken, html, echo])
async def test_no_failure_carries_the_key(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with canned(answer, api_key=KEY) as client:
        assert_silent(repr(client) + str(client))
        for call in (client.wallets(), client.create_order(CREATE), client.cancel_order(1)):
            with pytest.raises(CloreError) as caught:
                await call
            for error in chain(caught.value):
                assert isinstance(error, CloreError)
                assert_silent(f"{error} {error!r} {vars(error)}")
            assert_silent("".join(traceback.format_exception(caught.value)))
    assert_silent(caplog.text)


async def test_real_sockets_log_no_key_at_debug_level(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sandbox.fault("lost_reply", "create_order")
    async with sandbox.client(api_key=KEY) as client:
        for call in (client.wallets(), client.create_order(CREATE)):
            with pytest.raises(CloreError) as caught:
                await call
            assert_silent("".join(traceback.format_exception(caught.value)))
    assert "send_request_headers" in caplog.text  # the transport did log
    assert_silent(caplog.text)


@pytest.mark.parametrize("key", [KEY + "\n", "с" + KEY, KEY[:9] + " " + KEY[9:], KEY + "\r\nx: y", KEY + "\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        CloreClient(pacer=quick_pacer(), api_key=key)
    assert_silent(f"{caught.value!r} {caught.value.hint}")
    assert caught.value.__context__ is None


def test_a_key_is_hidden_in_whatever_holds_it() -> None:
    client = CloreClient(pacer=quick_pacer(), api_key=KEY)
    assert_silent(f"{client} {vars(client)} {CREATE}")
    assert "with a key" in repr(client)
    assert "without a key" in repr(CloreClient(pacer=quick_pacer()))

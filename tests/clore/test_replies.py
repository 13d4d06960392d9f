"""What a body means: each code and each word its own failure, in our words, with whether money may have moved."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp import errors
from clore_mcp.clore import client
from clore_mcp.clore.replies import LOOK_FIRST, Endpoint, header_time, read_reply, retry_after
from clore_mcp.errors import CloreError, Spent
from tests.clore.conftest import CAPTURES

READ = Endpoint("GET", "my_orders", "list the orders")
CREATE = Endpoint("POST", "create_order", "make the order", "the order was made", spends=True)
CANCEL = Endpoint("POST", "cancel_order", "cancel the order", "the order was cancelled")


def failure(
    body: Any, status: int = 200, endpoint: Endpoint = CREATE, headers: dict[str, str] | None = None
) -> CloreError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(CloreError) as caught:
        read_reply(status, headers or {}, raw, endpoint)
    assert not caught.value.message.startswith("{")
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("status", [200, 400, 500])
def test_code_0_is_an_answer_whatever_the_http_status(status: int) -> None:
    assert read_reply(status, {}, b'{"code":0,"limit":3}', READ) == {"code": 0, "limit": 3}


@pytest.mark.parametrize("status", [200, 401, 429, 500])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"code": 1}, errors.InternalFault),
        ({"code": 2}, errors.InvalidInput),
        ({"code": 3}, errors.InvalidApiKey),
        ({"code": 4}, errors.InvalidEndpoint),
        ({"code": 5}, errors.RateLimited),
        ({"code": 6, "error": "server-already-rented", "status": "x"}, errors.AlreadyRented),
        ({"code": 6, "error": "currency-not-allowed"}, errors.CurrencyNotAllowed),
        ({"code": 6, "error": "server-dont-exist"}, errors.ServerUnknown),
        ({"code": 6, "error": "server-offline"}, errors.ServerOffline),
        ({"code": 6, "error": "not_enough_balance"}, errors.NotEnoughBalance),
        ({"code": 6, "error": "too_low_price"}, errors.BidTooLow),
        ({"code": 6, "error": "exceeded_max_step"}, errors.StepTooLarge),
        ({"code": 6, "error": "can_lower_every_600_seconds"}, errors.LoweringTooSoon),
        ({"code": 6, "error": "no-such-word"}, errors.UnknownRefusal),
        ({"code": 6, "error": ["?"]}, errors.UnknownCode),
        ({"code": 6, "error": " "}, errors.UnknownCode),
        ({"code": 6}, errors.UnknownCode),
        ({"code": 77}, errors.UnknownCode),
        ({"code": 77, "error": "server-offline"}, errors.UnknownCode),
    ],
)
def test_a_code_outranks_the_http_status(body: dict[str, Any], kind: type[CloreError], status: int) -> None:
    caught = failure(body, status)
    assert type(caught) is kind
    unclear = isinstance(caught, errors.Unclear)
    assert caught.spent is (Spent.UNKNOWN if unclear else Spent.NO)
    assert (caught.hint == LOOK_FIRST) is unclear
    assert "make the order" in caught.message or "the order was made" in caught.message


def test_an_unknown_refusal_of_a_read_leaves_no_doubt_about_money() -> None:
    caught = failure({"code": 6, "error": "no-such-word"}, endpoint=READ)
    assert isinstance(caught, errors.UnknownRefusal)
    assert (caught.spent, caught.reported) == (Spent.NO, "no-such-word")
    assert "list the orders" in caught.message


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("server_already_rented", errors.AlreadyRented),
        ("currency_not_allowed", errors.CurrencyNotAllowed),
        ("too-low-price", errors.BidTooLow),
        ("not-enough-balance", errors.NotEnoughBalance),
        (" Exceeded-Max-Step ", errors.StepTooLarge),
    ],
)
def test_hyphens_and_underscores_spell_the_same_word(word: str, kind: type[CloreError]) -> None:
    assert type(failure({"code": 6, "error": word})) is kind


def test_a_words_own_numbers_come_along_in_words_and_as_numbers() -> None:
    bid = failure({"code": 6, "error": "too_low_price", "min_price": 3.2})
    assert isinstance(bid, errors.BidTooLow)
    assert bid.min_price_per_day == 3.2
    assert "3.2 per day in the order's currency" in bid.message
    step = failure({"code": 6, "error": "exceeded_max_step", "max_step": 0.5})
    assert isinstance(step, errors.StepTooLarge)
    assert step.max_step_per_day == 0.5
    assert "0.5 per day" in step.message
    assert (
        failure({"code": 6, "error": "can_lower_every_600_seconds", "time_to_lowering": 41}).retry_after_seconds == 41
    )
    assert failure({"code": 6, "error": "can_lower_every_600_seconds"}).retry_after_seconds == 600


@pytest.mark.parametrize("value", ["3.2", None, True, {}, float("nan"), float("inf")])
def test_a_number_that_is_none_is_left_out(value: object) -> None:
    caught = failure({"code": 6, "error": "too_low_price", "min_price": value})
    assert isinstance(caught, errors.BidTooLow)
    assert caught.min_price_per_day is None
    assert "per day" not in caught.message


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"", errors.NotJson),
        (200, b"<html></html>", errors.NotJson),
        (200, b"[]", errors.NotJson),
        (200, b'"code"', errors.NotJson),
        (200, b"{}", errors.NotJson),
        (200, b'{"code":true}', errors.NotJson),
        (200, b'{"code":"0"}', errors.NotJson),
        (200, b'{"code":0.0}', errors.NotJson),
        (200, b'{"code":0} x', errors.NotJson),
        (200, b"\xff\xfe\x00", errors.NotJson),
        (200, b"{" * 5000, errors.NotJson),
        (502, b"<html>502 Bad Gateway</html>", errors.NotJson),
        (502, b'{"code":', errors.NotJson),
        (302, b'{"code":0}', errors.NotJson),
        (200, b'{"code":', errors.Truncated),
        (200, b'{"orders":[{"id":1},{"i', errors.Truncated),
        (200, b' {"code":0', errors.Truncated),
    ],
)
@pytest.mark.parametrize("endpoint", [READ, CREATE], ids=["read", "write"])
def test_a_reply_that_is_not_clores(status: int, body: bytes, kind: type[CloreError], endpoint: Endpoint) -> None:
    caught = failure(body, status, endpoint)
    assert type(caught) is kind
    unclear = isinstance(caught, errors.Unclear)
    assert caught.spent is (Spent.UNKNOWN if unclear and endpoint.writes else Spent.NO)
    if unclear and endpoint.writes:
        assert caught.message.startswith("Clore could not say whether the order was made")
        assert caught.hint == LOOK_FIRST


@pytest.mark.parametrize("body", [b"", b"<html>", b"slow down", b'{"error":"x"}', b'{"code":"3"}'])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidInput),
        (401, errors.InvalidApiKey),
        (404, errors.InvalidEndpoint),
        (429, errors.RateLimited),
    ],
)
def test_without_a_body_of_clores_the_status_says_what_it_can_but_never_that_nothing_was_spent(
    status: int, kind: type[CloreError], body: bytes
) -> None:
    for endpoint in (READ, CANCEL):
        caught = failure(body, status, endpoint)
        assert (type(caught), caught.spent) == (kind, Spent.NO)
        assert f"HTTP {status}" in caught.message
    spending = failure(body, status, CREATE)
    assert (type(spending), spending.spent, spending.hint) == (errors.NotJson, Spent.UNKNOWN, LOOK_FIRST)
    assert f"HTTP {status}" in spending.message


def test_only_calls_that_may_move_money_count_as_spending() -> None:
    calls = [one for one in vars(client).values() if isinstance(one, Endpoint)]
    assert {one.path for one in calls if one.spends} == {"create_order", "set_spot_price"}
    assert all(one.writes for one in calls if one.spends)


def test_a_blocked_user_agent_is_named_as_such() -> None:
    caught = failure(b"error code: 1010", 403, READ)
    assert isinstance(caught, errors.NotJson)
    assert "proxy" in caught.message
    assert "User-Agent" in caught.message
    assert caught.hint != errors.NotJson.default_hint


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    date = {"date": "Fri, 10 Jul 2026 17:18:10 GMT"}
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after": "Fri, 10 Jul 2026 17:18:15 GMT", **date}) == 5
    assert retry_after({"retry-after": "Fri, 10 Jul 2026 17:18:05 GMT", **date}) == 0
    for text in ("", "-3", "soon", "1e9", "²"):
        assert retry_after({"retry-after": text, **date}) is None
    assert failure({"code": 5}, 429, headers={"retry-after": "3"}).retry_after_seconds == 3
    assert failure({"code": 5}, 429).retry_after_seconds is None


def test_the_date_header_is_clores_clock() -> None:
    assert header_time({"date": "Fri, 10 Jul 2026 17:18:10 GMT"}) == 1783703890
    assert header_time({}) is None
    assert header_time({"date": "yesterday"}) is None


@given(st.text(max_size=900))
def test_foreign_words_come_out_as_one_short_harmless_line(text: str) -> None:
    caught = failure({"code": 6, "error": "unheard of: " + text})
    assert isinstance(caught, errors.UnknownRefusal)
    assert len(caught.reported) <= 200
    assert all(one.isprintable() for one in caught.reported)
    assert caught.reported.startswith("unheard of:")
    assert "unheard" not in caught.message


@given(st.binary(max_size=200), st.integers(100, 599))
def test_any_bytes_with_any_status_are_an_answer_or_a_failure_of_ours(body: bytes, status: int) -> None:
    try:
        assert read_reply(status, {}, body, CREATE)["code"] == 0
    except CloreError as caught:
        assert caught.message


def test_every_captured_error_body_is_its_own_failure_with_its_own_hint() -> None:
    path = CAPTURES / "error_and_ack_bodies.json"
    if not path.exists():
        pytest.skip("the captures are not here")
    seen: dict[type[CloreError], str] = {}
    acknowledged = 0
    for one in json.loads(path.read_text(encoding="utf-8")):
        body = one["body"].encode() if isinstance(one["body"], str) else json.dumps(one["body"]).encode()
        endpoint = CREATE if "create_order" in one["endpoint"] else READ
        if one["body"] == {"code": 0}:
            assert read_reply(one["http"], {}, body, endpoint) == {"code": 0}
            acknowledged += 1
        else:
            caught = failure(body, one["http"], endpoint)
            assert type(caught) not in seen
            seen[type(caught)] = caught.hint
    assert acknowledged == 2
    assert set(seen) == {
        errors.AlreadyRented,
        errors.CurrencyNotAllowed,
        errors.InternalFault,
        errors.ServerUnknown,
        errors.BidTooLow,
        errors.RateLimited,
        errors.InvalidApiKey,
        errors.NotJson,
    }
    assert len(set(seen.values())) == len(seen)

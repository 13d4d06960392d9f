"""The rate limiter: pure for its windows, over HTTP for its answer."""

import itertools
import threading

import httpx2 as httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.sandbox import Options
from clore_mcp.sandbox.gate import NANO, Limiter
from clore_mcp.sandbox.options import Live

from .conftest import Start


def limiter(**changes: object) -> Limiter:
    values: dict[str, object] = dict(changes)
    return Limiter(Live(Options(**values)))  # type: ignore[arg-type]


def test_calls_a_second_apart_pass_and_sooner_ones_do_not_move_the_window() -> None:
    gate = limiter()
    assert gate.admit("k", False, 0) is None
    assert gate.admit("k", False, NANO // 2) == pytest.approx(0.5)
    assert gate.admit("k", False, NANO) is None


def test_keys_do_not_share_a_window() -> None:
    gate = limiter()
    assert gate.admit("a", False, 0) is None
    assert gate.admit("b", False, 0) is None


def test_creates_have_five_seconds_and_take_the_general_turn_too() -> None:
    gate = limiter()
    assert gate.admit("k", True, 0) is None
    assert gate.admit("k", False, NANO // 2) is not None
    assert gate.admit("k", False, NANO) is None
    assert gate.admit("k", True, 3 * NANO) == pytest.approx(2.0)
    assert gate.admit("k", True, 5 * NANO) is None


def test_counting_from_completion_refuses_while_a_call_is_under_way() -> None:
    gate = limiter(rate_limit="completion")
    assert gate.admit("k", False, 0) is None
    assert gate.admit("k", False, 9 * NANO) == 1.0
    gate.complete("k", False, 10 * NANO)
    assert gate.admit("k", False, 10 * NANO + NANO // 2) == pytest.approx(0.5)
    assert gate.admit("k", False, 11 * NANO) is None


@given(st.lists(st.integers(0, 3 * NANO), max_size=60))
def test_admitted_calls_are_never_closer_than_the_interval(gaps: list[int]) -> None:
    gate, now, admitted = limiter(), 0, []
    for gap in gaps:
        now += gap
        if gate.admit("k", False, now) is None:
            admitted.append(now)
    assert all(later - earlier >= NANO for earlier, later in itertools.pairwise(admitted))


def test_a_second_call_at_once_is_429_with_code_5_and_has_no_effect(start: Start) -> None:
    market = start(rate_limit="arrival", create_interval=60.0, interval=0.0)
    first, second = market.free(0), market.free(1)
    assert market.create(first).json() == {"code": 0}
    reply = market.create(second)
    assert (reply.status_code, reply.content) == (429, b'{"code":5}')
    assert "retry-after" not in reply.headers
    assert market.get("/state")["counts"]["orders"] == 1
    last = market.get("/requests")["requests"][-1]
    assert (last["status"], last["code"], last["effect"]) == (429, 5, False)


def test_retry_after_is_sent_when_asked_for(start: Start) -> None:
    market = start(rate_limit="arrival", retry_after=True, interval=3.0)
    market.api.get("/wallets")
    assert market.api.get("/wallets").headers["retry-after"] == "3"


def test_without_a_key_the_marketplace_is_limited_by_address(start: Start) -> None:
    market = start(rate_limit="arrival", interval=60.0)
    url = f"{market.running.url}/marketplace"
    assert [httpx.get(url, verify=False).status_code for _ in range(2)] == [200, 429]
    assert market.api.get("/wallets").status_code == 200


def test_with_completion_a_slow_call_blocks_the_next(start: Start) -> None:
    market = start(rate_limit="completion", interval=0.05)
    market.fault("late_effect", "wallets", seconds=0.5)
    slow = threading.Thread(target=market.api.get, args=("/wallets",))
    slow.start()
    while not market.get("/requests")["requests"]:
        pass
    with httpx.Client(headers=market.api.headers, verify=False) as other:
        assert other.get(f"{market.running.url}/my_orders").status_code == 429
        slow.join()

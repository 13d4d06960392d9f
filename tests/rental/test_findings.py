"""What is wrong with what runs, judged by rows alone: what holds, what can't be told, how long a wallet lasts."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from clore_mcp.clore import OrderRow
from clore_mcp.market.pricing import Fees
from clore_mcp.money import Coin
from clore_mcp.rental.monitoring.findings import (
    AccountRecord,
    AccountSeen,
    Memory,
    judge,
    lasts_hours,
    memory_as,
    memory_from,
    standing,
)
from clore_mcp.store.orders import End

START = 1_800_000_000
NOBODY = AccountRecord({}, {}, frozenset(), frozenset(), frozenset(), frozenset())
OURS = replace(NOBODY, ends={7: End("a", 7, START + 36_000, "cancel", made_here=True)})


def row(**more: Any) -> OrderRow:
    wire = {"id": 7, "si": 5, "ct": START, "price": 2.4, "currency": "USD-Blockchain", "mon_container": 2, **more}
    return OrderRow.model_validate(wire)


def seen(at: float, *rows: OrderRow, **more: Any) -> AccountSeen:
    return AccountSeen(rows, more.pop("wins", {}), more.pop("balances", None), Fees(), START + at, **more)


def steps(looks: list[AccountSeen], known: AccountRecord = OURS) -> list[list[str]]:
    memory: Memory = {}
    found = []
    for one in looks:
        memory, new = judge(one, known, memory)
        memory, _ = memory_from(memory_as(memory, one.api_now))
        found.append([finding.step for finding in new])
    return found


@pytest.mark.parametrize(
    ("looks", "found"),
    [
        pytest.param([seen(899, row(mon_container=0)), seen(900, row(mon_container=1))], [0, 1], id="not up in time"),
        pytest.param([seen(9_000, row(mon_container=None))], [0], id="Clore does not say"),
        pytest.param([seen(9_000, row(ct=None, mon_container=0))], [0], id="nobody knows how old it is"),
        pytest.param([seen(100, row()), seen(9_000, row(mon_container=0))], [0, 0], id="it was up once"),
        pytest.param(
            [seen(900, row(mon_container=0)), seen(910), seen(999, row(mon_container=0))],
            [1, 0, 0],
            id="a list misses it",
        ),
        pytest.param(
            [seen(9_000, row(spot=True, mon_container=0), wins={7: True}),
             seen(9_899, row(spot=True, mon_container=0), wins={7: True}),
             seen(9_900, row(spot=True, mon_container=0), wins={}),
             seen(9_901, row(spot=True, mon_container=0), wins={7: True})],
            [0, 0, 0, 1], id="a bid's time runs from when it wins",
        ),
        pytest.param([seen(9_000, row(spot=True, mon_container=0), wins={7: False})], [0], id="a bid that waits"),
    ],
)  # fmt: skip
def test_a_container_that_is_not_up(looks: list[AccountSeen], found: list[int]) -> None:
    assert [one.count("never_deployed") for one in steps(looks)] == found


@pytest.mark.parametrize(
    ("wins", "spend", "found"),
    [
        pytest.param([{7: False}, {7: False}], 0, 0, id="it waits and never ran"),
        pytest.param([{7: True}, {7: False}, {7: False}], 0, 1, id="it ran and lost"),
        pytest.param([{7: False}], 0.1, 1, id="it has cost something"),
        pytest.param([{7: True}, {}, {7: True}], 0.1, 0, id="its book can't be read"),
        pytest.param([{7: False}, {}, {7: False}], 0.1, 1, id="nor does that tell it again"),
        pytest.param([{7: False}, {7: True}, {7: False}], 0.1, 2, id="it lost twice"),
    ],
)
def test_a_bid_that_lost(wins: list[dict[int, bool]], spend: float, found: int) -> None:
    looks = [seen(60.0 * at, row(spot=True, spend=spend), wins=one) for at, one in enumerate(wins)]
    assert sum(one.count("outbid") for one in steps(looks)) == found


@pytest.mark.parametrize(
    ("online", "found"),
    [
        pytest.param([False, False, False], 1, id="for two minutes"),
        pytest.param([False, True, False], 0, id="for a moment"),
        pytest.param([None, None, None], 0, id="Clore does not say"),
        pytest.param([False, None, False], 1, id="and once it does not"),
    ],
)
def test_a_host_that_is_offline(online: list[bool | None], found: int) -> None:
    looks = [seen(60.0 * at, row(online=one)) for at, one in enumerate(online)]
    assert sum(one.count("host_offline") for one in steps(looks)) == found


def test_an_order_may_be_that_of_a_create_on_its_way() -> None:
    looks = [seen(0, row())]
    assert steps(looks, NOBODY) == [["unleased"]]
    assert steps(looks, replace(NOBODY, creating_on=frozenset({5}))) == [[]]
    assert steps([seen(0, row(si=None))], replace(NOBODY, creating_on=frozenset({6}))) == [[]]
    assert steps(looks, replace(NOBODY, creating_on=frozenset({6}))) == [["unleased"]]
    assert steps(looks, replace(NOBODY, may_be_ours=frozenset({7}))) == [[]]
    assert steps(looks, replace(NOBODY, made_here=frozenset({7}))) == [[]]


def test_a_wallet_is_judged_by_what_runs_from_it() -> None:
    hourly = Decimal("2.4") / 24 * Decimal("1.1")  # with the highest fee, as Clore does not say its own

    def short(hours: float, known: AccountRecord = OURS, *rows: OrderRow) -> list[list[str]]:
        balances = {Coin.USD: hourly * Decimal(str(hours)), Coin.BTC: Decimal(0)}
        return steps([seen(0, *(rows or (row(),)), balances=balances)], known)

    assert short(10) == [[]] and short(9.9) == [["wallet_short"]]
    made_here = replace(NOBODY, made_here=frozenset({7}))
    assert short(24, made_here) == [[]] and short(23.9, made_here) == [["wallet_short"]], "what nothing ends"
    assert steps([seen(0, row(), balances={})]) == [[]], "the balance is not told"
    assert short(10, OURS, row(price=None)) == [[]], "nor is the price"


def test_a_wallet_is_enough_again_only_with_something_to_spare() -> None:
    hourly = Decimal("2.4") / 24 * Decimal("1.1")
    balances = [Decimal(hours) * hourly for hours in ("9.9", "10.1", "9.9", "11", "9.9")]
    looks = [seen(0, row(), balances={Coin.USD: one}) for one in balances]
    assert steps(looks) == [["wallet_short"], [], [], [], ["wallet_short"]]


@pytest.mark.parametrize(
    ("balance", "draws", "hours"),
    [
        (10, [(1, 24)], 10),
        (10, [(1, 2), (1, 24)], 8),  # 2 h at 2, then 6 at 1
        (10, [(1, 2)], 2),
        (0, [(1, 2)], 0),
        (-5, [(1, 2)], 0),
        (6, [(1, 0), (2, 0), (3, 5)], 2),
    ],
)
def test_how_long_a_wallet_lasts(balance: int, draws: list[tuple[int, int]], hours: int) -> None:
    exact = [(Decimal(hourly), Decimal(until)) for hourly, until in draws]
    assert lasts_hours(Decimal(balance), exact) == hours


@pytest.mark.parametrize("text", [None, "", "no JSON", "[]", '{"at": 1}', '{"at": 1, "of": {"7": {"up": 3}}}'])
def test_a_memory_that_nobody_can_read_is_none(text: str | None) -> None:
    assert memory_from(text) == ({}, 0.0)


def test_what_stands_is_shown_for_as_long_as_it_does() -> None:
    first = seen(0, row(online=False, mon_container=0))
    memory, _ = judge(first, OURS, {})
    assert standing(memory, first, OURS) == []
    later = seen(900, row(online=False, mon_container=0))
    memory, _ = judge(later, OURS, memory)
    assert {one.step for one in standing(memory, later, OURS)} == {"never_deployed", "host_offline"}
    mended = seen(960, row(online=True))
    memory, _ = judge(mended, OURS, memory)
    assert standing(memory, mended, OURS) == []


def test_what_is_remembered_of_an_order_that_is_gone_is_forgotten_in_the_end() -> None:
    memory, _ = judge(seen(0, row(), whole=True), NOBODY, {})
    for at in (60.0, 90_000.0):
        memory, _ = judge(seen(at), NOBODY, memory)
    assert memory == {}

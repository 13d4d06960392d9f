"""The marketplace's reply in slices: the rows as if read whole, odd ones dropped and counted where they stand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clore_mcp.clore.market_reply import _SLICE_BYTES, _sliced, read_market
from clore_mcp.clore.models import ServerRow, read_rows

MANY = 900
MOST = 10_000


def row(server_id: int, **changes: Any) -> dict[str, Any]:
    """A row of about 700 bytes."""
    net = {"cc": "DE", "down": 900.5, "up": 45, "test_history": ["S|1781778704|23.85|5.56"] * 15}
    prices = {"on_demand": {"bitcoin": 0.000123, "USD-Blockchain": 12}, "usd": {"on_demand_btc": 8.1}}
    specs = {"gpu": "2x RTX 4090", "gpus": [{"id": 1, "mem": 24}, {"id": 2, "mem": 24}], "net": net}
    return {"id": server_id, "price": prices, "specs": specs, "allowed_coins": ["bitcoin"], **changes}


def body(servers: list[Any], *, spaced: bool = False, **more: Any) -> bytes:
    separators = (" ,\n", " : ") if spaced else (",", ":")
    return json.dumps({"servers": servers, "my_servers": [], "code": 0, **more}, separators=separators).encode()


def flat(server_id: int) -> dict[str, Any]:
    """A row without lists of objects in it."""
    made = row(server_id)
    del made["specs"]["gpus"]
    return made


@pytest.mark.parametrize("spaced", [False, True])
def test_a_large_reply_is_cut_into_small_slices_and_read_the_same(spaced: bool) -> None:
    servers = [flat(number) for number in range(MANY)]
    reply = body(servers, spaced=spaced)
    pieces = _sliced(reply)
    assert len(pieces) > len(reply) / _SLICE_BYTES / 2 > 4
    assert max(map(len, pieces)) < 1.2 * _SLICE_BYTES
    read = read_market(reply, MOST)
    assert read is not None
    assert (read.rows, read.dropped) == (read_rows(ServerRow, servers).rows, 0)


@pytest.mark.parametrize("place", [0, MANY // 2, MANY - 1])
@pytest.mark.parametrize("odd", [{"no": "id"}, "no row", None, {"id": "x"}, [1]])
def test_an_odd_row_costs_itself_alone_and_is_counted(place: int, odd: Any) -> None:
    servers: list[Any] = [flat(number) for number in range(MANY)]
    servers[place] = odd
    read = read_market(body(servers), MOST)
    assert read is not None
    assert [one.id for one in read.rows] == [number for number in range(MANY) if number != place]
    assert read.dropped == 1


def test_an_odd_field_costs_itself_alone() -> None:
    servers = [flat(number) for number in range(MANY)]
    servers[7]["mrl"] = servers[800]["reliability"] = {"odd": []}
    read = read_market(body(servers), MOST)
    assert read is not None
    assert (len(read.rows), read.dropped) == (MANY, 0)
    assert (read.rows[7].max_rental_hours, read.rows[800].reliability) == (None, None)
    assert read.rows[7].gpu == "2x RTX 4090"


@pytest.mark.parametrize(
    "changes",
    [
        {"specs": {"cpu": '"},{"id":7,"x":"'}},
        {"specs": {"cpu": '},{"id":'}},
        {"specs": {"gpu": "]}", "cpu": '{"servers":['}},
        {"offers": [{"id": number, "note": "n" * 60} for number in range(3)]},
        {"offers": [{"id": number, "note": "n" * 1000} for number in range(200)]},
    ],
)
def test_what_looks_like_a_row_inside_of_one_misleads_nobody(changes: dict[str, Any]) -> None:
    servers = [row(number, **changes) for number in range(MANY // 4)]
    read = read_market(body(servers), MOST)
    assert read is not None
    assert [one.id for one in read.rows] == list(range(MANY // 4))


def test_another_list_of_servers_is_not_taken_for_the_marketplace() -> None:
    others = [flat(number) for number in range(1000, 1000 + MANY)]
    for reply in (
        {"old": {"servers": others}, "servers": [flat(1)], "code": 0},
        {"old": others, "servers": [flat(1)], "code": 0},
        {"servers": [flat(1)], "old": others, "code": 0},
        {"servers": [flat(1)], "old": {"servers": others}, "code": 0},
        {"code": 0, "my_servers": [5, 6], "servers": [flat(1)], "old": others},
    ):
        read = read_market(json.dumps(reply).encode(), MOST)
        assert read is not None
        assert [one.id for one in read.rows] == [1]


def test_what_is_no_marketplace_is_left_to_those_who_can_name_it() -> None:
    whole = body([flat(number) for number in range(MANY)])
    assert read_market(whole, MOST) is not None
    for reply in (whole[:-1], whole[: len(whole) // 2], whole + b"}", b"", b"[]", b"null", b'{"code":0}', b"<html>"):
        assert read_market(reply, MOST) is None, reply[:20]
    for code in (1, 5, False, "no", None):
        assert read_market(body([flat(1)] * MANY, code=code), MOST) is None, code
    cut = whole.index(b',{"id":450,')
    assert read_market(whole[:cut] + b"," + whole[cut:], MOST) is None

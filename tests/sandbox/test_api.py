"""Transport, keys, codes and the shape of each answer."""

import http.client
import json
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clore_mcp.sandbox import SANDBOX_KEY

from .conftest import USD, Market, Start


def test_the_marketplace_needs_no_key_and_lists_own_servers_only_with_one(shared: Market) -> None:
    public = httpx.get(f"{shared.running.url}/marketplace").json()
    assert set(public) == {"servers", "code"}
    assert set(shared.api.get("/marketplace").json()) == {"servers", "my_servers", "code"}


@pytest.mark.parametrize("headers", [{}, {"auth": "x" * 32}, {"authorization": f"Bearer {SANDBOX_KEY}"}])
def test_without_a_valid_auth_header_code_3(shared: Market, headers: dict[str, str]) -> None:
    reply = httpx.get(f"{shared.running.url}/wallets", headers=headers)
    assert (reply.status_code, reply.json()) == (401, {"code": 3})


@pytest.mark.parametrize(("method", "path"), [("GET", "/balance"), ("GET", "/create_order"), ("POST", "/wallets")])
def test_an_unknown_endpoint_is_code_4(shared: Market, method: str, path: str) -> None:
    reply = shared.api.request(method, path)
    assert (reply.status_code, reply.json()) == (404, {"code": 4})


@pytest.mark.parametrize("agent", [None, "Python-urllib/3.11"])
def test_a_client_without_a_proper_user_agent_is_stopped_by_the_proxy(shared: Market, agent: str | None) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shared.running.port)
    connection.request("GET", "/v1/wallets", headers={"auth": SANDBOX_KEY} | ({"User-Agent": agent} if agent else {}))
    reply = connection.getresponse()
    assert (reply.status, reply.read()) == (403, b"error code: 1010")
    connection.close()


def test_the_date_header_is_the_markets_time(market: Market) -> None:
    before = parsedate_to_datetime(market.api.get("/wallets").headers["date"])
    market.advance(86_400)
    after = parsedate_to_datetime(market.api.get("/wallets").headers["date"])
    assert (after - before).total_seconds() == 86_400


def test_wallets_have_three_coins_with_stable_addresses(start: Start) -> None:
    first, second = (start().api.get("/wallets").json() for _ in range(2))
    assert first == second
    assert first["code"] == 0
    rows = {row["name"]: row for row in first["wallets"]}
    assert [rows[c]["balance"] for c in ("bitcoin", "CLORE-Blockchain", USD)] == [0.0004, 12_000.0, 25.0]
    assert all(set(row) == {"name", "deposit", "balance", "withdrawal_fee"} for row in rows.values())
    assert len({row["deposit"] for row in rows.values()}) == 3


def test_a_legacy_wallet_has_nulls(start: Start) -> None:
    row = start(legacy_wallet=True).api.get("/wallets").json()["wallets"][0]
    assert (row["name"], row["deposit"], row["balance"]) == ("bitcoin", None, None)


def test_each_key_is_an_account_of_its_own(start: Start) -> None:
    market = start(keys=(SANDBOX_KEY, "b" * 32))
    order = market.rent(market.free())
    other = {"auth": "b" * 32}
    assert market.api.get("/my_orders", headers=other).json()["orders"] == []
    reply = market.api.post("/cancel_order", json={"id": order["id"]}, headers=other)
    assert reply.json()["error"] == "you_dont_own_this_order"
    mine, others = (market.api.get("/wallets", headers=h).json()["wallets"] for h in ({}, other))
    assert {w["deposit"] for w in mine}.isdisjoint({w["deposit"] for w in others})


def test_success_is_code_0_and_nothing_else(market: Market) -> None:
    assert market.create(market.free()).content == b'{"code":0}'


def test_a_rented_server_is_refused_with_status_error_and_code(market: Market) -> None:
    taken = next(r for r in market.servers() if r["rented"] and USD in r["allowed_coins"])
    reply = market.create(taken)
    assert reply.status_code == 200
    assert list(reply.json()) == ["status", "error", "code"]
    assert reply.json()["error"] == "server-already-rented"


def test_renting_a_server_that_one_holds_is_already_rented_too(market: Market) -> None:
    server = market.free()
    market.rent(server)
    assert market.create(server).json()["error"] == "server-already-rented"


def test_a_coin_that_is_not_accepted_is_code_6_with_status_500_even_if_priced(market: Market) -> None:
    server = market.free()
    market.post(f"/servers/{server['id']}", {"allowed_coins": ["bitcoin"]})
    reply = market.create(server)
    assert (reply.status_code, reply.json()) == (500, {"error": "currency-not-allowed", "code": 6})


def test_unknown_and_unlisted_servers_do_not_exist(market: Market) -> None:
    server = market.free()
    market.post(f"/servers/{server['id']}", {"listed": False})
    assert server["id"] not in [row["id"] for row in market.servers()]
    for server_id in (1, server["id"]):
        reply = market.create({"id": server_id})
        assert (reply.status_code, reply.json()) == (200, {"error": "server-dont-exist", "code": 6})


def test_an_offline_server_and_an_empty_wallet_refuse(market: Market) -> None:
    server, other = market.free(0), market.free(1)
    market.post(f"/servers/{server['id']}", {"online": False})
    assert market.create(server).json() == {"error": "server-offline", "code": 6}
    market.post("/wallets", {"balances": {USD: 0.001}})
    assert market.create(other).json() == {"error": "not_enough_balance", "code": 6}


BAD: list[dict[str, Any]] = [
    {"currency": ...},
    {"currency": "usd"},
    {"image": ""},
    {"image": 7},
    {"renting_server": "5"},
    {"renting_server": True},
    {"type": "on_demand"},
    {"type": "spot"},
    {"type": "spot", "spotprice": "3"},
    {"type": "spot", "spotprice": -1},
    {"ports": {"22": "udp"}},
    {"ports": {"80": "http", "81": "http"}},
    {"ports": {"0": "tcp"}},
    {"ports": ["22"]},
    {"env": {"A": 1}},
    {"env": {"A" * 129: "x"}},
    {"env": {"A": "x" * 1537}},
    {"ssh_password": "p" * 33},
    {"ssh_password": "not alnum!"},
    {"jupyter_token": "t" * 33},
    {"ssh_key": "k" * 3073},
    {"command": 1},
    {"required_price": "9"},
]


@pytest.mark.parametrize("change", BAD, ids=[json.dumps(c, default=lambda _: "absent")[:50] for c in BAD])
def test_malformed_orders_are_code_2(shared: Market, change: dict[str, Any]) -> None:
    reply = shared.create(shared.free(), **change)
    assert (reply.status_code, reply.json()) == (400, {"code": 2})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"'])
def test_a_body_that_is_no_object_is_code_2(shared: Market, content: bytes) -> None:
    for endpoint in ("create_order", "cancel_order", "cancel_orders", "set_spot_price"):
        assert shared.api.post(f"/{endpoint}", content=content).json() == {"code": 2}


def test_unknown_keys_are_let_through(market: Market) -> None:
    assert market.create(market.free(), colour="blue", remember_password=True).json() == {"code": 0}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
FIELDS = [
    "currency",
    "image",
    "type",
    "spotprice",
    "ports",
    "env",
    "ssh_key",
    "command",
    "required_price",
    "id",
    "order_ids",
]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4))
def test_no_body_whatever_breaks_the_api(shared: Market, changes: dict[str, Any]) -> None:
    body = json.dumps(shared.wish({"id": 1}) | changes)
    for endpoint in ("create_order", "cancel_order", "cancel_orders", "set_spot_price"):
        assert shared.api.post(f"/{endpoint}", content=body).json()["code"] in (0, 1, 2, 6)


@pytest.mark.parametrize(("creates", "made"), [(True, 1), (False, 0)])
def test_an_ampersand_in_env_is_code_1_whether_or_not_the_order_was_made(
    start: Start, creates: bool, made: int
) -> None:
    market = start(ampersand_creates=creates)
    reply = market.create(market.free(), env={"A": "x&y"})
    assert (reply.status_code, reply.json()) == (500, {"code": 1})
    assert market.get("/state")["counts"]["orders"] == made


@pytest.mark.parametrize(
    ("mode", "factor", "code"),
    [
        ("equal", 1.0, 0),
        ("equal", 1.2, 6),
        ("equal", 0.8, 6),
        ("ceiling", 0.8, 6),
        ("ceiling", 1.2, 0),
        ("ignored", 0.8, 0),
        ("code1", 0.8, 1),
    ],
)
def test_required_price_is_judged_as_the_option_says(start: Start, mode: str, factor: float, code: int) -> None:
    market = start(required_price=mode)
    server = market.free()
    reply = market.create(server, required_price=server["price"]["on_demand"][USD] * factor)
    assert reply.json()["code"] == code
    assert reply.json().get("error") == ("price-changed" if code == 6 else None)
    assert market.get("/state")["counts"]["orders"] == (code == 0)


def test_no_more_orders_than_the_limit(start: Start) -> None:
    market = start(order_limit=1)
    market.rent(market.free(0))
    assert market.create(market.free(1)).json() == {"error": "order-limit-reached", "code": 6}
    assert market.api.get("/my_orders").json()["limit"] == 1


def test_fees_and_holdings_have_their_shapes(start: Start) -> None:
    market = start(poh=1_000_000.0)
    fees = market.api.get("/renter_fees").json()
    assert set(fees) == {"renter_fees", "poh_config", "creation_fees", "poh_balance", "code"}
    assert fees["renter_fees"]["on_demand"]["base"][USD] == 5.0
    assert fees["renter_fees"]["spot"]["base"]["bitcoin"] == 1.25
    assert fees["creation_fees"]["on_demand"] == {"bitcoin": 0.00000156, "CLORE-Blockchain": 80.0, USD: 0.1}
    assert set(market.api.get("/poh_balance").json()) == {"items", "balance", "count", "code"}

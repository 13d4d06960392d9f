"""The control path: what tests see and change behind the API's back."""

import pytest

from clore_mcp.sandbox import SANDBOX_KEY

from .conftest import USD, Market, Start


def test_the_journal_tells_what_was_sent_and_what_came_back(market: Market) -> None:
    server = market.free()
    market.create(server, env={"TOKEN": "secret"}, required_price=server["price"]["on_demand"][USD])
    entry = market.get("/requests")["requests"][-1]
    assert entry["body"] == market.wish(
        server, env={"TOKEN": "secret"}, required_price=server["price"]["on_demand"][USD]
    )
    assert (entry["method"], entry["endpoint"], entry["status"], entry["code"]) == ("POST", "create_order", 200, 0)
    assert entry["effect"] is True
    assert entry["completed_ns"] > entry["arrived_ns"]
    assert entry["key"] is not None
    assert SANDBOX_KEY not in str(entry)


def test_the_journal_can_be_read_from_a_number_on_and_emptied(market: Market) -> None:
    for _ in range(3):
        market.api.get("/wallets")
    assert [e["sequence"] for e in market.get("/requests?since=2")["requests"]] == [2, 3]
    market.control.delete("/requests")
    assert market.get("/requests") == {"requests": []}


def test_the_state_shows_orders_that_the_api_hides(market: Market) -> None:
    server = market.free()
    market.create(server)
    assert market.orders() == []
    (order,) = market.get("/state")["orders"]
    assert (order["server_id"], order["visible"], order["active"], order["type"]) == (
        server["id"],
        False,
        True,
        "on-demand",
    )


def test_the_clock_moves_and_changes_its_pace_but_not_backwards(market: Market) -> None:
    before = market.get("/state")["clock"]["now"]
    market.advance(100)
    assert market.get("/state")["clock"] == {"now": before + 100, "speed": 0.0}
    assert market.post("/clock", {"speed": 60})["speed"] == 60.0
    assert market.control.post("/clock", json={"advance": -1}).status_code == 400


def test_a_patched_server_shows_in_the_listing(market: Market) -> None:
    server = market.free()
    patch = {"price_factor": 2.0, "specs": {"net": {"cc": "IS"}}, "mrl": 9, "oc": None, "allowed_coins": [USD]}
    market.post(f"/servers/{server['id']}", patch)
    row = market.server(server["id"])
    assert row["price"]["on_demand"][USD] == pytest.approx(server["price"]["on_demand"][USD] * 2)
    assert row["price"]["usd"]["on_demand_usd"] == row["price"]["on_demand"][USD]
    assert (row["specs"]["net"]["cc"], row["mrl"], row["allowed_coins"]) == ("IS", 9, [USD])
    assert row["specs"]["cpu"] == server["specs"]["cpu"]
    assert "oc" not in row
    market.post(f"/servers/{server['id']}", {"rented": True})
    assert market.server(server["id"])["rented"] is True


def test_a_row_of_ones_own_can_be_listed_and_rented(market: Market) -> None:
    row = market.free() | {"id": 999_999}
    assert market.post("/servers", row) == {"server_id": 999_999}
    assert market.servers()[0] == row
    assert market.create(row).json() == {"code": 0}
    assert market.post("/servers", "no row at all") == {"server_id": None}
    assert "no row at all" in market.api.get("/marketplace").json()["servers"]


def test_an_order_can_be_made_elsewhere_and_earlier(market: Market) -> None:
    server = market.free()
    made = market.post("/orders", {**market.wish(server), "age_seconds": 3600})
    (order,) = market.orders()
    assert order["id"] == made["order_id"]
    assert order["spend"] == pytest.approx(order["price"] / 24)
    assert market.control.post("/orders", json=market.wish(server)).json()["error"] == "server-already-rented"


def test_switches_change_while_it_runs(market: Market) -> None:
    market.post("/options", {"required_price": "ignored", "rate_limit": "arrival", "interval": 60})
    assert market.get("/options")["required_price"] == "ignored"
    assert [market.api.get("/wallets").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/options", {"colour": 1}),
        ("/options", {"outbid": "sometimes"}),
        ("/options", {"speed": "fast"}),
        ("/wallets", {"balances": {"doge": 1}}),
        ("/bids", {"server_id": 1, "bid": 1, "currency": USD}),
        ("/servers/1", {}),
        ("/orders", []),
    ],
)
def test_nonsense_is_told_and_changes_nothing(shared: Market, path: str, body: object) -> None:
    reply = shared.control.post(path, json=body)
    assert reply.status_code in (400, 409)
    assert set(reply.json()) <= {"error", "code"}


def test_hostile_text_in_a_body_does_not_blind_the_journal(market: Market) -> None:
    market.api.post("/create_order", content=b'{"image": "\\ud800", "spotprice": NaN}')
    market.api.post("/create_order", content=b"\xff\xfe{")
    bodies = [entry["body"] for entry in market.get("/requests")["requests"]]
    assert bodies[0]["image"] == "\ud800"
    assert isinstance(bodies[1], str)


def test_two_sandboxes_in_a_process_know_nothing_of_each_other(start: Start) -> None:
    first, second = start(), start(seed=5)
    first.rent(first.free())
    assert second.orders() == []
    assert first.servers() != second.servers()

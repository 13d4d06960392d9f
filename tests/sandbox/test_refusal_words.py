"""The words that the API refuses with, each where the API would say it, and any word to order."""

import pytest

from clore_mcp.sandbox import SANDBOX_KEY
from clore_mcp.sandbox.faults import parse_spec

from .conftest import USD, Json, Market, Start

STRANGER = "b" * 32


def error(reply: Json) -> str:
    assert reply["code"] == 6
    return str(reply["error"])


def spot(market: Market, server: Json) -> Json:
    return market.rent(server, type="spot", spotprice=server["price"]["spot"][USD] * 2)


def test_a_host_can_not_rent_from_itself(start: Start) -> None:
    market = start(user_id=4711)
    server = market.free()
    market.post(f"/servers/{server['id']}", {"owner": 4711})
    assert error(market.create(server).json()) == "cant_rent_from_yourself"


def test_a_server_on_gigaspot_is_not_for_rent(market: Market) -> None:
    server = market.free()
    market.post(f"/servers/{server['id']}", {"gigaspot": True})
    assert error(market.create(server).json()) == "machine-is-on-gigaspot"


def test_a_second_spot_order_on_one_server_is_refused(market: Market) -> None:
    server = market.free()
    spot(market, server)
    again = market.create(server, type="spot", spotprice=server["price"]["spot"][USD] * 3)
    assert error(again.json()) == "you_already_have_spot_order"


def test_a_wallet_under_the_minimum_is_refused_though_it_covers_the_hours(start: Start) -> None:
    market = start(balance_usd=25.0, minimum_balance_usd=30.0)
    assert error(market.create(market.free()).json()) == "not_enough_balance"
    assert start(balance_usd=25.0, minimum_balance_usd=20.0).create(market.free()).json() == {"code": 0}


def test_an_order_that_is_over_or_a_strangers_is_neither_cancelled_nor_bid_for(start: Start) -> None:
    market = start(keys=(SANDBOX_KEY, STRANGER))
    order = spot(market, market.free())
    paths = (("/cancel_order", {"id": order["id"]}), ("/set_spot_price", {"order_id": order["id"], "desired_price": 9}))
    for path, body in paths:
        reply = market.api.post(path, json=body, headers={"auth": STRANGER})
        assert error(reply.json()) == "you_dont_own_this_order"
    assert market.api.post("/cancel_order", json={"id": order["id"]}).json() == {"code": 0}
    for path, body in paths:
        assert error(market.api.post(path, json=body).json()) == "order_not_active"


def test_a_bid_under_what_clore_takes_from_anybody_is_refused(market: Market) -> None:
    order = spot(market, market.free())
    body = {"order_id": order["id"], "desired_price": 0.05}
    assert error(market.api.post("/set_spot_price", json=body).json()) == "amount_too_low"


@pytest.mark.parametrize("comment", ["ada_lovelace@example", "ada:work", "a\u00e9"])
def test_a_key_with_undocumented_characters_is_invalid_input(market: Market, comment: str) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA"
    assert market.create(market.free(), ssh_key=f"{key} {comment}").json() == {"code": 2}
    assert market.create(market.free(), ssh_key=f"{key} ada@example").json() == {"code": 0}


def test_a_host_that_names_no_longest_rental_rents_for_three_thousand_hours(market: Market) -> None:
    server = market.free()
    market.post(f"/servers/{server['id']}", {"mrl": None})
    assert market.rent(server)["mrl"] == 3000 * 3600


@pytest.mark.parametrize(("effect", "made"), [(None, 0), (True, 1)])
def test_any_word_comes_to_order_with_any_status(market: Market, effect: bool | None, made: int) -> None:
    market.fault("refused", "create_order", error="invalid_mrl", status=400, effect=effect)
    reply = market.create(market.free())
    assert (reply.status_code, reply.json()) == (400, {"error": "invalid_mrl", "code": 6})
    assert market.get("/state")["counts"]["orders"] == made


def test_a_status_comes_to_order_without_a_body(market: Market) -> None:
    market.fault("bare_status", "wallets", status=401)
    reply = market.api.get("/wallets")
    assert (reply.status_code, reply.content) == (401, b"")


def test_words_and_statuses_can_be_ordered_on_the_command_line() -> None:
    word = parse_spec("create_order:refused=machine-is-on-gigaspot:2")
    assert (word.kind, word.error, word.status, word.times) == ("refused", "machine-is-on-gigaspot", 200, 2)
    status = parse_spec("cancel_order:bare_status=429")
    assert (status.kind, status.status) == ("bare_status", 429)

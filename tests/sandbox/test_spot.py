"""Bids: minimum, winner, queue, displacement, and what a bid may be changed to."""

from typing import Any

import pytest

from .conftest import USD, Json, Market, Start


def bid(market: Market, server: Json, factor: float = 1.0) -> Json:
    return market.rent(server, type="spot", spotprice=floor(server) * factor)


def floor(server: Json) -> float:
    return float(server["price"]["spot"][USD])


def rival(market: Market, server: Json, factor: float, currency: str = USD) -> None:
    market.post(
        "/bids", {"server_id": server["id"], "bid": server["price"]["spot"][currency] * factor, "currency": currency}
    )


def offers(market: Market, server: Json) -> list[Json]:
    reply = market.api.get("/spot_marketplace", params={"market": server["id"]}).json()
    rows: list[Json] = reply["market"]["offers"]
    return rows


def test_the_control_path_lists_the_servers_that_have_offers(market: Market) -> None:
    server = market.free()
    before = market.control.get("/bids").json()["bids"]
    assert before, "strangers bid from the start"
    rival(market, server, 1.5)
    after = market.control.get("/bids").json()["bids"]
    assert after.keys() - before.keys() <= {str(server["id"])}
    assert [one["offer_id"] for one in after[str(server["id"])]] == [row["offer_id"] for row in offers(market, server)]


def test_a_bid_below_the_minimum_is_told_the_minimum(market: Market) -> None:
    server = market.free()
    reply = market.create(server, type="spot", spotprice=floor(server) * 0.99)
    assert reply.status_code == 200
    assert reply.json() == {"error": "too_low_price", "min_price": floor(server), "code": 6}


def test_a_bid_without_rivals_runs_at_its_own_price_with_the_spot_fee(market: Market) -> None:
    server, before = market.free(), market.balance()
    order = bid(market, server, 1.1)
    assert order["spot"] is True
    assert order["price"] == pytest.approx(floor(server) * 1.1)
    market.advance(297)
    assert before - market.balance() == pytest.approx(order["price"] * 300 / 86_400 * 1.0125, rel=1e-9)
    assert offers(market, server) == [
        {"offer_id": order["id"], "bid": order["price"], "active": True, "my": True, "currency": USD}
    ]


def test_the_spot_market_has_the_documented_shape(market: Market) -> None:
    server = market.free()
    reply = market.api.get("/spot_marketplace", params={"market": server["id"]}).json()
    assert set(reply) == {"market", "exists", "code"}
    assert set(reply["market"]) == {"offers", "server", "currency_rates_in_usd"}
    assert set(reply["market"]["server"]) == {"min_pricing", "mrl", "visibility", "online"}
    assert reply["market"]["server"]["min_pricing"] == server["price"]["spot"]
    assert reply["market"]["currency_rates_in_usd"] == {"bitcoin": 64_000.0, "CLORE-Blockchain": 0.00125, USD: 1.0}
    assert market.api.get("/spot_marketplace", params={"market": 1}).json()["exists"] is False
    assert market.api.get("/spot_marketplace", params={"market": "²"}).json() == {"code": 2}


def test_some_servers_already_have_offers_of_strangers(market: Market) -> None:
    bids = [market.get(f"/servers/{row['id']}")["bids"] for row in market.servers()]
    assert 4 < sum(bool(each) for each in bids) < 40


def test_bids_in_different_coins_compare_in_usd(market: Market) -> None:
    server = market.free()
    order = bid(market, server, 1.05)
    rival(market, server, 1.5, "bitcoin")
    first, second = offers(market, server)
    assert (first["currency"], first["active"], first["my"]) == ("bitcoin", True, False)
    assert (second["offer_id"], second["active"]) == (order["id"], False)


def test_an_outbid_order_stays_queued_and_costs_nothing_until_it_wins_again(market: Market) -> None:
    server = market.free()
    order = bid(market, server, 1.05)
    market.advance(117)
    rival(market, server, 1.2)
    spent = market.order(order["id"])["spend"]
    assert spent == pytest.approx(order["price"] * 120 / 86_400)
    market.advance(3600)
    queued = market.order(order["id"])
    assert (queued["spend"], queued["mon_container"]) == (spent, 0)
    assert "tcp_ports" not in queued
    market.api.post("/set_spot_price", json={"order_id": order["id"], "desired_price": floor(server) * 1.5})
    market.advance(120)
    assert market.order(order["id"])["spend"] == pytest.approx(spent + floor(server) * 1.5 * 120 / 86_400)


def test_an_outbid_order_may_vanish(start: Start) -> None:
    market = start(outbid="vanishes")
    server = market.free()
    order = bid(market, server)
    rival(market, server, 1.2)
    assert market.orders() == []
    assert market.order(order["id"], completed=True)["expired"] is True


def test_a_bid_below_a_rivals_queues_from_the_start(market: Market) -> None:
    server = market.free()
    rival(market, server, 2.0)
    bid(market, server)
    assert [(o["my"], o["active"]) for o in offers(market, server)] == [(False, True), (True, False)]
    assert market.get("/state")["orders"][0]["active"] is False


def test_of_equal_bids_the_earlier_one_runs(market: Market) -> None:
    server = market.free()
    bid(market, server)
    market.advance(10)
    rival(market, server, 1.0)
    assert offers(market, server)[0]["my"] is True


def test_an_on_demand_renter_displaces_spot_and_gives_it_back(market: Market) -> None:
    server = market.free()
    order = bid(market, server)
    assert market.server(server["id"])["rented"] is False
    market.post(f"/servers/{server['id']}", {"rented": True})
    assert [o["active"] for o in offers(market, server)] == [False]
    market.post(f"/servers/{server['id']}", {"rented": False})
    assert [o["active"] for o in offers(market, server)] == [True]
    assert market.order(order["id"])["spot"] is True


def test_raising_is_free_and_at_once(market: Market) -> None:
    server = market.free()
    order = bid(market, server)
    for factor in (1.5, 4.0, 4.1):
        reply = market.api.post(
            "/set_spot_price", json={"order_id": order["id"], "desired_price": floor(server) * factor}
        )
        assert reply.json() == {"code": 0}
    assert market.order(order["id"])["price"] == pytest.approx(floor(server) * 4.1)


def test_lowering_goes_in_steps_of_ten_percent_every_600_seconds(market: Market) -> None:
    server = market.free()
    order = bid(market, server, 2.0)

    def lower(price: float) -> Any:
        return market.api.post("/set_spot_price", json={"order_id": order["id"], "desired_price": price}).json()

    price = order["price"]
    assert lower(price * 0.89) == {"error": "exceeded_max_step", "max_step": pytest.approx(price * 0.1), "code": 6}
    assert lower(price * 0.9) == {"code": 0}
    assert lower(price * 0.85) == {"error": "can_lower_every_600_seconds", "time_to_lowering": 600.0, "code": 6}
    market.advance(601)
    assert lower(price * 0.85) == {"code": 0}


def test_lowering_below_the_minimum_or_of_a_strangers_order_is_refused(market: Market) -> None:
    server = market.free()
    order = bid(market, server)
    body = {"order_id": order["id"], "desired_price": floor(server) * 0.95}
    assert market.api.post("/set_spot_price", json=body).json()["error"] == "too_low_price"
    body = {"order_id": 5, "desired_price": 1}
    assert market.api.post("/set_spot_price", json=body).json()["error"] == "order_dont_exist"


def test_an_outbid_container_starts_anew_but_a_new_price_leaves_it_alone(market: Market) -> None:
    server = market.free()
    order = bid(market, server)
    market.advance(70)
    market.api.post("/set_spot_price", json={"order_id": order["id"], "desired_price": floor(server) * 1.1})
    assert market.order(order["id"])["mon_container"] == 2
    rival(market, server, 1.2)
    market.api.post("/set_spot_price", json={"order_id": order["id"], "desired_price": floor(server) * 1.3})
    assert market.order(order["id"])["mon_container"] == 0

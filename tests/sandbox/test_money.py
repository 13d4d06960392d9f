"""The meter: what is billed when, and that every coin that leaves a wallet is accounted for."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clore_mcp.sandbox import SANDBOX_KEY, Options
from clore_mcp.sandbox.intake import COINS, ApiRefusal, parse_create
from clore_mcp.sandbox.options import Live
from clore_mcp.sandbox.world import World

from .conftest import USD, Market, Start

START = 1_800_000_000.0


def test_spend_ticks_by_the_minute_and_has_no_fee_in_it(market: Market) -> None:
    order = market.rent(market.free())
    assert order["spend"] == 0
    market.advance(56)
    assert market.order(order["id"])["spend"] == 0
    market.advance(2)
    assert market.order(order["id"])["spend"] == pytest.approx(order["price"] * 60 / 86_400, rel=1e-12)
    market.advance(3600)
    assert market.order(order["id"])["spend"] == pytest.approx(order["price"] * 3660 / 86_400, rel=1e-12)


def test_the_wallet_pays_rent_fee_and_after_ten_minutes_the_creation_fee(market: Market) -> None:
    before = market.balance()
    order = market.rent(market.free())
    market.advance(590)
    early = order["price"] * 540 / 86_400 * 1.05
    assert before - market.balance() == pytest.approx(early, rel=1e-9)
    market.advance(10)
    assert before - market.balance() == pytest.approx(order["price"] * 600 / 86_400 * 1.05 + 0.1, rel=1e-9)
    assert market.get("/state")["orders"][0]["total"] == pytest.approx(before - market.balance(), rel=1e-9)


def test_cancelling_within_ten_minutes_costs_no_creation_fee(market: Market) -> None:
    before = market.balance()
    order = market.rent(market.free())
    market.advance(500)
    market.api.post("/cancel_order", json={"id": order["id"]})
    market.advance(5000)
    assert before - market.balance() == pytest.approx(order["price"] * 503 / 86_400 * 1.05, rel=1e-9)


def test_holding_the_coin_halves_the_fee_at_most(start: Start) -> None:
    market = start(poh=5_000_000.0, creation_fee_usd=0.0)
    before = market.balance()
    order = market.rent(market.free())
    market.advance(3597)
    assert before - market.balance() == pytest.approx(order["price"] / 24 * 1.025, rel=1e-9)


def test_billing_may_overrun_the_end(start: Start) -> None:
    market = start(overrun_seconds=58)
    order = market.rent(market.free())
    market.advance(945)
    market.api.post("/cancel_order", json={"id": order["id"]})
    ended = market.order(order["id"], completed=True)
    assert ended["order_end"] - ended["ct"] == 948
    assert ended["spend"] == pytest.approx(ended["price"] * 1006 / 86_400)


def test_a_drained_wallet_ends_the_order(market: Market) -> None:
    server = market.free()
    market.post("/wallets", {"balances": {USD: server["price"]["on_demand"][USD] / 24 * 2}})
    order = market.rent(server)
    market.advance(3 * 3600)
    assert market.orders() == []
    (ended,) = market.get("/state")["orders"]
    assert ended["end_reason"] == "empty"
    assert 0 <= market.balance() < order["price"] / 86_400 * 1.05 * 1.001
    assert market.server(server["id"])["rented"] is False


def test_a_drained_wallet_may_go_negative_instead(start: Start) -> None:
    market = start(on_empty="negative", balance_usd=0.0)
    order = market.rent(market.free())
    market.advance(3 * 3600)
    assert len(market.orders()) == 1
    assert market.balance() == pytest.approx(-(order["price"] / 8 * 1.05 + 0.1), rel=1e-3)


def test_prices_that_move_do_not_touch_a_running_order(market: Market) -> None:
    server = market.free()
    order = market.rent(server)
    market.post(f"/servers/{server['id']}", {"price_factor": 3.0})
    market.advance(600)
    assert market.order(order["id"])["price"] == order["price"] == server["price"]["on_demand"][USD]


steps = st.lists(
    st.tuples(
        st.sampled_from(["rent", "bid", "cancel", "rebid", "rival", "wait"]),
        st.integers(0, 7),
        st.sampled_from(COINS),
        st.floats(0.5, 40_000.0),
    ),
    max_size=30,
)


@settings(max_examples=80, deadline=None)
@given(
    steps=steps,
    on_empty=st.sampled_from(["end", "negative"]),
    outbid=st.sampled_from(["stays", "vanishes"]),
    scale=st.sampled_from([0.02, 1.0, 100.0]),
)
def test_what_left_the_wallets_is_what_the_orders_cost(steps: Any, on_empty: Any, outbid: Any, scale: float) -> None:
    options = Options(
        servers=8,
        on_empty=on_empty,
        outbid=outbid,
        lowering_every=0.0,
        balance_usd=25 * scale,
        balance_clore=12_000 * scale,
        balance_btc=0.0004 * scale,
    )
    world = World(Live(options))
    account, now = world.accounts[SANDBOX_KEY], START
    servers = list(world.servers.values())
    for server in servers:
        server.elsewhere = False
    before = {coin: wallet.balance or 0.0 for coin, wallet in account.wallets.items()}
    for deed, place, coin, amount in steps:
        now += amount if deed == "wait" else 1.5
        world.settle(now)
        try:
            _do(world, deed, place, coin, amount, now)
        except ApiRefusal:
            continue
    world.settle(now + 7200)
    for coin, wallet in account.wallets.items():
        cost = sum(o.total for o in world.orders.values() if o.currency == coin)
        assert before[coin] - (wallet.balance or 0.0) == pytest.approx(cost, rel=1e-9, abs=1e-9)
        assert on_empty == "negative" or (wallet.balance or 0.0) >= -1e-9
    for order in world.orders.values():
        seconds = (order.ended_at or now + 7200) - order.ct
        assert order.spend >= 0
        assert order.spot or order.spend <= order.price * (seconds + 1) / 86_400 * (1 + 1e-9)


def _do(world: World, deed: str, place: int, coin: str, amount: float, now: float) -> None:
    server = list(world.servers.values())[place]
    orders = [o for o in world.open_orders() if o.server_id == server.id]
    minimum = world.price(server, True, coin) or 1.0
    if deed in ("rent", "bid"):
        bid = {"type": "spot", "spotprice": minimum * (1 + amount % 1)} if deed == "bid" else {"type": "on-demand"}
        body = {"renting_server": server.id, "currency": coin, "image": "image", **bid}
        world.create(world.accounts[SANDBOX_KEY], parse_create(body, Options()), now)
    elif deed == "cancel" and orders:
        world.cancel(SANDBOX_KEY, orders[0].id, now)
    elif deed == "rebid" and orders:
        world.set_bid(SANDBOX_KEY, orders[0].id, orders[0].price * (0.92 + amount % 0.3), now)
    elif deed == "rival":
        world.add_rival(server, minimum * (1 + amount % 0.5), coin, now)

"""The client against the simulated marketplace: every fault is its own failure, and a create leaves once."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from clore_mcp import errors
from clore_mcp.clore import USER_AGENT, CloreClient, CreateRequest, Gaps, OrderRow, Pacer, ServerRow, Timing
from clore_mcp.errors import CloreError, Spent
from clore_mcp.money import Coin, DayPrice
from tests.clore.conftest import MS, QUICK, Sandbox, quick_pacer

pytestmark = pytest.mark.anyio


async def a_server(client: CloreClient) -> ServerRow:
    """A free server that takes USD, cheap enough for the sandbox's wallet."""
    market = await client.marketplace()
    free = [row for row in market.rows if not row.rented and Coin.USD in (row.allowed_coins or [])]
    return min(free, key=lambda row: usd(row.on_demand))


def usd(prices: dict[str, Decimal | None] | None) -> Decimal:
    return (prices or {}).get(Coin.USD) or Decimal("inf")


def order_of(row: ServerRow, **more: Any) -> CreateRequest:
    wanted: dict[str, Any] = {"required_price": usd(row.on_demand), "ports": {"22": "tcp"}, **more}
    return CreateRequest(server_id=row.id, image="cloreai/jupyter:ubuntu24.04-v2", coin=Coin.USD, **wanted)


async def orders_on(client: CloreClient, server_id: int) -> list[OrderRow]:
    return [row for row in (await client.my_orders()).rows if row.server_id == server_id]


async def test_a_rental_from_the_market_to_the_end(client: CloreClient, sandbox: Sandbox) -> None:
    row = await a_server(client)
    created = await client.create_order(order_of(row))
    assert created.api_time is not None
    (order,) = await orders_on(client, row.id)
    assert (order.price, order.currency) == (usd(row.on_demand), Coin.USD)
    await client.cancel_order(order.id, "done")
    assert await orders_on(client, row.id) == []
    ended = [one for one in (await client.my_orders(completed=True)).rows if one.id == order.id]
    assert [one.expired for one in ended] == [True]
    assert {entry["user_agent"] for entry in sandbox.requests()} == {USER_AGENT}


async def test_every_read_answers(client: CloreClient) -> None:
    wallets = await client.wallets()
    assert {wallet.name for wallet in wallets.rows} == {coin.value for coin in Coin}
    assert wallets.dropped == 0
    fees = await client.renter_fees()
    assert fees.on_demand_percent[Coin.USD] == 5
    assert fees.creation_on_demand[Coin.USD] == Decimal("0.1")
    market = await client.marketplace()
    assert market.dropped == 0
    assert len(market.rows) > 50
    book = await client.spot_marketplace(market.rows[0].id)
    assert book.rates[Coin.USD] == 1
    assert (await client.spot_marketplace(1)).offers == []
    orders = await client.my_orders()
    assert orders.limit == 16
    assert orders.api_time is not None


async def test_a_bid_is_made_raised_and_lowered_within_the_rules(client: CloreClient) -> None:
    market = await client.marketplace()
    row = next(row for row in market.rows if not row.rented and (row.spot or {}).get(Coin.USD) and usd(row.spot) < 5)
    least = usd(row.spot)
    with pytest.raises(errors.BidTooLow) as low:
        await client.create_order(order_of(row, order_type="spot", spot_price=least / 2, required_price=None))
    assert low.value.min_price_per_day == pytest.approx(float(least))
    await client.create_order(order_of(row, order_type="spot", spot_price=least * 2, required_price=None))
    (order,) = await orders_on(client, row.id)
    assert order.spot is True
    await client.set_spot_price(order.id, DayPrice(least * 3, Coin.USD))
    with pytest.raises(errors.StepTooLarge) as step:
        await client.set_spot_price(order.id, DayPrice(least, Coin.USD))
    assert step.value.max_step_per_day
    await client.set_spot_price(order.id, DayPrice(least * Decimal("2.9"), Coin.USD))
    with pytest.raises(errors.LoweringTooSoon) as soon:
        await client.set_spot_price(order.id, DayPrice(least * Decimal("2.8"), Coin.USD))
    assert 0 < (soon.value.retry_after_seconds or 0) <= 600
    await client.cancel_order(order.id)


FAULTS: list[tuple[str, dict[str, Any], type[CloreError], bool]] = [
    ("lost_reply", {}, errors.ConnectionLost, True),
    ("reset", {}, errors.ConnectionLost, False),
    ("hang_before", {"seconds": 60}, errors.TimedOut, False),
    ("hang_after", {"seconds": 60}, errors.TimedOut, True),
    ("truncate", {}, errors.Truncated, True),
    ("garbage", {}, errors.NotJson, True),
    ("http502", {}, errors.NotJson, False),
    ("http502_after", {}, errors.NotJson, True),
    ("code1_before", {}, errors.InternalFault, False),
    ("code1_after", {}, errors.InternalFault, True),
]


@pytest.mark.parametrize(("kind", "more", "failure", "effect"), FAULTS, ids=[fault[0] for fault in FAULTS])
async def test_a_create_whose_reply_is_lost_is_sent_exactly_once_and_in_doubt(
    kind: str, more: dict[str, Any], failure: type[CloreError], effect: bool, sandbox: Sandbox
) -> None:
    sandbox.fault(kind, "create_order", **more)
    # Short where a time-out is what it is about, and still long enough to leave on a busy machine.
    async with sandbox.client(timing=Timing(create_seconds=1.0) if "hang" in kind else QUICK) as client:
        row = await a_server(client)
        with pytest.raises(failure) as caught:
            await client.create_order(order_of(row))
        assert type(caught.value) is failure
        assert caught.value.spent is Spent.UNKNOWN
        assert len(sandbox.requests("create_order")) == 1
        orders = await orders_on(client, row.id)
        assert len(orders) == effect
        for order in orders:
            await client.cancel_order(order.id)


@pytest.mark.parametrize(("kind", "more", "failure", "effect"), FAULTS, ids=[fault[0] for fault in FAULTS])
async def test_a_read_gets_over_a_fault_and_says_which_when_it_stays(
    kind: str, more: dict[str, Any], failure: type[CloreError], effect: bool, sandbox: Sandbox
) -> None:
    timing = Timing(read_seconds=0.5 if "hang" in kind else 20.0, backoff_base_seconds=0.001)
    async with sandbox.client(timing=timing) as client:
        sandbox.fault(kind, "wallets", **more)
        assert len((await client.wallets()).rows) == 3
        assert len(sandbox.requests("wallets")) == 2
        sandbox.fault(kind, "wallets", times=4, **more)
        with pytest.raises(failure) as caught:
            await client.wallets()
    assert type(caught.value) is failure
    assert caught.value.spent is Spent.NO
    assert len(sandbox.requests("wallets")) == 6


@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        ("already_rented", errors.AlreadyRented),
        ("offline", errors.ServerOffline),
        ("not_enough_balance", errors.NotEnoughBalance),
    ],
)
async def test_a_refusal_says_that_no_money_moved(
    kind: str, failure: type[CloreError], client: CloreClient, sandbox: Sandbox
) -> None:
    row = await a_server(client)
    sandbox.fault(kind, "create_order")
    with pytest.raises(failure) as caught:
        await client.create_order(order_of(row))
    assert caught.value.spent is Spent.NO
    with pytest.raises(errors.ServerUnknown):
        await client.create_order(CreateRequest(server_id=1, image="i", coin=Coin.USD))


async def test_a_wrong_key_is_known_as_such(sandbox: Sandbox) -> None:
    async with sandbox.client(api_key="w" * 32) as client:
        with pytest.raises(errors.InvalidApiKey):
            await client.wallets()


async def test_the_look_sees_an_order_that_says_code_1(client: CloreClient, sandbox: Sandbox) -> None:
    row = await a_server(client)
    with pytest.raises(errors.InternalFault) as caught:
        await client.create_order(order_of(row, env={"A": "x&y"}))
    assert caught.value.spent is Spent.UNKNOWN
    (order,) = await orders_on(client, row.id)
    await client.cancel_order(order.id)


@pytest.mark.parametrize("rule", ["arrival", "completion"])
async def test_many_callers_on_one_key_all_get_through_a_limit_whichever_way_it_counts(
    rule: str, sandbox: Sandbox
) -> None:
    sandbox.options(rate_limit=rule, interval=0.05, create_interval=0.1)
    pacer = Pacer(Gaps(general_ns=250 * MS, create_ns=500 * MS), patience_seconds=60)  # a busy machine is late
    async with sandbox.client(pacer=pacer) as client, asyncio.timeout(60):

        async def cancel() -> None:
            with pytest.raises(errors.OrderUnknown):
                await client.cancel_order(4)

        await asyncio.gather(*(client.my_orders() for _ in range(8)), cancel())
    entries = sandbox.requests()
    refused = [entry for entry in entries if entry["status"] == 429]
    assert len(refused) <= (0 if rule == "arrival" else 2)
    assert len(entries) - len(refused) == 9
    assert entries[1]["endpoint"] == "cancel_order"  # urgent, though it came last


async def test_a_burst_past_the_limit_is_taught_by_the_429(sandbox: Sandbox) -> None:
    sandbox.options(rate_limit="arrival", interval=1.5)  # the second call comes within it on a busy machine too
    timing = Timing(backoff_base_seconds=1.6)
    async with sandbox.client(timing=timing, pacer=quick_pacer(), rand=lambda: 1.0) as client:
        await client.wallets()  # the test before may have used the key just now: this one counts for nothing
        sandbox.control("DELETE", "/requests")
        await client.wallets()
    assert [entry["status"] for entry in sandbox.requests()] == [429, 200]

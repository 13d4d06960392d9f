"""Odd rows against every command, tool and resource: no traceback, no harm to other rows, and each can be ended.

Real processes over sockets; the market shows what it is told to (docs/sandbox.md).
"""

from __future__ import annotations

import json
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest

from clore_mcp import resources
from clore_mcp.cli.orders import OrdersSeen, look
from clore_mcp.rental.create.quote import PricedOrder
from clore_mcp.rental.requests import CancelOrder, CreateOrder
from clore_mcp.store.orders import Lease
from clore_mcp.wiring import Services
from tests.cli.test_orders import _elsewhere
from tests.world import World

HUGE: Final = 2**63 + 7
ODD: Final[dict[str, dict[str, Any]]] = {
    "a huge id": {"id": HUGE},
    "a coin without a rate": {"currency": "USDT"},
    "no coin": {"currency": None},
    "a huge spend": {"spend": "1E+400000"},
    "a tiny price": {"price": "1E-400000"},
    "a price of thousands of digits": {"price": "0." + "3" * 5000},
    "a price that is null": {"price": None},
    "a negative price": {"price": -3, "spend": -1},
    "an absurd price": {"price": 1e300},
    "a server in words": {"si": "the second one"},
    "a server that no column holds": {"si": 10**30},
    "a fee beyond its table": {"creation_fee": 10**15},
    "a length of centuries": {"mrl": 10**400 // 10**380 * 10**200},
    "everything": {"currency": {}, "price": [], "spend": {}, "mrl": "x", "si": None, "image": 7, "gpu_array": 9},
}
UNKNOWN: Final = {
    "a coin without a rate", "no coin", "a tiny price", "a price that is null", "a negative price", "an absurd price",
    "everything",
}  # fmt: skip


def shows(world: World, order_id: int, row: dict[str, Any], twin: dict[str, Any] | None = None) -> None:
    world.post(f"/orders/{order_id}", {"row": row, "twin": twin})


def odd_ones(world: World) -> dict[str, int]:
    """An order made elsewhere for each odd row; the ids that are shown."""
    servers = world.with_services(_free)
    ids = {}
    for name, server_id in zip(ODD, servers, strict=False):
        order_id = _elsewhere(world, server_id)
        shows(world, order_id, ODD[name])
        ids[name] = ODD[name].get("id", order_id)
    return ids


async def _free(services: Services) -> list[int]:
    listings = (await services.context.readings.fresh_snapshot(0)).by_id.values()  # what was rented just now is taken
    return [one.server_id for one in listings if not one.rented and one.gpu_count == 1][-40:-20]


def test_odd_rows_are_shown_cost_no_other_row_and_can_be_ended(world: World) -> None:
    """One order made here is sound, and one made elsewhere is odd in each way: every command, tool and resource."""
    mine = world.rent()
    sound = json.loads(world.run("orders", "--json").out)["orders"][0]
    ids = odd_ones(world)
    told = world.run("orders")
    assert told.code == 0
    for name, order_id in ids.items():
        assert (f"{order_id}: Cost unknown" in told.out) == (name in UNKNOWN), name
    assert f"and {len(UNKNOWN)} whose cost is unknown" in told.out
    listed = {order["order_id"]: order for order in json.loads(world.run("orders", "--json", "--all").out)["orders"]}
    assert set(listed) == {mine, *ids.values()}
    moving = ("spent_usd", "status", "ssh", "http_url")
    assert all(listed[mine][field] == sound[field] for field in sound if field not in moving)
    assert {name for name, order_id in ids.items() if "usd_per_hour" not in listed[order_id]} == UNKNOWN
    for words in ("doctor", "ledger", "ledger --json", "watchdog --once"):
        world.run(*words.split())  # `run` allows no traceback
    world.with_services(lambda services: _tools(services, ids))
    assert world.run("cancel", "--all", "--yes").code == 0
    left = json.loads(world.run("orders", "--json").out)["orders"]
    assert {order["order_id"] for order in left} == set(ids.values()), "cancel --all has ended the sound one alone"
    first, *others = ids.values()
    done = world.run("cancel", str(first), "--yes")
    assert (done.code, f"Order {first} cancelled." in done.out) == (0, True), done
    world.with_services(lambda services: _end(services, others))
    assert json.loads(world.run("orders", "--json").out)["orders"] == []
    world.run("ledger")


async def _end(services: Services, order_ids: list[int]) -> None:
    for order_id in order_ids:
        outcome = await services.closer.cancel(order_id, issue=None, caller="t", why="asked for")
        assert outcome.status == "cancelled", outcome


async def _tools(services: Services, ids: dict[str, int]) -> None:
    """What the tools and the resources do, by the parts that they call."""
    await services.keep_leases()
    account = await resources.read_account(services)
    assert set(account["cost_not_known"]) == {ids[name] for name in UNKNOWN}
    assert len((await resources.read_orders(services))["orders"]) == len(ids) + 1
    await resources.read_ledger(services)

    async def progress(_: float, __: str) -> None:
        await anyio.lowlevel.checkpoint()

    for name, order_id in ids.items():
        assert (await resources.read_order(services, order_id))["order_id"] == order_id, name
        await resources.read_ssh_config(services, order_id)
        assert (await services.readiness.wait(order_id, 0.1, progress)).order.view.order_id == order_id
        held = await services.guard.hold(CancelOrder(order_id=order_id), caller="t", can_ask=True, replay=False)
        assert held.quote is not None, "someone is asked before an order made elsewhere ends"


def _used(limit: dict[str, float]) -> float:
    return limit["spent"] + limit["reserved"]


@pytest.mark.parametrize("name", ["no coin", "a huge spend", "an absurd price", "everything"])
def test_an_odd_row_of_our_own_order_keeps_its_end_and_stop_ends_it(world: World, name: str) -> None:
    mine, sound = world.rent(), world.rent(place=1)
    shows(world, mine, ODD[name])
    listed = {order["order_id"]: order for order in json.loads(world.run("orders", "--json").out)["orders"]}
    assert all(listed[order_id]["made_here"] and "ends_at" in listed[order_id] for order_id in (mine, sound))
    used = world.with_services(resources.read_account)["limits"]
    [reserved] = world.rows(
        "SELECT SUM(worst_micros) AS worst, SUM(hourly_micros) AS hourly FROM reservations WHERE released_at IS NULL"
    )
    assert _used(used["usd_per_hour"]) == pytest.approx(reserved["hourly"] / 1e6, abs=0.001)
    assert _used(used["usd_per_day"]) == pytest.approx(reserved["worst"] / 1e6, abs=0.001)
    done = world.run("stop", "--yes")
    assert done.code == 0, done
    assert all(f"Order {order_id} ended." in done.out for order_id in (mine, sound))
    assert world.rows("SELECT * FROM orders WHERE ended_at IS NULL") == []


@pytest.mark.parametrize(
    "twin",
    [{}, {"expired": True, "order_end": 1_700_000_000}, {"spend": 0.01}, {"currency": "USDT"}],
    ids=["the same", "one ended", "another spend", "another coin"],
)
def test_an_order_that_is_listed_twice_is_one_that_runs_and_is_adopted(world: World, twin: dict[str, Any]) -> None:
    world.post("/options", {"repeat_rows": True})
    try:
        mine = world.rent()  # which asserts that it is created, not uncertain
        shows(world, mine, {}, twin)
        seen = world.with_services(_looked)
        assert [(view.order_id, not view.over) for view in seen.views] == [(mine, True)]
        assert not seen.unsettled
        assert [lease.order_id for lease in world.with_services(_running)] == [mine]
    finally:
        world.post("/options", {"repeat_rows": False})


def test_an_order_that_is_listed_at_two_prices_counts_once_at_the_dearer(world: World) -> None:
    theirs = _elsewhere(world, world.ask().server_id)
    world.post("/clock", {"advance": 10})
    before = world.with_services(_looked).usd_per_hour
    price = next(row["price"] for row in world.orders() if row["id"] == theirs)
    for row, twin in (({}, {"price": price * 3}), ({"price": price * 3}, {"price": price, "expired": True})):
        shows(world, theirs, row, twin)
        assert world.with_services(_looked).usd_per_hour == pytest.approx(before * 3, rel=0.01)


async def _looked(services: Services) -> OrdersSeen:
    services.context.readings.changed()
    return await look(services)


async def _running(services: Services) -> list[Lease]:
    return await services.stopper.running()


def test_beside_an_order_whose_cost_is_not_known_a_cap_is_never_passed(world: World) -> None:
    """It counts as the worst that is known: its price read as USD, its server's, or the whole hourly cap."""
    theirs = _elsewhere(world, world.ask().server_id)
    wish = world.ask(place=1)
    for row, allowed in (
        ({"currency": "USDT", "price": 24.0}, True),
        ({"currency": "USDT", "price": 24.0 * 4.9}, False),
        ({"currency": "USDT", "price": None}, True),
        ({"currency": "USDT", "price": None, "si": None}, False),
    ):
        shows(world, theirs, row)
        found = world.with_services(lambda services: _appraised(services, wish), CLORE_MAX_USD_PER_HOUR="5")
        assert (not found.refusals) == allowed, (row, found.refusals)
        said = "; ".join(map(str, found.refusals))
        assert allowed or f"order {theirs} counts as $" in said


async def _appraised(services: Services, wish: CreateOrder) -> PricedOrder:
    services.context.readings.changed()
    return await services.pricer.price(wish)

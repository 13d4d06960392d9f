"""The human exit from `uncertain`: only what looking can't settle, only what can be true, only at a terminal."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from clore_mcp.rental.requests import CreateOrder
from clore_mcp.store import intents, quotes
from clore_mcp.store.database import Tx
from clore_mcp.store.intents import Intent, Reservation
from tests.world import IMAGE, World

INTENT = "itest23"
ASKS = "anything else to leave it:"


@pytest.fixture
def doubt(world: World) -> CreateOrder:
    """A create that Clore acknowledged and never showed."""
    ask = world.ask()
    quote_id = world.hold(ask)

    def write(tx: Tx) -> None:
        quote = quotes.get(tx, quote_id)
        assert quote is not None
        now = quote.created_at
        quotes.consume(tx, quote_id, from_state="pending", owner="gone", by="test", now=now)
        first = quote.terms["candidates"][0]
        intent = Intent(
            id=INTENT, account=quote.account, quote_id=quote_id, verb="create_order", server_id=ask.server_id,
            image=IMAGE, order_type="on-demand", coin=first["coin"], known_order_ids=frozenset(), state="sending",
            owner="gone", created_at=now,
        )  # fmt: skip
        reserved = Reservation(INTENT, quote.account, first["coin"], Decimal("0.5"), Decimal("0.3"), now)
        intents.add(tx, intent, reserved)
        intents.acknowledge(tx, INTENT)
        intents.step(tx, INTENT, was="sending", now_is="uncertain", not_after=now)
        quotes.settle(tx, quote_id, {"status": "uncertain", "attempts": []})

    world.write(write)
    return ask


def _order(world: World, server_id: int, **changes: Any) -> int:
    """An order that Clore shows for this account, in a way that no look takes for the doubtful one."""
    coin = world.rows("SELECT coin FROM intents")[0]["coin"]
    body = {"key": world.key, "currency": coin, "image": "other/image", "renting_server": server_id}
    body |= {"type": "on-demand", "ports": {"22": "tcp"}, "age_seconds": 60, **changes}
    return int(world.post("/orders", body)["order_id"])


def _intent(world: World) -> dict[str, Any]:
    return world.rows("SELECT state, order_id FROM intents")[0]


def _by_hand(world: World) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in world.ledger().splitlines()]
    return [row for row in rows if row["step"] == "settled_by_hand"]


def _settle(world: World, *words: str, answer: str = "yes") -> Any:
    with world.at_terminal("settle", INTENT, *words) as terminal:
        terminal.expect(ASKS)
        terminal.type(answer)
        return terminal.end()


def test_the_doubt_is_loud_and_names_its_cure(world: World, doubt: CreateOrder) -> None:
    done = world.run("orders")
    assert f"!! An order on server {doubt.server_id} may be running and billing" in done.err
    assert f"clore-mcp settle {INTENT} --order ID (or --none)" in done.err
    everything = world.run("cancel", "--all", "--yes")
    assert (everything.code, "may be running and billing" in everything.err) == (1, True)


def test_settling_wants_a_terminal(world: World, doubt: CreateOrder) -> None:
    done = world.run("settle", INTENT, "--none", stdin="yes\n")
    assert (done.code, "settle needs a person at a terminal" in done.err) == (1, True)
    assert _intent(world)["state"] == "uncertain"


def test_none_frees_the_reservation_after_a_typed_yes(world: World, doubt: CreateOrder) -> None:
    left = _settle(world, "--none", answer="y")
    assert (left.code, "Nothing has changed." in left.out) == (1, True)
    assert _intent(world)["state"] == "uncertain"
    done = _settle(world, "--none")
    assert (done.code, "Its reservation is released" in done.out) == (0, True)
    assert _intent(world) == {"state": "failed", "order_id": None}
    assert world.rows("SELECT actual_micros FROM reservations WHERE released_at IS NOT NULL") == [{"actual_micros": 0}]
    (row,) = _by_hand(world)
    assert row["caller"].startswith("person at ")
    assert (row["intent_id"], row["data"]["order"]) == (INTENT, "none")
    with world.at_terminal("settle", INTENT, "--none") as terminal:
        again = terminal.end()
    assert (again.code, "is settled already: failed." in again.out) == (1, True)


def test_none_is_refused_while_an_order_runs_there(world: World, doubt: CreateOrder) -> None:
    order_id = _order(world, doubt.server_id)
    with world.at_terminal("settle", INTENT, "--none") as terminal:
        done = terminal.end()
    assert (done.code, f"Order {order_id} runs on server {doubt.server_id} and may be the one" in done.out) == (1, True)
    assert _intent(world)["state"] == "uncertain"


def test_an_order_of_that_server_is_adopted_with_its_end(world: World, doubt: CreateOrder) -> None:
    order_id = _order(world, doubt.server_id)
    done = _settle(world, "--order", str(order_id))
    assert (done.code, f"Order {order_id} is adopted, at $" in done.out) == (0, True)
    assert _intent(world) == {"state": "adopted", "order_id": order_id}
    assert [row["order_id"] for row in _by_hand(world)] == [order_id]
    lease = world.rows("SELECT * FROM orders")[0]
    assert lease["ends_api_at"] - lease["started_api_at"] == 5_400
    assert f"{order_id}  1x" in world.run("orders").out


def test_an_order_that_has_ended_is_adopted_with_its_receipt(world: World, doubt: CreateOrder) -> None:
    order_id = _order(world, doubt.server_id)
    assert world.run("cancel", str(order_id), "--yes").code == 0
    done = _settle(world, "--order", str(order_id))
    assert (done.code, "it has ended" in done.out) == (0, True)
    row = world.rows("SELECT ended_at, receipt FROM orders")[0]
    assert row["ended_at"] is not None
    assert json.loads(row["receipt"])["total_usd"] > 0
    assert world.rows("SELECT * FROM reservations WHERE released_at IS NULL") == []


def test_an_order_that_can_not_be_it_is_refused(world: World, doubt: CreateOrder) -> None:
    coin = world.rows("SELECT coin FROM intents")[0]["coin"]
    elsewhere = _order(world, world.ask(place=1, currency=coin).server_id)
    for order_id, why in ((elsewhere, "is not on server"), (7, "Clore lists no order 7")):
        with world.at_terminal("settle", INTENT, "--order", str(order_id)) as terminal:
            done = terminal.end()
        assert (done.code, why in done.out) == (1, True), done.out
    assert _intent(world)["state"] == "uncertain"


def test_what_a_look_can_settle_is_not_asked(world: World, doubt: CreateOrder) -> None:
    order_id = _order(world, doubt.server_id, image=IMAGE)
    with world.at_terminal("settle", INTENT, "--none") as terminal:
        done = terminal.end()
    assert (done.code, f"Settled by a check just now: it made order {order_id}" in done.out) == (0, True)
    assert _by_hand(world) == []


def test_an_unknown_intent_is_refused(world: World) -> None:
    with world.at_terminal("settle", "inone", "--none") as terminal:
        done = terminal.end()
    assert (done.code, "This account has no such intent." in done.out) == (1, True)

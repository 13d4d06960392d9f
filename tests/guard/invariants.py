"""Invariants that must hold after every test, judged by what Clore really did."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal

from clore_mcp.sandbox import SANDBOX_KEY
from tests.guard.calls import ENV_VALUE
from tests.world import Json, World


def check_invariants(world: World, *, settled: bool = True) -> None:
    """Assert the invariants. `settled`: nothing is on its way any more, so no outcome may be unknown."""
    intents = world.intents()
    quotes = {row["id"]: row for row in world.rows("SELECT * FROM quotes")}
    leases = {row["order_id"]: row for row in world.rows("SELECT * FROM orders")}
    reservations = {row["intent_id"]: row for row in world.rows("SELECT * FROM reservations")}
    ours = [order for order in world.orders() if order["id"] not in world.elsewhere]
    _every_order_has_its_own_yes(ours, intents, quotes)
    _nothing_is_sent_twice(world.sent(), intents)
    _every_order_is_known(ours, leases, intents, settled=settled)
    _reservations_cover_the_worst(world, ours, leases, intents, reservations)
    _ledger_is_append_only(world)
    _no_secret_is_kept(world)


def _every_order_has_its_own_yes(ours: Iterable[Json], intents: Iterable[Json], quotes: Mapping[str, Json]) -> None:
    """Assert that each order at Clore belongs to one intent of an approved quote, and that no quote has two orders."""
    by_server: dict[int, list[Json]] = {}
    for intent in intents:
        if intent["state"] not in ("refused", "abandoned", "reserved"):
            by_server.setdefault(intent["server_id"], []).append(intent)
    covered: Counter[str] = Counter()
    for order in sorted(ours, key=lambda one: int(one["id"])):
        candidates = by_server.get(order["server_id"], [])
        exact = [one for one in candidates if one["order_id"] == order["id"]] or [
            one for one in candidates if one["order_id"] is None
        ]
        assert exact, f"order {order['id']} at Clore belongs to no intent"
        quote = quotes[exact[0]["quote_id"]]
        assert quote["decided_by"], f"order {order['id']} was made without a yes"
        covered[quote["id"]] += 1
    assert all(count == 1 for count in covered.values()), f"two orders for one yes: {covered}"


def _nothing_is_sent_twice(sent: Iterable[Json], intents: Iterable[Json]) -> None:
    wanted = Counter(intent["server_id"] for intent in intents)
    looked_at: Counter[int] = Counter()
    too_fast: Counter[int] = Counter()
    for request in sent:
        server_id = (request["body"] or {}).get("renting_server")
        if server_id is not None:
            (too_fast if request["code"] == 5 else looked_at)[server_id] += 1
    for server_id, count in looked_at.items():
        assert count <= wanted[server_id], f"{count} creates for server {server_id}, {wanted[server_id]} intents"
    for server_id, count in too_fast.items():
        assert count + looked_at[server_id] <= 3 * wanted[server_id]


def _every_order_is_known(
    ours: Iterable[Json], leases: Mapping[int, Json], intents: Iterable[Json], *, settled: bool
) -> None:
    for order in ours:
        doubtful = [
            one
            for one in intents
            if one["server_id"] == order["server_id"] and one["state"] in ("sending", "uncertain", "failed")
        ]
        assert order["id"] in leases or (not settled and doubtful), f"nobody knows order {order['id']}"
    for intent in intents:
        assert (intent["state"] == "adopted") == (intent["order_id"] in leases and intent["order_id"] is not None)
        assert not settled or intent["state"] not in ("reserved", "sending"), f"{intent['id']} is {intent['state']}"


def _reservations_cover_the_worst(
    world: World,
    ours: Iterable[Json],
    leases: Mapping[int, Json],
    intents: Iterable[Json],
    reservations: Mapping[str, Json],
) -> None:
    for order in ours:
        lease = leases.get(order["id"])
        if lease is None:
            continue
        held = reservations[lease["intent_id"]]
        if lease["ended_at"] is None:
            fee = Decimal("1.0125") if order["type"] == "spot" else Decimal("1.05")
            seconds = max(0, lease["ends_api_at"] - order["ct"])
            worst = Decimal(str(order["price"])) * seconds / 86_400 * fee + Decimal("0.1")
            assert held["released_at"] is None, f"order {order['id']} runs without a reservation"
            assert Decimal(held["worst_micros"]) / 10**6 >= worst, "a reservation is smaller than the worst case"
        else:
            assert order["ended_at"] is not None, f"order {order['id']} counts as ended and runs"
            assert held["actual_micros"] >= int(order["total"] * 10**6) - 1, "counted less than was paid"
    for intent in intents:
        held = reservations[intent["id"]]
        if intent["state"] in ("reserved", "sending", "uncertain"):
            assert held["released_at"] is None, f"{intent['id']} is {intent['state']} and nothing is reserved"
        if intent["state"] in ("failed", "refused", "abandoned"):
            assert (held["released_at"] is not None) and held["actual_micros"] == 0, f"{intent['id']} blocks money"


def _ledger_is_append_only(world: World) -> None:
    rows = world.rows("SELECT seq, at FROM ledger ORDER BY seq")
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(earlier["at"] <= later["at"] + 0.05 for earlier, later in itertools.pairwise(rows))
    for attack in (
        "DELETE FROM ledger",
        "UPDATE ledger SET step = 'x'",
        "INSERT OR REPLACE INTO ledger SELECT * FROM ledger",
    ):
        try:
            world.change(attack)
        except sqlite3.IntegrityError:
            continue
        assert not rows, f"the ledger let itself be changed: {attack}"


def _no_secret_is_kept(world: World) -> None:
    secrets = [SANDBOX_KEY, ENV_VALUE, *(row["value"] for row in world.rows("SELECT value FROM secrets"))]
    for table in ("quotes", "intents", "reservations", "orders", "ledger", "heartbeats"):
        text = json.dumps(world.rows(f"SELECT * FROM {table}"), default=str)
        for secret in secrets:
            assert secret not in text, f"a secret stands in {table}"

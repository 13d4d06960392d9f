"""What is used, held against the rows of the state and what Clore shows: never too little, and no order twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clore_mcp.clore import OrderRow
from clore_mcp.clore.models import Wallet
from clore_mcp.money import ZERO, Coin
from clore_mcp.rental.account.reading import Orders, Wallets
from clore_mcp.rental.rules.check import (
    AddedUsage,
    Draw,
    Evidence,
    Position,
    Spend,
    Usage,
    WalletDebts,
    check,
    free_balance,
    owed_now,
    used_now,
    wallet_refusal,
)
from clore_mcp.settings import Caps
from clore_mcp.store import intents, orders, quotes
from clore_mcp.store.database import Database
from tests.rental.test_billing import lease
from tests.rental.test_listed_now import evidence
from tests.rental.wishes import order
from tests.state.rows import ACCOUNT, intent, quote, reservation

NOW = 1_800_000_000.0
HOUR = 3_600
SENT = {"server_id": 5, "image": "x", "known_order_ids": frozenset({1}), "sent_api_at": NOW}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    database.write_now(lambda tx: quotes.add(tx, quote()))
    yield database
    database.close()


def shows(*rows: OrderRow, ended: tuple[OrderRow, ...] = (), usd: str = "100") -> Evidence:
    """What Clore shows: these orders, and so much in the USD wallet."""
    return replace(
        evidence(),
        current=Orders(list(rows), 0, None, 0.0, None),
        completed=Orders(list(ended), 0, None, 0.0, None),
        wallets=Wallets([Wallet(name=Coin.USD.value, balance=Decimal(usd), deposit=None)], 0.0),
        api_now=NOW,
    )


def sent(state: Database, now_is: str = "sending", intent_id: str = "i1", **changes: Any) -> None:
    """A create that has left, with 10 USD reserved at 1 USD per hour."""
    made = intent(intent_id, **{**SENT, **changes})
    state.write_now(lambda tx: intents.add(tx, made, reservation(intent_id)))
    state.write_now(lambda tx: intents.step(tx, intent_id, was="reserved", now_is=now_is, sent_api_at=made.sent_api_at))


def used(state: Database, seen: Evidence) -> tuple[Decimal, Decimal, int]:
    got = state.read_now(lambda tx: used_now(tx, ACCOUNT, seen, NOW, Caps()))
    return got.usd_per_hour, got.usd_per_day, got.active_orders


def row(order_id: int = 2, **changes: Any) -> OrderRow:
    """An order of 1.05 USD per hour that has cost 1.15 USD, its creation fee in."""
    return order(order_id, **{"image": "x", "ct": int(NOW), "creation_fee": 0.1, **changes})


@pytest.mark.parametrize("now_is", ["sending", "uncertain"])
def test_an_order_counts_once_before_anybody_has_adopted_it_and_with_the_larger_of_both(
    state: Database, now_is: str
) -> None:
    sent(state, now_is)
    assert used(state, shows()) == (Decimal(1), Decimal(10), 1)
    assert used(state, shows(row())) == (Decimal("1.05"), Decimal(10), 1)
    assert used(state, shows(ended=(row(expired=True, order_end=int(NOW)),))) == (Decimal(1), Decimal(10), 1)
    assert used(state, shows(row(spend=20))) == (Decimal("1.05"), Decimal("21.1"), 1)


@pytest.mark.parametrize(
    "other",
    [
        {"order_id": 1},  # listed before the send
        {"si": 6},
        {"image": "y"},
        {"spot": True},
        {"currency": "bitcoin", "price": 0.0001, "spend": 0},
        {"ct": int(NOW) - HOUR},
    ],
)
def test_an_order_that_the_create_can_not_have_made_counts_beside_it(state: Database, other: dict[str, Any]) -> None:
    sent(state)
    hourly, daily, active = used(state, shows(row(**{"order_id": 2, **other})))
    assert hourly > 1 and daily > 10 and active == 2


def test_where_two_orders_might_be_the_one_nothing_is_taken_for_the_other(state: Database) -> None:
    sent(state)
    assert used(state, shows(row(2), row(3)))[2] == 3


def test_one_order_is_that_of_one_create_only(state: Database) -> None:
    sent(state)
    sent(state, intent_id="i2")
    assert used(state, shows(row()))[2] == 2
    state.write_now(lambda tx: orders.add(tx, lease(2, account=ACCOUNT, intent_id="i1")))
    assert used(state, shows(row()))[2] == 3, "an adopted order is nobody else's"


def test_a_create_that_has_not_left_made_no_order(state: Database) -> None:
    sent(state, "reserved")
    assert used(state, shows(row()))[2] == 2


def test_what_was_paid_counts_for_twenty_four_hours_though_clore_shows_nothing_of_it(state: Database) -> None:
    sent(state)
    state.write_now(lambda tx: intents.release(tx, "i1", Decimal(3), NOW - 24 * HOUR + 1))
    assert used(state, shows()) == (ZERO, Decimal(3), 0)
    state.write_now(lambda tx: tx.run("UPDATE reservations SET released_at = ?", NOW - 24 * HOUR - 1))
    assert used(state, shows()) == (ZERO, ZERO, 0)


def short(state: Database, seen: Evidence, needed: str) -> str | None:
    draw = Draw(Coin.USD, Decimal(1), Decimal(needed) / 2, Decimal(2))
    refusal = state.read_now(lambda tx: wallet_refusal(draw, seen, owed_now(tx, ACCOUNT, seen)))
    return None if refusal is None else refusal.change


@pytest.mark.parametrize(
    ("balance", "needed", "top_up"),
    [
        ("4", "10", "6"),
        ("0", "10", "10"),
        ("9.99999", "10", "0.01"),
        ("10", "10", None),
    ],
)
def test_the_top_up_is_what_is_missing_rounded_up(
    state: Database, balance: str, needed: str, top_up: str | None
) -> None:
    told = None if top_up is None else f"the person, by topping up {top_up} USD on clore.ai"
    assert short(state, shows(usd=balance), needed) == told


def test_the_top_up_has_in_it_what_other_orders_will_take_beyond_the_balance(state: Database) -> None:
    assert short(state, shows(row(), usd="1"), "10") == "the person, by topping up 11.1 USD on clore.ai"


def test_an_order_drains_the_wallet_once_before_anybody_has_adopted_it(state: Database) -> None:
    sent(state)
    assert short(state, shows(row(), usd="12.1"), "10") is None, "1.05 an hour for two hours"
    assert short(state, shows(usd="11.99"), "10") is not None, "its reservation, while Clore does not show it"
    sent(state, intent_id="i2")
    assert short(state, shows(row(), usd="14.09"), "10") is not None, "one order is not that of two creates"


def test_what_is_not_listed_yet_is_taken_at_the_rate_of_the_coin_and_its_own_draw_not_twice() -> None:
    made = replace(reservation("i1"), coin=Coin.CLORE, usd_per_hour=Decimal(1), order_id=7)
    owed = WalletDebts({}, (made,))
    draw = Draw(Coin.CLORE, Decimal("0.01"), Decimal(50), Decimal(2))
    assert owed.unlisted(draw, frozenset()) == 200
    assert owed.unlisted(draw, frozenset({7})) == 0
    balances = {Coin.CLORE: Decimal(1_000)}
    wallets = Wallets([Wallet(name=coin.value, balance=held, deposit=None) for coin, held in balances.items()], 0.0)
    seen = replace(evidence(), current=Orders([], 0, None, 0.0, None), wallets=wallets, api_now=NOW)
    assert free_balance(draw, seen, owed) == 800
    assert free_balance(replace(draw, order_id=7), seen, owed) == 1_000


def test_while_spending_is_stopped_every_step_is_refused_whatever_it_costs() -> None:
    stands = Position(Caps(), {}, Usage(ZERO, ZERO, 0), WalletDebts({}, ()), None, ended=True, unasked=False)
    free = Spend(AddedUsage(ZERO, ZERO, ZERO, active_orders=0))
    assert check(stands, free) == []
    [refusal] = check(replace(stands, frozen=True), free)
    assert refusal.limit == "frozen"
    assert refusal.change.startswith("the person, who stopped all spending")

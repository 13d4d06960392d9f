"""Nothing is rented in place of a lost order before that is proven gone and has cost no more than was approved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from clore_mcp.clore import OrderRow
from clore_mcp.rental.account.reading import Orders
from clore_mcp.rental.create.presence import standing_in_the_way
from clore_mcp.rental.results import Outcome
from clore_mcp.store import intents, orders, quotes
from clore_mcp.store.database import Database
from clore_mcp.store.orders import OrderReceipt
from tests.rental.test_billing import lease
from tests.rental.test_listed_now import evidence
from tests.rental.wishes import ask, candidate, fees, listing, order, terms
from tests.state.rows import ACCOUNT, intent, quote, reservation

LOST = 1
COST = OrderReceipt(0.2, 0.1, 0.01, 0.1, 0.21)
TERMS = replace(
    terms(ask(), candidate(ask(), listing(), fees())), replaces_order_id=LOST, replaced_most_usd=Decimal("0.21")
)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    database.write_now(lambda tx: quotes.add(tx, quote("q1", state="settled")))
    yield database
    database.close()


def add(state: Database) -> None:
    """The lost order was made here."""
    state.write_now(lambda tx: intents.add(tx, intent("i1", state="adopted"), reservation("i1")))
    state.write_now(lambda tx: orders.add(tx, lease(LOST, account=ACCOUNT, intent_id="i1")))


def end(state: Database, receipt: OrderReceipt = COST) -> None:
    """It is proven gone, with that receipt."""
    add(state)
    assert state.write_now(lambda tx: orders.end(tx, ACCOUNT, LOST, 1.0, receipt))


def stands(state: Database, *rows: OrderRow) -> Outcome | None:
    """What stands in the way while Clore lists those orders."""
    now = replace(evidence(), current=Orders(list(rows), 0, None, 0.0, None))
    made = quote("q2", state="committing", replaces="q1", terms=TERMS.as_json())
    return state.read_now(lambda tx: standing_in_the_way(tx, made, TERMS, now, "clore-mcp"))


def test_a_lost_order_that_is_gone_and_cost_what_was_approved_stands_in_nobodys_way(state: Database) -> None:
    end(state)
    assert stands(state) is None
    assert stands(state, order(LOST, expired=True), order(2)) is None


def test_a_lost_order_that_is_unknown_or_not_proven_gone_is_waited_for(state: Database) -> None:
    unknown = stands(state)
    assert unknown is not None and unknown.status == "in_progress"
    add(state)
    running = stands(state, order(LOST, expired=True))
    assert running is not None and running.status == "in_progress"


def test_a_lost_order_that_clore_lists_as_running_again_is_waited_for(state: Database) -> None:
    end(state)
    outcome = stands(state, order(LOST))
    assert outcome is not None and outcome.status == "in_progress"


def test_a_lost_order_that_cost_more_than_approved_or_nobody_knows_what_is_not_followed_by_another(
    state: Database,
) -> None:
    end(state, replace(COST, total_usd=0.211))
    dearer = stands(state)
    assert dearer is not None and dearer.status == "failed"
    assert "Order 1 has cost $0.2110, more than the $0.21 that the yes named." in dearer.next
    state.write_now(lambda tx: tx.run("UPDATE orders SET receipt = NULL"))
    unknown = stands(state)
    assert unknown is not None and unknown.status == "failed"
    assert "Order 1 has cost an unknown amount" in unknown.next

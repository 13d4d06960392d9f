"""What no decision reads any more goes; what a person answered, and the ledger, stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clore_mcp.store import intents, ledger, orders, quotes
from clore_mcp.store.database import Database, Tx
from clore_mcp.store.ledger import Entry
from clore_mcp.store.orders import OrderReceipt
from tests.state.rows import ACCOUNT, intent, quote, reservation

DAY = 86_400.0


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    yield database
    database.close()


def test_a_question_that_nobody_answered_goes_after_thirty_days_and_no_other_quote(state: Database) -> None:
    def write(tx: Tx) -> None:
        for name, was in (
            ("lapsed", "expired"), ("used", "settled"), ("declined", "declined"), ("yes", "expired"),
        ):  # fmt: skip
            quotes.add(tx, quote(name, state=was, decided_by=None if name == "lapsed" else "a person"))
        quotes.add(tx, quote("young", state="expired", created_at=100.0 + 15 * DAY))
        intents.add(tx, intent(quote_id="used", state="adopted"), reservation())

    def left(tx: Tx, now: float) -> set[str]:
        quotes.expire(tx, now)
        return {row["id"] for row in tx.all("SELECT id FROM quotes")}

    state.write_now(write)
    everything = {"lapsed", "used", "declined", "yes", "young"}
    assert state.write_now(lambda tx: left(tx, 99.0 + 30 * DAY)) == everything
    assert state.write_now(lambda tx: left(tx, 101.0 + 30 * DAY)) == everything - {"lapsed"}


def test_many_lapsed_questions_go_some_at_a_time(state: Database) -> None:
    def write(tx: Tx) -> None:
        for number in range(50):
            quotes.add(tx, quote(f"q{number}", state="expired"))

    def left(tx: Tx) -> int:
        quotes.expire(tx, 100.0 + 40 * DAY)
        return len(tx.all("SELECT id FROM quotes"))

    state.write_now(write)
    assert [state.write_now(left) for _ in range(4)] == [30, 10, 0, 0]


def test_a_process_that_was_killed_is_forgotten_after_a_day(state: Database) -> None:
    state.write_now(lambda tx: ledger.beat(tx, ACCOUNT, "killed", "host", 100.0))
    state.write_now(lambda tx: ledger.beat(tx, ACCOUNT, "alive", "host", 101.0 + DAY))
    assert [row["owner"] for row in state.read_now(lambda tx: tx.all("SELECT owner FROM heartbeats"))] == ["alive"]


def test_when_an_order_was_missed_is_forgotten_with_its_end_and_with_its_return(state: Database) -> None:
    def names(tx: Tx) -> list[str]:
        return [row["name"] for row in tx.all("SELECT name FROM meta")]

    def miss(tx: Tx) -> list[str]:
        for order_id in (1, 2):
            orders.miss(tx, ACCOUNT, order_id, 100.0, 100.0)
        return names(tx)

    assert len(state.write_now(miss)) == 2
    state.write_now(lambda tx: orders.seen_again(tx, ACCOUNT, [1]))
    state.write_now(lambda tx: orders.end(tx, ACCOUNT, 2, 200.0, OrderReceipt(0, 0, 0, 0, 0), unseen=True))
    assert state.read_now(names) == []


def test_a_look_at_what_is_new_begins_at_its_time_and_reads_no_more_than_it_is_told_to(state: Database) -> None:
    def write(tx: Tx) -> None:
        for at in range(1, 11):
            ledger.write(tx, Entry(float(at), ACCOUNT, "quoted", "test"))

    assert state.read_now(lambda tx: ledger.newest_before(tx, 5.0, 4)) == 0
    state.write_now(write)
    told = [state.read_now(lambda tx, at=at: ledger.newest_before(tx, at, 4)) for at in (99.0, 9.0, 2.0)]  # type: ignore[misc]
    assert told == [10, 8, 6]
    assert state.read_now(lambda tx: ledger.newest_before(tx, 2.0, 40)) == 1

"""Quotes are used once, intents move only along their chain, and reservations stay whole until the cost is known."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clore_mcp.store import intents, quotes
from clore_mcp.store.database import Database, Duplicate
from tests.state.rows import ACCOUNT, intent, quote, reservation


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    yield database
    database.close()


@pytest.fixture
def held(state: Database) -> Database:
    """A state with one quote and one intent."""
    state.write_now(lambda tx: quotes.add(tx, quote()))
    state.write_now(lambda tx: intents.add(tx, intent(), reservation()))
    return state


def state_of(state: Database, quote_id: str = "q1") -> str:
    found = state.read_now(lambda tx: quotes.get(tx, quote_id))
    assert found is not None
    return found.state


@pytest.mark.parametrize("live", ["pending", "approved", "committing"])
def test_a_digest_has_one_live_quote(state: Database, live: str) -> None:
    state.write_now(lambda tx: quotes.add(tx, quote("q1", digest="same", state=live)))
    with pytest.raises(Duplicate):
        state.write_now(lambda tx: quotes.add(tx, quote("q2", digest="same")))
    state.write_now(lambda tx: quotes.add(tx, quote("q3", digest="other")))


@pytest.mark.parametrize("over", ["settled", "declined", "expired"])
def test_a_quote_that_is_over_makes_room_for_the_same_call(state: Database, over: str) -> None:
    state.write_now(lambda tx: quotes.add(tx, quote("q1", digest="same", state=over)))
    state.write_now(lambda tx: quotes.add(tx, quote("q2", digest="same", created_at=101.0)))
    newest = state.read_now(lambda tx: quotes.latest(tx, "same"))
    assert newest is not None and newest.id == "q2"


def test_a_quote_is_decided_once_and_in_time_and_a_no_takes_back_an_unused_yes(state: Database) -> None:
    state.write_now(lambda tx: quotes.add(tx, quote()))

    def decide(yes: bool, now: float) -> bool:
        return state.write_now(lambda tx: quotes.decide(tx, "q1", yes=yes, by="p", now=now, until=now + 1800))

    assert not decide(True, 700.0)
    assert decide(True, 699.0)
    assert not decide(True, 699.0)
    assert state_of(state) == "approved"
    assert decide(False, 699.0)
    assert not decide(True, 699.0)
    assert state_of(state) == "declined"


def test_a_yes_is_used_once_and_only_while_it_lasts(state: Database) -> None:
    state.write_now(lambda tx: quotes.add(tx, quote()))
    state.write_now(lambda tx: quotes.decide(tx, "q1", yes=True, by="the person", now=200.0, until=2000.0))

    def consume(now: float, owner: str) -> bool:
        return state.write_now(lambda tx: quotes.consume(tx, "q1", from_state="approved", owner=owner, by="x", now=now))

    assert [consume(2000.0, "late"), consume(1999.0, "one"), consume(1999.0, "two")] == [False, True, False]
    kept = state.read_now(lambda tx: quotes.get(tx, "q1"))
    assert kept is not None
    assert (kept.state, kept.owner, kept.decided_by) == ("committing", "one", "the person")
    assert kept.decided_at == 1999.0, "the work is young, however long the yes has waited"


def test_what_nobody_answered_or_used_expires_and_what_is_under_way_does_not(state: Database) -> None:
    for name in ("pending", "approved", "committing"):
        state.write_now(lambda tx, n=name: quotes.add(tx, quote(n, state=n)))  # type: ignore[misc]
    state.write_now(lambda tx: quotes.expire(tx, 699.0))
    assert [state_of(state, name) for name in ("pending", "approved")] == ["pending", "approved"]
    state.write_now(lambda tx: quotes.expire(tx, 700.0))
    assert [state_of(state, name) for name in ("pending", "approved", "committing")] == [
        "expired", "expired", "committing",
    ]  # fmt: skip


STATES = ("reserved", "sending", "adopted", "failed", "refused", "uncertain", "abandoned")


@pytest.mark.parametrize("was", STATES)
def test_an_intent_moves_only_from_where_it_is_and_only_for_its_owner(held: Database, was: str) -> None:
    def step(**how: Any) -> bool:
        return held.write_now(lambda tx: intents.step(tx, "i1", **how))

    assert step(was=was, now_is="sending", owner="another") is False
    assert step(was=was, now_is="sending", owner="me", not_after=108.0) is (was == "reserved")
    found = held.read_now(lambda tx: intents.get(tx, "i1"))
    assert found is not None and found.state == ("sending" if was == "reserved" else "reserved")


def test_the_chain_keeps_what_each_step_learned(held: Database) -> None:
    def step(**how: Any) -> bool:
        return held.write_now(lambda tx: intents.step(tx, "i1", **how))

    assert step(was="reserved", now_is="sending", owner="me", not_after=108.0)
    assert not step(was="reserved", now_is="abandoned")  # too late: it may have been sent
    held.write_now(lambda tx: intents.acknowledge(tx, "i1"))
    assert step(was="sending", now_is="uncertain", reason="nothing found")
    assert step(was="uncertain", now_is="adopted", order_id=5)
    found = held.read_now(lambda tx: intents.get(tx, "i1"))
    assert found is not None
    assert (found.state, found.not_after, found.acknowledged, found.order_id, found.reason, found.known_order_ids) == (
        "adopted", 108.0, True, 5, "nothing found", frozenset({1, 2}),
    )  # fmt: skip


def test_an_abandoned_intent_can_no_longer_be_sent(held: Database) -> None:
    assert held.write_now(lambda tx: intents.step(tx, "i1", was="reserved", now_is="abandoned"))
    assert not held.write_now(lambda tx: intents.step(tx, "i1", was="reserved", now_is="sending", owner="me"))


def test_a_reservation_is_replaced_by_the_cost_rounded_up_and_whole_again_when_its_order_turns_up(
    held: Database,
) -> None:
    held.write_now(lambda tx: intents.release(tx, "i1", Decimal("0.0000001"), 200.0))
    assert held.read_now(lambda tx: intents.reservations_open(tx, ACCOUNT)) == []
    (paid,) = held.read_now(lambda tx: intents.reservations_released(tx, ACCOUNT, 200.0))
    assert paid.actual_usd == Decimal("0.000001")
    held.write_now(lambda tx: intents.release(tx, "i1", Decimal(0), 201.0))  # only once
    assert held.read_now(lambda tx: intents.reservations_released(tx, ACCOUNT, 201.0)) == []
    held.write_now(lambda tx: intents.bind(tx, "i1", 5))
    found = held.read_now(lambda tx: intents.reservation_of_order(tx, ACCOUNT, 5))
    assert found is not None
    assert [found.worst_usd, found.actual_usd, found.released_at] == [Decimal(10), None, None]


def test_rows_of_two_accounts_never_mix(held: Database) -> None:
    assert held.read_now(lambda tx: intents.reservations_open(tx, "other")) == []
    assert held.read_now(lambda tx: intents.in_state(tx, "other", *STATES)) == []
    assert held.read_now(lambda tx: intents.of_server(tx, "other", 7, 0)) == []
    assert held.read_now(lambda tx: quotes.waiting(tx, "other")) == []
    assert len(held.read_now(lambda tx: quotes.waiting(tx, ACCOUNT))) == 1

"""A person's cancel where Clore or the state is broken: ending an order needs neither lists nor prices nor a record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from clore_mcp.cli.main import main
from clore_mcp.rental.context import Patience
from clore_mcp.store.database import FILE_NAME
from tests.world import World

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def person(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A person whose commands run in this process and who does not wait long for a proof."""
    monkeypatch.setattr("clore_mcp.wiring.Patience", lambda: Patience(proof=1.0))
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    yield world
    world.mend()


@pytest.mark.parametrize("endpoint", ["marketplace", "wallets"])
def test_cancel_needs_no_prices_and_no_wallets(person: World, endpoint: str, capsys: Captured) -> None:
    order_id = person.rent()
    person.post("/faults", {"kind": "http502", "endpoint": endpoint, "times": 10_000})
    assert main(["cancel", str(order_id), "--yes"]) == 0
    assert f"Order {order_id} cancelled." in capsys.readouterr().out


def test_cancel_of_a_bid_that_never_won_says_that_nothing_was_billed(person: World, capsys: Captured) -> None:
    wish = person.ask(order_type="spot")
    bid = {"server_id": wish.server_id, "bid": 1e6, "currency": "USD-Blockchain"}
    wish = wish.model_copy(update={"bid_usd_per_hour": 0.5})
    person.post("/bids", bid)
    order_id = person.rent(wish)
    assert main(["cancel", str(order_id), "--yes"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"Order {order_id} cancelled." in told and "the bid never won, so nothing was billed" in told


def test_cancel_sends_though_the_orders_cannot_be_listed(person: World, capsys: Captured) -> None:
    order_id = person.rent()
    person.post("/faults", {"kind": "http502", "endpoint": "my_orders", "times": 10_000})
    assert main(["cancel", str(order_id), "--yes"]) == 1
    told = capsys.readouterr()
    assert f"Order {order_id}: not shown, price unknown." in told.out
    assert "STILL BILLING" in told.err
    person.mend()
    assert main(["cancel", str(order_id), "--yes"]) == 0
    assert "had already ended" in capsys.readouterr().out


def test_cancel_all_ends_what_the_state_knows_though_nothing_is_listed(person: World, capsys: Captured) -> None:
    order_id = person.rent()
    person.post("/faults", {"kind": "http502", "endpoint": "my_orders", "times": 10_000})
    assert main(["cancel", "--all", "--yes"]) == 1
    person.mend()
    assert main(["cancel", str(order_id), "--yes"]) == 0
    assert "had already ended" in capsys.readouterr().out


def test_cancel_needs_no_state(person: World, capsys: Captured) -> None:
    order_id = person.rent()
    for file in person.state.glob(f"{FILE_NAME}*"):
        file.unlink()
    (person.state / FILE_NAME).write_bytes(b"garbage" * 1000)
    with contextlib.suppress(SystemExit):
        assert main(["cancel", str(order_id), "--yes"]) == 0
    told = capsys.readouterr()
    assert "It is unknown whether it was made here" in told.out
    assert f"Order {order_id} cancelled." in told.out

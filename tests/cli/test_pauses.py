"""A pause that Clore asks for holds no command that ends orders, and what the command says is what happened."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest

from clore_mcp.cli.main import main
from clore_mcp.errors import QueueFull
from clore_mcp.rental.context import Patience
from clore_mcp.sandbox import Options, Running, start_in_thread
from clore_mcp.wiring import Services
from tests.story.records import orders
from tests.terminal import Done
from tests.world import KEYS, World

REAL = {"CLORE_REQUEST_GAP_SECONDS": "1.1"}  # Clore's own pace, so that an urgent request waits five seconds
AT_MOST = 22.0  # the start of a process, five seconds after the refusal, and the looks that prove the end


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """A market whose time passes as ours does, where an order shows at once."""
    options = Options(servers=400, rate_limit="off", speed=1.0, visible_after=0.0, keys=KEYS, ssh_listener=False)
    with start_in_thread(options) as running:
        yield running


@pytest.fixture(autouse=True)
def calm(world: World) -> Iterator[None]:
    yield
    world.mend()


def _refused(world: World, endpoint: str, seconds: int) -> None:
    """Another process is told to wait by a read."""

    async def read(services: Services) -> None:
        call = services.context.client.wallets if endpoint == "wallets" else services.context.client.marketplace
        with contextlib.suppress(TimeoutError, QueueFull):
            async with asyncio.timeout(3):  # the refusal comes at once, and then it would wait
                await call()

    world.post("/faults", {"kind": "too_fast", "endpoint": endpoint, "seconds": seconds})
    world.with_services(read, **REAL)


def _end(world: World, command: str, order_id: int) -> tuple[Done, float]:
    words = {"cancel": ("cancel", str(order_id), "--yes"), "cancel --all": ("cancel", "--all", "--yes")}
    began = time.monotonic()
    done = world.run(*words.get(command, (command,)), **REAL)
    return done, time.monotonic() - began


def _ended(world: World, order_id: int) -> bool:
    """By the market's own record."""
    return all(row["ended_at"] is not None for row in orders(world.running) if row["id"] == order_id)


@pytest.mark.parametrize(("command", "seconds"), [("cancel", 30), ("cancel --all", 600), ("stop", 30)])
def test_a_pause_that_a_read_of_another_process_met_holds_no_end(world: World, command: str, seconds: int) -> None:
    order_id = world.rent()
    _refused(world, "marketplace", seconds)
    done, took = _end(world, command, order_id)
    assert done.code == 0, done
    assert f"Order {order_id} {'ended' if command == 'stop' else 'cancelled'}." in done.out
    assert "STILL BILLING" not in done.err
    assert command == "stop" or f"Order {order_id}: 1x " in done.out, "what is about to end is shown"
    assert took < AT_MOST
    assert _ended(world, order_id)


@pytest.mark.parametrize(
    ("command", "endpoint", "seconds"),
    [
        ("cancel", "wallets", 600), ("cancel", "my_orders", 30), ("cancel", "cancel_order", 600),
        ("stop", "wallets", 30), ("stop", "cancel_order", 30),
    ],
)  # fmt: skip
def test_a_pause_that_the_command_itself_meets_holds_no_end(
    world: World, command: str, endpoint: str, seconds: int
) -> None:
    order_id = world.rent()
    world.post("/faults", {"kind": "too_fast", "endpoint": endpoint, "seconds": seconds})
    done, took = _end(world, command, order_id)
    assert done.code == 0, done
    assert f"Order {order_id} {'ended' if command == 'stop' else 'cancelled'}." in done.out
    assert _ended(world, order_id)
    assert took < AT_MOST


@pytest.mark.parametrize("command", ["cancel", "stop"])
def test_a_cancel_that_is_refused_each_time_is_said_to_bill_on(
    world: World, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("clore_mcp.wiring.Patience", lambda: Patience(proof=1.0))
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    order_id = world.rent()
    world.post("/faults", {"kind": "too_fast", "endpoint": "cancel_order", "seconds": 600, "times": 10_000})
    assert main(["cancel", str(order_id), "--yes"] if command == "cancel" else ["stop"]) == 1
    told = capsys.readouterr()
    err = " ".join(told.err.split())
    assert f"Order {order_id} is STILL BILLING as far as is known" in err
    assert "too many requests" in err
    assert f"Order {order_id} {'ended' if command == 'stop' else 'cancelled'}." not in told.out

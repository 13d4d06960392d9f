"""kill -9, a freeze, SIGTERM and EOF at every step of a create: the rows lead to one of three ends, and never to two
orders: nothing rented and nothing reserved; one order adopted; uncertain, said, reserved, blocking."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clore_mcp.rental.requests import CancelOrder, Request
from clore_mcp.wiring import Services
from tests.guard.calls import Told, call, cancel, patient, rent, wish
from tests.guard.children import Child, settle
from tests.guard.conftest import LocalTime, Processes
from tests.guard.invariants import check_invariants
from tests.preforked import python
from tests.world import IMAGE, USD, World

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
]
BRIEF = patient(answer=0.3)


async def test_killed_before_anything_was_sent_nothing_is_reserved(
    world: World, process: Processes, children: list[Child]
) -> None:
    ask = wish(world.free()[0])
    child = Child(world, ask, stop="evidence")
    children.append(child)
    child.await_place()
    child.kill()
    services = await process(BRIEF)
    assert not world.intents()
    assert (await call(services, ask, answer=False)).status == "declined", "asked again: no yes was left behind"
    assert not world.sent()


async def test_killed_while_reserved_and_waiting_the_reservation_is_given_back(
    world: World, process: Processes, children: list[Child]
) -> None:
    ask = wish(world.free()[0])
    child = Child(world, ask, stop="evidence")
    children.append(child)
    child.await_place()  # it has started by now, however busy the machine is: the slot is still taken when it asks
    world.options(rate_limit="arrival", interval=0.0, create_interval=15.0, retry_after=True)
    world.take_create_slot()
    child.wake()
    await asyncio.to_thread(world.await_request, "create_order", beyond=1)
    await asyncio.to_thread(world.await_state, lambda: [row["state"] for row in world.intents()] == ["reserved"])
    child.kill()
    world.options(rate_limit="off")
    assert len(world.reserved()) == 1
    services = await process(BRIEF)
    await settle(world, services)
    assert [row["state"] for row in world.intents()] == ["abandoned"]
    assert not world.reserved()
    check_invariants(world)
    assert (await _after_all(services, ask)).status == "created"
    assert len(world.active()) == 1
    check_invariants(world)


async def _after_all(services: Services, ask: Request) -> Told:
    """The same call until it says something final; what nobody was told comes first, once."""
    for _ in range(40):
        outcome = await call(services, ask)
        if outcome.status not in ("in_progress", "failed"):
            return outcome
        services.context.readings.changed()
    return outcome


@pytest.mark.parametrize(("kind", "orders"), [("hang_before", 0), ("hang_after", 1)])
async def test_killed_while_the_create_hangs_it_is_settled_by_the_next_process(
    world: World, process: Processes, children: list[Child], kind: str, orders: int
) -> None:
    ask = wish(world.free()[0])
    world.fault(kind, "create_order", seconds=8.0)
    child = Child(world, ask)
    children.append(child)
    await asyncio.to_thread(world.await_request, "create_order", effect=bool(orders))
    child.kill()
    services = await process(BRIEF)
    early = await call(services, ask)
    assert early.status in ("in_progress", "created"), "the dead process might still be alive"
    assert len(world.sent()) == 1
    await settle(world, services)
    assert [row["state"] for row in world.intents()] == ["adopted" if orders else "failed"]
    assert len(world.reserved()) == orders
    check_invariants(world)
    assert (await _after_all(services, ask)).status == "created"
    assert len(world.active()) == 1
    assert len(world.sent()) == 2 - orders, "bought once"
    check_invariants(world)


async def test_killed_while_looking_the_order_is_adopted_when_it_shows(
    world: World, process: Processes, children: list[Child]
) -> None:
    ask = wish(world.free()[0])
    world.fault("late_visible", seconds=90_000)
    child = Child(world, ask, patience=patient(look=30.0))
    children.append(child)
    await asyncio.to_thread(world.await_request, "create_order")
    await asyncio.to_thread(world.await_state, lambda: "answered" in world.steps())
    child.kill()
    services = await process(BRIEF)
    await settle(world, services)
    assert [row["state"] for row in world.intents()] == ["uncertain"], "Clore had said code 0"
    assert len(world.reserved()) == 1
    again = await call(services, ask)
    assert again.status == "uncertain"
    assert (await call(services, wish(ask.server_id, hours=5))).status == "refused", "that server is blocked"
    assert len(world.sent()) == 1
    check_invariants(world, settled=False)
    world.advance(90_000)
    services.context.readings.changed()
    assert (await call(services, ask)).status == "created"
    check_invariants(world)


async def test_killed_while_cancelling_the_order_is_ended_by_the_next_process(
    world: World, local: LocalTime, process: Processes, children: list[Child]
) -> None:
    services = await process()
    order_id = (await rent(services, world.free()[0])).order_id
    world.fault("hang_before", "cancel_order", seconds=8.0)
    child = Child(world, CancelOrder(order_id=order_id))
    children.append(child)
    await asyncio.to_thread(world.await_request, "cancel_order")
    child.kill()
    later = await process(BRIEF)
    assert len(world.active()) == 1
    assert len(world.reserved()) == 1
    local.pass_by(31)  # until then that cancel counts as on its way
    await later.keeper.poll()
    await asyncio.to_thread(world.await_state, lambda: not world.active())  # what was agreed to is carried on
    assert (await cancel(later, order_id)).status in ("already_ended", "unverified")
    await settle(world, later)
    check_invariants(world)


@pytest.mark.parametrize(
    ("place", "patience"), [("claimed", {"send_within": 0.5}), ("evidence", {"leave_within": 0.5})]
)
async def test_a_process_that_was_frozen_before_sending_sends_nothing(
    world: World, process: Processes, children: list[Child], place: str, patience: dict[str, Any]
) -> None:
    ask = wish(world.free()[0])
    child = Child(world, ask, stop=place, patience=patient(**patience))
    children.append(child)
    await asyncio.to_thread(child.await_place)
    await asyncio.sleep(0.8)
    child.wake()
    outcome = await asyncio.to_thread(child.outcome)
    assert outcome["status"] == "failed", outcome
    assert not world.sent()
    assert not world.reserved()
    check_invariants(world)
    services = await process(BRIEF)
    assert (await _after_all(services, ask)).status == "created"
    assert len(world.sent()) == 1


class Server:
    """The real server on pipes, in the mode in which limits alone decide."""

    def __init__(self, world: World) -> None:
        env = world.env | {"CLORE_APPROVAL": "limits"}
        self.process = subprocess.Popen(
            [python(), "-m", "clore_mcp"],
            cwd=Path(__file__).parents[2],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "tester", "version": "1"}}
        self.say({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about})
        assert self.process.stdout is not None
        assert json.loads(self.process.stdout.readline())["id"] == 1
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def call(self, tool: str, **arguments: Any) -> None:
        self.say({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})


@pytest.mark.parametrize("end", ["SIGTERM", "EOF", "SIGKILL"])
async def test_a_server_that_is_ended_during_a_create_sees_it_through_or_leaves_it_to_the_next(
    world: World, process: Processes, end: str
) -> None:
    server_id = world.free()[0]
    world.fault("hang_after", "create_order", seconds=1.5)
    server = await asyncio.to_thread(Server, world)
    with server.process as child:
        server.call("create_order", server_id=server_id, image=IMAGE, hours=2, currency=USD)
        await asyncio.to_thread(world.await_request, "create_order", effect=True)
        if end == "EOF":
            assert child.stdin is not None
            child.stdin.close()
        else:
            child.send_signal(getattr(signal, end))
        await asyncio.to_thread(child.wait, 20)
    states = [row["state"] for row in world.intents()]
    assert states == (["sending"] if end == "SIGKILL" else ["adopted"])
    services = await process(BRIEF)
    if end == "SIGKILL":
        world.change("UPDATE intents SET not_after = not_after - 10")  # ten seconds later
        await settle(world, services)
    assert len(world.active()) == 1
    assert len(world.sent()) == 1
    assert len(world.reserved()) == 1
    check_invariants(world)

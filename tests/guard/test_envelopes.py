"""A wider yes: one rental by any of several servers within bounds, used once, and back when nothing was rented."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from clore_mcp.rental.envelopes import Bounds, around
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.rules.terms import Terms
from clore_mcp.wiring import Services
from tests.guard.conftest import Processes
from tests.guard.world import Json, World, call, check_invariants, wish

pytestmark = pytest.mark.anyio


async def outside(services: Services, ask: CreateOrder, **more: Any) -> Json:
    """The call of a client that can't be asked."""
    return await call(services, ask, can_ask=False, **more)


async def approve(services: Services, ask: CreateOrder, also: list[int], **limits: Decimal) -> Bounds:
    """What `clore-mcp approve ID --any-of …` does after the person has typed yes."""
    waiting = await outside(services, ask)
    assert waiting["status"] == "approval_required"
    quote = await services.approvals.get(waiting["approval_id"])
    bounds = around(Terms.from_json(quote.terms), also=frozenset(also), **limits)
    assert await services.approvals.approve_within(quote, bounds, by="ann, terminal")
    return bounds


def dearest(world: World, servers: list[int]) -> Decimal:
    return max(Decimal(str(world.price(one))) for one in servers) / 24 * Decimal("1.05") + Decimal("0.0001")


async def test_a_failover_within_the_bounds_needs_no_second_question(world: World, services: Services) -> None:
    first, other, third, _ = servers = world.free()[:4]
    await approve(services, wish(first), servers, max_usd_per_hour=dearest(world, servers), max_hours=Decimal(6))
    world.fault("already_rented")
    gone = await outside(services, wish(first))
    assert gone["status"] == "refused"
    assert f"{other}, " in gone["next"]
    assert "they are not asked again" in gone["next"]
    made = await outside(services, wish(other, hours=5.5))
    assert made["status"] == "created", made
    assert (await outside(services, wish(third)))["status"] == "approval_required", "one rental, not two"
    assert [order["server_id"] for order in world.active()] == [other]
    by = world.rows("SELECT decided_by FROM quotes WHERE state = 'settled' ORDER BY created_at DESC")[0]["decided_by"]
    assert by.startswith("ann, terminal, envelope e")
    check_invariants(world)


CHANGES: tuple[dict[str, Any], ...] = (
    {"hours": 6.01},
    {"image": "someone/else"},
    {"command": "curl evil"},
    {"env": {"HF_TOKEN": "another"}},
    {"ports": {"9000": "tcp"}},
    {"on_end": "notify"},
    {"jupyter": False},
    {"currency": None},
    {"ssh_public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f mallory"},
)


async def test_what_differs_in_anything_else_is_asked_about(world: World, services: Services) -> None:
    first, other, *_ = servers = world.free()[:4]
    await approve(services, wish(first), servers, max_usd_per_hour=dearest(world, servers), max_hours=Decimal(6))
    for change in CHANGES:
        assert (await outside(services, wish(other, **change)))["status"] == "approval_required", change
    assert not world.sent()


async def test_other_servers_callers_and_dearer_ones_are_asked_about(world: World, services: Services) -> None:
    first, other, third, *_, last = world.free()
    bounds = await approve(services, wish(first), [other, last], max_hours=Decimal(6))
    assert world.price(last) / 24 * 1.05 > bounds.max_usd_per_hour
    for ask, caller in ((wish(third), "tester"), (wish(last), "tester"), (wish(other), "another client")):
        assert (await outside(services, ask, caller=caller))["status"] == "approval_required"
    assert (await outside(services, wish(first, fallback_server_ids=[third])))["status"] == "approval_required"
    assert not world.sent()


async def test_two_processes_under_one_envelope_make_one_order(world: World, process: Processes) -> None:
    first, second = await process(), await process()
    one, other, *_ = servers = world.free()[:4]
    await approve(first, wish(one), servers, max_usd_per_hour=dearest(world, servers))
    outcomes = await asyncio.gather(outside(first, wish(one)), outside(second, wish(other)))
    assert sorted(outcome["status"] for outcome in outcomes) in (
        ["created", "failed"],
        ["approval_required", "created"],
    )
    assert len(world.active()) == 1
    check_invariants(world)


async def test_a_create_that_may_have_made_an_order_keeps_the_yes(world: World, services: Services) -> None:
    one, other, *_ = servers = world.free()[:4]
    await approve(services, wish(one), servers, max_usd_per_hour=dearest(world, servers))
    world.fault("code1_before", "create_order")  # Clore did not confirm, and none appeared: an order may still come
    assert (await outside(services, wish(one)))["status"] == "failed"
    assert (await outside(services, wish(other)))["status"] == "approval_required"
    assert len(world.sent()) == 1
    check_invariants(world)


async def test_an_envelope_lapses_is_taken_back_and_ends_with_a_decline(world: World, services: Services) -> None:
    one, other, *_ = servers = world.free()[:4]
    await approve(services, wish(one), servers, max_usd_per_hour=dearest(world, servers))
    (envelope,) = await services.approvals.envelopes()
    assert await services.approvals.close(envelope, by="ann")
    taken = await outside(services, wish(one))
    assert taken["status"] == "failed"
    assert "taken back" in taken["next"]
    assert (await outside(services, wish(other)))["status"] == "approval_required"
    await approve(services, wish(servers[2]), servers, max_usd_per_hour=dearest(world, servers))
    (envelope,) = await services.approvals.envelopes()
    world.change("UPDATE envelopes SET expires_at = created_at")
    assert (await outside(services, wish(servers[3])))["status"] == "approval_required"
    assert not world.sent()


async def test_limits_hold_inside_an_envelope(world: World, process: Processes) -> None:
    wide = await process()
    one, other, *_ = servers = world.free()[:4]
    await approve(wide, wish(one), servers, max_usd_per_hour=dearest(world, servers))
    tight = await process(env={"CLORE_MAX_USD_PER_HOUR": "0.01"})
    assert (await outside(tight, wish(other)))["status"] == "refused"
    assert not world.sent()


async def test_the_sum_follows_from_the_rest_with_everything_in(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    quote = await services.approvals.get((await outside(services, ask))["approval_id"])
    terms = Terms.from_json(quote.terms)
    assert around(terms).max_usd == terms.worst_usd
    wide = around(terms, max_usd_per_hour=Decimal("0.40"), max_hours=Decimal(6))
    slack, creation = Decimal(2) / 60, terms.candidates[0].creation_fee_usd
    assert wide.max_usd == (Decimal("0.40") * (6 + slack) + creation).quantize(Decimal("0.000001"), "ROUND_UP")
    assert str(wide).endswith("at most $0.40 per hour, 6 hours, $2.52 in all at worst")
    assert Bounds.from_json(wide.as_json()) == wide

"""What a yes is good for: this time, these arguments, this key, and no longer than it was given for."""

from __future__ import annotations

import pytest

from clore_mcp.rental import results
from clore_mcp.rental.approvals import BY_PASSKEY
from clore_mcp.rental.requests import CancelOrder, CreateOrder
from clore_mcp.rental.ssh.keys import SshKey
from clore_mcp.store.quotes import Quote
from clore_mcp.wiring import Services
from tests.guard.calls import call, cancel, wish
from tests.guard.conftest import Processes
from tests.guard.invariants import check_invariants
from tests.world import World

pytestmark = pytest.mark.anyio

DAY = 86_400.0
MALLORY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


async def waiting(services: Services, ask: CreateOrder | CancelOrder) -> Quote:
    """What a call leaves for the person whose client can't ask."""
    told = await call(services, ask, can_ask=False)
    assert told.status == "approval_required", told
    return await services.approvals.get(told.approval_id)


async def approve(services: Services, ask: CreateOrder | CancelOrder) -> Quote:
    quote = await waiting(services, ask)
    assert await services.approvals.decide(quote, yes=True, by="ann, terminal")
    return quote


def the_clock_goes_back(world: World, seconds: float) -> None:
    """As rows see it: all that was written lies that much later."""
    world.change(
        "UPDATE quotes SET created_at=created_at+?1, decided_at=decided_at+?1, expires_at=expires_at+?1", seconds
    )


# The clock


async def test_a_yes_does_not_outlive_its_time_when_the_clock_goes_back(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    given = await approve(services, ask)
    the_clock_goes_back(world, DAY)
    again = await call(services, ask, can_ask=False)
    assert again.status == "approval_required"
    assert again.approval_id != given.id
    assert (await call(services, ask, can_ask=False)).approval_id == again.approval_id, "the new one is found"
    assert not world.sent()


async def test_a_question_from_the_future_takes_no_answer(world: World, services: Services) -> None:
    quote = await waiting(services, wish(world.free()[0]))
    the_clock_goes_back(world, 60)
    assert not await services.approvals.decide(quote, yes=True, by="ann, terminal")
    assert await services.approvals.waiting() == []


async def test_a_yes_is_not_used_by_a_claim_that_comes_after_the_clock_went_back(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    evidence = services.pricer.evidence

    async def meanwhile(max_age: float) -> object:
        the_clock_goes_back(world, DAY)
        return await evidence(max_age)

    monkeypatch.setattr(services.pricer, "evidence", meanwhile)
    outcome = await services.guard.conclude(held, ask, answer=True, caller="tester")
    assert outcome.status == "failed"
    assert not world.sent()
    check_invariants(world)


# What it was given for


async def test_a_yes_is_for_the_env_values_that_were_asked_with(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    given = await approve(services, ask)
    other = await waiting(services, wish(ask.server_id, env={"HF_TOKEN": "another"}))
    assert other.id != given.id
    assert not world.sent()


async def test_a_call_is_named_with_the_key_of_its_state(world: World, services: Services) -> None:
    """Env values are in the name, so it must not be one that anybody could compute by guessing them."""
    ask = wish(world.free()[0])
    names = {await services.approvals.digest("account", "tester", ask) for _ in range(2)}
    world.change("UPDATE meta SET value = randomblob(32) WHERE name = 'key'")
    names.add(await services.approvals.digest("account", "tester", ask))
    assert len(names) == 2


async def test_a_yes_is_for_the_ssh_key_that_was_shown(world: World, process: Processes) -> None:
    one, two = await process(), await process(env={"CLORE_SSH_PUBLIC_KEY": MALLORY})
    ask = wish(world.free()[0])
    given = await approve(one, ask)
    outcome = await call(two, ask, can_ask=False)
    assert outcome.status == "failed", outcome
    assert "no longer the one in the question" in outcome.next
    assert (await waiting(two, ask)).id != given.id
    assert not world.sent()
    check_invariants(world)


# When it is asked for


@pytest.mark.parametrize(("age", "same"), [(475.0, True), (485.0, False)])
async def test_a_question_in_its_last_fifth_is_asked_anew(
    world: World, services: Services, age: float, same: bool
) -> None:
    ask = wish(world.free()[0])
    first = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    world.change("UPDATE quotes SET created_at = created_at - ?1, expires_at = expires_at - ?1", age)
    told = await services.guard.hold(ask, caller="tester", can_ask=False, replay=False)
    assert told.quote and first.quote and told.quote.id == first.quote.id, "outside the chat it waits to its end"
    again = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    assert again.quote and (again.quote.id == first.quote.id) is same


async def test_limits_alone_never_cancel_an_order_made_elsewhere(world: World, process: Processes) -> None:
    services = await process(env={"CLORE_APPROVAL": "limits"})
    order_id = world.rent_elsewhere(world.free()[0])
    world.advance(60)  # it shows after a while
    for can_ask in (True, False):
        assert (await cancel(services, order_id, can_ask=can_ask)).status == "approval_required"
    assert not world.sent("cancel_order")
    assert len(world.active()) == 1


async def test_outside_mode_cancels_what_was_made_here_unasked_and_others_with_a_yes_alone(
    world: World, process: Processes
) -> None:
    services = await process(env={"CLORE_APPROVAL": "outside"})
    one, other = world.free()[:2]
    await approve(services, wish(one))
    ours = (await call(services, wish(one))).order_id
    elsewhere = world.rent_elsewhere(other)
    world.advance(60)  # it shows after a while
    assert (await cancel(services, ours)).status == "cancelled"
    assert (await cancel(services, elsewhere)).status == "approval_required"
    assert [row["id"] for row in world.active()] == [elsewhere]


async def test_a_no_that_comes_between_the_yes_and_its_use_counts(world: World, services: Services) -> None:
    ask = wish(world.free()[0])
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    assert held.quote is not None
    quote, key = held.quote, services.context.ssh_key

    def declined_meanwhile() -> SshKey:
        world.change("UPDATE quotes SET state = 'declined', decided_at = created_at WHERE id = ?", quote.id)
        return key()

    object.__setattr__(services.context, "ssh_key", declined_meanwhile)
    outcome = await services.guard.conclude(held, ask, answer=True, caller="tester")
    assert outcome.status == "declined", outcome
    direct = await services.guard._verbs[ask.verb].carry_out(quote, ask, from_state="pending", by="ann, terminal")
    assert direct.status == "declined", "it is no work of another process that could be followed"
    assert not world.sent() and not world.intents()


async def test_a_question_that_opens_on_the_persons_page_is_answered_there(world: World, services: Services) -> None:
    opened: list[str] = []

    def open_page(quote_id: str) -> bool:
        opened.append(quote_id)
        return True

    object.__setattr__(services.context, "open_page", open_page)
    told = await call(services, wish(world.free()[0]), can_ask=False)
    assert told.status == "approval_required"
    assert opened == [told.approval_id]
    assert results.APPROVE_ON_PAGE in told.next


async def test_in_passkey_mode_no_other_yes_counts(world: World, process: Processes) -> None:
    services = await process(env={"CLORE_APPROVAL": "passkey"})
    ask = wish(world.free()[0])
    told = await call(services, ask, answer=True)
    assert told.status == "approval_required"
    assert "with their passkey" in told.next
    quote = await services.approvals.get(told.approval_id)
    assert await services.approvals.decide(quote, yes=True, by="ann, terminal")
    assert (await call(services, ask, answer=True)).status == "approval_required"
    assert not world.sent()
    world.change("UPDATE quotes SET decided_by = ?", f"{BY_PASSKEY}ann")
    assert (await call(services, ask)).status == "created"
    check_invariants(world)

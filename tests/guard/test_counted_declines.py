"""Which answers count for the pause in asking: a person's no does, and nothing else that a client may bring."""

from __future__ import annotations

import pytest

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.rental.reply import QuestionReply, ReplyKind
from clore_mcp.rental.requests import Request
from clore_mcp.wiring import Services
from tests.guard.calls import call, wish
from tests.guard.invariants import check_invariants
from tests.world import World

pytestmark = pytest.mark.anyio
NO_ANSWERS = (ReplyKind.CANCEL, ReplyKind.SILENCE, ReplyKind.ERROR, ReplyKind.MALFORMED)
N, D = ReplyKind.NO, ReplyKind.DECLINE


async def answered(services: Services, ask: Request, said: ReplyKind) -> None:
    """One call whose question brings that, as the tools give it to the guard."""
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    assert services.guard.asks(held, can_ask=True), "it is asked"
    reply = QuestionReply(said, 1.0)
    try:
        outcome = await services.guard.conclude(
            held, ask, answer=False if reply.is_no else None, caller="tester", reply=reply
        )
    except ArgumentInvalid:
        assert said is ReplyKind.MALFORMED
        return
    assert outcome.status == ("approval_required" if said is ReplyKind.ERROR else "declined"), (said, outcome)


@pytest.mark.parametrize(
    ("came", "asked_again"),
    [
        pytest.param([*NO_ANSWERS, *NO_ANSWERS], True, id="two of each that is no answer"),
        pytest.param([D, D, *NO_ANSWERS], True, id="two declines and each that is no answer"),
        pytest.param([N, *NO_ANSWERS, D], True, id="a no, each that is no answer, a decline"),
        pytest.param([D, D, D], False, id="three declines"),
        pytest.param([N, N, N], False, id="three times no"),
        pytest.param([D, *NO_ANSWERS, N, *NO_ANSWERS, D], False, id="three real ones among the others"),
    ],
)
async def test_only_what_a_person_declined_counts(
    world: World, services: Services, came: list[ReplyKind], asked_again: bool
) -> None:
    servers = iter(world.free())
    for said in came:
        await answered(services, wish(next(servers)), said)
    assert not world.sent()
    ask = wish(next(servers))
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    assert services.guard.asks(held, can_ask=True) is asked_again
    if asked_again:
        assert (await call(services, ask)).status == "created"
    else:
        assert held.quote is None and held.outcome and held.outcome.status == "declined"
    check_invariants(world)


def test_every_kind_of_reply_stands_in_the_table() -> None:
    assert {*NO_ANSWERS, N, D, ReplyKind.YES} == set(ReplyKind)

"""Work that outlives its caller: what is said of it when it ends and the patience ends at about the same instant."""

from __future__ import annotations

import asyncio

import pytest

from clore_mcp.rental.context import Commitments
from clore_mcp.rental.results import Outcome, Status

pytestmark = pytest.mark.anyio
MADE = Outcome(Status.CREATED, "", order_id=5)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("turns", range(8))
async def test_work_that_ends_in_the_instant_of_the_patience_is_told_or_goes_on(turns: int) -> None:
    """A process that slept through both finds them at once: no order may be made under an error then."""
    commitments = Commitments()

    async def work() -> Outcome:
        for _ in range(turns):
            await asyncio.sleep(0)
        return MADE

    assert await commitments.run("q", work, 0.0) in (None, MADE)
    await commitments.drain(20)
    assert not commitments.runs("q")


async def test_work_goes_on_when_its_caller_is_cancelled_or_gives_up_and_may_be_joined() -> None:
    commitments, ends = Commitments(), asyncio.Event()
    begun: list[str] = []

    async def work() -> Outcome:
        begun.append("q")
        await ends.wait()
        return MADE

    assert await commitments.run("q", work, 0.0) is None
    caller = asyncio.ensure_future(commitments.run("q", work, 60))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    ends.set()
    assert await commitments.run("q", work, 60) == MADE
    assert begun == ["q"]


async def test_a_failure_of_the_work_is_its_callers() -> None:
    async def work() -> Outcome:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        await Commitments().run("q", work, 60)

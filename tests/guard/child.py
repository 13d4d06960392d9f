"""A child process that rents or cancels, which a test kills, stops or waits for.

It receives `env`, `folder`, `patience`, and `ask` with its `verb`. `stop` names the place at which it stops itself
(SIGSTOP). `point` names the step at which it gets `signal`. It replies with the outcome. With a `point` it also reports
the number of steps, and nothing else writes in this process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from clore_mcp.clore import CloreClient, CreateRequest
from clore_mcp.clore.exchange import Timing
from clore_mcp.money import DayPrice
from clore_mcp.rental.context import Patience
from clore_mcp.rental.create.quote import Pricer
from clore_mcp.rental.create.send import Send
from clore_mcp.rental.requests import CancelOrder, CreateOrder, ExtendOrder, Request, SetSpotPrice
from clore_mcp.rental.rules.check import Evidence
from clore_mcp.store.database import Tx
from clore_mcp.wiring import Services, build
from tests.conftest import settings_for
from tests.guard.stepping import Point, Steps

STOPPING: Final = "stopping"
HUNT = "hunt"  # instead of a verb: one round for the watches
_HTTP_SECONDS = 1.0  # shorter than the window in such a test, as in real life


def stop_at(place: str, freeze: Callable[[], None]) -> None:
    if place == "claimed":
        claim = Send._claim

        def then_stop(self: Send, tx: Tx, evidence: Evidence, create: CreateRequest, not_after: float) -> Any:
            found = claim(self, tx, evidence, create, not_after)
            freeze()
            return found

        Send._claim = then_stop  # type: ignore[method-assign]
    elif place == "evidence":
        gather = Pricer.evidence
        calls = iter(range(100))

        async def gather_and_stop(self: Pricer, max_age_seconds: float = 10.0) -> Evidence:
            found = await gather(self, max_age_seconds)
            if next(calls) == 1:
                freeze()
            return found

        Pricer.evidence = gather_and_stop  # type: ignore[method-assign]
    elif place in ("bid claimed", "bid sent"):
        send = CloreClient.set_spot_price

        async def send_and_stop(self: CloreClient, order_id: int, price: DayPrice, **more: Any) -> None:
            if place == "bid claimed":
                freeze()
            await send(self, order_id, price, **more)
            if place == "bid sent":
                freeze()

        CloreClient.set_spot_price = send_and_stop  # type: ignore[method-assign]


def begin(pipe: Connection, told: dict[str, Any]) -> None:
    """Run the whole process."""
    try:
        asyncio.run(_main(pipe, told))
    except BaseException:
        pipe.send(traceback.format_exc())
        raise


async def hunt(services: Services, steps: Steps) -> dict[str, Any]:
    """Do one round for the watches, as a watchdog does."""
    await services.keeper.poll()
    await services.keeper.finish()
    await services.aclose()
    return {"steps": steps.made}


async def _main(pipe: Connection, told: dict[str, Any]) -> None:
    def freeze() -> None:
        pipe.send(STOPPING)
        if told["stop"] == "claimed":  # in the middle of its transaction
            os.kill(os.getpid(), signal.SIGSTOP)
        else:  # no other thread may be in a transaction, which would lock all processes out
            with services.context.state._lock:
                os.kill(os.getpid(), signal.SIGSTOP)

    services = build(settings_for(told["env"], Path(told["folder"])), replace(Patience(), **told["patience"]))
    point = told["point"]
    if point is None:
        stop_at(told["stop"], freeze)
        await services.keep_leases()
    else:
        services.context.client._timing = Timing(create_seconds=_HTTP_SECONDS)
    if told["verb"] == HUNT:
        pipe.send(await hunt(services, Steps(Point(**point), told["signal"])))
        return
    kinds: tuple[type[Request], ...] = (CreateOrder, CancelOrder, ExtendOrder, SetSpotPrice)
    ask = next(kind for kind in kinds if kind.verb == told["verb"]).model_validate(told["ask"])
    held = await services.guard.hold(ask, caller="tester", can_ask=True, replay=False)
    steps = None if point is None else Steps(Point(**point), told["signal"])
    outcome = await services.guard.conclude(held, ask, answer=True, caller="tester")
    said = outcome.as_json()
    if steps is not None:
        await services.guard.told(held, outcome)
        said["steps"] = steps.made
    pipe.send(said)
    await services.aclose()

"""Calls of the guard with a person behind them, and their outcomes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from clore_mcp.rental.context import Patience
from clore_mcp.rental.requests import CancelOrder, CreateOrder, Request
from clore_mcp.rental.results import BillingOrder, Outcome
from clore_mcp.store.orders import OrderReceipt
from clore_mcp.wiring import Services
from tests.world import IMAGE, USD

ENV_VALUE: Final = "hf_env_value_that_nobody_may_keep"
SHORT: Final = Patience(
    answer=15.0,
    look=1.5,
    look_after_refusal=0.3,
    leave_within=20.0,
    send_within=2.0,
    window=0.5,
    orphan=0.5,
    proof=1.5,
    absence=60.0,
)


@dataclass(frozen=True, slots=True)
class Told(Outcome):
    """An outcome typed for tests: every field is present. `call` only casts to it, so a missing value fails the
    test."""

    order_id: int = 0
    server_id: int = 0
    approval_id: str = ""
    reason: str = ""
    receipt: OrderReceipt = field(default_factory=lambda: OrderReceipt(0, 0, 0, 0, 0))
    usd_per_hour: float = 0
    reserved_usd: float = 0
    previous_ends_at: str = ""
    ends_at: str = ""
    most_hours: float = 0
    retry_after_seconds: int = 0
    lowest_usd_per_hour_now: float = 0
    latest_ends_at: str = ""
    bid_usd_per_hour: float = 0
    on_demand_usd_per_hour: float = 0
    to_win_usd_per_hour: float = 0
    still_running: tuple[BillingOrder, ...] = ()
    watch_id: str = ""
    envelope: str = ""


def wish(server_id: int, **more: Any) -> CreateOrder:
    return CreateOrder(
        server_id=server_id,
        **{
            "image": IMAGE,
            "hours": 2.0,
            "currency": USD,
            "env": {"HF_TOKEN": ENV_VALUE},
            "jupyter": True,
            **more,
        },
    )


async def call(
    services: Services, ask: Request, *, answer: bool | None = True, can_ask: bool = True, caller: str = "tester"
) -> Told:
    """Make a tool call with a person behind it. `answer` is their answer if they are asked."""
    held = await services.guard.hold(ask, caller=caller, can_ask=can_ask, replay=False)
    asked = services.guard.asks(held, can_ask=can_ask)
    outcome = await services.guard.conclude(held, ask, answer=answer if asked else None, caller=caller)
    await services.guard.told(held, outcome)
    return cast(Told, outcome)


async def rent(services: Services, server_id: int, **more: Any) -> Told:
    outcome = await call(services, wish(server_id, **more))
    assert outcome.status == "created", outcome
    return outcome


async def cancel(services: Services, order_id: int, **more: Any) -> Told:
    return await call(services, CancelOrder(order_id=order_id), **more)


def let_time_pass(services: Services) -> None:
    """Make this process's data, and the data it would take from another process, too old to use."""
    services.market._held = None
    services.marketplace.forget()
    services.context.readings.changed()


def patient(**changes: float) -> Patience:
    return replace(SHORT, **changes)

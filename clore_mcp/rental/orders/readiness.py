"""Waits until an order can be used over SSH. If it can't, finds out why, and whether this machine is at fault."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio

from clore_mcp.errors import NotSent, QueueFull, RateLimited, StateUnavailable, TimedOut, Unclear
from clore_mcp.rental.context import Context
from clore_mcp.rental.create import replacement
from clore_mcp.rental.orders.order_view import OrderNow, OrderView
from clore_mcp.rental.orders.views import Overview
from clore_mcp.rental.requests import LONGEST_WAIT_SECONDS
from clore_mcp.rental.results import Settled
from clore_mcp.rental.ssh import access, advice
from clore_mcp.rental.ssh.access import ReadyReason, SshLook
from clore_mcp.rental.ssh.advice import Reaches, Situation
from clore_mcp.store import Tx
from clore_mcp.store.database import keep_value, value_of

log = logging.getLogger(__name__)

_PROBE_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 3.0
_UNREACHED: Final = set(ReadyReason) - {ReadyReason.READY, ReadyReason.IMAGE_LOADING}

Progress = Callable[[float, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class OrderLook:
    """One look at an order: its view and the state of its SSH. `reason` is None if no container should be up."""

    order: OrderNow
    reason: ReadyReason | None
    clore_answers: bool


@dataclass(frozen=True, slots=True)
class Waited:
    """The order after a wait. `failed_alike` holds recent orders that failed in the same way."""

    order: OrderNow
    ready_reason: ReadyReason | None
    this_machine_reaches: Reaches | None
    failed_alike: Sequence[int]
    next: str

    @property
    def ready(self) -> bool:
        """Whether its SSH answers."""
        return self.ready_reason is ReadyReason.READY

    def as_json(self) -> dict[str, Any]:
        """Return JSON for a reply."""
        return self.order.view.as_json() | {
            "now": self.order.now,
            "minutes_since_start": self.order.minutes_since_start,
            "free_cancel_until": self.order.free_cancel_until,
            "ready": self.ready,
            "ready_reason": self.ready_reason,
            "this_machine_reaches": self.this_machine_reaches,
            "failed_alike": self.failed_alike,
            "next": self.next,
        }


class Readiness:
    """Polls one order until it is ready. `api` is the host and port of the Clore API."""

    def __init__(self, context: Context, overview: Overview, api: tuple[str, int]) -> None:
        self._context = context
        self._overview = overview
        self._api = api

    async def wait(self, order_id: int, timeout_seconds: float, progress: Progress, caller: str = "") -> Waited:
        """Return the order once its SSH answers, it has ended, or the time is up. Raises NotFound and CloreError."""
        began, look = self._context.monotonic(), None
        ends_at = anyio.current_time() + timeout_seconds
        with anyio.move_on_after(LONGEST_WAIT_SECONDS) as scope:
            while True:
                look = await self._look(order_id, look)
                scope.deadline = ends_at  # the first look is completed, however short the time
                passed = self._context.monotonic() - began
                over = look.reason is ReadyReason.READY or look.order.view.over
                if over or passed + _POLL_SECONDS > timeout_seconds:
                    break
                await progress(passed, advice.stage(self._situation(look)))
                await anyio.sleep(_POLL_SECONDS)
                self._context.readings.changed_orders()
        if look is None:
            raise TimedOut(
                f"Clore did not answer within {LONGEST_WAIT_SECONDS:g} seconds. The order is still billed. Call again."
            )
        found = await self._with_others(look)
        if found.reaches is not None and not self._context.settings.read_only:
            found = replace(found, next_server=await self._next_server(order_id, caller))
        return Waited(look.order, look.reason, found.reaches, found.alike, advice.next_step(found))

    async def again(self, order_id: int) -> tuple[SshLook | None, Situation]:
        """Return the SSH's state at the last wait, and the situation now. Raises NotFound and CloreError."""
        look = await self._look(order_id, None)
        name = await self._name()
        memory = await self._context.state.read(lambda tx: access.memory_from(value_of(tx, name)))
        return memory.get(order_id), await self._with_others(look)

    async def _look(self, order_id: int, before: OrderLook | None) -> OrderLook:
        """Look at the order. If Clore fails briefly, the order counts as in the look before, if there was one."""
        try:
            order, answers = await self._overview.one(order_id), True
        except (NotSent, Unclear, RateLimited, QueueFull) as error:
            if before is None:
                raise
            log.info("order %s could not be read: %s", order_id, error.message)
            order, answers = before.order, False
        return OrderLook(order, await _reason(order.view), answers)

    async def _next_server(self, order_id: int, caller: str) -> int | None:
        """Return the server that the same yes would rent in place of this order, or None."""
        account, api_now = await self._context.readings.account(), self._context.readings.api_now()
        try:
            _, terms = await self._context.state.read(
                lambda tx: replacement.offered(tx, account, order_id, caller, api_now)
            )
        except Settled:
            return None
        return terms.candidates[0].server_id

    async def _name(self) -> str:
        return f"reached {await self._context.readings.account()}"

    def _situation(self, look: OrderLook) -> Situation:
        order, view = look.order, look.order.view
        return Situation(
            order_id=view.order_id,
            status=view.status,
            reason=look.reason,
            minutes=order.minutes_since_start,
            command=view.ssh.command if view.ssh else None,
            warning=None if view.ssh else view.warning,
            free_until=order.free_cancel_until,
            clore_answers=look.clore_answers,
            program=self._context.program,
        )

    async def _with_others(self, look: OrderLook) -> Situation:
        """Remember this attempt, and return the situation with whether this machine reached other orders."""
        found = self._situation(look)
        if found.reason is None:
            return found
        server_id = look.order.view.server_id
        name, now = await self._name(), self._context.clock()
        memory = await self._context.state.read(lambda tx: access.memory_from(value_of(tx, name)))
        others = access.others(memory, found.order_id, server_id, now)
        failed = tuple(sorted(about for about, one in others.items() if one.reason is not ReadyReason.READY))
        reaches = await self._reaches(found, len(failed) < len(others)) if found.reason in _UNREACHED else None
        if access.is_settled(found.reason, found.age):
            attempt = SshLook(server_id, found.reason, now, online=reaches in ("hosts", "clore"))
            await self._remember(name, memory, found.order_id, attempt)
        alike = tuple(about for about in failed if others[about].reason is found.reason)
        return replace(found, failed=failed, alike=alike, reaches=reaches)

    async def _remember(self, name: str, memory: access.Memory, order_id: int, attempt: SshLook) -> None:
        before = memory.get(order_id)
        if self._context.settings.read_only or (before and replace(before, at=attempt.at) == attempt):
            return

        def write(tx: Tx) -> None:
            known = access.memory_from(value_of(tx, name))
            keep_value(tx, name, access.memory_as(access.remembered(known, order_id, attempt)))

        try:
            await self._context.state.write(write)
        except StateUnavailable as failure:
            log.warning("how order %s was reached is not remembered: %s", order_id, failure.message)

    async def _reaches(self, found: Situation, reached_another: bool) -> Reaches:
        """Return what this machine reaches: another order's SSH, Clore directly or only through a proxy, or nothing."""
        if reached_another:
            return "hosts"
        if await access.connects(*self._api, _PROBE_SECONDS):
            return "clore"
        return "proxy_only" if found.clore_answers else "nothing"


async def _reason(view: OrderView) -> ReadyReason | None:
    if not view.up:
        return None
    if view.status == "deploying":
        return ReadyReason.IMAGE_LOADING
    if view.ssh:
        return await access.probe(view.ssh.host, view.ssh.port, _PROBE_SECONDS)
    unusable = any(text in (view.warning or "") for text in (access.BAD_ADDRESS, access.BAD_PORT))
    return ReadyReason.NAME_NOT_FOUND if unusable else ReadyReason.IMAGE_LOADING

"""The watch tools: create, list, cancel."""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from pydantic import Field

from clore_mcp.first_use import FirstUse
from clore_mcp.rental.requests import CreateWatch
from clore_mcp.tools.consent import Permitted, caller_of, services_of
from clore_mcp.tools.kit import ROWS_ELSEWHERE, Answer, tool
from clore_mcp.tools.order_answers import ShownRefusal
from clore_mcp.tools.orders import ENDED_TOO


class WatchCreated(Answer):
    status: Literal["waiting", "in_progress", "declined", "approval_required", "refused", "failed"]
    watch_id: str | None = None
    approval_id: str | None = None
    envelope: str | None = None
    best_seen_usd_per_hour: float | None = None
    refusals: Annotated[list[ShownRefusal], ROWS_ELSEWHERE] = []
    repeated: bool = False
    next: str


class ShownWatch(Answer):
    watch_id: str
    status: Literal["waiting", "fired", "expired", "cancelled"]
    envelope: str
    best_seen_usd_per_hour: float | None = None
    last_seen_usd_per_hour: float | None = None
    above_ceiling_usd_per_hour: float | None = None
    looked_at: str | None = None
    held_up: str | None = None
    order_ids: list[int] = []


class WatchesAnswer(Answer):
    watches: list[ShownWatch]
    watched_by: str
    next: str | None = None


class WatchCancelled(Answer):
    watch_id: str
    status: Literal["fired", "expired", "cancelled"]
    order_ids: list[int] = []
    next: str


async def create_watch(request: CreateWatch, permitted: Permitted) -> WatchCreated:
    """Rent later, when a price falls. The person approves once; then it rents the cheapest server that fits, up to
    max_usd_per_hour and within the limits. Use it instead of repeated searches. If a server is cheap enough now, use
    create_order. Filters work as in search_servers."""
    return WatchCreated.model_validate(permitted)


async def list_watches(ctx: Context[FirstUse], include_ended: Annotated[bool, ENDED_TOO] = False) -> WatchesAnswer:
    """List the watches: what was approved, the last price seen, the orders made and what blocks each one. Use it when
    the person asks about a watch; watches need no polling. For the orders themselves, use list_orders."""
    from clore_mcp.rental.watches.watch import listed

    services = services_of(ctx)
    await services.keep_leases()
    found = await listed(services.context, include_ended=include_ended)
    return WatchesAnswer.model_validate(found, from_attributes=True)


async def cancel_watch(
    watch_id: Annotated[str, Field(max_length=20, description="From list_watches.")], ctx: Context[FirstUse]
) -> WatchCancelled:
    """End a watch, so that it rents nothing more. Use it when the person no longer wants it. Orders that it made keep
    running; to end those, use cancel_order."""
    from clore_mcp.rental.watches.watch import cancelled

    view = await cancelled(services_of(ctx).context, watch_id, by=caller_of(ctx))
    return WatchCancelled.model_validate(view, from_attributes=True)


def tools(*, read_only: bool) -> list[Tool]:
    """Return the watches toolset. In read-only mode it only lists watches."""
    looks = tool(list_watches, title="List watches", kind="reads")
    if read_only:
        return [looks]
    return [
        tool(create_watch, title="Rent when a price falls", kind="spends", idempotent=True),
        looks,
        tool(cancel_watch, title="Cancel a watch", kind="destroys", idempotent=True),
    ]

"""The guard as the SDK's resolvers: hold the quote, ask through the client where it can be asked, carry out the answer.

One body for both protocol eras. On 2026-07-28 the resolvers run once a round, so they must find the same quote and the
same text each time; on 2025 they run once and the question goes out in the middle of the call. `ctx.elicit` is never
used: it is dead on the newer era. A client that can't be asked gets `approval_required`; nothing it sends is a yes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import anyio.lowlevel
from mcp.server.mcpserver import AcceptedElicitation, Context, Elicit, ElicitationResult, Resolve
from pydantic import BaseModel, Field, model_validator

from clore_mcp.first_use import FirstUse
from clore_mcp.rental.asks import Ask
from clore_mcp.text import clean

if TYPE_CHECKING:
    from clore_mcp.rental.guard import Held
    from clore_mcp.services import Services
else:
    Held = Any  # the SDK evaluates what a resolver is annotated with; the guard is imported by the first call

_MODERN = "2026-07-28"


class Approve(BaseModel):
    """The answer to every question of ours."""

    approve: bool = Field(strict=True, title="Approve", description="Yes, do exactly this. No: nothing is spent.")

    @model_validator(mode="before")
    @classmethod
    def _is_this_form(cls, content: Any) -> Any:
        # More keys answer some other form: no yes. The schema is silent on it, for strict clients know few keywords.
        if isinstance(content, Mapping) and content.keys() - cls.model_fields.keys():
            raise ValueError("has keys that the form does not have")
        return content


def services_of(ctx: Context[FirstUse]) -> Services:
    """The parts that stand below the tools."""
    return ctx.request_context.lifespan_context.services()


def can_ask(ctx: Context[FirstUse]) -> bool:
    """Whether the client takes a form and the question can reach it on this connection."""
    form = ctx.client_capabilities.elicitation if ctx.client_capabilities else None
    if form is None or (form.form is None and form.url is not None):
        return False
    return (ctx.protocol_version or "") >= _MODERN or ctx.session.can_send_request


def caller_of(ctx: Context[FirstUse]) -> str:
    """The client's name, as it states it: for the ledger and the quote's digest."""
    params = ctx.session.client_params
    return clean(params.client_info.name, 60) if params else "unknown client"


async def hold(ask: Ask, ctx: Context[FirstUse]) -> Held:
    """Find or make the quote of this call."""
    services = services_of(ctx)
    await services.keep_leases()
    return await services.guard.hold(
        ask,
        caller=caller_of(ctx),
        can_ask=can_ask(ctx),
        replay=ctx.input_responses is not None,
        protocol=f"MCP {clean(ctx.protocol_version or 'unknown', 12)}",
    )


async def question(held: Annotated[Held, Resolve(hold)], ctx: Context[FirstUse]) -> Elicit[Approve] | None:
    """Ask the person, where there is something to ask and a way to do it."""
    if held.quote is not None and services_of(ctx).guard.asks(held, can_ask=can_ask(ctx)):
        return Elicit(held.quote.question, Approve)
    return None


async def permit(
    ask: Ask,
    held: Annotated[Held, Resolve(hold)],
    reply: Annotated[ElicitationResult[Any], Resolve(question)],
    ctx: Context[FirstUse],
) -> dict[str, Any]:
    """What comes of the call after the answer, or without one."""
    guard = services_of(ctx).guard
    outcome = await guard.conclude(held, ask, answer=_answer(reply), caller=caller_of(ctx))
    await anyio.lowlevel.checkpoint()  # raises when the caller has gone: then nobody was told
    await guard.told(held, outcome)
    return outcome


def _answer(reply: ElicitationResult[Any]) -> bool | None:
    """The person's yes or no; None where nobody was asked. Decline and cancel are a no."""
    if isinstance(reply, AcceptedElicitation):
        return bool(reply.data.approve) if isinstance(reply.data, Approve) else None
    return False


Permitted = Annotated[dict[str, Any], Resolve(permit)]

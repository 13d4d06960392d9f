"""The guard as resolvers of the SDK: hold the quote, ask the person through the client, carry out the answer.

The same code serves both versions of the protocol. In 2026-07-28 the resolvers run once per round, so they must find
the same quote and the same text each time, and `Elicit` sends the question. In 2025 they run once, and `ctx.elicit`
sends the question in the middle of the call. A client that can't be asked gets `approval_required`, and nothing that it
sends counts as approval.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread
from mcp.server.mcpserver import (
    AcceptedElicitation,
    Context,
    DeclinedElicitation,
    Elicit,
    ElicitationResult,
    Resolve,
)
from mcp.shared.exceptions import MCPError
from mcp.types import (
    CONNECTION_CLOSED,
    REQUEST_TIMEOUT,
    ElicitRequest,
    ElicitRequestURLParams,
    ElicitResult,
    InputRequiredResult,
)
from pydantic import BaseModel, Field, ValidationError, model_validator

from clore_mcp.first_use import FirstUse
from clore_mcp.rental.reply import QuestionReply, ReplyKind
from clore_mcp.rental.requests import Request
from clore_mcp.text import clean, iso

if TYPE_CHECKING:
    from clore_mcp.rental.guard import HeldQuote
    from clore_mcp.store import Quote
    from clore_mcp.wiring import Services
else:
    HeldQuote = Any  # the SDK evaluates a resolver's annotations; the first call imports the guard

_MODERN = "2026-07-28"
_UNREADABLE: Final = "clore-mcp: no answer"  # a key that none of our forms has
_UNANSWERED_MOST: Final = 2
_PAGE: Final = "page"
_OFFER: Final = "A question about money waits for you. You can answer it on clore-mcp's page, on this machine."
_OFFERED_SECONDS: Final = 120.0
_SAME_MOMENT_SECONDS: Final = 1.0  # calls this close together count as one try


class Approve(BaseModel):
    """The form of every question that we ask."""

    approve: bool = Field(strict=True, title="Approve", description="Yes, do exactly this. No: nothing is spent.")

    @model_validator(mode="before")
    @classmethod
    def _is_this_form(cls, content: Any) -> Any:
        # An answer with more keys is for another form and is not an approval. The schema does not forbid them, because
        # strict clients support few keywords.
        if isinstance(content, Mapping) and content.keys() - cls.model_fields.keys():
            raise ValueError("has keys that the form does not have")
        return content


def services_of(ctx: Context[FirstUse]) -> Services:
    """Return the services that the tools use."""
    return ctx.request_context.lifespan_context.services()


def can_ask(ctx: Context[FirstUse]) -> bool:
    """Return whether the client accepts forms and a question can reach it on this connection."""
    form = ctx.client_capabilities.elicitation if ctx.client_capabilities else None
    if form is None or (form.form is None and form.url is not None):
        return False
    if caller_of(ctx) in ctx.request_context.lifespan_context.unaskable:
        return False
    return _is_modern(ctx) or ctx.session.can_send_request


def _is_modern(ctx: Context[FirstUse]) -> bool:
    return (ctx.protocol_version or "") >= _MODERN


def caller_of(ctx: Context[FirstUse]) -> str:
    """Return the client's name as the client states it, for the ledger and the quote's digest."""
    params = ctx.session.client_params
    return clean(params.client_info.name, 60) if params else "unknown client"


async def hold(request: Request, ctx: Context[FirstUse]) -> HeldQuote:
    """Return the quote of this call, or make one."""
    services = services_of(ctx)
    await services.keep_leases()
    return await services.guard.hold(
        request,
        caller=caller_of(ctx),
        can_ask=can_ask(ctx),
        replay=ctx.input_responses is not None,
        protocol=f"MCP {clean(ctx.protocol_version or 'unknown', 12)}",
    )


async def question(
    held: Annotated[HeldQuote, Resolve(hold)], ctx: Context[FirstUse]
) -> Elicit[Approve] | QuestionReply | None:
    """Ask the person if there is a question and a way to ask it. In the older protocol the question is sent here, so
    that an error is a reply. In the newer one the answers are checked here before the SDK validates them."""
    quote = held.quote
    if quote is not None and quote.state == "pending" and held.yes.is_needed and not can_ask(ctx):
        await _offer_page(quote.id, ctx)
    if quote is None or not services_of(ctx).guard.asks(held, can_ask=can_ask(ctx)):
        return None
    if not _is_modern(ctx):
        return await _asked(quote, ctx)
    if ctx.input_responses is not None:
        return _no_answer(ctx.input_responses) or Elicit(quote.question, Approve)
    asked, now = ctx.request_context.lifespan_context.asked, time.monotonic()
    first, last, times = asked.get(quote.id, (now, now, 0))
    if times >= _UNANSWERED_MOST and held.yes.is_needed:
        return QuestionReply(ReplyKind.ERROR, detail=f"it received the question {times} times and returned no answer")
    asked[quote.id] = (first, now, times + (times == 0 or now - last > _SAME_MOMENT_SECONDS))
    return Elicit(quote.question, Approve)


async def _offer_page(quote_id: str, ctx: Context[FirstUse]) -> None:
    """Let the client offer the person the page with the question. The client's answer is not an approval. It only
    reports whether the person opened the page. In the newer protocol, the offer is the result of this round, and the
    next round brings the answer."""
    uses, modern = ctx.request_context.lifespan_context, _is_modern(ctx)
    opener = uses.page
    declared = ctx.client_capabilities.elicitation if ctx.client_capabilities else None
    if opener is None or declared is None or declared.url is None:
        return
    if modern and ctx.input_responses is not None:
        if getattr(ctx.input_responses.get(_PAGE), "action", "accept") != "accept":
            opener.refuse(quote_id)
        return
    if not (modern or ctx.session.can_send_request):
        return
    address = await anyio.to_thread.run_sync(opener.address, quote_id)
    if address is None:
        return
    if modern:
        uses.offers[quote_id] = address
        return
    try:
        with anyio.fail_after(_OFFERED_SECONDS):
            went = (await ctx.elicit_url(_OFFER, address, quote_id)).action == "accept"
    except (TimeoutError, MCPError):
        went = False
    if not went:
        opener.refuse(quote_id)


def page_offer(ctx: Context[FirstUse], quote_id: str) -> InputRequiredResult | None:
    """Return the result of this round in the newer protocol, if the client should offer the person that page."""
    address = ctx.request_context.lifespan_context.offers.pop(quote_id, None)
    if address is None:
        return None
    request = ElicitRequest(params=ElicitRequestURLParams(message=_OFFER, url=address))
    return InputRequiredResult(input_requests={_PAGE: request}, request_state="{}")


async def _asked(quote: Quote, ctx: Context[FirstUse]) -> QuestionReply:
    """Send the question in the older protocol and return the reply."""
    began = time.monotonic()

    def came(said: ReplyKind, detail: str = "") -> QuestionReply:
        return QuestionReply(said, time.monotonic() - began, detail)

    left = quote.expires_at - services_of(ctx).context.clock()
    try:
        with anyio.fail_after(max(left, 0.0)):
            result = await ctx.elicit(quote.question, Approve)
    except TimeoutError:
        return came(ReplyKind.SILENCE)
    except MCPError as error:
        if error.code == CONNECTION_CLOSED and error.message == "Connection closed":
            raise  # the client has gone and answered nothing
        if error.code == REQUEST_TIMEOUT:
            return came(ReplyKind.SILENCE)
        return came(ReplyKind.ERROR, _words_of(error.code, error.message))
    except ValueError:
        return came(ReplyKind.MALFORMED)
    return came(_said(result))


def _said(result: ElicitationResult[Any]) -> ReplyKind:
    if isinstance(result, AcceptedElicitation):
        return ReplyKind.YES if isinstance(result.data, Approve) and result.data.approve is True else ReplyKind.NO
    return ReplyKind.DECLINE if isinstance(result, DeclinedElicitation) else ReplyKind.CANCEL


def _no_answer(answers: Mapping[str, Any]) -> QuestionReply | None:
    """Return what is wrong with an answer in the newer protocol, or None if the SDK may read it."""
    for answer in answers.values():
        content = getattr(answer, "content", None)
        if not isinstance(answer, ElicitResult):
            return QuestionReply(ReplyKind.MALFORMED)
        if answer.action == "cancel" and content and _UNREADABLE in content:
            detail = str(content[_UNREADABLE])
            return QuestionReply(ReplyKind.ERROR if detail else ReplyKind.MALFORMED, detail=detail)
        if answer.action == "accept":
            try:
                Approve.model_validate(content)
            except ValidationError:
                return QuestionReply(ReplyKind.MALFORMED)
    return None


async def readable_answers(ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    """Middleware: turn an answer outside the protocol into a cancel that reports it, because the SDK would otherwise
    fail the whole call. Nothing becomes an approval here."""
    params = ctx.params or {}
    if ctx.method == "tools/call" and isinstance(answers := params.get("inputResponses"), dict):
        read = {name: _readable(answer) for name, answer in answers.items()}
        ctx = replace(ctx, params={**params, "inputResponses": read})
    return await call_next(ctx)


def _readable(answer: Any) -> Any:
    try:
        ElicitResult.model_validate(answer, by_name=False)
    except ValidationError:
        error = answer.get("error", answer) if isinstance(answer, dict) else None
        is_error = isinstance(error, dict) and isinstance(error.get("code"), int)
        words = _words_of(error["code"], str(error.get("message", ""))) if is_error and error else ""
        return {"action": "cancel", "content": {_UNREADABLE: words}}
    return answer


def _words_of(code: int, message: str) -> str:
    return f"error {code}: {clean(message, 60)}"


async def permit(
    request: Request,
    held: Annotated[HeldQuote, Resolve(hold)],
    reply: Annotated[ElicitationResult[Any], Resolve(question)],
    ctx: Context[FirstUse],
) -> dict[str, Any]:
    """Carry out the call after the answer, or without one. Return its outcome, and the time by Clore's clock."""
    guard, caller, uses = services_of(ctx).guard, caller_of(ctx), ctx.request_context.lifespan_context
    came = _reply(reply)
    if came is not None and held.quote is not None and (asked := uses.asked.pop(held.quote.id, None)):
        came = replace(came, seconds=time.monotonic() - asked[0])  # in the newer protocol each round is a call
    told_us = ctx.input_responses is not None or not _is_modern(ctx)
    if came is not None and came.said is ReplyKind.ERROR and told_us:  # not if only this question got no answer
        uses.unaskable.add(caller)
    answer = None if came is None else True if came.said is ReplyKind.YES else False if came.is_no else None
    outcome = await guard.conclude(held, request, answer=answer, caller=caller, reply=came)
    if came is not None and came.said is ReplyKind.ERROR and held.quote is not None:
        outcome = replace(outcome, next=f"{came.told(held.quote, caller)} {outcome.next}".strip())
    await anyio.lowlevel.checkpoint()  # raises if the caller has gone, so that the answer counts as not delivered
    await guard.told(held, outcome)
    return {**outcome.as_json(), "now": iso(services_of(ctx).context.readings.api_now())}


def _reply(reply: ElicitationResult[Any]) -> QuestionReply | None:
    """Return the client's reply to the question, or None if no one was asked."""
    if isinstance(reply, AcceptedElicitation):
        if isinstance(reply.data, QuestionReply):
            return reply.data
        if not isinstance(reply.data, Approve):
            return None
    return QuestionReply(_said(reply))


Permitted = Annotated[dict[str, Any], Resolve(permit)]

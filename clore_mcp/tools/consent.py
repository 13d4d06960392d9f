"""The guard as the SDK's resolvers: hold the quote, ask through the client where it can be asked, carry out the answer.

One body for both protocol eras. On 2026-07-28 the resolvers run once a round, so they must find the same quote and the
same text each time; on 2025 they run once and the question goes out in the middle of the call. There
`ctx.elicit` sends it; on the newer era that is dead, and `Elicit` brings the question out. A client that can't be asked
gets `approval_required`; nothing it sends is a yes.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

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
from clore_mcp.rental.reply import QuestionReply, Said
from clore_mcp.rental.requests import Request
from clore_mcp.text import clean
from clore_mcp.tools.kit import Answer

if TYPE_CHECKING:
    from clore_mcp.rental.guard import Held
    from clore_mcp.rental.results import Outcome
    from clore_mcp.store.quotes import Quote
    from clore_mcp.wiring import Services
else:
    Held = Any  # the SDK evaluates what a resolver is annotated with; the guard is imported by the first call

AnswerT = TypeVar("AnswerT", bound=Answer)
_MODERN = "2026-07-28"
_UNREADABLE: Final = "clore-mcp: no answer"  # a key that no form of ours has
_UNANSWERED_MOST: Final = 2
_PAGE: Final = "page"
_OFFER: Final = "A question about money waits for you. It is answered on clore-mcp's page, on this machine."
_OFFERED_SECONDS: Final = 120.0
_SAME_MOMENT_SECONDS: Final = 1.0  # calls that come together are one try


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
    if caller_of(ctx) in ctx.request_context.lifespan_context.unaskable:
        return False
    return (ctx.protocol_version or "") >= _MODERN or ctx.session.can_send_request


def caller_of(ctx: Context[FirstUse]) -> str:
    """The client's name, as it states it: for the ledger and the quote's digest."""
    params = ctx.session.client_params
    return clean(params.client_info.name, 60) if params else "unknown client"


async def hold(request: Request, ctx: Context[FirstUse]) -> Held:
    """Find or make the quote of this call."""
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
    held: Annotated[Held, Resolve(hold)], ctx: Context[FirstUse]
) -> Elicit[Approve] | QuestionReply | None:
    """Ask the person, where there is something to ask and a way to do it. The older era's question goes out here, so
    that an error to it is a reply; the newer era's answers are looked at before the SDK judges them."""
    quote = held.quote
    if quote is not None and quote.state == "pending" and held.yes.is_needed and not can_ask(ctx):
        await _offer_page(quote.id, ctx)
    if quote is None or not services_of(ctx).guard.asks(held, can_ask=can_ask(ctx)):
        return None
    if (ctx.protocol_version or "") < _MODERN:
        return await _asked(quote, ctx)
    asked = ctx.request_context.lifespan_context.asked
    first, last, times = asked.get(quote.id, (0.0, 0.0, 0))
    now = time.monotonic()
    if ctx.input_responses is not None:
        return _no_answer(ctx.input_responses) or Elicit(quote.question, Approve)
    if times >= _UNANSWERED_MOST and held.yes.is_needed:
        return QuestionReply(Said.ERROR, detail=f"it was given the question {times} times and brought no answer")
    asked[quote.id] = (now, now, 1) if not first else (first, now, times + (now - last > _SAME_MOMENT_SECONDS))
    return Elicit(quote.question, Approve)


def _takes_addresses(ctx: Context[FirstUse]) -> bool:
    """Whether the client offers the person an address, by what it declares."""
    declared = ctx.client_capabilities.elicitation if ctx.client_capabilities else None
    return declared is not None and declared.url is not None


async def _offer_page(quote_id: str, ctx: Context[FirstUse]) -> None:
    """Have the client offer the person the page with the question. What it answers is no yes: it says only whether the
    person went there. In the newer era the offer goes out as the result of this round, and the next one brings it."""
    opener = ctx.request_context.lifespan_context.page
    if opener is None or not _takes_addresses(ctx):
        return
    modern = (ctx.protocol_version or "") >= _MODERN
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
        ctx.request_context.lifespan_context.offers[quote_id] = address
        return
    try:
        with anyio.fail_after(_OFFERED_SECONDS):
            went = (await ctx.elicit_url(_OFFER, address, quote_id)).action == "accept"
    except (TimeoutError, MCPError):
        went = False
    if not went:
        opener.refuse(quote_id)


def page_offer(ctx: Context[FirstUse], quote_id: str) -> InputRequiredResult | None:
    """What this round answers in the newer era where the client is to offer the person that question's page."""
    address = ctx.request_context.lifespan_context.offers.pop(quote_id, None)
    if address is None:
        return None
    request = ElicitRequest(params=ElicitRequestURLParams(message=_OFFER, url=address))
    return InputRequiredResult(input_requests={_PAGE: request}, request_state="{}")


async def _asked(quote: Quote, ctx: Context[FirstUse]) -> QuestionReply:
    """The answer to a question that is sent now, in the older era."""
    began = time.monotonic()

    def came(said: Said, detail: str = "") -> QuestionReply:
        return QuestionReply(said, time.monotonic() - began, detail)

    left = quote.expires_at - services_of(ctx).context.clock()
    try:
        with anyio.fail_after(max(left, 0.0)):
            result = await ctx.elicit(quote.question, Approve)
    except TimeoutError:
        return came(Said.SILENCE)
    except MCPError as error:
        if error.code == CONNECTION_CLOSED and error.message == "Connection closed":
            raise  # the client has gone: it answered nothing
        if error.code == REQUEST_TIMEOUT:
            return came(Said.SILENCE)
        return came(Said.ERROR, _words_of(error.code, error.message))
    except ValueError:
        return came(Said.MALFORMED)
    return came(_said(result))


def _said(result: ElicitationResult[Any]) -> Said:
    if isinstance(result, AcceptedElicitation):
        return Said.YES if isinstance(result.data, Approve) and result.data.approve is True else Said.NO
    return Said.DECLINE if isinstance(result, DeclinedElicitation) else Said.CANCEL


def _no_answer(answers: Mapping[str, Any]) -> QuestionReply | None:
    """What is wrong with the newer era's answer; None where the SDK may read it."""
    for answer in answers.values():
        content = getattr(answer, "content", None)
        if not isinstance(answer, ElicitResult):
            return QuestionReply(Said.MALFORMED)
        if answer.action == "cancel" and content and _UNREADABLE in content:
            detail = str(content[_UNREADABLE])
            return QuestionReply(Said.ERROR if detail else Said.MALFORMED, detail=detail)
        if answer.action == "accept":
            try:
                Approve.model_validate(content)
            except ValidationError:
                return QuestionReply(Said.MALFORMED)
    return None


async def readable_answers(ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    """A middleware: an answer that is none of the protocol becomes a cancel that says so, for the SDK would fail the
    whole call. Nothing becomes a yes here."""
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


@dataclass(frozen=True, slots=True)
class Concluded:
    """What came of a call, and when, by Clore's clock."""

    outcome: Outcome
    now: str

    def answer(self, kind: type[AnswerT]) -> AnswerT:
        """The answer of a tool."""
        return kind.model_validate({**self.outcome.as_json(), "now": self.now})


async def permit(
    request: Request,
    held: Annotated[Held, Resolve(hold)],
    reply: Annotated[ElicitationResult[Any], Resolve(question)],
    ctx: Context[FirstUse],
) -> Concluded:
    """What comes of the call after the answer, or without one."""
    guard, caller, uses = services_of(ctx).guard, caller_of(ctx), ctx.request_context.lifespan_context
    came = _reply(reply)
    if came is not None and held.quote is not None and (asked := uses.asked.pop(held.quote.id, None)):
        came = replace(came, seconds=time.monotonic() - asked[0])  # the newer era's rounds are calls of their own
    told_us = ctx.input_responses is not None or (ctx.protocol_version or "") < _MODERN
    if came is not None and came.said is Said.ERROR and told_us:  # not where only this question brought no answer
        uses.unaskable.add(caller)
    answer = None if came is None else True if came.said is Said.YES else False if came.is_no else None
    outcome = await guard.conclude(held, request, answer=answer, caller=caller, reply=came)
    if came is not None and came.said is Said.ERROR and held.quote is not None:
        outcome = replace(outcome, next=f"{came.told(held.quote, caller)} {outcome.next}".strip())
    await anyio.lowlevel.checkpoint()  # raises when the caller has gone: then nobody was told
    await guard.told(held, outcome)
    from clore_mcp.rental.context import iso  # here: whoever only lists the tools needs no more than its types

    return Concluded(outcome, iso(services_of(ctx).context.readings.api_now()))


def _reply(reply: ElicitationResult[Any]) -> QuestionReply | None:
    """What the client made of the question; None where nobody was asked."""
    if isinstance(reply, AcceptedElicitation):
        if isinstance(reply.data, QuestionReply):
            return reply.data
        if not isinstance(reply.data, Approve):
            return None
    return QuestionReply(_said(reply))


Permitted = Annotated[Concluded, Resolve(permit)]

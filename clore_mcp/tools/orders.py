"""The order tools: quote, create, list, wait, extend, cancel, and the spot bid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from pydantic import AfterValidator, Field

from clore_mcp.first_use import FirstUse
from clore_mcp.money import dollars, shown, shown_up
from clore_mcp.rental.containers import image_notes
from clore_mcp.rental.requests import (
    LONGEST_WAIT_SECONDS,
    CancelOrder,
    CreateOrder,
    ExtendOrder,
    SetSpotPrice,
    possible_order,
)
from clore_mcp.settings import Approval
from clore_mcp.text import iso
from clore_mcp.tools.consent import Permitted, caller_of, services_of
from clore_mcp.tools.kit import tool
from clore_mcp.tools.order_answers import (
    BidAnswer,
    CancelAnswer,
    CreateAnswer,
    ExtendAnswer,
    OrdersAnswer,
    QuoteAnswer,
    ShownAttempt,
    ShownOrder,
    ShownRefusal,
    Unsettled,
    WaitAnswer,
)

if TYPE_CHECKING:
    from clore_mcp.rental.terms import Terms
    from clore_mcp.wiring import Services

_MOST_LISTED = 50
ENDED_TOO = Field(description="Include ended ones.")


async def quote_order(request: CreateOrder, ctx: Context[FirstUse]) -> QuoteAnswer:
    """Price a rental and check it against the limits and the wallet. It asks no one and reserves nothing. It takes
    create_order's arguments. create_order makes its own quote, so use this only to compare prices or explain a
    refusal."""
    from clore_mcp.rental import results
    from clore_mcp.rental.terms import cost_of

    services = services_of(ctx)
    await services.keep_leases()
    found = await services.pricer.price(request)
    first = found.terms.candidates[0] if found.terms else None
    attempts = [ShownAttempt(server_id=one.server_id, outcome=one.reason) for one in found.unfit]
    if found.terms is None or first is None:
        why = " ".join(one.message for one in found.unfit)
        return QuoteAnswer(
            server_id=request.server_id,
            hours=request.hours,
            allowed=False,
            refusals=[],
            attempts=attempts,
            most_hours=None if found.most_hours is None else float(found.most_hours),
            next=f"{why} Search again." if found.most_hours is None else f"{why} Rent fewer hours, or search again.",
        )
    cost, cover = cost_of(first, found.terms.hours), found.wallet_covers_hours
    return QuoteAnswer(
        server_id=first.server_id,
        usd_per_hour=shown(first.usd_per_hour),
        hours=request.hours,
        rent_usd=round(float(cost.rent_usd), 6),
        fee_usd=round(float(cost.fee_usd), 6),
        creation_fee_usd=round(float(cost.creation_fee_usd), 6),
        total_usd=round(float(cost.total_usd), 6),
        worst_case_usd=shown_up(found.terms.worst_usd),
        margin=results.margin(found.terms),
        creation_fee_due=results.FEE_DUE if cost.creation_fee_usd else None,
        on_demand_usd_per_hour=None if first.on_demand_usd_per_hour is None else shown_up(first.on_demand_usd_per_hour),
        currency=first.coin.ticker,
        price_per_day=float(first.listed_per_day),
        image=request.image,
        image_notes=image_notes(
            request.image, jupyter=request.jupyter, hosts=[(one.server_id, one.cuda) for one in found.terms.candidates]
        ),
        allowed=not found.refusals,
        refusals=[ShownRefusal(**refusal.as_json()) for refusal in found.refusals],
        attempts=attempts,
        wallet_covers_hours=None if cover is None else round(float(cover), 2),
        enforced_by=found.terms.enforced_by or "nobody",
        next=_after_quote(services, found.terms)
        if not found.refusals
        else "create_order would be refused: " + "; ".join(str(refusal) for refusal in found.refusals) + ".",
    )


def _after_quote(services: Services, terms: Terms) -> str:
    then = "To ask the person and rent, call create_order with the same arguments."
    if services.settings.approval is Approval.LIMITS:
        then = "create_order rents at once without a question, so ask the person in the chat first."
    if terms.to_win_usd is not None:
        most = dollars(terms.to_win_usd)
        then = (
            f"The bid would not win now: winning takes {most} per hour. Until it wins, the order is queued and costs"
            f" nothing. {then}"
        )
    dear = terms.candidates[0].dear_on_demand_usd
    if dear is not None:
        then = (
            f"The bid is not below the on-demand price of {dollars(dear)} per hour, and an on-demand order can't be"
            f" outbid. {then}"
        )
    return then


async def create_order(request: CreateOrder, permitted: Permitted) -> CreateAnswer:
    """Rent a server. This spends money: it shows the person the full cost, asks them and rents once. Call it when the
    person has chosen, never as a test. For more time, use extend_order. Repeating the call never orders twice.
    With replaces_order_id it also cancels that order."""
    return CreateAnswer.model_validate(permitted)


def _page(cursor: str | None) -> str | None:
    if cursor is not None and not (cursor.isascii() and cursor.isdecimal()):
        raise ValueError("is not a valid cursor; give next_cursor of the previous page, or leave it out")
    return cursor


async def list_orders(
    ctx: Context[FirstUse],
    include_ended: Annotated[bool, ENDED_TOO] = False,
    limit: Annotated[int, Field(ge=1, le=_MOST_LISTED)] = 20,
    cursor: Annotated[
        str | None, Field(max_length=20, description="next_cursor of the previous page."), AfterValidator(_page)
    ] = None,
) -> OrdersAnswer:
    """List the account's orders with status, cost, end and SSH command. Use it to see what is billed now and after any
    unclear outcome: `unsettled` lists create_order calls whose outcome is unknown. While an order deploys, use
    wait_for_order. For balances and limits, use get_account."""
    services = services_of(ctx)
    answer = await orders_answer(services, include_ended=include_ended, start=int(cursor or 0), limit=limit)
    return answer.model_copy(update={"now": iso(services.context.readings.api_now())})


async def orders_answer(
    services: Services, *, include_ended: bool = False, start: int = 0, limit: int = _MOST_LISTED
) -> OrdersAnswer:
    """Return a page of the orders without its time, after starting the keeper and checking the orders for problems."""
    await services.keep_leases()
    found = await services.overview.orders(include_ended=include_ended)
    await services.look_over(wallets=False)
    end = start + limit
    return OrdersAnswer(
        orders=[ShownOrder.model_validate(view, from_attributes=True) for view in found.orders[start:end]],
        total_usd_per_hour=found.usd_per_hour,
        total_spent_usd=found.spent_usd,
        watches_waiting=found.watches_waiting,
        unsettled=[Unsettled.model_validate(one, from_attributes=True) for one in found.unsettled],
        next_cursor=str(end) if len(found.orders) > end else None,
        next=found.next,
    )


async def wait_for_order(
    ctx: Context[FirstUse],
    order_id: Annotated[int, Field(gt=0, description="From create_order."), AfterValidator(possible_order)],
    timeout_seconds: Annotated[
        float, Field(gt=0, le=LONGEST_WAIT_SECONDS, description="Returns by then, ready or not.")
    ] = 45,
) -> WaitAnswer:
    """Wait until an order's container is up and SSH answers, then show the SSH command. Deploying takes 2 to 5 minutes
    and is billed. If it is not ready, `ready_reason` says why and `next` says what to do. Stop waiting for an order
    that is ended, queued or outbid."""

    async def progress(seconds: float, message: str) -> None:
        await ctx.report_progress(seconds, timeout_seconds, message)

    waited = await services_of(ctx).readiness.wait(order_id, timeout_seconds, progress, caller_of(ctx))
    return WaitAnswer.model_validate(waited.as_json())


async def extend_order(request: ExtendOrder, permitted: Permitted) -> ExtendAnswer:
    """Extend an order. Use it when the person wants more time. It asks the person, then moves the end; an order made
    elsewhere gets its first end. Repeating the call within ten minutes adds nothing. To end an order now, use
    cancel_order."""
    return ExtendAnswer.model_validate(permitted)


async def cancel_order(request: CancelOrder, permitted: Permitted) -> CancelAnswer:
    """End an order: billing stops, and its container and data are deleted. Use it as soon as the person is done and has
    their data. For more time, use extend_order. It returns a receipt once the order is proven gone. `unverified` means
    that the order may still be billed: follow `next`."""
    return CancelAnswer.model_validate(permitted)


async def set_spot_price(request: SetSpotPrice, permitted: Permitted) -> BidAnswer:
    """Change the bid of a spot order. Use it to win the server or to pay less; on-demand prices are fixed. It asks the
    person before a raise. Clore allows one lowering step every 600 seconds. get_server shows the bid that would win."""
    return BidAnswer.model_validate(permitted)


def tools(*, read_only: bool) -> list[Tool]:
    """Return the orders toolset. In read-only mode it has no tool that spends or destroys."""
    reads = [
        tool(quote_order, title="Price a rental", kind="reads", terse=() if read_only else CreateOrder.model_fields),
        tool(list_orders, title="List orders", kind="reads"),
        tool(wait_for_order, title="Wait until an order is ready", kind="reads"),
    ]
    acts = [
        tool(create_order, title="Rent a server", kind="destroys", idempotent=True),  # replaces_order_id ends an order
        tool(extend_order, title="Extend an order", kind="spends"),  # after ten minutes it moves the end again
        tool(cancel_order, title="Cancel an order", kind="destroys", idempotent=True),
        tool(set_spot_price, title="Change a spot bid", kind="spends", idempotent=True),
    ]
    return reads if read_only else [reads[0], acts[0], *reads[1:], *acts[1:]]

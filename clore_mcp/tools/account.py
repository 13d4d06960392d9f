"""The account tool: get_account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool

from clore_mcp.first_use import FirstUse
from clore_mcp.rental.account.account_view import EventView, FeesView, LimitView, PendingView, SpentView, WalletView
from clore_mcp.tools.consent import services_of
from clore_mcp.tools.kit import OBJECT_ELSEWHERE, ROWS_ELSEWHERE, Answer, tool

if TYPE_CHECKING:
    from clore_mcp.wiring import Services


class AccountAnswer(Answer):
    wallets: Annotated[tuple[WalletView, ...], ROWS_ELSEWHERE]  # the names explain themselves, as do those below
    burn_usd_per_hour: float
    cost_not_known: list[int] = []
    spent_usd: Annotated[SpentView, OBJECT_ELSEWHERE]
    all_end_at: str | None = None
    spent_then_usd: float | None = None
    fees: Annotated[FeesView, OBJECT_ELSEWHERE]
    limits: Annotated[Mapping[str, LimitView], OBJECT_ELSEWHERE]
    pending_approvals: Annotated[tuple[PendingView, ...], ROWS_ELSEWHERE]
    events: Annotated[tuple[EventView, ...], ROWS_ELSEWHERE]
    more: str | None = None
    watchdog: str
    frozen: str | None = None


async def get_account(ctx: Context[FirstUse]) -> AccountAnswer:
    """Show balances, spending and limits. It also shows how long each wallet lasts, the cost per hour, when all orders
    end, waiting approvals and events (ended orders, rentals by watches, problems). Use it before a long or expensive
    rental. For the cost of each order, use list_orders."""
    return await account_answer(services_of(ctx))


async def account_answer(services: Services) -> AccountAnswer:
    """Return the account, after starting the keeper and checking the orders for problems."""
    from clore_mcp.rental.account_summary import account_state

    await services.keep_leases()
    view = await account_state(
        services.context, services.pricer, services.approvals, services.overview, await services.look_over()
    )
    return AccountAnswer.model_validate(view, from_attributes=True)


def tools() -> list[Tool]:
    """Return the account toolset."""
    return [tool(get_account, title="Show the account", kind="reads")]

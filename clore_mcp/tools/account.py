"""What the model sees of the account: get_account."""

from __future__ import annotations

from typing import Annotated

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool

from clore_mcp.first_use import FirstUse
from clore_mcp.tools.consent import services_of
from clore_mcp.tools.kit import Answer, tool
from clore_mcp.tools.order_answers import OBJECT_ELSEWHERE, ROWS_ELSEWHERE


class ShownWallet(Answer):
    """One wallet."""

    currency: str
    balance: float | None = None
    usd: float | None = None
    runway_hours: float | None = None


class SpentLately(Answer):
    """What was spent in two windows that end now."""

    last_24_hours: float
    last_30_days: float


class Limit(Answer):
    """One of the operator's caps."""

    cap: float
    spent: float
    reserved: float
    left: float


class ShownQuestion(Answer):
    """A quote that waits for a person, or holds an unused yes."""

    approval_id: str
    what: str
    state: str
    expires_at: str


class Event(Answer):
    """Something that happened without being asked for."""

    at: str
    what: str
    order_id: int | None = None
    note: str | None = None


class Fee(Answer):
    """What Clore takes on top of prices, in percent, by coin."""

    on_demand_percent: dict[str, float]
    spot_percent: dict[str, float]
    assumed: bool = False


class AccountAnswer(Answer):
    """The account: money, burn, limits, what waits."""

    wallets: list[ShownWallet]
    burn_usd_per_hour: float
    cost_not_known: list[int] = []
    spent_usd: Annotated[SpentLately, OBJECT_ELSEWHERE]  # names that speak for themselves, as those below
    all_end_at: str | None = None
    spent_then_usd: float | None = None
    fees: Annotated[Fee, OBJECT_ELSEWHERE]
    limits: Annotated[dict[str, Limit], OBJECT_ELSEWHERE]
    pending_approvals: Annotated[list[ShownQuestion], ROWS_ELSEWHERE]
    events: Annotated[list[Event], ROWS_ELSEWHERE]
    more: str | None = None
    watchdog: str
    frozen: str | None = None


async def get_account(ctx: Context[FirstUse]) -> AccountAnswer:
    """Show the account: balances, how long they last, cost per hour, spending, limits, and when all orders end. Also
    waiting approvals and events (what ended, what watches rented, trouble). Use it before a long or dear rental; for
    each order's cost, list_orders."""
    from clore_mcp.rental.account.summary import account_state

    services = services_of(ctx)
    await services.keep_leases()
    told = await account_state(
        services.context, services.pricer, services.approvals, services.overview, await services.look_over()
    )
    return AccountAnswer.model_validate(told)


def tools() -> list[Tool]:
    """The account toolset."""
    return [tool(get_account, title="Show the account", kind="reads")]

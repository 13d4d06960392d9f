"""Views of the account, with the field names of get_account. Unknown values are None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WalletView:
    """One wallet: its balance in its coin and in USD, and the hours until the orders billed now have used it up."""

    currency: str
    balance: float | None
    usd: float | None
    runway_hours: float | None


@dataclass(frozen=True, slots=True)
class SpentView:
    """The USD spent in two windows that end now."""

    last_24_hours: float
    last_30_days: float


@dataclass(frozen=True, slots=True)
class LimitView:
    """One cap, the amount spent and the amount reserved on top. Both count as used; the rest is left."""

    cap: float
    spent: float
    reserved: float
    left: float


@dataclass(frozen=True, slots=True)
class FeesView:
    """Clore's fees on top of prices, in percent, by coin. `assumed` is True if Clore did not report them."""

    on_demand_percent: Mapping[str, float]
    spot_percent: Mapping[str, float]
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class PendingView:
    """A question that waits for a person, an approval not used yet, or a watch."""

    approval_id: str
    what: str
    state: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class EventView:
    """An event, which happened without a tool call."""

    at: str
    what: str
    order_id: int | None
    note: str | None


@dataclass(frozen=True, slots=True)
class AccountView:
    """Wallets, cost per hour (USD), spending, fees, limits by name, items waiting for a person, and events."""

    wallets: tuple[WalletView, ...]
    burn_usd_per_hour: float
    cost_not_known: tuple[int, ...]  # orders
    spent_usd: SpentView
    all_end_at: str | None  # of the orders billed now, with their cost by then
    spent_then_usd: float | None
    fees: FeesView
    limits: Mapping[str, LimitView]
    pending_approvals: tuple[PendingView, ...]
    events: tuple[EventView, ...]
    more: str | None
    frozen: str | None
    watchdog: str

"""The account as it is shown, in the words of get_account. What is unknown is None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WalletView:
    """One wallet: its balance in its coin and in USD, and the hours until what is billed now has used it up."""

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
    """One cap with what is spent and what is reserved on top. Together they are used; the rest is left."""

    cap: float
    spent: float
    reserved: float
    left: float


@dataclass(frozen=True, slots=True)
class FeesView:
    """Clore's fees on top of prices, in percent, by coin. `assumed`: Clore did not report them."""

    on_demand_percent: Mapping[str, float]
    spot_percent: Mapping[str, float]
    assumed: bool


@dataclass(frozen=True, slots=True)
class PendingView:
    """A question that waits for a person, an approval that was not used yet, or a watch."""

    approval_id: str
    what: str
    state: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class EventView:
    """An event: something that happened without a call."""

    at: str
    what: str
    order_id: int | None
    note: str | None


@dataclass(frozen=True, slots=True)
class AccountView:
    """Wallets, cost per hour (USD), what was spent, fees, limits by name, what waits for a person, and events.

    `cost_not_known` names orders without a known cost. By `all_end_at` the running orders have cost `spent_then_usd`.
    """

    wallets: tuple[WalletView, ...]
    burn_usd_per_hour: float
    cost_not_known: tuple[int, ...]
    spent_usd: SpentView
    all_end_at: str | None
    spent_then_usd: float | None
    fees: FeesView
    limits: Mapping[str, LimitView]
    pending_approvals: tuple[PendingView, ...]
    events: tuple[EventView, ...]
    more: str | None
    frozen: str | None
    watchdog: str

"""The answer models of the order tools, with fields in the order in which a model reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from clore_mcp.tools.kit import OBJECT_ELSEWHERE, ROWS_ELSEWHERE, Answer


class ShownRefusal(Answer):
    limit: str
    cap: float
    used: float
    needed: float
    left: float
    change: str


class ShownAttempt(Answer):
    server_id: int
    outcome: str


class QuoteAnswer(Answer):
    """The price of an order that was not made."""

    server_id: int
    usd_per_hour: float | None = None
    hours: float
    rent_usd: float | None = None
    fee_usd: float | None = None
    creation_fee_usd: float | None = None
    total_usd: float | None = None
    worst_case_usd: float | None = None
    margin: str | None = None
    creation_fee_due: str | None = None
    on_demand_usd_per_hour: float | None = None
    currency: str | None = None
    price_per_day: float | None = None
    image: str | None = None
    image_notes: list[str] = []
    allowed: bool
    refusals: Annotated[list[ShownRefusal], ROWS_ELSEWHERE]
    attempts: Annotated[list[ShownAttempt], ROWS_ELSEWHERE] = []
    wallet_covers_hours: float | None = None
    most_hours: float | None = None
    enforced_by: str | None = None
    next: str


class Receipt(Answer):
    hours: float
    rent_usd: float
    fee_usd: float
    creation_fee_usd: float
    total_usd: float
    estimated: bool


class Approved(Answer):
    total_usd: float
    worst_case_usd: float
    margin: str
    image: str
    fallbacks: list[int] = []
    by: str | None = None


class Replaced(Answer):
    """The order that was replaced, and its cost."""

    order_id: int
    receipt: Receipt | None = None


class CreateAnswer(Answer):
    status: Literal["created", "in_progress", "declined", "approval_required", "refused", "failed", "uncertain"]
    order_id: int | None = None
    server_id: int | None = None
    approval_id: str | None = None
    refusals: list[ShownRefusal] = []
    most_hours: float | None = None
    attempts: Annotated[list[ShownAttempt], ROWS_ELSEWHERE]
    usd_per_hour: float | None = None
    reserved_usd: float | None = None
    ends_at: str | None = None
    enforced_by: str | None = None
    approved: Annotated[Approved | None, OBJECT_ELSEWHERE] = None
    creation_fee_usd: float | None = None
    free_cancel_until: str | None = None
    receipt: Annotated[Receipt | None, OBJECT_ELSEWHERE] = None
    replaced: Annotated[Replaced | None, OBJECT_ELSEWHERE] = None
    jupyter_url: str | None = None
    repeated: bool = False
    now: str | None = None
    next: str


class ExtendAnswer(Answer):
    status: Literal["extended", "in_progress", "declined", "approval_required", "refused", "failed", "uncertain"]
    order_id: int | None = None
    server_id: int | None = None
    approval_id: str | None = None
    reason: str | None = None
    latest_ends_at: str | None = None
    most_hours: float | None = None
    refusals: Annotated[list[ShownRefusal], ROWS_ELSEWHERE] = []
    attempts: Annotated[list[ShownAttempt], ROWS_ELSEWHERE]
    usd_per_hour: float | None = None
    reserved_usd: float | None = None
    previous_ends_at: str | None = None
    ends_at: str | None = None
    enforced_by: str | None = None
    repeated: bool = False
    now: str | None = None
    next: str


class ShownSsh(Answer):
    host: str
    port: int
    user: str
    command: str


class ShownOrder(Answer):
    order_id: int
    server_id: int | None = None
    currency: str | None = None
    country: str | None = None
    status: Literal["deploying", "running", "queued", "outbid", "ended"]
    order_type: str
    gpu: str
    gpu_count: int
    image: str
    usd_per_hour: float | None = None
    spent_usd: float | None = None
    estimated: bool = False
    started_at: str | None = None
    ends_at: str | None = None
    made_here: bool
    ssh: ShownSsh | None = None
    http_url: str | None = None
    warning: str | None = None


class Unsettled(Answer):
    """A create whose outcome is unknown."""

    intent_id: str
    server_id: int
    since: str
    state: str


class OrdersAnswer(Answer):
    orders: list[ShownOrder]
    total_usd_per_hour: float
    total_spent_usd: float
    watches_waiting: int | None = None
    unsettled: Annotated[list[Unsettled], ROWS_ELSEWHERE] = []
    now: str | None = None
    next_cursor: str | None = None
    next: str | None = None


class WaitAnswer(ShownOrder):
    """The order as it is now. `failed_alike` lists recent orders on other servers that failed in the same way."""

    ssh: Annotated[ShownSsh | None, OBJECT_ELSEWHERE] = None
    ready: bool
    ready_reason: (
        Literal["image_loading", "name_not_found", "connection_refused", "timed_out", "no_ssh_banner", "ready"] | None
    ) = None
    minutes_since_start: int | None = None
    free_cancel_until: str | None = None
    this_machine_reaches: str | None = None  # one of advice.Reaches
    failed_alike: list[int] = []
    now: str
    next: str


class StillRunning(Answer):
    order_id: int
    status: str | None = None
    usd_per_hour: float | None = None


class CancelAnswer(Answer):
    status: Literal["cancelled", "unverified", "already_ended", "declined", "approval_required"]
    order_id: int | None = None
    approval_id: str | None = None
    receipt: Receipt | None = None
    still_running: Annotated[list[StillRunning] | None, ROWS_ELSEWHERE] = None
    watches_waiting: int | None = None
    repeated: bool = False
    now: str | None = None
    next: str


class BidAnswer(Answer):
    status: Literal["updated", "unchanged", "declined", "approval_required", "refused", "uncertain"]
    order_id: int | None = None
    approval_id: str | None = None
    bid_usd_per_hour: float | None = None
    was_usd_per_hour: float | None = None
    on_demand_usd_per_hour: float | None = None
    to_win_usd_per_hour: float | None = None
    price_per_day: float | None = None
    currency: str | None = None
    rank: int | None = None
    reason: str | None = None
    lowest_usd_per_hour_now: float | None = None
    retry_after_seconds: float | None = None
    refusals: Annotated[list[ShownRefusal], ROWS_ELSEWHERE] = []
    repeated: bool = False
    now: str | None = None
    next: str

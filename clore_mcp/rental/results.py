"""The outcome of a spending call: one frozen Outcome, its statuses and its parts. outcome_texts.py has the texts.

Numbers are rounded as they are shown. The record stores an outcome as JSON, and the tools answer with the same JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from clore_mcp.money import ZERO, dollars, shown

if TYPE_CHECKING:
    from clore_mcp.store.orders import OrderReceipt
    from clore_mcp.store.quotes import Quote

_NOT_AMOUNTS: Final = ("watchdog", "frozen")  # refusals that have no numbers


class Status(StrEnum):
    """The statuses of a call, in the words of the tools' contract."""

    CREATED = "created"
    EXTENDED = "extended"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    WAITING = "waiting"
    CANCELLED = "cancelled"
    ALREADY_ENDED = "already_ended"
    IN_PROGRESS = "in_progress"
    APPROVAL_REQUIRED = "approval_required"
    DECLINED = "declined"
    REFUSED = "refused"
    FAILED = "failed"
    UNVERIFIED = "unverified"  # a cancel that is not proven: the order may bill
    UNCERTAIN = "uncertain"  # it is unknown whether an order was made or a bid was set


@dataclass(frozen=True, slots=True)
class Refusal:
    """One limit that refuses a step. `needed` is what the step adds; `change` says who can change the limit and how."""

    limit: str
    cap: Decimal
    used: Decimal
    needed: Decimal
    change: str

    @property
    def left(self) -> Decimal:
        """How much of the cap is left, never below zero."""
        return max(self.cap - self.used, ZERO)

    def as_json(self) -> dict[str, Any]:
        """Return the refusal as JSON for a result."""
        amounts = ("cap", "used", "needed", "left")
        return {"limit": self.limit, **{name: shown(getattr(self, name)) for name in amounts}, "change": self.change}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Refusal:
        """Return the refusal that `as_json` wrote, with its amounts as they were shown."""
        cap, used, needed = (Decimal(str(row[name])) for name in ("cap", "used", "needed"))
        return cls(row["limit"], cap, used, needed, row["change"])

    def __str__(self) -> str:
        if self.limit in _NOT_AMOUNTS:
            return f"{self.limit}: {self.change}"
        who = f"can only be changed by {self.change}"
        if self.limit == "active_orders":
            return f"{self.needed} more active order, {self.used} of {self.cap} in use, {who}"
        left, cap = dollars(self.left, up=False), dollars(self.cap, up=False)
        return f"{self.limit}: {dollars(self.needed)} needed, {left} of {cap} left, {who}"


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of an outcome. Fields that are None are left out of its JSON."""

    def as_json(self) -> dict[str, Any]:
        """Return the part as JSON for a result."""
        told = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in told.items() if value is not None}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the part that `as_json` wrote."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in row.items()})


@dataclass(frozen=True, slots=True)
class Attempt(_Part):
    """One server that was tried or could not be tried, and the outcome."""

    server_id: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Agreement(_Part):
    """The terms that the person approved. `by` says who approved, None if that is unknown."""

    total_usd: float
    worst_case_usd: float
    margin: str
    image: str
    fallbacks: tuple[int, ...]
    by: str | None = None


@dataclass(frozen=True, slots=True)
class BillingOrder(_Part):
    """An order that is still billed. `status` is set if it waits for a server."""

    order_id: int
    status: str | None = None
    usd_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class LostOrder:
    """The order that was replaced by another one, and its cost."""

    order_id: int
    receipt: OrderReceipt | None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON for a result."""
        return {"order_id": self.order_id, "receipt": self.receipt and self.receipt.as_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> LostOrder:
        """Return the lost order that `as_json` wrote."""
        return cls(row["order_id"], _receipt(row["receipt"]) if row["receipt"] else None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a call. `next` says what to do. Fields that do not belong to the status are None.

    `said` is why a cancel is not proven, for a person at a terminal.
    """

    status: Status
    next: str
    order_id: int | None = None
    server_id: int | None = None
    approval_id: str | None = None
    attempts: tuple[Attempt, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    reason: str | None = None
    repeated: bool = False
    receipt: OrderReceipt | None = None
    # A rental, or its extension.
    usd_per_hour: float | None = None
    reserved_usd: float | None = None
    previous_ends_at: str | None = None
    ends_at: str | None = None
    enforced_by: str | None = None
    approved: Agreement | None = None
    creation_fee_usd: float | None = None
    free_cancel_until: str | None = None
    jupyter_url: str | None = None
    replaced: LostOrder | None = None
    most_hours: float | None = None
    latest_ends_at: str | None = None
    # A cancel.
    said: str | None = None
    still_running: tuple[BillingOrder, ...] | None = None
    watches_waiting: int | None = None
    # A bid.
    bid_usd_per_hour: float | None = None
    was_usd_per_hour: float | None = None
    on_demand_usd_per_hour: float | None = None
    to_win_usd_per_hour: float | None = None
    price_per_day: float | None = None
    currency: str | None = None
    rank: int | None = None
    lowest_usd_per_hour_now: float | None = None
    retry_after_seconds: int | None = None
    # A watch.
    watch_id: str | None = None
    envelope: str | None = None
    best_seen_usd_per_hour: float | None = None

    def again(self, note: str = "") -> Outcome:
        """Return this outcome for a repetition of the same call, marked as repeated."""
        return replace(self, repeated=True, next=f"{note} {self.next}".strip())

    def also(self, said: str) -> Outcome:
        """Return this outcome with one more sentence."""
        return replace(self, next=f"{self.next} {said}".strip())

    def as_json(self) -> dict[str, Any]:
        """Return JSON for the quote's row and the tool's answer. Fields that are None or False and empty refusals are
        left out."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: _as_json(value)
            for name, value in told.items()
            if not (value is None or value is False or (name == "refusals" and not value))
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Outcome:
        """Return the outcome that `as_json` wrote. Fields that a later version added are left out."""
        known = {field.name for field in fields(cls)}
        parts = {name: _part(name, value) for name, value in row.items() if name in known}
        return cls(**{"next": "", **parts})


class _Json(Protocol):
    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self: ...


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [one.as_json() for one in value]
    return value.as_json() if hasattr(value, "as_json") else value


_ROWS: Final[Mapping[str, type[_Json]]] = {"attempts": Attempt, "refusals": Refusal, "still_running": BillingOrder}
_PARTS: Final[Mapping[str, type[_Json]]] = {"approved": Agreement, "replaced": LostOrder}


def _part(name: str, value: Any) -> Any:
    if name == "status":
        return Status(value)
    if name == "receipt":
        return _receipt(value)
    if name in _ROWS:
        return tuple(_ROWS[name].from_json(one) for one in value)
    return _PARTS[name].from_json(value) if name in _PARTS else value


def _receipt(row: Mapping[str, Any]) -> OrderReceipt:
    from clore_mcp.store.orders import OrderReceipt  # imported here: a process that only lists the tools needs no state

    return OrderReceipt.from_json(row)


def outcome_of(quote: Quote | None) -> Outcome | None:
    """Return the outcome of a quote, or None if it is not settled."""
    if quote is None or quote.state != "settled" or quote.outcome is None:
        return None
    return Outcome.from_json(quote.outcome)


class Settled(Exception):
    """Raised when the outcome is known, so that there is nothing to ask or nothing more to do.

    `final`: a quote that is being carried out is settled with it. Otherwise nothing was used, and the quote stays as it
    is.
    """

    def __init__(self, outcome: Outcome, *, final: bool = True) -> None:
        super().__init__(outcome.status)
        self.outcome = outcome
        self.final = final


@dataclass(frozen=True, slots=True)
class Stopped:
    """The reason that nothing more is sent to one server of a rental. With an `outcome` the whole call ends. Otherwise
    the next server is tried.

    `final`: the quote is settled with that outcome. Otherwise it stays as it is, and so does an unused approval.
    """

    attempt: Attempt | None = None
    outcome: Outcome | None = None
    final: bool = True

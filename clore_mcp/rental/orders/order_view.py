"""Views of orders: one order, one order as of now, and the list. Unknown values are None and left out of JSON."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from clore_mcp.rental.ssh.access import Ssh


@dataclass(frozen=True, slots=True)
class OrderView:
    """One order: where it runs, what it costs (USD, including fees), when it ends, and how to connect."""

    order_id: int
    server_id: int | None
    currency: str | None
    country: str | None
    status: str
    order_type: str
    gpu: str
    gpu_count: int
    image: str
    usd_per_hour: float | None
    spent_usd: float | None
    estimated: bool
    started_at: str | None
    ends_at: str | None
    made_here: bool
    ssh: Ssh | None
    http_url: str | None
    warning: str | None

    @property
    def hardware(self) -> str:
        """The number and model of its GPUs."""
        return f"{self.gpu_count}x {self.gpu}"

    @property
    def up(self) -> bool:
        """Whether it has its server and is billed."""
        return self.status in ("deploying", "running")

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.status == "ended"

    def as_json(self) -> dict[str, Any]:
        """Return what is known, for a reply."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        if self.ssh:
            told["ssh"] = {name: getattr(self.ssh, name) for name in ("host", "port", "user", "command")}
        if not self.estimated:
            del told["estimated"]
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True)
class OrderNow:
    """One order as of now, by Clore's clock. A cancel until `free_cancel_until` avoids the creation fee."""

    view: OrderView
    now: str
    minutes_since_start: int | None = None
    free_cancel_until: str | None = None


@dataclass(frozen=True, slots=True)
class OpenCreate:
    """A create with an unknown outcome."""

    intent_id: str
    server_id: int
    since: str
    state: str


@dataclass(frozen=True, slots=True)
class OrderList:
    """The orders, their cost per hour now and cost so far (USD), and creates with an unknown outcome."""

    orders: tuple[OrderView, ...]
    usd_per_hour: float
    spent_usd: float
    watches_waiting: int | None
    unsettled: tuple[OpenCreate, ...]
    next: str | None

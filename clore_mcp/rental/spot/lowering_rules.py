"""What is known of lowering a bid before Clore is asked: when it may go down again, and how far at once.

Known is what was lowered here and what Clore told of an order, from rows of the ledger: every process of the state
knows it, and the next start. A largest step is only one that Clore named for the very bid that stands now; its formula
is nobody's guess. Time is Clore's, and this machine's clock beside it: a window is over when either says so, and one
that no clock places in the past was never one. Asking once too often costs nothing; Clore refuses by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from clore_mcp.errors import LoweringTooSoon, Refused, StepTooLarge
from clore_mcp.money import ZERO
from clore_mcp.rental.context import Desk
from clore_mcp.rental.spot.bids import Bid
from clore_mcp.store import ledger
from clore_mcp.store.database import Tx
from clore_mcp.store.ledger import Entry

LOWERING_SECONDS: Final = 600.0
STEP_TOLD_SECONDS: Final = 3_600.0  # so long a step counts that Clore told: it may depend on more than the bid
_DATE_SECONDS: Final = 1.0  # a reply's date is in whole seconds
STEPS: Final = ("bid_set", "bid_refused")
_FLOAT_NOISE: Final = Decimal("1e-9")


@dataclass(frozen=True, slots=True)
class LoweringRoom:
    """`wait_seconds` until the bid may be lowered, 0 where nothing is known against it; `lowest_per_day` in the order's
    coin, None where nobody told the largest step."""

    wait_seconds: int = 0
    lowest_per_day: Decimal | None = None

    def allows(self, bid: Bid) -> bool:
        """Whether a bid is within the largest step."""
        return self.lowest_per_day is None or bid.day.value >= self.lowest_per_day * (1 - _FLOAT_NOISE)


def known(entries: Iterable[Entry], present_per_day: Decimal | None, *, api_now: float, now: float) -> LoweringRoom:
    """What the rows of an order, newest first, say of its present bid. `now` is this machine's clock. Pure."""
    wait, lowest = None, None
    for entry in entries:
        told = entry.data or {}
        passed = [now - entry.at, api_now - float(told.get("api_at", math.inf))]
        if wait is None and "lower_after_seconds" in told:
            wait = _left(float(told["lower_after_seconds"]) + _DATE_SECONDS, passed)
        if lowest is None and "max_step_per_day" in told and present_per_day == Decimal(told["was_per_day"]):
            in_time = _left(STEP_TOLD_SECONDS, passed) > 0
            lowest = max(ZERO, present_per_day - Decimal(told["max_step_per_day"])) if in_time else None
    # One second more than is left: whoever waits so long must not meet a reply whose date is a part of one behind.
    return LoweringRoom(math.ceil(wait + _DATE_SECONDS) if wait else 0, lowest)


def _left(window: float, passed: Iterable[float]) -> float:
    """How much of a window is left by the clock that says least, 0 where none places its beginning in the past."""
    behind = [seconds for seconds in passed if seconds >= -_DATE_SECONDS]
    return min(window, max(0.0, window - max(behind, default=window)))


async def read(desk: Desk, account: str, bid: Bid) -> LoweringRoom:
    """What this state knows of lowering that order's bid."""
    now = desk.clock()

    def work(tx: Tx) -> list[Entry]:
        return ledger.of_order(tx, account, bid.row.id, STEPS, since=now - STEP_TOLD_SECONDS)

    return known(await desk.state.read(work), bid.row.price, api_now=desk.readings.api_now(), now=now)


def after(bid: Bid, api_now: float) -> dict[str, Any]:
    """What the record says of a bid that Clore has set."""
    window = {"lower_after_seconds": LOWERING_SECONDS} if bid.lowers else {}
    return {"api_at": api_now, "was_per_day": str(bid.row.price), **window}


def told_by(error: Refused, bid: Bid, api_now: float) -> dict[str, Any]:
    """What the record says of a bid that Clore refused."""
    told: dict[str, Any] = {"api_at": api_now, "was_per_day": str(bid.row.price)}
    if isinstance(error, LoweringTooSoon) and error.retry_after_seconds is not None:
        told["lower_after_seconds"] = min(error.retry_after_seconds, LOWERING_SECONDS)
    if isinstance(error, StepTooLarge) and (error.max_step_per_day or 0) > 0:
        told["max_step_per_day"] = str(error.max_step_per_day)
    return told

"""The person at a terminal: what `clore-mcp approve`, `decline` and `stop` do, and what that means for the record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from clore_mcp.errors import StateUnavailable
from clore_mcp.rental.approvals import Approvals
from clore_mcp.rental.orders import stop
from clore_mcp.store import watches
from clore_mcp.store.database import Database, Tx
from clore_mcp.store.quotes import Quote
from tests.machine.consents import OUTSIDE_LASTS, quote_of
from tests.machine.invariants import Oracle

T = TypeVar("T")
_BY: Final = "the person, in a terminal"


class Terminal:
    """One person's commands. A process stopped in the middle of a write makes them wait, then fail."""

    def __init__(self, oracle: Oracle, folder: Path) -> None:
        self._oracle = oracle
        self._clock = oracle.market.clock
        self._state = Database(folder / "state")
        self._approvals = Approvals(self._state, self._clock.now)

    def close(self) -> None:
        self._state.close()

    def waiting(self) -> list[Quote]:
        """Return what waits for a person, and unused approvals."""
        try:
            return asyncio.run(self._approvals.waiting())
        except StateUnavailable:
            return []

    def decide(self, quote: Quote, *, yes: bool) -> bool:
        """Approve or decline. Declining also withdraws an unused approval."""
        if yes and quote.state == "pending":
            self._oracle.consents.yes(quote.question, self._clock.now(), OUTSIDE_LASTS)
        try:
            decided = asyncio.run(self._approvals.decide(quote, yes=yes, by=_BY))
        except StateUnavailable:
            return False
        if decided and not yes:
            self._oracle.consents.take_back(quote.question)
        return decided

    def decline(self, watch_id: str) -> bool:
        """Cancel a watch."""
        return bool(self._write(lambda tx: watches.end(tx, watch_id, "cancelled")))

    def freeze(self, *, moving: bool, open_questions: list[str]) -> bool:
        """Freeze all spending. `moving`: a call is under way. The open questions are void from now on."""
        if not self._write(lambda tx: stop.freeze(tx, by=_BY, now=self._clock.now())):
            return False
        self._oracle.freeze(moving=moving)
        self._oracle.consents.declined.update(map(quote_of, open_questions))
        return True

    def lift(self) -> bool:
        """Allow spending again."""
        if not self._oracle.frozen:
            return False
        self._oracle.lift()
        return bool(self._write(lambda tx: stop.lift(tx, by=_BY, now=self._clock.now())))

    def _write(self, work: Callable[[Tx], T]) -> T | None:
        try:
            return asyncio.run(self._state.write(work))
        except StateUnavailable:
            return None

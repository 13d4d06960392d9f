"""The invariants by name."""

from __future__ import annotations

from typing import Final

UNCOVERED: Final = "an order that no approval or limit covers"
TWICE: Final = "two orders for one approval"
RESERVED: Final = "a reservation below the true worst case"
ENDLESS: Final = "an order of ours that is listed as running and has no end"
UNKNOWN: Final = "an order unknown to the ledger"
CAPS: Final = "a cap exceeded"
SENT: Final = "a create sent twice"
PAID: Final = "less counted than was paid"
CANCELLED: Final = "an order cancelled that nobody asked to cancel"
OVERRUN: Final = "an order that ran on after its end"
FROZEN: Final = "spent while spending was frozen"
STOPPED: Final = "an order that ran on after a stop"
SECRETS: Final = "a secret in the rows or in what is told"


class Broken(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


def require(holds: bool, invariant: str, what: str) -> None:
    """Raise Broken unless it holds."""
    if not holds:
        raise Broken(invariant, what)

"""What a process knows of orders that it could not write down: a full disk must not make an order run on forgotten."""

from __future__ import annotations

from dataclasses import dataclass

from clore_mcp.clore import OrderRow
from clore_mcp.rental.results import Attempt
from clore_mcp.store.intents import Intent
from clore_mcp.store.quotes import Quote
from clore_mcp.store.reservations import End


@dataclass(frozen=True, slots=True)
class Unwritten:
    """An order that a create has made, and its agreed end. `earlier` are the attempts before it."""

    end: End
    intent: Intent
    quote: Quote
    row: OrderRow
    earlier: tuple[Attempt, ...]


class Remembered:
    """Orders by id until they are written down, and the intents that Clore has answered with code 0."""

    def __init__(self) -> None:
        self.orders: dict[int, Unwritten] = {}
        self.acknowledged: set[str] = set()

    def ends(self, account: str) -> list[End]:
        """When the orders of an account end."""
        return [one.end for one in self.orders.values() if one.end.account == account]

"""Durable rows in SQLite, the only place that writes SQL: a module for each kind of row.

`from clore_mcp.store import Quote, Tx, quotes`: `quotes.get(tx, id)` returns a `Quote`.
"""

from clore_mcp.store.database import CLOCK_SLACK_SECONDS, Database, Duplicate, Tx
from clore_mcp.store.intents import Intent, Reservation
from clore_mcp.store.ledger import Beat, Entry
from clore_mcp.store.orders import End, Lease, OrderReceipt
from clore_mcp.store.quotes import Quote
from clore_mcp.store.watches import Watch

__all__ = [
    "CLOCK_SLACK_SECONDS",
    "Beat",
    "Database",
    "Duplicate",
    "End",
    "Entry",
    "Intent",
    "Lease",
    "OrderReceipt",
    "Quote",
    "Reservation",
    "Tx",
    "Watch",
]

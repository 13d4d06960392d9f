"""Made-up quotes, intents and reservations for the state."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from clore_mcp.store.intents import Intent, Reservation
from clore_mcp.store.quotes import Quote

ACCOUNT = "account"


def quote(quote_id: str = "q1", **changes: Any) -> Quote:
    values: dict[str, Any] = {
        "id": quote_id, "account": ACCOUNT, "digest": f"digest of {quote_id}", "verb": "create_order", "caller": "test",
        "question": "Rent?", "terms": {}, "state": "pending", "created_at": 100.0, "expires_at": 700.0, **changes,
    }  # fmt: skip
    return Quote(**values)


def intent(intent_id: str = "i1", **changes: Any) -> Intent:
    values: dict[str, Any] = {
        "id": intent_id, "account": ACCOUNT, "quote_id": "q1", "verb": "create_order", "server_id": 7, "image": "x",
        "order_type": "on-demand", "coin": "USD-Blockchain", "known_order_ids": frozenset({1, 2}), "state": "reserved",
        "owner": "me", "created_at": 100.0, **changes,
    }  # fmt: skip
    return Intent(**values)


def reservation(intent_id: str = "i1", worst: str = "10", hourly: str = "1") -> Reservation:
    return Reservation(intent_id, ACCOUNT, "USD-Blockchain", Decimal(worst), Decimal(hourly), 100.0)

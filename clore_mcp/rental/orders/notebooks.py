"""Where the Jupyter of an order made here opens, and where the person finds its token, which no model is shown."""

from __future__ import annotations

from typing import Any

from clore_mcp.rental.account.reading import Orders
from clore_mcp.rental.orders.access import access_of


def with_jupyter(outcome: dict[str, Any], current: Orders | None, program: str) -> dict[str, Any]:
    """The outcome of a create that asked for Jupyter, with its address as far as the list that was last read has it,
    and the token's place. Any outcome without a running order is returned as it is."""
    order_id = outcome.get("order_id")
    row = None if current is None or order_id is None else current.find(order_id)
    if outcome["status"] != "created" or row is None or row.expired:
        return outcome
    url = access_of(row, None).http_url
    where = "Jupyter opens at jupyter_url" if url else "wait_for_order shows Jupyter's address as http_url"
    token = (
        f"{where}. Its token is for the person alone: they run `{program} connect {order_id}` in their own terminal."
    )
    return {**outcome, **({"jupyter_url": url} if url else {}), "next": f"{outcome['next']} {token}"}

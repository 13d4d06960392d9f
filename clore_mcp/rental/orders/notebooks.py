"""Where the Jupyter of an order made here opens, and where the person finds its token, which no model is shown."""

from __future__ import annotations

from dataclasses import replace

from clore_mcp.rental.account.reading import Orders
from clore_mcp.rental.orders.access import access_of
from clore_mcp.rental.results import Outcome, Status


def with_jupyter(outcome: Outcome, current: Orders | None, program: str) -> Outcome:
    """The outcome of a create that asked for Jupyter, with its address as far as the list that was last read has it,
    and the token's place. Any outcome without a running order is returned as it is."""
    order_id = outcome.order_id
    row = None if current is None or order_id is None else current.find(order_id)
    if outcome.status is not Status.CREATED or row is None or row.expired:
        return outcome
    url = access_of(row, None).http_url
    where = "Jupyter opens at jupyter_url" if url else "wait_for_order shows Jupyter's address as http_url"
    token = (
        f"{where}. Its token is for the person alone: they run `{program} connect {order_id}` in their own terminal."
    )
    return replace(outcome, jupyter_url=url or None).also(token)

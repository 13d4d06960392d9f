"""What a call, or the account, has already: the same call is that order, never a second one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clore_mcp.clore import OrderRow
from clore_mcp.rental import outcomes
from clore_mcp.rental.context import iso
from clore_mcp.store import intents, orders, quotes
from clore_mcp.store.database import Tx


def standing(tx: Tx, account: str, digest: str, program: str, *, but_of: str | None = None) -> dict[str, Any] | None:
    """The order that this very call has made, while it runs, or a create of it whose outcome is unknown; those of the
    quote `but_of`, which is being carried out, aside; and so with what replaces that order. None where there is
    nothing."""
    heir = quotes.replacement_of_call(tx, digest)
    if heir is not None and heir.id != but_of:
        made = standing(tx, account, heir.digest, program, but_of=but_of)
        if made is not None or heir.state in ("approved", "committing"):
            return made or outcomes.being_replaced(heir)
    lease = orders.of_digest(tx, account, digest)
    if lease is None:
        unknown = intents.unsettled_of_call(tx, digest, but_of=but_of)
        return None if unknown is None else outcomes.repeated(outcomes.uncertain(unknown, [], program))
    made_by = intents.get(tx, lease.intent_id)
    quote = quotes.get(tx, made_by.quote_id) if made_by else None
    outcome = (quote and quote.outcome) or {"status": "created", "order_id": lease.order_id, "attempts": []}
    if outcome["status"] == "refused":  # above its ceiling, and its cancel is not proven yet
        return outcomes.repeated(outcome)
    told = {**outcome, "status": "created", "order_id": lease.order_id, "ends_at": iso(lease.ends_api_at)}
    return outcomes.repeated(
        told,
        "This call made the order already, and it still runs: nothing was ordered again. To stay longer, call"
        " extend_order.",
    )


def running_on(server_id: int | None, rows: Iterable[OrderRow]) -> OrderRow | None:
    """The account's order on a server, as Clore lists them; for None, one whose server Clore does not tell."""
    return next((row for row in rows if row.server_id == server_id and not row.expired), None)


def held_by_you(row: OrderRow, server_id: int) -> dict[str, Any]:
    """This account has the server. Never on to a fallback: that would be a second bill for one wish."""
    return outcomes.unavailable(
        [{"server_id": server_id, "outcome": "held_by_you"}],
        f"Order {row.id} of this account already runs on server {server_id}: extend_order moves its end, and"
        " cancel_order ends it now.",
    )

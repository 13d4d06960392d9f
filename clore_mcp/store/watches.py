"""Rows of watches: a person's approval of later rentals, and the prices that were seen for them.

The number of orders that a watch has made is computed, not stored. A create counts from the transaction before its send
if it may have made an order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from clore_mcp.money import from_micros, to_micros
from clore_mcp.store.database import CLOCK_SLACK_SECONDS, Row, Tx, columns_of
from clore_mcp.store.intents import ADOPTABLE_SECONDS


@dataclass(frozen=True, slots=True)
class Watch:
    """A standing request to rent one of `models`, the GPU models that the question named. `ask` holds the arguments of
    create_watch. `worst_usd` is the worst case of one order. Prices seen are in USD per hour. Times are unix seconds of
    this machine."""

    id: str
    account: str
    digest: str
    quote_id: str
    approved_by: str
    ask: dict[str, Any]
    env: dict[str, str] | None
    models: frozenset[str]
    ssh_key: str
    worst_usd: Decimal
    state: str
    created_at: float
    expires_at: float
    looked_at: float | None = None
    seen_usd: Decimal | None = None
    best_usd: Decimal | None = None
    said: str | None = None

    @property
    def max_orders(self) -> int:
        """How many orders it may make."""
        return int(self.ask["max_orders"])

    @property
    def max_usd_per_hour(self) -> Decimal:
        """Its ceiling, including fees, for a whole server."""
        return Decimal(str(self.ask["max_usd_per_hour"]))

    @property
    def notifies(self) -> bool:
        """Whether it only notifies and rents nothing."""
        return bool(self.ask.get("notify"))

    def stands(self, now: float) -> bool:
        """Return whether it may still rent. A watch with a start in the future dates from before the clock was set
        back. Its age is unknown, so it is over."""
        return self.state == "waiting" and now < self.expires_at and self.created_at <= now + CLOCK_SLACK_SECONDS


def _watch(row: Row) -> Watch:
    values = dict(row)
    for name in ("worst", "seen", "best"):
        micros = values.pop(f"{name}_micros")
        values[f"{name}_usd"] = None if micros is None else from_micros(micros)
    values["ask"], values["models"] = json.loads(row["ask"]), frozenset(json.loads(row["models"]))
    values["env"] = json.loads(row["env"]) if row["env"] else None
    return Watch(**values)


def add(tx: Tx, watch: Watch) -> None:
    """Add a new watch."""
    values = columns_of(watch)
    for name in ("worst", "seen", "best"):
        usd = values.pop(f"{name}_usd")
        values[f"{name}_micros"] = None if usd is None else to_micros(usd)
    values["ask"], values["models"] = json.dumps(watch.ask), json.dumps(sorted(watch.models))
    values["env"] = json.dumps(watch.env) if watch.env else None
    tx.insert("watches", **values)


def get(tx: Tx, watch_id: str) -> Watch | None:
    """Return the watch with that id, or None."""
    return tx.one_as(_watch, "SELECT * FROM watches WHERE id = ?", watch_id)


def waiting(tx: Tx, account: str | None) -> list[Watch]:
    """Return the watches of an account, or of all, whose end is not recorded, newest first."""
    return tx.all_as(
        _watch,
        "SELECT * FROM watches WHERE state = 'waiting' AND (?1 IS NULL OR account = ?1) ORDER BY created_at DESC, id",
        account,
    )


def newest(tx: Tx, account: str, limit: int) -> list[Watch]:
    """Return the newest watches of an account in any state, newest first."""
    return tx.all_as(_watch, "SELECT * FROM watches WHERE account = ? ORDER BY created_at DESC LIMIT ?", account, limit)


def standing(tx: Tx, account: str | None, now: float) -> list[Watch]:
    """Return the watches that may still rent, newest first."""
    return [watch for watch in waiting(tx, account) if watch.stands(now)]


def of_call(tx: Tx, account: str, digest: str, now: float) -> Watch | None:
    """Return the watch that the same call made, if it is still waiting."""
    return next((watch for watch in standing(tx, account, now) if watch.digest == digest), None)


def made(tx: Tx, watch_id: str, now: float) -> int:
    """Return how many orders the watch has made or may have made. A create does not count if it never left, was
    refused, or failed so long ago that its order can no longer appear."""
    count = tx.value(
        "SELECT COUNT(*) FROM intents JOIN quotes ON quotes.id = intents.quote_id WHERE quotes.watch_id = ?1"
        " AND intents.state NOT IN ('refused', 'abandoned')"
        " AND NOT (intents.state = 'failed' AND intents.created_at < ?2)",
        watch_id, now - ADOPTABLE_SECONDS,
    )  # fmt: skip
    return int(count)


def status(tx: Tx, watch: Watch, now: float) -> str:
    """Return the watch's status, even if its end is not recorded yet."""
    if watch.state != "waiting":
        return watch.state
    if len(order_ids(tx, watch.id)) >= watch.max_orders:
        return "fired"
    return "waiting" if watch.stands(now) else "expired"


def may_rent(tx: Tx, watch_id: str, now: float) -> bool:
    """Return whether the watch is still waiting and has orders left to make."""
    watch = get(tx, watch_id)
    return watch is not None and watch.stands(now) and made(tx, watch_id, now) < watch.max_orders


def order_ids(tx: Tx, watch_id: str) -> list[int]:
    """Return the ids of the orders that the watch has made."""
    rows = tx.all(
        "SELECT intents.order_id FROM intents JOIN quotes ON quotes.id = intents.quote_id"
        " WHERE quotes.watch_id = ? AND intents.order_id IS NOT NULL ORDER BY intents.created_at",
        watch_id,
    )
    return [row["order_id"] for row in rows]


def untold(tx: Tx, account: str, since: float) -> list[tuple[str, int]]:
    """Return (watch, order) pairs that the ledger has no `watch_fired` step for. Orders that are gone are included if
    they have ended since `since`."""
    of_watch = (
        "SELECT quotes.watch_id, orders.order_id FROM orders CROSS JOIN intents ON intents.id = orders.intent_id"
        " CROSS JOIN quotes ON quotes.id = intents.quote_id WHERE quotes.watch_id IS NOT NULL AND orders.account = ?1"
        " AND NOT EXISTS (SELECT 1 FROM ledger WHERE account = ?1 AND order_id = orders.order_id AND step ="
        " 'watch_fired') AND orders.ended_at"
    )
    rows = [*tx.all(f"{of_watch} IS NULL", account), *tx.all(f"{of_watch} >= ?2", account, since)]
    return [(row["watch_id"], row["order_id"]) for row in rows]


def see(tx: Tx, watch_id: str, *, at: float, usd_per_hour: Decimal | None, said: str | None) -> None:
    """Record a check of the market: the cheapest server that fitted, and what prevented renting it."""
    micros = None if usd_per_hour is None else to_micros(usd_per_hour)
    tx.run(
        "UPDATE watches SET looked_at = ?1, seen_micros = ?2, said = ?3,"
        " best_micros = MIN(COALESCE(best_micros, ?2), COALESCE(?2, best_micros)) WHERE id = ?4",
        at, micros, said, watch_id,
    )  # fmt: skip


def end(tx: Tx, watch_id: str, state: str) -> bool:
    """End a waiting watch and delete the env values of its containers. Return False if it was not waiting."""
    ended = tx.run("UPDATE watches SET state = ?, env = NULL WHERE id = ? AND state = 'waiting'", state, watch_id) == 1
    if ended and state == "cancelled":
        tx.end_yes()
    return ended


def end_all(tx: Tx) -> int:
    """Cancel all waiting watches of all accounts. Return how many there were."""
    return tx.run("UPDATE watches SET state = 'cancelled', env = NULL WHERE state = 'waiting'")

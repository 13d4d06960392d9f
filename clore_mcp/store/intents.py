"""Rows of intents and their reservations: the compare-and-set chain of a create, and its worst-case cost.

reserved → sending → adopted | failed | refused | uncertain        reserved, sending → abandoned (it never left)
sending → reserved (refused unread, to be sent again)              reserved → refused (no longer offered)
uncertain → adopted | failed        failed → adopted (a late match, for 24 hours) | uncertain (a late code 0)

A reservation also covers an order while its bid changes, and an order made elsewhere that was given an end or a higher
bid. A change of a bid starts in the transaction that uses the yes and ends when Clore has answered. Until then the
reservation covers the old bid and the new one. Concurrent changes by several processes may reach Clore in any order, so
from then on the reservation only grows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from clore_mcp.money import from_micros, to_micros
from clore_mcp.store.database import Row, Tx, columns_of, marks

ADOPTABLE_SECONDS: Final = 86_400.0  # a failed create may still turn out to have made an order within this time
OPEN: Final = ("reserved", "sending", "uncertain")


@dataclass(frozen=True, slots=True)
class Intent:
    """A create on its way. `not_after` is the last instant at which its owner may send. `sent_api_at` is Clore's clock
    when the owner claimed the send, or None if Clore's time is unknown."""

    id: str
    account: str
    quote_id: str
    verb: str
    server_id: int
    image: str
    order_type: str
    coin: str
    known_order_ids: frozenset[int]
    state: str
    owner: str
    created_at: float
    not_after: float | None = None
    acknowledged: bool = False
    order_id: int | None = None
    reason: str | None = None
    sent_api_at: float | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """The worst case of an order or an open intent, in USD. It counts in full until the actual cost replaces it. An
    order made elsewhere has no intent. It has a reservation only once its bid was raised here or it was given an end
    here."""

    intent_id: str | None
    account: str
    coin: str
    worst_usd: Decimal
    usd_per_hour: Decimal
    created_at: float
    order_id: int | None = None
    released_at: float | None = None
    actual_usd: Decimal | None = None
    id: int = 0  # of its row
    missed_at: float | None = None
    bidding: str | None = None  # the quote whose changed bid is on its way, or "several"


@dataclass(frozen=True, slots=True)
class ActualCost:
    """The actual cost in USD of an order, or of a create that made none."""

    order_id: int | None
    actual_usd: Decimal


def _intent(row: Row) -> Intent:
    values = dict(row)
    values["known_order_ids"] = frozenset(json.loads(values["known_order_ids"]))
    values["acknowledged"] = bool(values["acknowledged"])
    return Intent(**values)


def add(tx: Tx, intent: Intent, reservation: Reservation) -> None:
    """Write an intent and its reservation in one transaction."""
    tx.insert("intents", **columns_of(intent) | {"known_order_ids": json.dumps(sorted(intent.known_order_ids))})
    reserve(tx, reservation)


def reserve(tx: Tx, reservation: Reservation) -> None:
    """Write a reservation."""
    tx.insert(
        "reservations",
        intent_id=reservation.intent_id,
        account=reservation.account,
        order_id=reservation.order_id,
        coin=reservation.coin,
        worst_micros=to_micros(reservation.worst_usd),
        hourly_micros=to_micros(reservation.usd_per_hour),
        created_at=reservation.created_at,
    )


def get(tx: Tx, intent_id: str) -> Intent | None:
    """Return the intent with that id, or None."""
    return tx.one_as(_intent, "SELECT * FROM intents WHERE id = ?", intent_id)


def step(tx: Tx, intent_id: str, *, was: str, now_is: str, owner: str | None = None, not_after: float | None = None,
         sent_api_at: float | None = None, reason: str | None = None, order_id: int | None = None) -> bool:  # fmt: skip
    """Move an intent on if it is still in state `was` and, with `owner`, still that owner's. Return whether it did."""
    changed = tx.run(
        "UPDATE intents SET state = ?, not_after = COALESCE(?, not_after), sent_api_at = COALESCE(?, sent_api_at),"
        " reason = COALESCE(?, reason), order_id = COALESCE(?, order_id)"
        " WHERE id = ? AND state = ? AND (?8 IS NULL OR owner = ?8)",
        now_is, not_after, sent_api_at, reason, order_id, intent_id, was, owner,
    )  # fmt: skip
    return changed == 1


def acknowledge(tx: Tx, intent_id: str) -> None:
    """Record that Clore answered code 0. If no order is found from now on, the create is uncertain, not failed. If it
    was already recorded as failed, that is undone and its reservation is opened again."""
    tx.run("UPDATE intents SET acknowledged = 1 WHERE id = ?", intent_id)
    if step(tx, intent_id, was="failed", now_is="uncertain"):
        tx.run("UPDATE reservations SET released_at = NULL, actual_micros = NULL WHERE intent_id = ?", intent_id)


def in_state(tx: Tx, account: str, *states: str, since: float = 0) -> list[Intent]:
    """Return an account's intents in any of those states, created since then, oldest first."""
    return tx.all_as(
        _intent,
        f"SELECT * FROM intents WHERE account = ? AND created_at >= ? AND state IN ({marks(states)})"
        " ORDER BY created_at",
        account, since, *states,
    )  # fmt: skip


def refused(
    tx: Tx, account: str, reason: str, *, since: float, limit: int, servers: Sequence[int] | None = None
) -> list[tuple[int, float]]:
    """Return server and time of the creates refused for that reason, among the `limit` newest refused since then. With
    `servers`, only those servers count."""
    on = "" if servers is None else f" AND server_id IN ({marks(servers)})"
    rows = tx.all(
        "SELECT server_id, created_at, reason FROM intents WHERE account = ? AND created_at >= ? AND state = 'refused'"
        f"{on} ORDER BY created_at DESC LIMIT ?",
        account, since, *(servers or ()), limit,
    )  # fmt: skip
    return [(row["server_id"], row["created_at"]) for row in rows if row["reason"] == reason]


def unsent(tx: Tx) -> list[Intent]:
    """Return the intents of every account whose create has not been sent."""
    return tx.all_as(_intent, "SELECT * FROM intents WHERE state = 'reserved' ORDER BY created_at")


def sent_anywhere(tx: Tx) -> list[Intent]:
    """Return the creates of every account that were sent and are not settled: in flight, or uncertain."""
    return tx.all_as(_intent, "SELECT * FROM intents WHERE state IN ('sending', 'uncertain') ORDER BY created_at")


def of_server(tx: Tx, account: str, server_id: int, since: float) -> list[Intent]:
    """Return the intents for one server since then that may have made an order."""
    return tx.all_as(
        _intent, "SELECT * FROM intents WHERE account = ? AND server_id = ? AND created_at >= ?"
        " AND state IN ('reserved', 'sending', 'adopted', 'failed', 'uncertain') ORDER BY created_at",
        account, server_id, since,
    )  # fmt: skip


def open_on(tx: Tx, account: str, server_id: int) -> Intent | None:
    """Return the open intent for one server, or None. While there is one, no second create is sent there."""
    return tx.one_as(
        _intent,
        "SELECT * FROM intents WHERE account = ? AND server_id = ? AND state IN ('reserved', 'sending', 'uncertain')"
        " ORDER BY created_at LIMIT 1",
        account, server_id,
    )  # fmt: skip


def unsettled_of_call(tx: Tx, digest: str, *, but_of: str | None = None) -> Intent | None:
    """Return a create that the same call has sent and whose outcome is unknown, ignoring the quote `but_of`."""
    return tx.one_as(
        _intent,
        "SELECT intents.* FROM intents CROSS JOIN quotes ON quotes.id = intents.quote_id WHERE quotes.digest = ?1"
        " AND intents.state IN ('sending', 'uncertain') AND (?2 IS NULL OR quotes.id <> ?2)"
        " ORDER BY intents.created_at LIMIT 1",
        digest, but_of,
    )  # fmt: skip


def of_quote(tx: Tx, quote_id: str) -> list[Intent]:
    """Return the attempts of one quote, in order."""
    return tx.all_as(_intent, "SELECT * FROM intents WHERE quote_id = ? ORDER BY created_at, rowid", quote_id)


def reservation(row: Row) -> Reservation:
    """Return the reservation in that row."""
    values = dict(row)
    del values["ends_api_at"]
    values["worst_usd"] = from_micros(values.pop("worst_micros"))
    values["usd_per_hour"] = from_micros(values.pop("hourly_micros"))
    actual = values.pop("actual_micros")
    values["actual_usd"] = None if actual is None else from_micros(actual)
    return Reservation(**values)


def reservations_open(tx: Tx, account: str) -> list[Reservation]:
    """Return the reservations that may still cost money."""
    return tx.all_as(reservation, "SELECT * FROM reservations WHERE account = ? AND released_at IS NULL", account)


def reservations_released(tx: Tx, account: str, since: float) -> list[ActualCost]:
    """Return the actual costs of what ended since then."""
    rows = tx.all(
        "SELECT order_id, actual_micros FROM reservations WHERE account = ? AND released_at >= ?", account, since
    )
    return [ActualCost(row["order_id"], from_micros(row["actual_micros"] or 0)) for row in rows]


def reservation_of_order(tx: Tx, account: str, order_id: int) -> Reservation | None:
    """Return the open reservation of an order."""
    return tx.one_as(
        reservation,
        "SELECT * FROM reservations WHERE account = ? AND order_id = ? AND released_at IS NULL",
        account,
        order_id,
    )


def bind(tx: Tx, intent_id: str, order_id: int) -> None:
    """Link a reservation to its order, and open it again if it was released too early. A reservation that the order has
    as one made elsewhere is merged into it."""
    tx.run(
        "UPDATE reservations SET order_id = ?, released_at = NULL, actual_micros = NULL WHERE intent_id = ?",
        order_id, intent_id,
    )  # fmt: skip
    before = tx.one(
        "SELECT other.* FROM reservations other JOIN reservations own USING (account, order_id)"
        " WHERE own.intent_id = ? AND other.intent_id IS NULL AND other.released_at IS NULL",
        intent_id,
    )  # fmt: skip
    if before is not None:
        tx.run("DELETE FROM reservations WHERE id = ?", before["id"])
        tx.run(
            "UPDATE reservations SET worst_micros = MAX(worst_micros, ?), hourly_micros = MAX(hourly_micros, ?),"
            " bidding = ? WHERE intent_id = ?",
            before["worst_micros"], before["hourly_micros"], before["bidding"], intent_id,
        )  # fmt: skip


def release(tx: Tx, intent_id: str, actual_usd: Decimal, now: float) -> None:
    """Release a reservation and record what was actually paid."""
    tx.run(
        "UPDATE reservations SET released_at = ?, actual_micros = ? WHERE intent_id = ? AND released_at IS NULL",
        now, to_micros(actual_usd), intent_id,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """A bid on its way: its quote, the order's reservation, and what that was before (None: there was none)."""

    quote_id: str
    reservation_id: int
    before: Reservation | None


def begin_bid(tx: Tx, quote_id: str, wanted: Reservation) -> Change | None:
    """Reserve enough for both the old bid and the new one: at least `wanted.worst_usd` and `wanted.usd_per_hour`.
    Returns None if nothing is wanted and nothing is reserved, as when the bid of an order made elsewhere is lowered."""
    order_id = wanted.order_id or 0
    before = reservation_of_order(tx, wanted.account, order_id)
    if before is None and not wanted.worst_usd:
        return None
    if before is None:
        reserve(tx, wanted)
    held = before or reservation_of_order(tx, wanted.account, order_id) or wanted
    tx.run(
        "UPDATE reservations SET worst_micros = MAX(worst_micros, ?), hourly_micros = MAX(hourly_micros, ?),"
        " bidding = CASE WHEN bidding IS NULL THEN ? ELSE 'several' END WHERE id = ?",
        to_micros(wanted.worst_usd), to_micros(wanted.usd_per_hour), quote_id, held.id,
    )  # fmt: skip
    return Change(quote_id, held.id, before)


def end_bid(tx: Tx, change: Change, worst_usd: Decimal, usd_per_hour: Decimal) -> None:
    """Set the reservation to the known cost, unless another change began in the meantime."""
    tx.run(
        "UPDATE reservations SET worst_micros = ?, hourly_micros = ?, bidding = NULL WHERE id = ? AND bidding = ?",
        to_micros(worst_usd), to_micros(usd_per_hour), change.reservation_id, change.quote_id,
    )  # fmt: skip


def undo_bid(tx: Tx, change: Change, now: float) -> None:
    """Restore the reservation because the bid did not change, unless another change began in the meantime."""
    if change.before is not None:
        end_bid(tx, change, change.before.worst_usd, change.before.usd_per_hour)
        return
    tx.run(
        "UPDATE reservations SET released_at = ?, actual_micros = 0, bidding = NULL WHERE id = ? AND bidding = ?",
        now, change.reservation_id, change.quote_id,
    )  # fmt: skip


def reservations_elsewhere(tx: Tx, account: str) -> list[Reservation]:
    """Return reservations of orders made elsewhere that are not proven gone."""
    return [one for one in reservations_open(tx, account) if one.intent_id is None]


def reservations_listed(tx: Tx, account: str, order_ids: Iterable[int]) -> list[Reservation]:
    """Return the reservations of listed orders that were made elsewhere and count, or count again because they are
    listed: they are not released, were released only because no reply listed them, or have an end that applies
    again."""
    found = []
    for order_id in order_ids:
        rows = tx.all(
            "SELECT * FROM reservations WHERE account = ? AND order_id = ? ORDER BY id DESC", account, order_id
        )
        for at, row in enumerate(rows):
            newest_of_known_end = at == 0 and (row["missed_at"] is not None or row["ends_api_at"] is not None)
            if row["intent_id"] is None and (row["released_at"] is None or newest_of_known_end):
                found.append(reservation(row))
    return found


def reservation_missed(tx: Tx, reservation_id: int, at: float) -> None:
    """Record the first valid reply in which an order made elsewhere was missing."""
    tx.run("UPDATE reservations SET missed_at = ? WHERE id = ? AND missed_at IS NULL", at, reservation_id)


def reservations_seen_again(tx: Tx, reservation_ids: Iterable[int]) -> None:
    """Reopen the reservations of orders made elsewhere that were missing and are listed again."""
    for reservation_id in reservation_ids:
        tx.run(
            "UPDATE reservations SET missed_at = NULL, released_at = NULL, actual_micros = NULL WHERE id = ?",
            reservation_id,
        )


def release_elsewhere(tx: Tx, account: str, order_id: int, actual_usd: Decimal, now: float) -> None:
    """Release the reservation of an order made elsewhere, if it has one, and record what was actually paid."""
    tx.run(
        "UPDATE reservations SET released_at = ?, actual_micros = ?"
        " WHERE account = ? AND order_id = ? AND intent_id IS NULL AND released_at IS NULL",
        now, to_micros(actual_usd), account, order_id,
    )  # fmt: skip

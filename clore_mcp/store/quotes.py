"""Rows of quotes: held, decided, used once, settled, and reported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from clore_mcp.store.database import CLOCK_SLACK_SECONDS, Row, Tx, columns_of

# A quote or a yes from the future dates from before the clock was set back. Its age is unknown, so it is over.
_IN_TIME: Final = f"expires_at > ?1 AND MAX(created_at, COALESCE(decided_at, 0)) <= ?1 + {CLOCK_SLACK_SECONDS}"
_LAPSED_KEPT_SECONDS: Final = 30 * 86_400.0
_DELETED_AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True)
class Quote:
    """One priced intent and its outcome. `watch_id` is the watch that it rents for. `replaces` is the quote whose yes
    it shares, because the order made under that quote could not be reached. Times are unix seconds of this machine."""

    id: str
    account: str
    digest: str
    verb: str
    caller: str
    question: str
    terms: dict[str, Any]
    state: str
    created_at: float
    expires_at: float
    decided_at: float | None = None
    decided_by: str | None = None
    owner: str | None = None
    outcome: dict[str, Any] | None = None
    told: bool = False
    watch_id: str | None = None
    replaces: str | None = None

    @property
    def subject(self) -> str | None:
        """What the question is about, or None if no person is asked."""
        return self.terms.get("subject")

    @property
    def replaced_by(self) -> str | None:
        """The id of the newer question that replaced this one."""
        return (self.outcome or {}).get("replaced_by") if self.state == "expired" else None

    def in_time(self, now: float) -> bool:
        """Return whether an answer, or a yes already given, still counts."""
        begun = max(self.created_at, self.decided_at or 0.0)
        return now < self.expires_at and begun <= now + CLOCK_SLACK_SECONDS


def _quote(row: Row) -> Quote:
    values = dict(row)
    values["terms"] = json.loads(values["terms"])
    values["outcome"] = json.loads(values["outcome"]) if values["outcome"] else None
    values["told"] = bool(values["told"])
    return Quote(**values)


def add(tx: Tx, quote: Quote) -> None:
    """Add a new quote. Raises Duplicate while one with its digest is live, or if its yes was shared before."""
    tx.insert("quotes", **columns_of(quote) | {"terms": json.dumps(quote.terms), "outcome": None})


def get(tx: Tx, quote_id: str) -> Quote | None:
    """Return the quote with that id, or None."""
    return tx.one_as(_quote, "SELECT * FROM quotes WHERE id = ?", quote_id)


def latest(tx: Tx, digest: str) -> Quote | None:
    """Return the newest quote with that digest, in any state, by order of arrival: clocks may have been set back."""
    return tx.one_as(_quote, "SELECT * FROM quotes WHERE digest = ? ORDER BY rowid DESC LIMIT 1", digest)


def replacement_of(tx: Tx, quote_id: str) -> Quote | None:
    """Return the one quote that shares the yes of `quote_id`, in any state, or None."""
    return tx.one_as(_quote, "SELECT * FROM quotes WHERE replaces = ?", quote_id)


def replacement_of_call(tx: Tx, digest: str) -> Quote | None:
    """Return the newest quote that shares the yes of a quote with that digest."""
    return tx.one_as(
        _quote,
        "SELECT * FROM quotes WHERE replaces IN (SELECT id FROM quotes WHERE digest = ?)"
        " ORDER BY created_at DESC LIMIT 1",
        digest,
    )


def settled_since(tx: Tx, digest: str, since: float, now: float) -> list[Quote]:
    """Return settled quotes with that digest whose work began since then and not in the future, newest first."""
    return tx.all_as(
        _quote, "SELECT * FROM quotes WHERE digest = ? AND state = 'settled' AND decided_at BETWEEN ? AND ?"
        " ORDER BY rowid DESC",
        digest, since, now + CLOCK_SLACK_SECONDS,
    )  # fmt: skip


def expire(tx: Tx, now: float) -> None:
    """Expire questions that were not answered in time and approvals that were not used in time. Delete a few questions
    that expired unanswered long ago: nothing was made of them, and the ledger has them."""
    tx.run(f"UPDATE quotes SET state = 'expired' WHERE state IN ('pending', 'approved') AND NOT ({_IN_TIME})", now)
    tx.run(
        "DELETE FROM quotes WHERE rowid IN (SELECT rowid FROM quotes WHERE state = 'expired' AND decided_by IS NULL"
        " AND created_at < ? ORDER BY created_at LIMIT ?)",
        now - _LAPSED_KEPT_SECONDS, _DELETED_AT_ONCE,
    )  # fmt: skip


def drop(tx: Tx, quote_id: str) -> None:
    """Expire one quote early, if it is still pending."""
    tx.run("UPDATE quotes SET state = 'expired' WHERE id = ? AND state = 'pending'", quote_id)


def pending(tx: Tx, account: str) -> list[Quote]:
    """Return an account's quotes that no person has decided yet."""
    return tx.all_as(_quote, "SELECT * FROM quotes WHERE account = ? AND state = 'pending'", account)


def replace(tx: Tx, newer: Quote) -> None:
    """Expire the same caller's pending questions about the same subject, and record `newer` as their replacement."""
    tx.run(
        "UPDATE quotes SET state = 'expired', outcome = ? WHERE account = ? AND state = 'pending' AND caller = ?"
        " AND verb = ? AND json_extract(terms, '$.subject') = ? AND id <> ?",
        json.dumps({"replaced_by": newer.id}), newer.account, newer.caller, newer.verb, newer.subject, newer.id,
    )  # fmt: skip


def unanswered_since(tx: Tx, account: str, since: float, now: float, most: int) -> list[str]:
    """Return the callers, one for each quote, of up to `most` of the account's newest quotes since then that are
    pending, expired or needed no yes. Cancels are left out. Only the end of the table is read."""
    rows = tx.all(
        "SELECT caller FROM (SELECT * FROM quotes ORDER BY rowid DESC LIMIT 4 * ?4)"
        " WHERE account = ?1 AND created_at BETWEEN ?2 AND ?3 AND verb <> 'cancel_order'"
        " AND (state IN ('pending', 'expired') OR decided_by = 'no yes needed') LIMIT ?4",
        account, since, now, most,
    )  # fmt: skip
    return [row["caller"] for row in rows]


def supersede(tx: Tx, digest: str) -> None:
    """Expire an unused approved quote with that digest, so that another can replace it."""
    tx.run(
        "UPDATE quotes SET state = 'expired' WHERE digest = ? AND state = 'approved'"
        " AND state IN ('pending', 'approved', 'committing')",  # repeats its index's condition
        digest,
    )


def expire_all(tx: Tx) -> int:
    """Expire every pending question and every unused approval. Return how many there were."""
    return tx.run("UPDATE quotes SET state = 'expired' WHERE state IN ('pending', 'approved')")


def waiting(tx: Tx, account: str | None = None) -> list[Quote]:
    """Return quotes that wait for a person or hold an unused approval, oldest first. Quotes of watches are left out."""
    return tx.all_as(
        _quote,
        "SELECT * FROM quotes WHERE state IN ('pending', 'approved') AND watch_id IS NULL"
        " AND (?1 IS NULL OR account = ?1) ORDER BY created_at",
        account,
    )


def decide(tx: Tx, quote_id: str, *, yes: bool, by: str, now: float, until: float) -> bool:
    """Record a person's answer to a quote that still waits. Return False if it no longer does. A no also revokes an
    approval that has not been used."""
    state = "approved" if yes else "declined"
    changed = tx.run(
        "UPDATE quotes SET state = ?2, decided_at = ?1, decided_by = ?3, expires_at = ?4"
        f" WHERE id = ?5 AND (state = 'pending' OR (state = 'approved' AND NOT ?6)) AND {_IN_TIME}",
        now, state, by, until, quote_id, yes,
    )  # fmt: skip
    if changed == 1 and not yes:
        tx.end_yes()
    return changed == 1


def consume(tx: Tx, quote_id: str, *, from_state: str, owner: str, by: str, now: float) -> bool:
    """Use an approval, once. Only the caller that gets True may proceed. From now on `decided_at` is when the work
    began, because the approval may have waited half an hour. Searches for work whose process died count from there."""
    changed = tx.run(
        "UPDATE quotes SET state = 'committing', owner = ?2, decided_by = COALESCE(decided_by, ?3),"
        f" decided_at = ?1 WHERE id = ?4 AND state = ?5 AND {_IN_TIME}",
        now, owner, by, quote_id, from_state,
    )  # fmt: skip
    if changed == 1:
        tx.end_yes()
    return changed == 1


def settle(tx: Tx, quote_id: str, outcome: dict[str, Any]) -> None:
    """Record the outcome of a quote. The row no longer blocks the same call."""
    tx.run("UPDATE quotes SET state = 'settled', outcome = ? WHERE id = ?", json.dumps(outcome), quote_id)


def tell(tx: Tx, quote_id: str) -> None:
    """Record that a caller has received the outcome or the no. Does nothing before there is one."""
    tx.run("UPDATE quotes SET told = 1 WHERE id = ? AND state IN ('settled', 'declined')", quote_id)


def declines_since(tx: Tx, account: str, since: float) -> list[float]:
    """Return the times at which spending questions were declined since then, oldest first."""
    rows = tx.all(
        "SELECT decided_at FROM quotes WHERE account = ? AND state = 'declined' AND decided_at >= ?"
        " AND verb <> 'cancel_order' ORDER BY decided_at",
        account, since,
    )  # fmt: skip
    return [row["decided_at"] for row in rows]


def committing(tx: Tx, account: str) -> list[Quote]:
    """Return quotes that are being carried out, or were when their process died."""
    return tx.all_as(_quote, "SELECT * FROM quotes WHERE account = ? AND state = 'committing'", account)

"""Rows of envelopes: a person's yes to one rental within bounds, held by one quote at a time and used once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from clore_mcp.store.database import CLOCK_SLACK_SECONDS, Row, Tx

# One from the future is from before the clock went back: nobody knows how old it is, so it has lapsed.
_FREE: Final = f"held_by IS NULL AND expires_at > ?1 AND created_at <= ?1 + {CLOCK_SLACK_SECONDS}"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A yes to one rental within `bounds`, for the calls of one caller that wish for the same thing. `held_by` is the
    quote that uses it, or has used it. Times are unix seconds of this machine."""

    id: str
    account: str
    wish: str
    bounds: dict[str, Any]
    approved_by: str
    created_at: float
    expires_at: float
    held_by: str | None = None

    def free(self, now: float) -> bool:
        """Whether no quote holds it and it has not lapsed."""
        return self.held_by is None and now < self.expires_at and self.created_at <= now + CLOCK_SLACK_SECONDS


def _envelope(row: Row) -> Envelope:
    return Envelope(**{**dict(row), "bounds": json.loads(row["bounds"])})


def add(tx: Tx, envelope: Envelope) -> None:
    """Keep a new yes."""
    tx.insert(
        "envelopes",
        id=envelope.id,
        account=envelope.account,
        wish=envelope.wish,
        bounds=json.dumps(envelope.bounds),
        approved_by=envelope.approved_by,
        created_at=envelope.created_at,
        expires_at=envelope.expires_at,
    )


def get(tx: Tx, envelope_id: str) -> Envelope | None:
    """The envelope with that id."""
    row = tx.one("SELECT * FROM envelopes WHERE id = ?", envelope_id)
    return None if row is None else _envelope(row)


def free(tx: Tx, now: float, *, account: str | None = None) -> list[Envelope]:
    """Yeses that no quote holds and that have not lapsed, oldest first."""
    rows = tx.all(
        f"SELECT * FROM envelopes WHERE {_FREE} AND (?2 IS NULL OR account = ?2) ORDER BY created_at",
        now, account,
    )  # fmt: skip
    return [_envelope(row) for row in rows]


def take(tx: Tx, envelope_id: str, quote_id: str, now: float) -> bool:
    """Use the yes for that quote; False when another holds it or it has lapsed."""
    changed = tx.run(
        f"UPDATE envelopes SET held_by = ?2 WHERE id = ?3 AND {_FREE}",
        now, quote_id, envelope_id,
    )  # fmt: skip
    return changed == 1


def give_back(tx: Tx, quote_id: str) -> None:
    """Free the yes that a quote holds if none of its creates can have made an order: each was refused or never left."""
    tx.run(
        "UPDATE envelopes SET held_by = NULL WHERE held_by = ?1 AND NOT EXISTS"
        " (SELECT 1 FROM intents WHERE quote_id = ?1 AND state NOT IN ('refused', 'abandoned'))",
        quote_id,
    )


def close(tx: Tx, envelope_id: str, now: float) -> bool:
    """Take a yes back for good: also when the clock goes back after, or a quote that holds it gives it back. Whether it
    was unused."""
    unused = tx.one(f"SELECT 1 FROM envelopes WHERE id = ?2 AND {_FREE}", now, envelope_id) is not None
    tx.run("UPDATE envelopes SET expires_at = 0 WHERE id = ?", envelope_id)
    tx.end_yes()
    return unused


def close_all(tx: Tx, now: float) -> int:
    """Take every yes back, so that none is given back either; how many were unused."""
    unused = len(free(tx, now))
    tx.run("UPDATE envelopes SET expires_at = 0")
    return unused

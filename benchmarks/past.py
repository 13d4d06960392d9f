"""A state with a past: the rows that several hundred ledger steps a day leave, in the proportions of real use.

Most quotes were rented and cancelled, some ran to the end of their lease, some were declined, lapsed or refused. A few
failed, were rented by a watch, or belong to orders made elsewhere. All of it is over.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from clore_mcp.rental.requests import CreateWatch
from clore_mcp.store.database import FILE_NAME, Database

ROWS_A_DAY: Final = 300
_OVER_SINCE_SECONDS: Final = 7_200.0
_COIN: Final = "USD-Blockchain"
_IMAGE: Final = "cloreai/jupyter:ubuntu24.04-v2"
_TERMS: Final = json.dumps({"candidates": [{"server_id": 1, "gpu": "RTX 3090", "note": "x" * 560}], "hours": "2"})
_QUESTION: Final = "Rent 1x RTX 3090 for 2 hours, $0.3520 in total?\n" + "Server 1: 1x RTX 3090, and so on. " * 16
_OUTCOME: Final = json.dumps({"status": "created", "attempts": [], "note": "x" * 340})
_RECEIPT: Final = {"hours": 2.0, "rent_usd": 0.0009, "fee_usd": 0.0001, "total_usd": 0.001}
_CREATED: Final = ("quoted", "reserved", "sending", "answered", "created")
_CANCELLED: Final = ("quoted", "cancel_sent", "cancel_answered", "cancelled")
# The outcomes of twenty quotes in a row.
_LIVES: Final = (
    *(["cancelled"] * 9), *(["lease_ended"] * 3), "declined", "declined", "lapsed", "lapsed", "refused",
    "never_deployed", "watch_fired", "elsewhere",
)  # fmt: skip
_WISH: Final = CreateWatch(gpu="4090", max_usd_per_hour=0.2, hours=2.0, image=_IMAGE, expires_hours=24.0)
Rows = list[dict[str, Any]]


@dataclass(slots=True)
class Past:
    """The rows of each table."""

    account: str
    ledger: Rows = field(default_factory=list)
    quotes: Rows = field(default_factory=list)
    intents: Rows = field(default_factory=list)
    reservations: Rows = field(default_factory=list)
    orders: Rows = field(default_factory=list)
    watches: Rows = field(default_factory=list)

    def note(self, at: float, *steps: str, **about: Any) -> None:
        """Add steps to the ledger, one second apart."""
        for second, step in enumerate(steps):
            data = _TERMS + _QUESTION if step == "quoted" else "x" * 90
            row = {"at": at + second, "account": self.account, "step": step, "caller": "claude-code"}
            self.ledger.append(
                {**row, "quote_id": None, "intent_id": None, "order_id": None, "server_id": None, **about}
                | {"data": json.dumps({"said": data})}
            )

    def quote(self, number: int, at: float, state: str, verb: str = "create_order", **more: Any) -> str:
        """Add a quote and return its id. Each fifth one has the same arguments as the others of those."""
        name = f"q{number:07}{verb[:2]}"
        yes = {"decided_at": at + 5, "decided_by": "the person", "outcome": _OUTCOME, "told": 1}
        row = {
            "id": name, "account": self.account, "digest": f"digest {'same' if number % 5 == 0 else name}",
            "verb": verb, "caller": "claude-code", "question": _QUESTION, "terms": _TERMS, "state": state,
            "created_at": at, "expires_at": at + 600, "decided_at": None, "decided_by": None, "outcome": None,
            "told": 0, "watch_id": None,
        }  # fmt: skip
        self.quotes.append({**row, **({} if state == "expired" else yes), **more})
        return name

    def create(self, number: int, at: float, quote_id: str, state: str = "adopted") -> str:
        """Add the create of a quote, and its order if it made one, which ended two hours later. Returns the intent's
        id."""
        name, order_id, server_id = f"i{number:07}", 1_000 + number, 900_000 + number % 400
        made = state == "adopted"
        self.intents.append({
            "id": name, "account": self.account, "quote_id": quote_id, "verb": "create_order", "server_id": server_id,
            "image": _IMAGE, "order_type": "on-demand", "coin": _COIN, "known_order_ids": "[]", "state": state,
            "owner": "gone", "created_at": at, "not_after": at + 2, "acknowledged": int(made),
            "order_id": order_id if made else None, "reason": None if made else "server-offline", "sent_api_at": at,
        })  # fmt: skip
        self.reserve(at, name, order_id if made else None)
        if made:
            self.orders.append({
                "account": self.account, "order_id": order_id, "intent_id": name, "digest": f"digest {quote_id}",
                "server_id": server_id, "order_type": "on-demand", "image": _IMAGE, "coin": _COIN,
                "price_native": "2.88", "ceiling_native": "2.88", "fee_fraction": "0.05",
                "creation_fee_micros": 100_000, "usd_per_coin": "1",
                "started_api_at": int(at),
                "ends_api_at": int(at) + 7_200, "on_end": "cancel", "missed_at": None,
                "ended_at": at + 7_200, "receipt": json.dumps(_RECEIPT),
            })  # fmt: skip
        return name

    def reserve(self, at: float, intent_id: str | None, order_id: int | None, ends_api_at: int | None = None) -> None:
        """Add a released reservation: the worst case, and an actual cost of a tenth of a cent, or 0 without an
        order."""
        self.reservations.append({
            "intent_id": intent_id, "account": self.account, "order_id": order_id, "coin": _COIN,
            "worst_micros": 356_200, "hourly_micros": 126_000, "created_at": at, "released_at": at + 7_200,
            "actual_micros": 1_000 if order_id else 0, "bidding": None, "missed_at": None, "ends_api_at": ends_api_at,
        })  # fmt: skip

    def rented(self, number: int, at: float, *after: str, **more: Any) -> None:
        """Add a rental from its quote to its end."""
        quote_id = self.quote(number, at, "settled", **more)
        intent_id, order_id = self.create(number, at, quote_id), 1_000 + number
        about = {"order_id": order_id, "server_id": 900_000 + number % 400}
        self.note(at, *_CREATED, quote_id=quote_id, intent_id=intent_id, **about)
        if "cancelled" in after:
            self.quote(number, at + 7_200, "settled", "cancel_order")
        self.note(at + 7_200, *after, **about)

    def live(self, number: int, at: float) -> None:
        """Add one quote and everything that followed from it."""
        life = _LIVES[number % len(_LIVES)]
        if life in ("declined", "lapsed"):
            self.quote(number, at, "declined" if life == "declined" else "expired")
            self.note(at, *(("quoted", "declined") if life == "declined" else ("quoted",)))
        elif life == "refused":
            quote_id = self.quote(number, at, "settled")
            intent_id = self.create(number, at, quote_id, "refused")
            self.note(at, "quoted", "reserved", "sending", "refused", quote_id=quote_id, intent_id=intent_id)
        elif life == "elsewhere":
            self.quote(number, at, "settled", "extend_order")
            self.reserve(at, None, 1_000 + number, int(at) + 7_200)
            self.note(at, "quoted", "extended", "unleased", "ended", order_id=1_000 + number)
        elif life == "watch_fired":
            watch_id, asked = f"w{number:07}", self.quote(number, at, "settled", "watch")
            self.watches.append(_watch(self.account, watch_id, asked, at))
            self.rented(number, at, "watch_fired", "cancel_sent", "cancel_answered", "lease_ended", watch_id=watch_id)
        else:
            before = ("never_deployed",) if life == "never_deployed" else ()
            ending = ("cancel_sent", "cancel_answered", life) if life == "lease_ended" else (*before, *_CANCELLED)
            self.rented(number, at, *ending)

    def insert(self, connection: sqlite3.Connection) -> None:
        """Write all rows."""
        for table in ("watches", "quotes", "intents", "reservations", "orders", "ledger"):
            rows: Rows = getattr(self, table)
            if rows:
                names = ", ".join(rows[0])
                marks = ", ".join(f":{name}" for name in rows[0])
                connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)


def fill(folder: Path, account: str, ledger_rows: int, now: float) -> None:
    """Fill the state in that folder with that many ledger rows, all of them over, and the rows that belong to them. No
    process may have the state open."""
    state = Database(folder)
    state.read_now(lambda tx: None)  # makes the tables
    state.close()
    past = Past(account)
    began = now - _OVER_SINCE_SECONDS - 86_400 * ledger_rows / ROWS_A_DAY
    for number in _until(lambda: len(past.ledger) >= ledger_rows):
        past.live(number, began + 86_400 * len(past.ledger) / ROWS_A_DAY)
    del past.ledger[ledger_rows:]
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection, connection:
        past.insert(connection)  # in a transaction; foreign keys are off, so the rows may come in any order


def _until(over: Callable[[], bool]) -> Iterator[int]:
    for number in count(1):
        if over():
            return
        yield number


def _watch(account: str, watch_id: str, quote_id: str, at: float) -> dict[str, Any]:
    return {
        "id": watch_id, "account": account, "digest": f"digest {watch_id}", "quote_id": quote_id,
        "approved_by": "the person", "ask": _WISH.model_dump_json(exclude={"env"}),
        "models": '["RTX 4090"]', "ssh_key": "", "worst_micros": 400_000, "state": "fired", "created_at": at,
        "expires_at": at + 86_400,
    }  # fmt: skip

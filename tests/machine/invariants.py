"""What must hold after every step, and what must hold once everything has settled."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from clore_mcp.store.database import FILE_NAME
from tests.machine import amounts
from tests.machine.market import SECRETS_OF_ALL, WATCH_VALUE, tags_of
from tests.machine.memory import Memory
from tests.machine.names import (
    CANCELLED,
    ENDLESS,
    FROZEN,
    OVERRUN,
    SECRETS,
    SENT,
    STOPPED,
    TWICE,
    UNCOVERED,
    UNKNOWN,
    require,
)
from tests.machine.oracle import Order, Truth, pairs

_SLIP: Final = 2.0
_LOOKED_FOR_SECONDS: Final = 82_800  # a failed create is looked for during a day


@dataclass(slots=True)
class Oracle(Memory):
    """Reads the truth and judges it."""

    def check(self, *, settled: bool = False) -> None:
        """Raise Broken for the first invariant that does not hold."""
        truth = self.look()
        ours = [order for order in truth.orders if order.id not in self.market.elsewhere]
        self._covered(truth, ours, settled=settled)
        self._sent_once()
        self._frozen()
        amounts.within_ceilings(self, truth.now)
        for order in ours:
            amounts.reserved(self, truth, order)
            amounts.within_bounds(self, truth, order)
        for order in truth.orders:
            self._ended_rightly(truth, order)
        amounts.within_caps(self, truth, ours)
        self._secret(settled=settled)
        if settled:
            self._settled(truth, ours)
        self.keep(truth, ours)

    def _covered(self, truth: Truth, ours: Sequence[Order], *, settled: bool) -> None:
        fits = {
            order.id: [f"{one.key}/{number}" for one in truth.fitting(order) for number in range(one.most_orders)]
            for order in ours
        }
        for order in ours:
            require(bool(fits[order.id]), UNCOVERED, f"{order} at {truth.asked(order)}")
            if settled and order.open:
                require(not truth.dear(order), UNCOVERED, f"{order} is dearer than any {truth.fitting(order)}")
        require(pairs(ours, fits) == len(ours), TWICE, f"{fits}")

    def _sent_once(self) -> None:
        """Require that no create is sent twice. For a watch, a server may be requested again after a refusal."""
        sent: dict[tuple[int, int], int] = {}
        for entry in self.market.creates.values():
            server_id = entry["body"].get("renting_server")
            tag = next(iter(tags_of(entry["body"])), 0)
            again = any(one.watch for one in self.consents.of(tag))
            refused = entry["code"] == 5 or (entry["error"] and again)
            if server_id and not refused:
                sent[tag, server_id] = sent.get((tag, server_id), 0) + 1
        for (tag, server_id), times in sent.items():
            given = [one for one in self.consents.of(tag) if server_id in one.usd_per_hour]
            most = sum(one.most_orders for one in given)
            require(times <= most, SENT if given else UNCOVERED, f"{times} for {server_id} by {given}")

    def _frozen(self) -> None:
        """Require that nothing was sent during a freeze that could cost more: no create, and no higher bid."""
        for freeze in self.freezes:
            for entry in self.market.creates.values():
                require(not freeze.since < entry["at"] < freeze.until, FROZEN, f"{entry} in {freeze}")
            for number in self.market.bids.keys() - self.raises:
                entry = self.market.bids[number]
                before = self.prices.get(entry["body"].get("order_id"))
                raised = before is not None and entry["body"].get("desired_price", 0) > before
                inside = freeze.since < entry["at"] < freeze.until
                require(not (inside and raised), FROZEN, f"{entry} in {freeze}, it was {before}")
        self.raises |= self.market.bids.keys()

    def _ended_rightly(self, truth: Truth, order: Order) -> None:
        if order.reason != "cancelled" or order.id in self.consents.cancels:
            return
        if order.id in self.market.elsewhere:
            require(truth.alike(order), CANCELLED, f"order {order.id}, made elsewhere")
            return
        new = self.frozen and order.id not in self.prices
        if truth.dear(order) or order.id in self.unwanted or new:
            return
        require((order.ended_at or 0) >= order.ct + float(truth.ends(order)) - _SLIP, CANCELLED, f"{order}")

    def _secret(self, *, settled: bool) -> None:
        """Require that no key and no env value is stored anywhere, and that generated secrets are only in their own
        table."""
        require(not self.leaked, SECRETS, f"{self.leaked}")
        for path in [path for path in (self.folder / "state").rglob("*") if path.is_file()]:
            try:
                found = path.stat()
                written = found.st_ino, found.st_mtime_ns, found.st_size
                if self.searched.get(path) == written and not settled:
                    continue  # unchanged since no secret was in it
                kept = path.read_bytes()
            except FileNotFoundError:  # a temporary file of a process
                continue
            self.searched[path] = written
            for secret in SECRETS_OF_ALL:
                require(secret.encode() not in kept, SECRETS, f"{secret} in {path.name}")
        path = self.folder / "state" / FILE_NAME
        if not settled or not path.exists():
            return
        with closing(sqlite3.connect(path, timeout=60)) as db:
            made = [row[0] for row in db.execute("SELECT value FROM secrets")]
            over = db.execute("SELECT id FROM watches WHERE state <> 'waiting' AND env IS NOT NULL").fetchall()
            require(not over, SECRETS, f"the values of watches that are over: {over}")
            tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                text = json.dumps(db.execute(f"SELECT * FROM {table}").fetchall(), default=str)
                stands = table != "secrets" and any(secret in text for secret in made)
                stands = stands or (table != "watches" and WATCH_VALUE in text)
                require(not stands, SECRETS, f"a token stands in {table}")

    def _settled(self, truth: Truth, ours: Sequence[Order]) -> None:
        for order in ours:
            young = order.ct > truth.now - _LOOKED_FOR_SECONDS
            if order.open and young:
                require(order.id in truth.rows.leases, UNKNOWN, f"{order}: {truth.intents(order)}")
                require(truth.rows.leases[order.id]["ended_at"] is None, ENDLESS, f"{order}: {truth.rows.leases}")
                require(not self.frozen, STOPPED, f"{order}")
            if order.open and order.id in truth.rows.leases:
                late = truth.over(order)
                require(late < 180, OVERRUN, f"{order} by {late} s")
        for order in truth.orders:
            if order.id in self.market.elsewhere and order.id in truth.rows.leases:
                require(truth.alike(order), UNCOVERED, f"{order} was made elsewhere")

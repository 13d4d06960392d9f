"""Monitors the running orders. Each problem that findings.py finds becomes one event, written once for all processes.

Each round of the keeper looks for problems and reads the spot book for each spot order whose end is kept here. Nothing
is requested from Clore while there is nothing to end: orders made elsewhere are checked when they are read for another
reason. If nothing may be written unasked (read-only, `CLORE_WATCHDOG=off`), problems are shown but not recorded.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Final

from clore_mcp.errors import CloreError
from clore_mcp.rental.account.reading import BROWSING_AGE, Orders
from clore_mcp.rental.context import Context
from clore_mcp.rental.monitoring import findings
from clore_mcp.rental.monitoring.findings import AccountRecord, AccountSeen, Finding, Memory
from clore_mcp.rental.rules.billing import matches
from clore_mcp.store import CLOCK_SLACK_SECONDS, Entry, Tx, intents, orders
from clore_mcp.store.database import keep_value, value_of

log = logging.getLogger(__name__)

_CALLER: Final = "clore-mcp"


class Overseer:
    """A chore of the keeper. get_account and list_orders also use it on the orders that they have read."""

    what = "what runs"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._shown: Memory = {}  # the present problems, if nothing is recorded

    async def left(self, account: str) -> bool:
        """Return False: an account is not queried forever because of orders that nothing here ends."""
        return False

    async def round(self, account: str, current: Orders) -> None:
        """Read the spot books too, and record what is new."""
        await self.record(account, current, await self._wins(account, current))

    async def record(
        self, account: str, current: Orders, wins: Mapping[int, bool] | None = None, *, wallets: bool = True
    ) -> None:
        """Record what is new in a list of orders, in one transaction with the check that no process has done so.
        Without `wins` and `wallets`, bids and wallets stay as last judged."""
        seen = await self._seen(current, wins or {}, wallets=wallets)

        def judged(tx: Tx) -> tuple[Memory, list[Finding]] | None:
            before, at = findings.memory_from(value_of(tx, _name(account)))
            if current.at < at <= self._context.clock() + CLOCK_SLACK_SECONDS:
                return None  # another process has already judged a newer list
            after, new = findings.judge(seen, self._known(tx, account, current), before)
            return None if after == before else (after, new)

        def write(tx: Tx) -> None:
            found = judged(tx)
            if found is not None:
                after, new = found
                for one in new:
                    self._context.note(
                        tx, one.step, _CALLER, account, order_id=one.order_id, server_id=one.server_id, **one.figures
                    )
                keep_value(tx, _name(account), findings.memory_as(after, current.at))

        if await self._context.state.read(judged) is not None:
            await self._context.state.write(write)

    async def show(self, account: str, current: Orders) -> list[Entry]:
        """Return the present problems that are not recorded, as events. Nothing is written."""
        seen = await self._seen(current, await self._wins(account, current), wallets=True)

        def read(tx: Tx) -> tuple[AccountRecord, Memory]:
            return self._known(tx, account, current), findings.memory_from(value_of(tx, _name(account)))[0]

        known, recorded = await self._context.state.read(read)
        self._shown, _ = findings.judge(seen, known, self._shown)
        told = {(one.step, one.order_id) for one in findings.standing(recorded, seen, known)}
        return [
            Entry(
                self._context.clock(), account, one.step, _CALLER,
                order_id=one.order_id, server_id=one.server_id, data=one.figures,
            )
            for one in findings.standing(self._shown, seen, known)
            if (one.step, one.order_id) not in told
        ]  # fmt: skip

    async def _seen(self, current: Orders, wins: Mapping[int, bool], *, wallets: bool) -> AccountSeen:
        readings = self._context.readings
        balances = None
        if wallets:
            with contextlib.suppress(CloreError):
                balances = (await readings.wallets(BROWSING_AGE)).balances
        fees, whole = await readings.fees(), not current.unreadable
        # Rows are as of the time the list was requested, which is up to a minute ago.
        api_then = readings.api_now() - max(0.0, self._context.clock() - current.at)
        return AccountSeen(current.rows, wins, balances, fees, api_then, whole)

    async def _wins(self, account: str, current: Orders) -> dict[int, bool]:
        """Return whether each bid whose end is kept here is running, by its server's spot book. Bids whose book can't
        be read are left out."""
        kept = await self._context.state.read(lambda tx: {end.order_id for end in orders.ends(tx, account)})
        found: dict[int, bool] = {}
        for row in current.rows:
            if not row.spot or row.expired or row.id not in kept or row.server_id is None:
                continue
            try:
                book = await self._context.readings.spot_book(row.server_id)
            except CloreError as error:
                log.warning("whether the bid of order %s runs is not known: %s", row.id, error.message)
                continue
            mine = [offer for offer in book.offers if offer.mine]
            if mine:
                found[row.id] = any(offer.active for offer in mine)
        return found

    def _known(self, tx: Tx, account: str, current: Orders) -> AccountRecord:
        made_here = orders.made_here(tx, account, [row.id for row in current.rows])
        failed = intents.in_state(tx, account, "failed", since=self._context.clock() - intents.ADOPTABLE_SECONDS)
        return AccountRecord(
            leases={lease.order_id: lease for lease in orders.active(tx, account)},
            ends={end.order_id: end for end in orders.ends(tx, account)},
            made_here=made_here,
            creating_on={intent.server_id for intent in intents.in_state(tx, account, *intents.OPEN)},
            may_be_ours={row.id for intent in failed for row in matches(intent, current.rows, made_here)},
            bidding={
                held.order_id
                for held in intents.reservations_open(tx, account)
                if held.bidding is not None and held.order_id is not None
            },
        )


def first_won(tx: Tx, account: str) -> dict[int, float]:
    """Return when each order was first seen to have its server, by Clore's clock, as far as recorded."""
    memory, _ = findings.memory_from(value_of(tx, _name(account)))
    return {int(about): held["ran"].since for about, held in memory.items() if about.isdigit() and "ran" in held}


def _name(account: str) -> str:
    return f"overseen {account}"

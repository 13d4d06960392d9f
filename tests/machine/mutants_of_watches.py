"""Broken on purpose: what a watch may pay, how often it may rent, and when it is over."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from clore_mcp.rental.watch.hunting import Hunting
from clore_mcp.state import watches
from clore_mcp.state.database import Tx
from clore_mcp.state.watches import Watch
from tests.machine.breaking import mutant
from tests.machine.names import SENT, TWICE, UNCOVERED
from tests.machine.patching import put


@mutant(UNCOVERED)
def a_watch_pays_more_than_was_approved() -> None:
    free, rent = Hunting._free, Hunting._rent

    async def wider(self: Hunting, watch: Watch, servers: Sequence[Any], ceiling: Decimal, current: Any) -> list[int]:
        return await free(self, watch, servers, ceiling * 2, current)

    async def richer(self: Hunting, watch: Watch, order: Any, ceiling: Decimal) -> Any:
        return await rent(self, dataclasses.replace(watch, worst_usd=watch.worst_usd * 3), order, ceiling * 2)

    put(Hunting, "_free", wider)
    put(Hunting, "_rent", richer)


@mutant(TWICE, SENT)
def a_watch_does_not_count_its_orders() -> None:
    put(watches, "may_rent", lambda tx, watch_id, now: True)
    put(watches, "status", lambda tx, watch, now: watch.state)


@mutant(UNCOVERED)
def a_watch_rents_on_after_its_cancel() -> None:
    end = watches.end

    def deaf(tx: Tx, watch_id: str, state: str) -> bool:
        return state == "cancelled" or end(tx, watch_id, state)

    put(watches, "end", deaf)

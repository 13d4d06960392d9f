"""Which hosts failed here lately: marked in searches and questions, and passed over where nobody named them.

A failure is a rental that never deployed, whose host went offline, or that ended on demand well before its time without
a cancel of ours or an empty wallet; and a create refused because the host is offline. What fails within an hour on one
server counts once. A create that merely came to nothing counts against no host: that is the API's failure as often. One
that a person ends on clore.ai looks like one that its host ended; hence two failures, a week, and a mark, not a ban.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from clore_mcp.clore.fresh import Fresh
from clore_mcp.errors import CloreError, StateUnavailable
from clore_mcp.rental.desk import Desk
from clore_mcp.state.database import Tx

FAILURES: Final = 2  # from so many on a host is marked
DAYS: Final = 7
_APART_SECONDS: Final = 3_600.0
_EARLY_SECONDS: Final = 300
_KEPT_SECONDS: Final = 30.0  # for searches, which need no newer count
_NONE: Final[Mapping[int, int]] = MappingProxyType({})


def failed(tx: Tx, account: str, now: float) -> dict[int, int]:
    """How often each server failed in the last days, those that did so often enough to be marked."""
    times: dict[int, list[float]] = {}
    for server_id, at in sorted(_failures(tx, account, now - DAYS * 86_400)):
        counted = times.setdefault(server_id, [])
        if not counted or at - counted[-1] >= _APART_SECONDS:
            counted.append(at)
    return {server_id: len(counted) for server_id, counted in times.items() if len(counted) >= FAILURES}


def failed_twice(tx: Tx, account: str, now: float) -> frozenset[int]:
    """The servers that are marked: nobody is led to one of them unasked."""
    return frozenset(failed(tx, account, now))


class Hosts:
    """The marks as searches show them, counted at most twice a minute."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._marked = Fresh(self._count, desk.monotonic)

    async def marked(self) -> Mapping[int, int]:
        """How often each marked server failed; none where nobody knows whose account this is or the state is away."""
        if not self._desk.state.exists:
            return _NONE
        try:
            return await self._marked.get(_KEPT_SECONDS)
        except (CloreError, StateUnavailable):
            return _NONE

    async def _count(self) -> Mapping[int, int]:
        desk = self._desk
        account = await desk.readings.account()
        return await desk.state.read(lambda tx: failed(tx, account, desk.clock()))


def _failures(tx: Tx, account: str, since: float) -> Iterator[tuple[int, float]]:
    """Each failed rental or refusal once: which server, and when."""
    for row in tx.all(
        "SELECT server_id, order_id, MIN(at) AS at FROM ledger WHERE account = ? AND at >= ?"
        " AND step IN ('never_deployed', 'host_offline') AND server_id IS NOT NULL GROUP BY server_id, order_id",
        account, since,
    ):  # fmt: skip
        yield row["server_id"], row["at"]
    for row in tx.all(
        "SELECT server_id, created_at AS at FROM intents WHERE account = ? AND created_at >= ?"
        " AND state = 'refused' AND reason = 'server-offline'",
        account, since,
    ):  # fmt: skip
        yield row["server_id"], row["at"]
    yield from _ended_early(tx, account, since)


def _ended_early(tx: Tx, account: str, since: float) -> Iterator[tuple[int, float]]:
    """Orders on demand that Clore lists as ended well before their end, which a cancel of ours brings forward; that had
    not failed in another way already, while no wallet was short."""
    for row in tx.all(
        "SELECT server_id, ended_at, started_api_at, ends_api_at, receipt FROM orders WHERE account = ?1"
        " AND ended_at >= ?2 AND order_type = 'on-demand' AND missed_at IS NULL AND receipt IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM ledger WHERE ledger.account = ?1 AND ledger.order_id = orders.order_id"
        "  AND step IN ('never_deployed', 'host_offline'))"
        " AND NOT EXISTS (SELECT 1 FROM ledger WHERE ledger.account = ?1 AND step = 'wallet_short'"
        "  AND at BETWEEN orders.ended_at - 86400 AND orders.ended_at)",
        account, since,
    ):  # fmt: skip
        ended_api_at = row["started_api_at"] + json.loads(row["receipt"]).get("hours", 0) * 3600
        if ended_api_at < row["ends_api_at"] - _EARLY_SECONDS:
            yield row["server_id"], row["ended_at"]

"""Finds hosts that failed here recently. They are marked in searches and questions, and skipped unless named.

A failure is a rental that never deployed, one whose host went offline, or an on-demand one that ended well before its
time without a cancel of ours or an empty wallet. So is a create refused because the host is offline. Failures within an
hour on one server count once. A create that produced no order counts against no host, because that is as often the
API's failure. A rental that a person ends on clore.ai looks like one that its host ended. Hence it takes two failures,
they count for a week, and the result is a mark, not a ban.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from clore_mcp.errors import CloreError, StateUnavailable
from clore_mcp.rental.account.reading import CachedValue
from clore_mcp.rental.context import Context
from clore_mcp.store import Tx, intents, ledger, orders

FAILURES: Final = 2  # a host with this many is marked
DAYS: Final = 7
_APART_SECONDS: Final = 3_600.0
_EARLY_SECONDS: Final = 300
_DAY_SECONDS: Final = 86_400.0
_MOST: Final = 500
_FAILED: Final = ("never_deployed", "host_offline")
_KEPT_SECONDS: Final = 30.0  # for searches, which need no newer count


def failed(tx: Tx, account: str, now: float, servers: Sequence[int] | None = None) -> dict[int, int]:
    """Return how often each server failed in the last 7 days, only for those that failed often enough to be marked.
    Those are never suggested unasked. If `servers` are given, only they are counted, which is far cheaper."""
    times: dict[int, list[float]] = {}
    for server_id, at in sorted(_failures(tx, account, now - DAYS * _DAY_SECONDS, servers)):
        counted = times.setdefault(server_id, [])
        if not counted or at - counted[-1] >= _APART_SECONDS:
            counted.append(at)
    return {server_id: len(counted) for server_id, counted in times.items() if len(counted) >= FAILURES}


class Hosts:
    """The marks that searches show, counted at most twice a minute."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._marked = CachedValue(self._count, context.monotonic)

    async def marked(self) -> Mapping[int, int]:
        """Return how often each marked server failed, or nothing if the account or the state is unavailable."""
        if not self._context.state.exists:
            return {}
        try:
            return await self._marked.get(_KEPT_SECONDS)
        except (CloreError, StateUnavailable):
            return {}

    async def _count(self) -> Mapping[int, int]:
        context = self._context
        account = await context.readings.account()
        return await context.state.read(lambda tx: failed(tx, account, context.clock()))


def _failures(tx: Tx, account: str, since: float, servers: Sequence[int] | None = None) -> Iterator[tuple[int, float]]:
    """Yield each failed rental or refusal once: its server and when. Of each kind, only the newest are counted."""
    first: dict[tuple[int | None, int | None], float] = {}
    for step in _FAILED:
        for server_id, order_id, at in ledger.at_servers(tx, account, step, since=since, limit=_MOST, servers=servers):
            first[server_id, order_id] = min(at, first.get((server_id, order_id), at))
    yield from ((server_id, at) for (server_id, _), at in first.items() if server_id is not None)
    yield from intents.refused(tx, account, "server-offline", since=since, limit=_MOST, servers=servers)
    yield from _ended_early(tx, account, since, servers)


def _ended_early(tx: Tx, account: str, since: float, servers: Sequence[int] | None) -> Iterator[tuple[int, float]]:
    """Yield on-demand orders that Clore lists as ended well before their end (a cancel of ours brings the end forward).
    Orders that had already failed in another way, or ended while a wallet was short, are left out."""
    short = [one.at for one in ledger.of_steps(tx, account, ("wallet_short",), since=since - _DAY_SECONDS, limit=_MOST)]
    found = orders.ended_early(tx, account, since=since, by_seconds=_EARLY_SECONDS, limit=_MOST, servers=servers)
    for gone in found:
        unpaid = any(gone.ended_at - _DAY_SECONDS <= at <= gone.ended_at for at in short)
        if not unpaid and ledger.last_of_order(tx, account, gone.order_id, _FAILED) is None:
            yield gone.server_id, gone.ended_at

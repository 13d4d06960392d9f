"""Which hosts failed here lately: marked in searches and questions, and passed over where nobody named them.

A failure is a rental that never deployed, whose host went offline, or that ended on demand well before its time without
a cancel of ours or an empty wallet; and a create refused because the host is offline. What fails within an hour on one
server counts once. A create that merely came to nothing counts against no host: that is the API's failure as often. One
that a person ends on clore.ai looks like one that its host ended; hence two failures, a week, and a mark, not a ban.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from clore_mcp.errors import CloreError, StateUnavailable
from clore_mcp.rental.account.reading import Fresh
from clore_mcp.rental.context import Context
from clore_mcp.store import intents, ledger, orders
from clore_mcp.store.database import Tx

FAILURES: Final = 2  # from so many on a host is marked
DAYS: Final = 7
_APART_SECONDS: Final = 3_600.0
_EARLY_SECONDS: Final = 300
_DAY_SECONDS: Final = 86_400.0
_MOST: Final = 500
_FAILED: Final = ("never_deployed", "host_offline")
_KEPT_SECONDS: Final = 30.0  # for searches, which need no newer count
_NONE: Final[Mapping[int, int]] = MappingProxyType({})


def failed(tx: Tx, account: str, now: float, servers: Sequence[int] | None = None) -> dict[int, int]:
    """How often each server failed in the last days, those that did so often enough to be marked; of these servers
    alone where some are given, which costs far less."""
    times: dict[int, list[float]] = {}
    for server_id, at in sorted(_failures(tx, account, now - DAYS * _DAY_SECONDS, servers)):
        counted = times.setdefault(server_id, [])
        if not counted or at - counted[-1] >= _APART_SECONDS:
            counted.append(at)
    return {server_id: len(counted) for server_id, counted in times.items() if len(counted) >= FAILURES}


def failed_twice(tx: Tx, account: str, now: float, servers: Sequence[int] | None = None) -> frozenset[int]:
    """The servers that are marked: nobody is led to one of them unasked. `servers` as of `failed`."""
    return frozenset(failed(tx, account, now, servers))


class Hosts:
    """The marks as searches show them, counted at most twice a minute."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._marked = Fresh(self._count, context.monotonic)

    async def marked(self) -> Mapping[int, int]:
        """How often each marked server failed; none where nobody knows whose account this is or the state is away."""
        if not self._context.state.exists:
            return _NONE
        try:
            return await self._marked.get(_KEPT_SECONDS)
        except (CloreError, StateUnavailable):
            return _NONE

    async def _count(self) -> Mapping[int, int]:
        context = self._context
        account = await context.readings.account()
        return await context.state.read(lambda tx: failed(tx, account, context.clock()))


def _failures(tx: Tx, account: str, since: float, servers: Sequence[int] | None = None) -> Iterator[tuple[int, float]]:
    """Each failed rental or refusal once: which server, and when. Of each kind no more than the newest are counted."""
    first: dict[tuple[int | None, int | None], float] = {}
    for step in _FAILED:
        for server_id, order_id, at in ledger.at_servers(tx, account, step, since=since, limit=_MOST, servers=servers):
            first[server_id, order_id] = min(at, first.get((server_id, order_id), at))
    yield from ((server_id, at) for (server_id, _), at in first.items() if server_id is not None)
    yield from intents.refused(tx, account, "server-offline", since=since, limit=_MOST, servers=servers)
    yield from _ended_early(tx, account, since, servers)


def _ended_early(tx: Tx, account: str, since: float, servers: Sequence[int] | None) -> Iterator[tuple[int, float]]:
    """Orders on demand that Clore lists as ended well before their end, which a cancel of ours brings forward; that had
    not failed in another way already, while no wallet was short."""
    short = [one.at for one in ledger.of_steps(tx, account, ("wallet_short",), since=since - _DAY_SECONDS, limit=_MOST)]
    found = orders.ended_early(tx, account, since=since, by_seconds=_EARLY_SECONDS, limit=_MOST, servers=servers)
    for gone in found:
        unpaid = any(gone.ended_at - _DAY_SECONDS <= at <= gone.ended_at for at in short)
        if not unpaid and ledger.last_of_order(tx, account, gone.order_id, _FAILED) is None:
            yield gone.server_id, gone.ended_at

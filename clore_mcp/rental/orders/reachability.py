"""Which orders this machine could reach over SSH in the last hours, and which not: one dead host is no proof, two are.

Pure; the memory is a named value of the state, so that it outlives the process that an assistant happens to use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from clore_mcp.rental.orders.access import ReadyReason

STARTING_MINUTES: Final = 5  # containers take 2 to 5 minutes, and an SSH server starts last
OVERDUE_MINUTES: Final = 15
_REMEMBERED_SECONDS: Final = 6 * 3_600.0
_NEVER_USUAL: Final = {ReadyReason.NAME_NOT_FOUND, ReadyReason.TIMED_OUT}  # not even while an SSH server starts


@dataclass(frozen=True, slots=True)
class SshLook:
    """What the last look at an order's SSH found. `at` is this machine's clock; `online`: this machine reached another
    order's SSH or Clore itself just then."""

    server_id: int | None
    reason: ReadyReason
    at: float
    online: bool = False


Memory = Mapping[int, SshLook]
"""The last attempt at each order, by its id."""


def is_settled(reason: ReadyReason, minutes: int) -> bool:
    """Whether that says something of the host or the network, and is not just a container that starts."""
    return reason is ReadyReason.READY or reason in _NEVER_USUAL or minutes >= STARTING_MINUTES


def remembered(memory: Memory, order_id: int, attempt: SshLook) -> dict[int, SshLook]:
    """The memory with one attempt more, without those of the day before."""
    kept = {about: one for about, one in memory.items() if abs(attempt.at - one.at) < _REMEMBERED_SECONDS}
    return {**kept, order_id: attempt}


def others(memory: Memory, order_id: int, server_id: int | None, now: float) -> dict[int, SshLook]:
    """The attempts of the last hours at orders on other servers."""
    return {
        about: one
        for about, one in memory.items()
        if about != order_id
        and (server_id is None or one.server_id != server_id)
        and abs(now - one.at) < _REMEMBERED_SECONDS
    }


def memory_from(text: str | None) -> dict[int, SshLook]:
    """What `memory_as` wrote; nothing where there is none or another version wrote it."""
    try:
        return {
            int(about): SshLook(server_id, ReadyReason(reason), float(at), *map(bool, online))
            for about, (server_id, reason, at, *online) in json.loads(text or "{}").items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}


def memory_as(memory: Memory) -> str:
    """The text that `memory_from` reads."""
    rows = {about: [one.server_id, one.reason.value, one.at, one.online] for about, one in memory.items()}
    return json.dumps(rows, separators=(",", ":"))

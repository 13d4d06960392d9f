"""The sandbox's record of every API request, from which tests read what was really sent."""

import hashlib
import time
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Recorded:
    """One request. `status` stays None if the client got no reply. `effect`: the request was processed."""

    sequence: int
    wall: float
    arrived_ns: int
    method: str
    endpoint: str
    query: dict[str, str]
    key: str | None
    user_agent: str
    body: Any
    completed_ns: int | None = None
    status: int | None = None
    code: int | None = None
    error: str | None = None
    effect: bool = False
    fault: str | None = None


class Journal:
    """Requests in the order of their arrival."""

    def __init__(self) -> None:
        self.entries: list[Recorded] = []
        self._next = 1

    def open(
        self, method: str, endpoint: str, query: dict[str, str], key: str | None, user_agent: str, body: Any
    ) -> Recorded:
        """Record an arrival. The caller fills in the outcome."""
        entry = Recorded(
            sequence=self._next,
            wall=time.time(),
            arrived_ns=time.monotonic_ns(),
            method=method,
            endpoint=endpoint,
            query=query,
            key=digest(key) if key is not None else None,
            user_agent=user_agent,
            body=body,
        )
        self._next += 1
        self.entries.append(entry)
        return entry

    def clear(self) -> None:
        """Delete all entries. Sequence numbers continue."""
        self.entries.clear()


def digest(key: str) -> str:
    """Return a short digest of a key that doesn't reveal it."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]

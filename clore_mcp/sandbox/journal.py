"""The sandbox's record of every API request: what a test asks when it wants to know what was really sent."""

import hashlib
import time
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Recorded:
    """One request. `status` stays None when the client got no reply; `effect` tells whether it was processed."""

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
    """Requests in the order in which they arrived."""

    def __init__(self) -> None:
        self.entries: list[Recorded] = []
        self._next = 1

    def open(
        self, method: str, endpoint: str, query: dict[str, str], key: str | None, user_agent: str, body: Any
    ) -> Recorded:
        """Record an arrival; the caller fills in the outcome."""
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
        """Forget what happened so far; sequence numbers go on."""
        self.entries.clear()


def digest(key: str) -> str:
    """A short name for a key that doesn't give it away."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]

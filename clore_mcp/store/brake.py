"""Whether spending is frozen: one value of the state, which every process reads in its own transactions."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

from clore_mcp.store.database import Tx, drop_value, keep_value, value_of

_NAME: Final = "frozen"


@dataclass(frozen=True, slots=True)
class Freeze:
    """Who stopped all spending and when, in unix seconds of this machine."""

    by: str
    at: float


def freeze(tx: Tx, by: str, now: float) -> bool:
    """Stop all spending; False when it was stopped already (then the first one stands)."""
    if frozen(tx) is not None:
        return False
    keep_value(tx, _NAME, json.dumps(asdict(Freeze(by, now))))
    return True


def frozen(tx: Tx) -> Freeze | None:
    """The freeze in force, if any."""
    told = value_of(tx, _NAME)
    return None if told is None else Freeze(**json.loads(told))


def lift(tx: Tx) -> bool:
    """Allow spending again; False when it was not stopped."""
    return drop_value(tx, _NAME)

"""The passkeys that a person has registered. Only public keys are stored, in one value of the state."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Final

from clore_mcp.store.database import Tx, keep_value, value_of

_NAME: Final = "passkeys"


@dataclass(frozen=True, slots=True)
class Passkey:
    """One authenticator's key. `id` and `public_key` are unpadded base64url."""

    id: str
    public_key: str
    name: str
    registered_at: float
    uses: int = 0  # the authenticator's own signature count, if it keeps one


def every(tx: Tx) -> list[Passkey]:
    """Return the registered passkeys, oldest first."""
    told = value_of(tx, _NAME)
    return [Passkey(**row) for row in json.loads(told)] if told else []


def add(tx: Tx, passkey: Passkey) -> None:
    """Register a passkey. It replaces one with the same id."""
    _keep(tx, [*(one for one in every(tx) if one.id != passkey.id), passkey])


def used(tx: Tx, passkey_id: str, uses: int) -> None:
    """Record the authenticator's signature count."""
    _keep(tx, [replace(one, uses=uses) if one.id == passkey_id else one for one in every(tx)])


def _keep(tx: Tx, passkeys: list[Passkey]) -> None:
    keep_value(tx, _NAME, json.dumps([asdict(one) for one in passkeys]))

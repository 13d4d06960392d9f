"""The passkeys that a person has registered: public keys alone, in one value of the state."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Final

from clore_mcp.store.database import Tx, keep_value, value_of

_NAME: Final = "passkeys"


@dataclass(frozen=True, slots=True)
class Passkey:
    """One authenticator's key; id and public key as unpadded base64url."""

    id: str
    public_key: str
    name: str
    registered_at: float
    uses: int = 0  # the authenticator's own count, where it keeps one


def every(tx: Tx) -> list[Passkey]:
    """Those that are registered, oldest first."""
    told = value_of(tx, _NAME)
    return [Passkey(**row) for row in json.loads(told)] if told else []


def add(tx: Tx, passkey: Passkey) -> None:
    """Register one; it takes the place of one with the same id."""
    _keep(tx, [*(one for one in every(tx) if one.id != passkey.id), passkey])


def used(tx: Tx, passkey_id: str, uses: int) -> None:
    """Remember the authenticator's count."""
    _keep(tx, [replace(one, uses=uses) if one.id == passkey_id else one for one in every(tx)])


def _keep(tx: Tx, passkeys: list[Passkey]) -> None:
    keep_value(tx, _NAME, json.dumps([asdict(one) for one in passkeys]))

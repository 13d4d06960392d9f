"""Whose account a key opens: rows of the state belong to an account, and a row that nobody finds ends no lease.

An account is known by its deposit addresses (by its key while it has none), so a new key or one more wallet is no
other account. One API URL's accounts are never another's: the sandbox's are not Clore's.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

from clore_mcp.errors import StateUnavailable
from clore_mcp.state import accounts
from clore_mcp.state.database import Database, Tx

log = logging.getLogger(__name__)


class Identity:
    """Names the account of one API URL and one key (its digest). `state` remembers; without it, what is seen counts."""

    def __init__(self, state: Database, api_url: str, key_digest: str) -> None:
        self._state = state
        self._api_url = api_url
        self._key_digest = key_digest
        self._key = self._digest(key_digest)

    async def of(self, addresses: Sequence[str]) -> tuple[str, bool]:
        """The account with these deposit addresses, and whether that is certain: not while there is no usable state."""
        names = sorted({self._digest(address) for address in addresses})
        new = self._digest("|".join(sorted(addresses)) or self._key_digest)[:16]

        if not self._state.exists:  # whoever only looks makes none
            return new, False

        def read(tx: Tx) -> tuple[str, list[tuple[str, str]]]:
            found = accounts.of_addresses(tx, names)
            if len(found) > 1:
                log.warning("this account's addresses are known as those of %d: the oldest counts", len(found))
            account = found[0] if found else self._by_key_alone(tx) or new
            return account, accounts.unknown(tx, account, names, self._key)

        def write(tx: Tx) -> str:
            account, unknown = read(tx)  # another process may have been first
            accounts.remember(tx, account, unknown)
            return account

        try:
            account, unknown = await self._state.read(read)
        except StateUnavailable as error:
            log.warning("whose account this is can't be looked up: %s", error.message)
            return new, False
        try:
            return (await self._state.write(write) if unknown else account), True
        except StateUnavailable as error:
            log.warning("the account's addresses can't be remembered: %s", error.message)
            return account, True

    async def of_key(self) -> str | None:
        """The account that this key opened before; None where nothing is known."""
        if not self._state.exists:
            return None
        try:
            return await self._state.read(lambda tx: accounts.of_key(tx, self._key))
        except StateUnavailable:
            return None

    def _by_key_alone(self, tx: Tx) -> str | None:
        """The account that was known by this key while it had no address."""
        account = accounts.of_key(tx, self._key)
        return None if account is None or accounts.has_addresses(tx, account) else account

    def _digest(self, text: str) -> str:
        return hashlib.sha256(f"{self._api_url}|{text}".encode()).hexdigest()

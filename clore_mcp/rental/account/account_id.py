"""Finds which account a key opens. Rows of the state belong to it, and a lease is not ended if its row is not found.

A key always opens the same account, so a known key identifies it. A new key is identified by the orders that it lists
(Clore numbers orders across all accounts), or else by the account's deposit addresses. Accounts of one API URL never
belong to another: the sandbox's are not Clore's.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeVar

from clore_mcp.errors import StateUnavailable
from clore_mcp.store import Database, Entry, Intent, Lease, Tx, accounts, intents, ledger, orders

log = logging.getLogger(__name__)
T = TypeVar("T")

_LONGEST_SECONDS: Final = 3_000 * 3_600  # Clore's longest rental, so no older order is still running


class Identity:
    """Finds the account of one API URL and one key, given as a digest. `state` stores it. Without a usable state, the
    account is derived from the addresses, or else from the key."""

    def __init__(self, state: Database, api_url: str, key_digest: str) -> None:
        self._state = state
        self._api_url = api_url
        self._key_digest = key_digest
        self._key = self._digest(key_digest)
        self._api = self._digest("")

    async def needs_second_reading(self, addresses: Sequence[str]) -> bool:
        """Return whether one reading of these deposit addresses is not enough. Either they are unfamiliar for a known
        key, or the key is new and existing orders may be its own."""
        names = self._names(addresses)

        def read(tx: Tx) -> bool:
            account = accounts.of_key(tx, self._key)
            if account is None:
                return accounts.made_anything(tx, self._api)
            return bool(names) and account not in accounts.of_addresses(tx, names)

        return await self._read(read, otherwise=False)

    async def of(self, addresses: Sequence[str], listed: Collection[int] = ()) -> tuple[str, bool]:
        """Return the account with these deposit addresses, and whether that is certain. It is uncertain without a
        usable state. `listed` are the orders that Clore lists for the key; they identify the account of a new key."""
        names = self._names(addresses)
        new = self._digest("|".join(sorted(addresses)) or self._key_digest)[:16]
        if not self._state.exists:  # reading alone does not create a state
            return new, False

        def read(tx: Tx) -> tuple[str, list[tuple[str, str]]]:
            account = self._account(tx, names, listed) or new
            return account, accounts.unknown(tx, account, names, self._key, self._api)

        def write(tx: Tx) -> str:
            account, unknown = read(tx)  # read again: another process may have been first
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
        """Return the account that this key opened before, or None if unknown."""
        return await self._read(lambda tx: accounts.of_key(tx, self._key), otherwise=None)

    async def joined(self, account: str, listed: Collection[int], now: float) -> str:
        """Return which account this is, given that Clore lists these orders for it. Orders made here that are stored
        under another account of this API are moved to it. They prove that both are one account, and the one known
        longest is kept. The accounts stay separate if each has deposit addresses of its own, because one wrong list
        must not merge two accounts for good."""
        if not listed or not self._state.exists:
            return account

        def others(tx: Tx) -> list[str]:
            found = accounts.of_orders(tx, self._api, listed)
            return found if any(one != account for one in found) else []

        def write(tx: Tx) -> str:
            found = others(tx)
            if not found:
                return account
            same = {account, *(one for one in found if one in self.strangers(tx, account))}
            oldest = next((one for one in accounts.of_api(tx, self._api) if one in same), account)
            accounts.bring_orders(tx, oldest, {account, *found} - {oldest}, listed)
            if oldest != account:
                accounts.remember(tx, oldest, [("key", self._key)])
            ledger.write(tx, Entry(at=now, account=oldest, step="account_recognized", caller="clore-mcp"))
            return oldest

        try:
            return await self._state.write(write) if await self._state.read(others) else account
        except StateUnavailable as error:
            log.warning("whose orders these are can't be looked up: %s", error.message)
            return account

    def strangers(self, tx: Tx, account: str) -> list[str]:
        """Return the other accounts of this API that may be this one. If this account has addresses, those with
        addresses of their own are excluded."""
        told = accounts.has_addresses(tx, account)
        others = [one for one in accounts.of_api(tx, self._api) if one != account]
        return [one for one in others if not (told and accounts.has_addresses(tx, one))]

    def stray_intents(self, tx: Tx, account: str, since: float) -> list[Intent]:
        """Return the creates of other accounts of this API that may be this one, if they may still show as an order."""
        return [
            intent
            for other in self.strangers(tx, account)
            for intent in (
                *intents.in_state(tx, other, "sending", "uncertain"),
                *intents.in_state(tx, other, "failed", since=since),
            )
        ]

    async def doubtful(self, account: str, api_now: float) -> list[Lease]:
        """Return the orders made here that may have to be ended with this key. They are not proven gone, are young
        enough to be running, and belong to an account that may be this one or has no recorded API."""
        if not self._state.exists:
            return []

        def read(tx: Tx) -> list[Lease]:
            others = (*self.strangers(tx, account), *accounts.without_api(tx))
            found = [lease for other in others for lease in orders.active(tx, other)]
            return [lease for lease in found if lease.started_api_at + _LONGEST_SECONDS > api_now]

        return await self._state.read(read)

    async def owner(self, account: str, order_id: int) -> str | None:
        """Return the account for which this order was made here, if it is or may be this one."""

        def read(tx: Tx) -> str | None:
            here = (account, *self.strangers(tx, account))
            return next((one for one in here if orders.get(tx, one, order_id) is not None), None)

        return await self._read(read, otherwise=None)

    async def of_this_api(self, leases: Sequence[Lease], *, or_unknown: bool = False) -> list[Lease]:
        """Return the leases that were made at this API. With `or_unknown`, include those with no recorded API."""

        def read(tx: Tx) -> set[str]:
            return {*accounts.of_api(tx, self._api), *(accounts.without_api(tx) if or_unknown else ())}

        mine = await self._state.read(read)
        return [lease for lease in leases if lease.account in mine]

    async def _read(self, work: Callable[[Tx], T], *, otherwise: T) -> T:
        """Return what `work` reads, or `otherwise` without a usable state."""
        try:
            return await self._state.read(work) if self._state.exists else otherwise
        except StateUnavailable:
            return otherwise

    def _account(self, tx: Tx, names: Sequence[str], listed: Collection[int]) -> str | None:
        found = accounts.of_addresses(tx, names)
        if len(found) > 1:
            log.warning("this account's addresses are known as those of %d: the oldest counts", len(found))
        known = accounts.of_key(tx, self._key)
        if known is not None and (accounts.has_addresses(tx, known) or not found):
            return known
        owners = accounts.of_orders(tx, self._api, listed) if listed else []
        return next(iter((*owners, *found)), known)

    def _names(self, addresses: Sequence[str]) -> list[str]:
        return sorted({self._digest(address) for address in addresses})

    def _digest(self, text: str) -> str:
        return hashlib.sha256(f"{self._api_url}|{text}".encode()).hexdigest()

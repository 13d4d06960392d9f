"""Quotes held and a person's answers to them: one live quote a digest, one use a yes.

The transitions are rows with a unique index (`one_live_quote`) and conditional updates, so processes that meet on the
same call agree without talking. A quote is frozen: every round shows the same text, and its id stands in that text, so
an old answer never fits a new quote.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from clore_mcp.errors import NotFound
from clore_mcp.rental.asks import Ask
from clore_mcp.state import ledger, quotes
from clore_mcp.state.database import Database, Duplicate, Tx, state_key
from clore_mcp.state.ledger import Entry
from clore_mcp.state.quotes import Quote

QUOTE_SECONDS: Final = 600.0
YES_SECONDS: Final = 1_800.0
_ASKABLE_SHARE: Final = 0.8  # a quote in its last fifth would expire under the reader's eyes: a new one is made
_DECLINES: Final = 3
_COOL_SECONDS: Final = 600.0
_ID_ALPHABET: Final = "23456789abcdefghjkmnpqrstuvwxyz"


def new_id(prefix: str) -> str:
    """A short id that people can read aloud: no 0/o, no 1/l/i."""
    return prefix + "".join(secrets.choice(_ID_ALPHABET) for _ in range(7))


def cooling_until(declines: Sequence[float], now: float) -> float | None:
    """Until when nothing is asked any more: ten minutes from the third decline within ten minutes."""
    for first, third in zip(declines, declines[_DECLINES - 1 :], strict=False):
        if third - first <= _COOL_SECONDS and now < third + _COOL_SECONDS:
            return third + _COOL_SECONDS
    return None


class Approvals:
    """Holds quotes and takes answers. `clock` gives unix seconds; `program` is what a person types."""

    def __init__(self, state: Database, clock: Callable[[], float], program: str = "clore-mcp") -> None:
        self._state = state
        self._program = program
        self._clock = clock

    async def digest(self, account: str, caller: str, ask: Ask) -> str:
        """The name of this call by this caller on this account, keyed by the state's own secret."""
        key = await self._state.write(state_key)  # not kept: a state that was replaced has another
        call = json.dumps([account, caller, ask.verb, ask.model_dump(mode="json")], sort_keys=True)
        return hmac.new(key, call.encode(), hashlib.sha256).hexdigest()[:32]

    async def find(self, digest: str, *, replay: bool, asking: bool) -> Quote | None:
        """The quote that this call is about, or None when it needs a new one.

        A settled quote counts when the call replays an answer, or when its outcome never reached anyone: else a lost
        reply would ask the person again and buy twice.
        """
        return await self._state.write(lambda tx: self._find(tx, digest, replay=replay, asking=asking))

    def _find(self, tx: Tx, digest: str, *, replay: bool, asking: bool) -> Quote | None:
        now = self._clock()
        quotes.expire(tx, now)
        quote = quotes.latest(tx, digest)
        if quote is None:
            return None
        if quote.state == "pending" and asking and not replay and now > _last_asked_at(quote):
            quotes.drop(tx, quote.id)
            return None
        keep = {
            "pending": True,
            "approved": True,
            "committing": True,
            "settled": replay or not quote.told,
            "declined": replay or not quote.told,  # a no outside the chat is heard once, then a new wish is one
            "expired": False,
        }
        return quote if keep[quote.state] else None

    async def hold(
        self, *, account: str, digest: str, verb: str, caller: str, terms: Mapping[str, Any], ask: Callable[[str], str]
    ) -> Quote:
        """Hold a new quote whose question `ask(id)` writes; the one that another process held first, if one did."""
        now = self._clock()
        quote_id = new_id("q")
        quote = Quote(
            id=quote_id,
            account=account,
            digest=digest,
            verb=verb,
            caller=caller,
            question=ask(quote_id),
            terms=dict(terms),
            state="pending",
            created_at=now,
            expires_at=now + QUOTE_SECONDS,
        )

        def add(tx: Tx) -> Quote:
            quotes.expire(tx, now)
            quotes.add(tx, quote)
            ledger.write(tx, _entry(quote, now, "quoted", quote.terms))
            return quote

        try:
            return await self._state.write(add)
        except Duplicate:
            found = await self.find(digest, replay=True, asking=False)
            if found is None:
                raise
            return found

    async def get(self, quote_id: str) -> Quote:
        """The quote with that id, expired if its time is over. Raises NotFound."""

        def read(tx: Tx) -> Quote | None:
            quotes.expire(tx, self._clock())
            return quotes.get(tx, quote_id)

        quote = await self._state.write(read)
        if quote is None:
            raise NotFound(f"There is no approval {quote_id!r}.", hint=f"`{self._program} approvals` lists what waits.")
        return quote

    async def waiting(self, account: str | None = None) -> list[Quote]:
        """Quotes that wait for a person or hold an unused yes."""

        def read(tx: Tx) -> list[Quote]:
            quotes.expire(tx, self._clock())
            return quotes.waiting(tx, account)

        return await self._state.write(read)

    async def decide(self, quote: Quote, *, yes: bool, by: str) -> bool:
        """Record the person's answer; False when the quote no longer waits for one."""
        now = self._clock()

        def write(tx: Tx) -> bool:
            if not quotes.decide(tx, quote.id, yes=yes, by=by, now=now, until=now + YES_SECONDS):
                return False
            ledger.write(tx, _entry(quote, now, "approved" if yes else "declined", {"by": by}))
            return True

        return await self._state.write(write)

    async def told(self, quote: Quote) -> None:
        """Record that the caller has the outcome, so that the same call later is a new wish."""
        await self._state.write(lambda tx: quotes.tell(tx, quote.id))

    async def cooling_until(self, account: str) -> float | None:
        """Until when spending calls are declined unasked, after three declines in ten minutes."""
        now = self._clock()
        times = await self._state.read(lambda tx: quotes.declines_since(tx, account, now - 2 * _COOL_SECONDS))
        return cooling_until(times, now)


def _last_asked_at(quote: Quote) -> float:
    return quote.created_at + _ASKABLE_SHARE * (quote.expires_at - quote.created_at)


def _entry(quote: Quote, now: float, step: str, data: Mapping[str, Any]) -> Entry:
    return Entry(at=now, account=quote.account, step=step, caller=quote.caller, quote_id=quote.id, data=dict(data))

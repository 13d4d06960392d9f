"""How many questions may wait for a person, and in which order they are shown: no caller can drown another's.

A caller names itself, so a cap by caller stops one that runs wild, and a cap on all of them one that changes its name.
Where there is no room the newest question is refused: what waits already may be somebody's real one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from clore_mcp.errors import Failure
from clore_mcp.rental.proposal import Consent, Yes
from clore_mcp.rental.requests import CancelOrder
from clore_mcp.store import quotes
from clore_mcp.store.database import Tx
from clore_mcp.store.quotes import Quote

OF_A_CALLER: Final = 10  # eight sessions of one client may each have one
OF_ALL: Final = 40
CANCELS_OF_ALL: Final = 40  # counted apart, with none for a caller: whoever ends many orders may ask about each
A_MINUTE: Final = 20  # of a caller, without a yes from anyone
A_MINUTE_OF_ALL: Final = 60
SHOWN: Final = 10
_MINUTE: Final = 60.0


class NoRoom(Failure):
    """A question is not asked, because too many wait already or came just now."""

    code = "no_room"


def place(tx: Tx, quote: Quote, now: float, program: str) -> None:
    """Close the older question that this one, just added, replaces, if there is room for it. Raises NoRoom."""
    if quote.verb != CancelOrder.verb and quote.state == "pending":
        _require_calm(tx, quote, now)
    if quote.subject is None:
        return
    waiting = [one for one in quotes.pending(tx, quote.account) if one.subject is not None and not _same(one, quote)]
    if Consent.of(quote).yes is not Yes.IF_ASKABLE:  # an order made here: its cancel is never refused
        _require_room(quote, waiting, program)
    quotes.replace(tx, quote)


def _same(one: Quote, other: Quote) -> bool:
    return (one.caller, one.verb, one.subject) == (other.caller, other.verb, other.subject)


def _require_room(quote: Quote, waiting: Sequence[Quote], program: str) -> None:
    cancels = quote.verb == CancelOrder.verb
    kin = [one for one in waiting if (one.verb == CancelOrder.verb) is cancels]
    mine = sum(one.caller == quote.caller for one in kin)
    if not cancels and mine >= OF_A_CALLER:
        raise NoRoom(f"{mine} questions of this client wait for the person already, so this one was not asked."
                     f" {_cure(program)}")  # fmt: skip
    if len(kin) >= (CANCELS_OF_ALL if cancels else OF_ALL):
        cure = f"The person can run `{program} cancel` with the order's id." if cancels else _cure(program)
        raise NoRoom(f"{len(kin)} questions wait for the person already, so this one was not asked. {cure}")


def _cure(program: str) -> str:
    return (
        f"The person answers them in their own terminal, beginning with `{program} approvals`; each lapses after ten"
        " minutes."
    )


def _require_calm(tx: Tx, quote: Quote, now: float) -> None:
    """Each call without a yes leaves rows: bound how many a minute brings."""
    callers = quotes.unanswered_since(tx, quote.account, now - _MINUTE, now, A_MINUTE_OF_ALL + 1)
    if callers.count(quote.caller) > A_MINUTE or len(callers) > A_MINUTE_OF_ALL:
        raise NoRoom("Too many calls came within a minute, so this one was left. Call again in a minute, once.")


def fair(waiting: Sequence[Quote]) -> list[Quote]:
    """What waits, in the order in which a person should see it: the callers take turns, who asks least goes first."""
    asked = Counter(quote.caller for quote in waiting)
    turns: Counter[str] = Counter()
    ranked = []
    for quote in waiting:  # oldest first
        ranked.append((quote.state != "pending", turns[quote.caller], asked[quote.caller], quote))
        turns[quote.caller] += 1
    return [quote for *_, quote in sorted(ranked, key=lambda one: one[:3])]

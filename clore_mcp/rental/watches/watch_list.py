"""The watches of an account: what each may rent, what it has seen and done; and taking one back."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from clore_mcp.errors import NotFound
from clore_mcp.money import shown_up
from clore_mcp.rental.context import Context, iso
from clore_mcp.rental.watches.watch import envelope_of
from clore_mcp.store import watches
from clore_mcp.store.database import Tx
from clore_mcp.store.watches import Watch
from clore_mcp.text import clean

_SAID_SHOWN: Final = 300
_ENDED_SHOWN: Final = 50  # read; how many are shown is `_WATCHES_SHOWN`
_WATCHES_SHOWN: Final = 20


async def listed(context: Context, *, include_ended: bool) -> dict[str, Any]:
    """What list_watches tells, newest first: all that wait, and of those that have ended the newest."""
    account, now = await context.readings.account(), context.clock()

    def read(tx: Tx) -> list[dict[str, Any]]:
        ended = watches.newest(tx, account, _ENDED_SHOWN) if include_ended else []
        found = {watch.id: watch for watch in (*watches.waiting(tx, account), *ended)}
        newest = sorted(found.values(), key=lambda watch: -watch.created_at)
        every = ((watch, watches.status(tx, watch, now)) for watch in newest)
        return [_view(tx, watch, is_now) for watch, is_now in every if include_ended or is_now == "waiting"]

    found = await context.state.read(read)
    who = await context.watched_by()
    waits = any(one["status"] == "waiting" for one in found)
    alone = f"Nobody looks for them now: ask the person to run `{context.program} watchdog`."
    unshown = len(found) - _WATCHES_SHOWN
    more = f"And {unshown} more, not shown: cancel_watch ends one that is not wanted." if unshown > 0 else ""
    said = f"{alone if waits and who is None else ''} {more}".strip()
    return {"watches": found[:_WATCHES_SHOWN], "watched_by": who or "nobody", "next": said or None}


async def cancelled(context: Context, watch_id: str, *, by: str) -> dict[str, Any]:
    """Take one back: it rents nothing more from this transaction on; its orders run on. Raises NotFound."""
    account = await context.readings.account()

    def write(tx: Tx) -> dict[str, Any]:
        watch = watches.get(tx, watch_id)
        if watch is None or watch.account != account:
            raise NotFound(f"There is no watch {clean(watch_id, 20)!r}.", hint="list_watches shows them.")
        was = watches.status(tx, watch, context.clock())
        if watches.end(tx, watch.id, "cancelled" if was == "waiting" else was) and was == "waiting":
            context.note(tx, "watch_cancelled", by, account, watch_id=watch.id)
            return {**_view(tx, watch, "cancelled"), "next": _after(tx, watch, "It rents nothing more.")}
        return {**_view(tx, watch, was), "next": _after(tx, watch, f"It had {was} before; nothing changed.")}

    return await context.state.write(write)


def _after(tx: Tx, watch: Watch, said: str) -> str:
    made = watches.order_ids(tx, watch.id)
    run_on = f" Orders {', '.join(map(str, made))} are not cancelled by this; list_orders shows them." if made else ""
    return said + run_on


def _view(tx: Tx, watch: Watch, is_now: str) -> dict[str, Any]:
    seen, ceiling = watch.seen_usd, Decimal(str(watch.ask["max_usd_per_hour"]))
    above = None if seen is None or seen <= ceiling else shown_up(seen - ceiling)
    told = {
        "watch_id": watch.id,
        "status": is_now,
        "envelope": envelope_of(watch),
        "best_seen_usd_per_hour": None if watch.best_usd is None else shown_up(watch.best_usd),
        "last_seen_usd_per_hour": None if seen is None else shown_up(seen),
        "above_ceiling_usd_per_hour": above,
        "looked_at": None if watch.looked_at is None else iso(watch.looked_at),
        "held_up": None if watch.said is None or is_now != "waiting" else clean(watch.said, _SAID_SHOWN),
        "order_ids": watches.order_ids(tx, watch.id),
    }
    return {name: value for name, value in told.items() if value is not None}

"""Watches as a verb of the guard: a wish to rent later is priced, asked about once, and kept with the yes it was given.

Nothing is reserved or sent here: runner.py rents, and each of its rentals passes every limit at its time.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import anyio.to_thread

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.market.rates import HIGHEST_CREATION_FEE_USD
from clore_mcp.money import ZERO, Coin, dollars, shown_up
from clore_mcp.rental import outcomes
from clore_mcp.rental.account.reading import BROWSING_AGE
from clore_mcp.rental.approvals import new_id
from clore_mcp.rental.context import Desk, iso
from clore_mcp.rental.create.ssh_keys import fingerprint
from clore_mcp.rental.proposal import Proposal, Yes
from clore_mcp.rental.questions import KeyShown
from clore_mcp.rental.requests import CreateWatch
from clore_mcp.rental.rules.limits import Refusal, Used, Wanted, check
from clore_mcp.rental.rules.terms import worst_hours, worst_usd
from clore_mcp.rental.watches.matches import fitting
from clore_mcp.rental.watches.question import WatchShown, notice, watch_question
from clore_mcp.store import quotes, watches
from clore_mcp.store.database import Tx
from clore_mcp.store.quotes import Quote
from clore_mcp.store.watches import Watch
from clore_mcp.text import clean

_MODELS_SHOWN: Final = 120
_NOTHING_USED: Final = Used(ZERO, ZERO, 0)
_DEAREST: Final = Coin.CLORE  # a watch may pay in any coin, and one whose rate moves counts most


class Watching:
    """Prices, proposes and keeps watches."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def already(self, ask: CreateWatch, account: str, digest: str) -> dict[str, Any] | None:
        """The watch that this very call has made, while it waits."""
        now = self._desk.clock()
        watch = await self._desk.state.read(lambda tx: watches.of_call(tx, account, digest, now))
        if watch is None:
            return None
        return outcomes.repeated(_waits(watch, await self._desk.watched_by(), "This call made the watch already."))

    async def propose(self, ask: CreateWatch, account: str) -> Proposal | dict[str, Any]:
        """What a person would be asked; a refusal where no such order would ever be within the limits. Raises
        SpendingFrozen, ArgumentInvalid."""
        desk = self._desk
        await desk.require_unfrozen()
        if ask.min_gpus is not None and ask.max_gpus is not None and ask.min_gpus > ask.max_gpus:
            raise ArgumentInvalid("max_gpus is less than min_gpus.")
        found = await fitting(desk, ask, max_age_seconds=BROWSING_AGE)
        who = await desk.watched_by()
        worst = ZERO if ask.notify else _worst(ask)
        refusals = [] if ask.notify else self._never(ask, worst)
        if who is None:
            refusals.append(Refusal("watchdog", ZERO, ZERO, ZERO, _nobody(desk.program)))
        if who is None or refusals:
            return outcomes.refused(refusals)
        ends_at = desk.clock() + ask.expires_hours * 3600
        cheapest = found.servers[0].priced.usd_per_hour if found.servers else None
        key = await self._key(ask)
        told = WatchShown(
            models=found.models,
            gpu_counts=found.gpu_counts,
            cheapest_usd=cheapest,
            worst_usd=worst,
            ends=iso(ends_at),
            who=who,
            key=key,
        )
        return Proposal(
            terms={
                "who": who,
                "models": list(found.models),
                "ssh_key": key.fingerprint,
                "worst_usd": str(worst),
                "ends_at": ends_at,
                "seen_usd": None if cheapest is None else str(cheapest),
            },
            question=lambda quote_id: (notice if ask.notify else watch_question)(quote_id, ask, told),
            yes=Yes.NEVER if ask.notify else Yes.ALWAYS,  # what only tells spends nothing
        )

    async def _key(self, ask: CreateWatch) -> KeyShown:
        """Whose key the orders would let in."""
        own = (await anyio.to_thread.run_sync(self._desk.ssh_key)).fingerprint
        given = fingerprint(ask.ssh_public_key) if ask.ssh_public_key else own
        return KeyShown(given, configured=given == own)

    async def carry_out(self, quote: Quote, ask: CreateWatch, *, from_state: str, by: str) -> dict[str, Any]:
        """Use the yes and keep the watch, in one transaction."""
        desk = self._desk

        def write(tx: Tx) -> dict[str, Any]:
            now = desk.clock()
            desk.forbid_frozen(tx)
            if not quotes.consume(tx, quote.id, from_state=from_state, owner=desk.owner, by=by, now=now):
                return outcomes.in_progress(quote.id)
            watch = _kept(quote, ask, by, now)
            watches.add(tx, watch)
            outcome = _waits(watch, quote.terms["who"])
            quotes.settle(tx, quote.id, outcome)
            desk.note(tx, "watch_created", quote.caller, quote.account, quote_id=quote.id, watch_id=watch.id,
                      approved_by=by, **watch.ask)  # fmt: skip
            return outcome

        if (await self._key(ask)).fingerprint != quote.terms["ssh_key"]:
            return outcomes.failed("The SSH key is no longer the one in the question; nothing was kept. Call again.")
        outcome = await desk.state.write(write)
        await anyio.to_thread.run_sync(desk.wake_watchdog)
        return outcome

    def unfinished(self, quote: Quote) -> dict[str, Any]:
        """The watch is being kept."""
        return {
            **outcomes.in_progress(quote.id),
            "next": "The watch is being made. Call again with exactly the same arguments to get it; it is made once.",
        }

    def _never(self, ask: CreateWatch, worst: Decimal) -> list[Refusal]:
        """The limits that no order of the watch would keep, however little were used."""
        wanted = Wanted(ask.exact_usd_per_hour, worst, worst)
        return check(self._desk.settings.limits, _NOTHING_USED, wanted, self._desk.settings.sources)


def _worst(ask: CreateWatch) -> Decimal:
    """What one order may cost at worst: a watch rents only while someone lives who ends what it rents."""
    hours = worst_hours(ask.exact_hours, ask.exact_hours * 2 + 1, ends=True)
    coin = Coin(ask.currency) if ask.currency else _DEAREST
    return worst_usd(ask.exact_usd_per_hour, hours, HIGHEST_CREATION_FEE_USD, coin)


def _kept(quote: Quote, ask: CreateWatch, by: str, now: float) -> Watch:
    seen = quote.terms["seen_usd"]
    return Watch(
        id=new_id("w"),
        account=quote.account,
        digest=quote.digest,
        quote_id=quote.id,
        approved_by=by,
        ask={**ask.model_dump(mode="json", exclude_none=True, exclude={"env"}), "max_orders": ask.max_orders},
        env=ask.env,
        models=frozenset(quote.terms["models"]),
        ssh_key=quote.terms["ssh_key"],
        worst_usd=Decimal(quote.terms["worst_usd"]),
        state="waiting",
        created_at=now,
        expires_at=quote.terms["ends_at"],
        best_usd=None if seen is None else Decimal(seen),
    )


def envelope_of(watch: Watch) -> str:
    """What was approved, in a line."""
    ask = watch.ask
    count = ask["max_orders"]
    orders = "1 order" if count == 1 else f"up to {count} orders"
    models = clean(" or ".join(sorted(watch.models)), _MODELS_SHOWN)
    most, worst = dollars(Decimal(str(ask["max_usd_per_hour"]))), dollars(watch.worst_usd * count)
    if ask.get("notify"):
        return f"tells of {models} at {most} per hour or less, rents nothing, until {iso(watch.expires_at)}"
    return (
        f"{orders} of {models}, {ask['hours']:g} hours each, at most {most} per hour, worst case {worst} in all,"
        f" until {iso(watch.expires_at)}"
    )


def _waits(watch: Watch, who: str | None, note: str = "") -> dict[str, Any]:
    does = "tells, and rents nothing," if watch.ask.get("notify") else "rents unasked"
    heard = " It tells by an event in get_account and by CLORE_NOTIFY_COMMAND." if watch.ask.get("notify") else ""
    told = (
        f"It {does} as soon as a server that fits is cheap enough.{heard} Looks once a minute: {who or 'nobody now'}."
        f" list_watches shows what it has seen; cancel_watch({watch.id}) ends it."
    )
    return {
        "status": "waiting",
        "watch_id": watch.id,
        "envelope": envelope_of(watch),
        "best_seen_usd_per_hour": None if watch.best_usd is None else shown_up(watch.best_usd),
        "next": f"{note} {told}".strip(),
    }


def _nobody(program: str) -> str:
    return f"the person: a watch needs a live watchdog, so ask them to run `{program} watchdog` in their own terminal"

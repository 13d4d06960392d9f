"""Watches as a verb of the guard: a wish to rent later is priced, asked about once, and kept with the yes it was given.

Nothing is reserved or sent here: runner.py rents, and each of its rentals passes every limit at its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Final

import anyio.to_thread

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.market.rates import HIGHEST_CREATION_FEE_USD
from clore_mcp.money import ZERO, Coin, dollars, shown_up
from clore_mcp.rental import outcomes
from clore_mcp.rental.account.reading import BROWSING_AGE
from clore_mcp.rental.approvals import new_id
from clore_mcp.rental.context import Context, iso
from clore_mcp.rental.create.ssh_keys import fingerprint
from clore_mcp.rental.proposal import Proposal, Verb, Yes
from clore_mcp.rental.questions import KeyShown
from clore_mcp.rental.requests import CreateWatch
from clore_mcp.rental.results import Outcome, Refusal, Settled, Status
from clore_mcp.rental.rules.check import Spend, check, unused
from clore_mcp.rental.rules.limits import Wanted
from clore_mcp.rental.rules.terms import worst_hours, worst_usd
from clore_mcp.rental.watches.matches import fitting
from clore_mcp.rental.watches.question import WatchShown, notice, watch_question
from clore_mcp.store import quotes, watches
from clore_mcp.store.database import Tx
from clore_mcp.store.quotes import Quote
from clore_mcp.store.watches import Watch
from clore_mcp.text import clean

_MODELS_SHOWN: Final = 120
_DEAREST: Final = Coin.CLORE  # a watch may pay in any coin, and one whose rate moves counts most


@dataclass(frozen=True, slots=True)
class WatchTerms:
    """What was asked about: `who` looks, for which models, until `ends_at` (this machine's clock). `worst_usd` is what
    one order may cost, `seen_usd` the price of an hour then, None where none fitted."""

    who: str
    models: tuple[str, ...]
    ssh_key: str
    worst_usd: Decimal
    ends_at: float
    seen_usd: Decimal | None

    def as_json(self) -> dict[str, Any]:
        """For the quote's row."""
        seen = None if self.seen_usd is None else str(self.seen_usd)
        return {**asdict(self), "models": list(self.models), "worst_usd": str(self.worst_usd), "seen_usd": seen}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> WatchTerms:
        """The terms that `as_json` wrote."""
        seen = None if row["seen_usd"] is None else Decimal(row["seen_usd"])
        worst = Decimal(row["worst_usd"])
        return cls(row["who"], tuple(row["models"]), row["ssh_key"], worst, row["ends_at"], seen)


class Watching(Verb[CreateWatch]):
    """Prices, proposes and keeps watches."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def already(self, request: CreateWatch, account: str, digest: str) -> Outcome | None:
        """The watch that this very call has made, while it waits."""
        now = self._context.clock()
        watch = await self._context.state.read(lambda tx: watches.of_call(tx, account, digest, now))
        if watch is None:
            return None
        return _waits(watch, await self._context.watched_by()).again("This call made the watch already.")

    async def propose(self, request: CreateWatch, account: str) -> Proposal:
        """What a person would be asked. Raises Settled where no such order would ever be within the limits;
        SpendingFrozen, ArgumentInvalid."""
        context = self._context
        await context.require_unfrozen()
        if request.min_gpus is not None and request.max_gpus is not None and request.min_gpus > request.max_gpus:
            raise ArgumentInvalid("max_gpus is less than min_gpus.")
        found = await fitting(context, request, max_age_seconds=BROWSING_AGE)
        who = await context.watched_by()
        worst = ZERO if request.notify else _worst(request)
        refusals = self._never(request, ended=who is not None)
        if who is None or refusals:
            raise Settled(outcomes.refused(refusals))
        ends_at = context.clock() + request.expires_hours * 3600
        cheapest = found.servers[0].priced.usd_per_hour if found.servers else None
        key = await self._key(request)
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
            terms=WatchTerms(who, found.models, key.fingerprint, worst, ends_at, cheapest),
            question=lambda quote_id: (notice if request.notify else watch_question)(quote_id, request, told),
            yes=Yes.NEVER if request.notify else Yes.ALWAYS,  # what only tells spends nothing
        )

    async def _key(self, request: CreateWatch) -> KeyShown:
        """Whose key the orders would let in."""
        own = (await anyio.to_thread.run_sync(self._context.ssh_key)).fingerprint
        given = fingerprint(request.ssh_public_key) if request.ssh_public_key else own
        return KeyShown(given, configured=given == own)

    async def carry_out(self, quote: Quote, request: CreateWatch, *, from_state: str, by: str) -> Outcome:
        """Use the yes and keep the watch, in one transaction."""
        context, terms = self._context, WatchTerms.from_json(quote.terms)

        def write(tx: Tx) -> Outcome:
            now = context.clock()
            context.forbid_frozen(tx)
            if not quotes.consume(tx, quote.id, from_state=from_state, owner=context.owner, by=by, now=now):
                return outcomes.in_progress(quote.id)
            refusals = self._never(request, ended=True)  # by the limits of this process, which may be tighter
            if refusals:
                return self._settled(tx, quote, outcomes.refused(refusals))
            watch = _kept(quote, terms, request, by, now)
            watches.add(tx, watch)
            outcome = _waits(watch, terms.who)
            quotes.settle(tx, quote.id, outcome.as_json())
            context.note(tx, "watch_created", quote.caller, quote.account, quote_id=quote.id, watch_id=watch.id,
                         approved_by=by, **watch.ask)  # fmt: skip
            return outcome

        if (await self._key(request)).fingerprint != terms.ssh_key:
            return outcomes.failed("The SSH key is no longer the one in the question; nothing was kept. Call again.")
        outcome = await context.state.write(write)
        await anyio.to_thread.run_sync(context.wake_watchdog)
        return outcome

    def unfinished(self, quote: Quote) -> Outcome:
        """The watch is being kept."""
        return outcomes.in_progress(
            quote.id,
            "The watch is being made. Call again with exactly the same arguments to get it; it is made once.",
        )

    def _never(self, request: CreateWatch, *, ended: bool) -> list[Refusal]:
        """What stands against any order of the watch, however little were used. `ended`: somebody would end it."""
        worst = _worst(request)
        nothing = Wanted(ZERO, ZERO, ZERO, active_orders=0)
        wanted = nothing if request.notify else Wanted(request.exact_usd_per_hour, worst, worst)
        return check(unused(self._context, ended=ended), Spend(wanted, unended=_nobody(self._context.program)))

    def _settled(self, tx: Tx, quote: Quote, outcome: Outcome) -> Outcome:
        quotes.settle(tx, quote.id, outcome.as_json())
        self._context.note(tx, outcome.status.value, quote.caller, quote.account, quote_id=quote.id)
        return outcome


def _worst(request: CreateWatch) -> Decimal:
    """What one order may cost at worst: a watch rents only while someone lives who ends what it rents."""
    hours = worst_hours(request.exact_hours, request.exact_hours * 2 + 1, ends=True)
    coin = Coin(request.currency) if request.currency else _DEAREST
    return worst_usd(request.exact_usd_per_hour, hours, HIGHEST_CREATION_FEE_USD, coin)


def _kept(quote: Quote, terms: WatchTerms, request: CreateWatch, by: str, now: float) -> Watch:
    return Watch(
        id=new_id("w"),
        account=quote.account,
        digest=quote.digest,
        quote_id=quote.id,
        approved_by=by,
        ask={**request.model_dump(mode="json", exclude_none=True, exclude={"env"}), "max_orders": request.max_orders},
        env=request.env,
        models=frozenset(terms.models),
        ssh_key=terms.ssh_key,
        worst_usd=terms.worst_usd,
        state="waiting",
        created_at=now,
        expires_at=terms.ends_at,
        best_usd=terms.seen_usd,
    )


def envelope_of(watch: Watch) -> str:
    """What was approved, in a line."""
    request = watch.ask
    count = request["max_orders"]
    orders = "1 order" if count == 1 else f"up to {count} orders"
    models = clean(" or ".join(sorted(watch.models)), _MODELS_SHOWN)
    most, worst = dollars(Decimal(str(request["max_usd_per_hour"]))), dollars(watch.worst_usd * count)
    if request.get("notify"):
        return f"tells of {models} at {most} per hour or less, rents nothing, until {iso(watch.expires_at)}"
    return (
        f"{orders} of {models}, {request['hours']:g} hours each, at most {most} per hour, worst case {worst} in all,"
        f" until {iso(watch.expires_at)}"
    )


def _waits(watch: Watch, who: str | None) -> Outcome:
    does = "tells, and rents nothing," if watch.ask.get("notify") else "rents unasked"
    heard = " It tells by an event in get_account and by CLORE_NOTIFY_COMMAND." if watch.ask.get("notify") else ""
    return Outcome(
        Status.WAITING,
        f"It {does} as soon as a server that fits is cheap enough.{heard} Looks once a minute: {who or 'nobody now'}."
        f" list_watches shows what it has seen; cancel_watch({watch.id}) ends it.",
        watch_id=watch.id,
        envelope=envelope_of(watch),
        best_seen_usd_per_hour=None if watch.best_usd is None else shown_up(watch.best_usd),
    )


def _nobody(program: str) -> str:
    return f"the person: a watch needs a live watchdog, so ask them to run `{program} watchdog` in their own terminal"

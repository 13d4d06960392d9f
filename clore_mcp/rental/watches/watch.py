"""The watch verb: prices a request to rent later, asks about it once, and stores it with its approval.

Nothing is reserved or sent here. runner.py rents, and each of its rentals must pass every limit at that time. This
module also finds the servers that fit a watch now and lists an account's watches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any, Final

import anyio.to_thread

from clore_mcp.errors import ArgumentInvalid, NotFound
from clore_mcp.market.pricing import HIGHEST_CREATION_FEE_USD
from clore_mcp.market.query import MAX_LIMIT, Query
from clore_mcp.market.search import FoundServer, find
from clore_mcp.money import ZERO, Coin, dollars, shown_up
from clore_mcp.rental import results
from clore_mcp.rental.account.reading import BROWSING_AGE
from clore_mcp.rental.approvals import Proposal, Verb, Yes, new_id
from clore_mcp.rental.containers import least_cuda
from clore_mcp.rental.context import Context
from clore_mcp.rental.questions import KeyShown
from clore_mcp.rental.requests import CreateWatch
from clore_mcp.rental.results import Outcome, Refusal, Settled, Status
from clore_mcp.rental.rules.check import AddedUsage, Spend, check, unused
from clore_mcp.rental.ssh.keys import fingerprint
from clore_mcp.rental.terms import worst_hours, worst_usd
from clore_mcp.rental.watches.question import WatchShown, notice, watch_question
from clore_mcp.store import Quote, Tx, Watch, quotes, watches
from clore_mcp.text import clean, iso

_MOST_MODELS: Final = 8  # the question names each of them
_HINT: Final = "Name a GPU, such as RTX 4090 or H100 SXM. It need not be listed now."
# Filters that have the same name in a search and in a watch.
_SAME: Final = (
    "min_gpus", "max_gpus", "min_vram_gb", "min_ram_gb", "min_disk_gb", "min_cpu_threads", "min_download_mbps",
    "min_upload_mbps", "min_reliability", "min_rating",
)  # fmt: skip
_MODELS_SHOWN: Final = 120
_DEAREST: Final = Coin.CLORE  # a watch may pay in any coin, and a coin with a moving rate has the highest margin
_SAID_SHOWN: Final = 300
_ENDED_SHOWN: Final = 50  # rows read; up to `_WATCHES_SHOWN` are shown
_WATCHES_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class FittingServers:
    """The models that the GPU's name stands for (listed now or not), the fewest and most GPUs per server, and the free
    servers with one of these models that pass the filters."""

    models: tuple[str, ...]
    gpu_counts: tuple[int | None, int | None]
    servers: tuple[FoundServer, ...]


async def fitting(
    context: Context, request: CreateWatch, *, max_age_seconds: float, models: Collection[str] | None = None
) -> FittingServers:
    """Return the servers that fit, by a snapshot no older than that. `models` are those that a person has read in the
    question; only servers with one of them are returned. Raises ArgumentInvalid for an unknown place. Without `models`,
    also for an unknown GPU, and for a name that stands for more models than a question can list."""
    readings = context.readings
    snapshot = await readings.fresh_snapshot(max_age_seconds)
    fees, balances = await readings.fees(), await readings.balances_if_known()
    query = Query(
        gpu=request.gpu,
        **{name: getattr(request, name) for name in _SAME},
        countries=tuple(request.countries or ()),
        exclude_countries=tuple(request.exclude_countries or ()),
        min_cuda=least_cuda(request.image, request.min_cuda),
        min_rental_hours=request.hours,
        currency=Coin(request.currency) if request.currency else None,
        preferred=context.settings.currency,
        limit=MAX_LIMIT,
    )
    result = await find(snapshot, query, fees, balances, context.clock())
    if models is None:
        if not result.gpu_models:
            said = f"gpu: {clean(request.gpu, 60)!r} names no GPU model."
            if result.unknown_gpu is not None:
                said = " ".join(result.suggestions)
            raise ArgumentInvalid(f"{said} Nothing was asked or spent.", hint=_HINT)
        if len(result.gpu_models) > _MOST_MODELS:
            raise ArgumentInvalid(
                f"gpu: {clean(request.gpu, 60)!r} stands for {len(result.gpu_models)} models, but a watch takes up to"
                f" {_MOST_MODELS}. Nothing was asked or spent.",
                hint="Name the models that the person means, such as '4090 or 3090'.",
            )
    servers = (one for one in result.matches if models is None or one.listing.gpu in models)
    return FittingServers(result.gpu_models, result.gpu_counts, tuple(servers))


@dataclass(frozen=True, slots=True)
class WatchTerms:
    """The terms of the question. `who` names the process that watches for these models until `ends_at` (this machine's
    clock). `worst_usd` is per order. `seen_usd` is the lowest price per hour when the question was written, None if no
    server fitted."""

    who: str
    models: tuple[str, ...]
    ssh_key: str
    worst_usd: Decimal
    ends_at: float
    seen_usd: Decimal | None

    def as_json(self) -> dict[str, Any]:
        """Return JSON for the quote's row."""
        seen = None if self.seen_usd is None else str(self.seen_usd)
        return {**asdict(self), "models": list(self.models), "worst_usd": str(self.worst_usd), "seen_usd": seen}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> WatchTerms:
        """Return the terms that `as_json` wrote."""
        seen = None if row["seen_usd"] is None else Decimal(row["seen_usd"])
        worst = Decimal(row["worst_usd"])
        return cls(row["who"], tuple(row["models"]), row["ssh_key"], worst, row["ends_at"], seen)


class WatchVerb(Verb[CreateWatch]):
    """Prices, proposes and stores watches."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def already(self, request: CreateWatch, account: str, digest: str) -> Outcome | None:
        now = self._context.clock()
        watch = await self._context.state.read(lambda tx: watches.of_call(tx, account, digest, now))
        if watch is None:
            return None
        return _waits(watch, await self._context.watched_by()).again("This call has already made the watch.")

    async def propose(self, request: CreateWatch, account: str) -> Proposal:
        """See `Verb`. There is nothing to ask if no process would check prices or no such order could ever fit the
        limits. Also raises SpendingFrozen and ArgumentInvalid."""
        context = self._context
        await context.require_unfrozen()
        if request.min_gpus is not None and request.max_gpus is not None and request.min_gpus > request.max_gpus:
            raise ArgumentInvalid("max_gpus is less than min_gpus.")
        found = await fitting(context, request, max_age_seconds=BROWSING_AGE)
        who = await context.watched_by()
        worst = ZERO if request.notify else _worst(request)
        refusals = self._never(request, ended=who is not None)
        if who is None or refusals:
            raise Settled(results.refused(refusals))
        ends_at = context.clock() + request.expires_hours * 3600
        cheapest = found.servers[0].priced.usd_per_hour if found.servers else None
        key = await self._key(request)
        told = WatchShown(found.models, found.gpu_counts, cheapest, worst, iso(ends_at), who, key)
        return Proposal(
            terms=WatchTerms(who, found.models, key.fingerprint, worst, ends_at, cheapest),
            question=lambda quote_id: (notice if request.notify else watch_question)(quote_id, request, told),
            yes=Yes.NEVER if request.notify else Yes.ALWAYS,  # a watch that only notifies spends nothing
        )

    async def _key(self, request: CreateWatch) -> KeyShown:
        own = (await anyio.to_thread.run_sync(self._context.ssh_key)).fingerprint
        given = fingerprint(request.ssh_public_key) if request.ssh_public_key else own
        return KeyShown(given, configured=given == own)

    async def carry_out(self, quote: Quote, request: CreateWatch, *, from_state: str, by: str) -> Outcome:
        context, terms = self._context, WatchTerms.from_json(quote.terms)

        def write(tx: Tx) -> Outcome:
            now = context.clock()
            context.forbid_frozen(tx)
            if not quotes.consume(tx, quote.id, from_state=from_state, owner=context.owner, by=by, now=now):
                return results.in_progress(quote.id)
            refusals = self._never(request, ended=True)  # by the limits of this process, which may be tighter
            if refusals:
                outcome = results.refused(refusals)
                context.note(tx, outcome.status.value, quote.caller, quote.account, quote_id=quote.id)
            else:
                watch = _kept(quote, terms, request, by, now)
                watches.add(tx, watch)
                outcome = _waits(watch, terms.who)
                context.note(tx, "watch_created", quote.caller, quote.account, quote_id=quote.id, watch_id=watch.id,
                             approved_by=by, **watch.ask)  # fmt: skip
            quotes.settle(tx, quote.id, outcome.as_json())
            return outcome

        if (await self._key(request)).fingerprint != terms.ssh_key:
            return results.failed("The SSH key is no longer the one in the question, so no watch was made. Call again.")
        outcome = await context.state.write(write)
        await anyio.to_thread.run_sync(context.wake_watchdog)
        return outcome

    def unfinished(self, quote: Quote) -> Outcome:
        said = "The watch is being made. Call again with exactly the same arguments to get it. It is made only once."
        return results.in_progress(quote.id, said)

    def _never(self, request: CreateWatch, *, ended: bool) -> list[Refusal]:
        """Return what refuses every order of the watch, even if nothing else is used. `ended` is True if a process
        would end the order."""
        worst = _worst(request)
        nothing = AddedUsage(ZERO, ZERO, ZERO, active_orders=0)
        wanted = nothing if request.notify else AddedUsage(request.exact_usd_per_hour, worst, worst)
        command = f"`{self._context.program} watchdog`"
        who = f"the person, by running {command} in their own terminal, because a watch needs a live watchdog"
        return check(unused(self._context, ended=ended), Spend(wanted, unended=who))


def _worst(request: CreateWatch) -> Decimal:
    """Return the worst case of one order in USD. A watch rents only while a process that ends its orders is alive."""
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
    """Return what was approved, in one line."""
    count, length = watch.max_orders, watch.ask["hours"]
    orders = "1 order" if count == 1 else f"up to {count} orders"
    models = clean(" or ".join(sorted(watch.models)), _MODELS_SHOWN)
    most, worst = dollars(watch.max_usd_per_hour), dollars(watch.worst_usd * count)
    hours = "1 hour" if length == 1 else f"{length:g} hours"
    if watch.notifies:
        return f"notifies about {models} at {most} per hour or less and rents nothing, until {iso(watch.expires_at)}"
    return (
        f"{orders} of {models}, {hours} each, at most {most} per hour, worst case {worst} in total,"
        f" until {iso(watch.expires_at)}"
    )


def _waits(watch: Watch, who: str | None) -> Outcome:
    does = "notifies and rents nothing" if watch.notifies else "rents without asking again"
    heard = " It notifies with an event in get_account and by CLORE_NOTIFY_COMMAND." if watch.notifies else ""
    return Outcome(
        Status.WAITING,
        f"It {does} as soon as a server that fits is cheap enough.{heard} Checked once a minute by:"
        f" {who or 'nobody now'}. list_watches shows what it has seen. To end it, call cancel_watch({watch.id}).",
        watch_id=watch.id,
        envelope=envelope_of(watch),
        best_seen_usd_per_hour=None if watch.best_usd is None else shown_up(watch.best_usd),
    )


@dataclass(frozen=True, slots=True)
class WatchView:
    """The view of one watch: prices in USD per hour, the time of the last look, and what blocks it. `next` says what a
    cancel did. Unknown values are None."""

    watch_id: str
    status: str
    envelope: str
    best_seen_usd_per_hour: float | None
    last_seen_usd_per_hour: float | None
    above_ceiling_usd_per_hour: float | None
    looked_at: str | None
    held_up: str | None
    order_ids: tuple[int, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class WatchList:
    """Watches, newest first, and the process that checks prices for them."""

    watches: tuple[WatchView, ...]
    watched_by: str
    next: str | None


async def listed(context: Context, *, include_ended: bool) -> WatchList:
    """Return the waiting watches and, with `include_ended`, the newest ended ones."""
    account, now = await context.readings.account(), context.clock()

    def read(tx: Tx) -> list[WatchView]:
        ended = watches.newest(tx, account, _ENDED_SHOWN) if include_ended else []
        found = {watch.id: watch for watch in (*watches.waiting(tx, account), *ended)}
        newest = sorted(found.values(), key=lambda watch: -watch.created_at)
        every = ((watch, watches.status(tx, watch, now)) for watch in newest)
        return [_view(tx, watch, is_now) for watch, is_now in every if include_ended or is_now == "waiting"]

    found = await context.state.read(read)
    who = await context.watched_by()
    waits = any(one.status == "waiting" for one in found)
    alone = f"No process checks prices for them now. Ask the person to run `{context.program} watchdog`."
    unshown = len(found) - _WATCHES_SHOWN
    more = f"{unshown} more are not shown. To end one that is not wanted, use cancel_watch." if unshown > 0 else ""
    said = f"{alone if waits and who is None else ''} {more}".strip()
    return WatchList(tuple(found[:_WATCHES_SHOWN]), who or "nobody", said or None)


async def cancelled(context: Context, watch_id: str, *, by: str) -> WatchView:
    """End a watch, so that it rents nothing more. Its orders keep running. Raises NotFound."""
    account = await context.readings.account()

    def write(tx: Tx) -> WatchView:
        watch = watches.get(tx, watch_id)
        if watch is None or watch.account != account:
            raise NotFound(f"There is no watch {clean(watch_id, 20)!r}.", hint="list_watches shows them.")
        was = watches.status(tx, watch, context.clock())
        is_now, said = was, f"It had already {was}, so nothing changed."
        if watches.end(tx, watch.id, "cancelled" if was == "waiting" else was) and was == "waiting":
            context.note(tx, "watch_cancelled", by, account, watch_id=watch.id)
            is_now, said = "cancelled", "It rents nothing more."
        view = _view(tx, watch, is_now)
        if view.order_ids:
            said += f" Orders {', '.join(map(str, view.order_ids))} keep running. list_orders shows them."
        return replace(view, next=said)

    return await context.state.write(write)


def _view(tx: Tx, watch: Watch, is_now: str) -> WatchView:
    seen, ceiling = watch.seen_usd, watch.max_usd_per_hour
    return WatchView(
        watch_id=watch.id,
        status=is_now,
        envelope=envelope_of(watch),
        best_seen_usd_per_hour=None if watch.best_usd is None else shown_up(watch.best_usd),
        last_seen_usd_per_hour=None if seen is None else shown_up(seen),
        above_ceiling_usd_per_hour=None if seen is None or seen <= ceiling else shown_up(seen - ceiling),
        looked_at=None if watch.looked_at is None else iso(watch.looked_at),
        held_up=None if watch.said is None or is_now != "waiting" else clean(watch.said, _SAID_SHOWN),
        order_ids=tuple(watches.order_ids(tx, watch.id)),
    )

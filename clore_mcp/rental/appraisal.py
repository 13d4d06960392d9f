"""A wish for a server, priced and judged: what it costs, which servers fit, and what stands against it.

The same judgement runs twice: when a quote is made, on what may be a minute old, and inside the transaction that writes
the reservation, on evidence of the last ten seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from dataclasses import dataclass
from decimal import Decimal

from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import Cost, Priced, choose
from clore_mcp.market.rates import Fees, OrderType
from clore_mcp.market.snapshot import Snapshot
from clore_mcp.market.spotbook import read_book
from clore_mcp.money import ZERO, Coin, DayPrice, plain
from clore_mcp.rental.asks import CreateOrder
from clore_mcp.rental.desk import Desk
from clore_mcp.rental.exposure import UnknownRate, drained, shown_orders
from clore_mcp.rental.limits import Refusal, Used, Wanted, check, usage
from clore_mcp.rental.readings import BROWSING_AGE, EXECUTION_AGE, Orders, Wallets
from clore_mcp.rental.terms import Candidate, Terms, Unfit, bid_within, candidate_of, cost_of
from clore_mcp.state import intents, orders
from clore_mcp.state.database import Tx
from clore_mcp.state.intents import Reservation
from clore_mcp.state.orders import Lease

_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a judgement rests on, and when the oldest part of it was read (this machine's clock). Completed orders are
    read just before the rest: they only add what was spent."""

    snapshot: Snapshot
    fees: Fees
    current: Orders
    completed: Orders
    wallets: Wallets
    api_now: float

    @property
    def at(self) -> float:
        """When the oldest part was read."""
        return min(self.snapshot.fetched_at, self.current.at, self.wallets.at)


@dataclass(frozen=True, slots=True)
class Appraisal:
    """A priced wish. Without `terms` none of the servers fits, and `unfit` says why."""

    terms: Terms | None
    cost: Cost | None
    unfit: tuple[Unfit, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    wallet_covers_hours: Decimal | None = None


class Appraiser:
    """Prices wishes and gathers the evidence to judge them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def evidence(self, max_age_seconds: float = EXECUTION_AGE) -> Evidence:
        """Everything that a judgement needs, none of it older than that."""
        readings = self._desk.readings
        fees = await readings.fees()
        completed = await readings.completed(max_age_seconds)
        snapshot = await readings.fresh_snapshot(max_age_seconds)
        current = await readings.orders(max_age_seconds)
        wallets = await readings.wallets(max_age_seconds)
        return Evidence(snapshot, fees, current, completed, wallets, readings.api_now())

    async def appraise(self, ask: CreateOrder) -> Appraisal:
        """Price a wish and judge it; nothing is held."""
        evidence = await self.evidence(BROWSING_AGE)
        enforced_by = await self._desk.enforced_by()
        enforced = enforced_by is not None
        account = await self._desk.readings.account()
        owed = await self._desk.state.read(lambda tx: owed_now(tx, account))
        found = [await self._payable(ask, number, evidence, owed, enforced=enforced) for number in ask.server_ids]
        candidates = [one for one in found if isinstance(one, Candidate)]
        misfits = tuple(one for one in found if isinstance(one, Unfit))
        if not candidates:
            return Appraisal(None, None, misfits)
        order_type = OrderType(ask.order_type)
        terms = Terms(
            candidates=tuple(candidates),
            hours=ask.exact_hours,
            order_type=order_type,
            on_end=ask.on_end,
            image=ask.image,
            enforced_by=enforced_by,
            fees_assumed=any(evidence.fees.assumes(order_type, one.coin) for one in candidates),
        )
        return await self._judged(terms, evidence, misfits)

    async def _judged(self, terms: Terms, evidence: Evidence, misfits: tuple[Unfit, ...]) -> Appraisal:
        desk = self._desk
        account = await desk.readings.account()

        def read(tx: Tx) -> tuple[list[list[Refusal]], Owed]:
            found = [stands_against(tx, desk, account, evidence, one, terms) for one in terms.candidates]
            return found, owed_now(tx, account)

        refusals, owed = await desk.state.read(read)
        first, *others = zip(terms.candidates, refusals, strict=True)
        over = [Unfit(one.server_id, "over_limit", "; ".join(map(str, no))) for one, no in others if no]
        kept = (first[0], *(one for one, no in others if not no))
        return Appraisal(
            terms=dataclasses.replace(terms, candidates=kept),
            cost=cost_of(first[0], terms.order_type, terms.hours, evidence.fees),
            unfit=(*misfits, *over),
            refusals=tuple(first[1]),
            wallet_covers_hours=_covered_hours(first[0], evidence, owed, terms.hours),
        )

    async def _payable(
        self, ask: CreateOrder, server_id: int, evidence: Evidence, owed: Owed, *, enforced: bool
    ) -> Candidate | Unfit:
        """The server in the cheapest coin; where that wallet is too small and another is not, in the other."""
        first = await self._candidate(ask, server_id, evidence, enforced=enforced)
        if isinstance(first, Unfit) or ask.currency or not _wallet_refusal(first, evidence, owed, ask.exact_hours):
            return first
        others = [coin for coin in evidence.snapshot.server(server_id).allowed_coins if coin is not first.coin]
        found = [
            await self._candidate(
                ask.model_copy(update={"currency": coin.value}), server_id, evidence, enforced=enforced
            )
            for coin in others
        ]
        paid = [
            one
            for one in found
            if isinstance(one, Candidate) and not _wallet_refusal(one, evidence, owed, ask.exact_hours)
        ]
        return min(paid, key=lambda one: one.usd_per_hour, default=first)

    async def _candidate(
        self, ask: CreateOrder, server_id: int, evidence: Evidence, *, enforced: bool
    ) -> Candidate | Unfit:
        listing = evidence.snapshot.by_id.get(server_id)
        if listing is None:
            return Unfit(server_id, "not_listed", f"Server {server_id} is not on the marketplace now.")
        balances = evidence.wallets.balances
        bid: DayPrice | None = None
        if ask.order_type == "spot":
            found = await self._bid(ask, listing, evidence)
            if isinstance(found, Unfit):
                return found
            bid = found
        return candidate_of(
            ask,
            listing,
            evidence.fees,
            evidence.snapshot.rates,
            wallet=balances,
            preferred=self._desk.preferred,
            spot_bid=bid,
            enforced=enforced,
        )

    async def _bid(self, ask: CreateOrder, listing: Listing, evidence: Evidence) -> DayPrice | Unfit:
        """The bid in a coin: what was asked for, else what would win now."""
        rates, fees = evidence.snapshot.rates, evidence.fees
        priced = choose(
            listing,
            OrderType.SPOT,
            fees,
            rates,
            wallet=evidence.wallets.balances,
            preferred=self._desk.preferred,
            only=Coin(ask.currency) if ask.currency else None,
        )
        if not isinstance(priced, Priced):
            return Unfit(
                listing.server_id, "unpriced", f"Server {listing.server_id} has no spot price: {priced.value}."
            )
        wanted_usd = ask.exact_bid
        if wanted_usd is None:
            book = read_book(await self._desk.client.spot_marketplace(listing.server_id), listing, fees, rates)
            wanted_usd = max(book.to_win_usd_per_hour or ZERO, priced.usd_per_hour)
        bid = bid_within(wanted_usd, priced.coin, priced.usd_per_coin, priced.fee, priced.day.value)
        if bid is None:
            return Unfit(
                listing.server_id,
                "bid_under_minimum",
                f"Server {listing.server_id} takes no bid under {plain(round(priced.usd_per_hour, 6))} USD per hour.",
            )
        return bid


def stands_against(
    tx: Tx, desk: Desk, account: str, evidence: Evidence, candidate: Candidate, terms: Terms
) -> list[Refusal]:
    """Every limit that one candidate would break, read in the caller's transaction."""
    try:
        used = used_now(tx, account, evidence, desk.clock())
    except UnknownRate as error:
        return [Refusal("unknown_rate", ZERO, ZERO, candidate.worst_usd, f"nobody here: {error}")]
    wanted = Wanted(
        usd_per_hour=candidate.ceiling_usd_per_hour, usd_per_order=candidate.worst_usd, usd_per_day=candidate.worst_usd
    )
    refusals = check(desk.caps, used, wanted, desk.sources)
    most = evidence.current.limit
    if most is not None and used.active_orders >= most:
        taken, cap = Decimal(used.active_orders), Decimal(most)
        refusals.append(
            Refusal("active_orders", cap, taken, Decimal(1), "the person, by ending one: Clore's own limit")
        )
    short = _wallet_refusal(candidate, evidence, owed_now(tx, account), terms.hours)
    if short is not None:
        refusals.append(short)
    if desk.mode == "limits" and terms.enforced_by is None:
        refusals.append(
            Refusal("watchdog", ZERO, ZERO, ZERO, "the operator: CLORE_APPROVAL=limits needs a live watchdog")
        )
    return refusals


def used_now(tx: Tx, account: str, evidence: Evidence, now: float) -> Used:
    """How much of the caps is taken, by the larger of the ledger and what Clore shows. Raises UnknownRate."""
    return usage(
        intents.reservations_open(tx, account),
        intents.reservations_released(tx, account, now - _DAY_SECONDS),
        shown_orders(
            evidence.current.rows,
            evidence.completed.rows,
            evidence.fees,
            evidence.snapshot.rates,
            api_now=evidence.api_now,
        ),
    )


@dataclass(frozen=True, slots=True)
class Owed:
    """What will be taken from the wallets: the orders made here, and what is reserved for those not yet listed."""

    leases: Mapping[int, Lease]
    reserved: tuple[Reservation, ...]

    def unlisted(self, candidate: Candidate, listed: Set[int], hours: Decimal) -> Decimal:
        """How much of the candidate's coin goes over `hours` to orders that Clore does not list yet."""
        hourly_usd = sum(
            (one.usd_per_hour for one in self.reserved if one.coin == candidate.coin and one.order_id not in listed),
            ZERO,
        )
        return hourly_usd * hours / candidate.usd_per_coin


def owed_now(tx: Tx, account: str) -> Owed:
    """What this state knows to be owed."""
    leases = {lease.order_id: lease for lease in orders.active(tx, account)}
    return Owed(leases, tuple(intents.reservations_open(tx, account)))


def _free_balance(candidate: Candidate, evidence: Evidence, owed: Owed, hours: Decimal) -> Decimal | None:
    balance = evidence.wallets.balances.get(candidate.coin)
    if balance is None:
        return None
    rows = evidence.current.rows
    taken = drained(candidate.coin, rows, owed.leases, evidence.fees, hours, api_now=evidence.api_now)
    return max(ZERO, balance - taken - owed.unlisted(candidate, {row.id for row in rows}, hours))


def _hourly_native(candidate: Candidate) -> Decimal:
    return candidate.listed_per_day / 24 * (1 + candidate.fee_fraction)


def _wallet_refusal(candidate: Candidate, evidence: Evidence, owed: Owed, hours: Decimal) -> Refusal | None:
    free = _free_balance(candidate, evidence, owed, hours)
    needed = _hourly_native(candidate) * hours + candidate.creation_fee_usd / candidate.usd_per_coin
    rate, coin = candidate.usd_per_coin, candidate.coin
    if free is None:
        why = f"the person: Clore does not tell the balance of the {coin.ticker} wallet; name another currency"
        return Refusal("wallet", ZERO, ZERO, needed * rate, why)
    if needed <= free:
        return None
    balance = evidence.wallets.balances[coin]
    top_up = f"{plain(round(needed - free, coin.precision + 2))} {coin.ticker}"
    return Refusal(
        "wallet",
        balance * rate,
        (balance - free) * rate,
        needed * rate,
        f"the person, by topping up {top_up} on clore.ai",
    )


def _covered_hours(candidate: Candidate, evidence: Evidence, owed: Owed, hours: Decimal) -> Decimal | None:
    free = _free_balance(candidate, evidence, owed, hours)
    hourly = _hourly_native(candidate)
    return None if free is None or not hourly else free / hourly

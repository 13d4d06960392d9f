"""A wish for a server, priced and judged: what it costs, which servers fit, and what stands against it.

The same judgement runs twice: when a quote is made, on what may be a minute old, and inside the transaction that writes
the reservation, on evidence of the last ten seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal

from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import Cost, Priced, choose
from clore_mcp.market.rates import Fees, OrderType
from clore_mcp.market.snapshot import Snapshot
from clore_mcp.market.spotbook import read_book
from clore_mcp.money import ZERO, Coin, DayPrice, plain
from clore_mcp.rental.asks import CreateOrder
from clore_mcp.rental.desk import Desk, lease_end_is_enforced
from clore_mcp.rental.exposure import UnknownRate, drained, shown_orders
from clore_mcp.rental.limits import Refusal, Used, Wanted, check, usage
from clore_mcp.rental.readings import BROWSING_AGE, EXECUTION_AGE, Orders, Wallets
from clore_mcp.rental.terms import Candidate, Terms, Unfit, bid_within, candidate_of, cost_of
from clore_mcp.state import intents, orders
from clore_mcp.state.database import Tx
from clore_mcp.state.intents import Intent, Reservation
from clore_mcp.state.orders import Lease

_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a judgement rests on, each part with when it was read (this machine's clock). Completed orders are read just
    before the rest: they only add what was spent."""

    snapshot: Snapshot
    fees: Fees
    current: Orders
    completed: Orders
    wallets: Wallets
    api_now: float

    def decides(self, now: float) -> bool:
        """Whether all of it is young enough to decide over money. A part from the future was read before the clock went
        back: nobody knows how old it is."""
        read = (self.snapshot.fetched_at, self.current.at, self.wallets.at)
        return all(0 <= now - at <= EXECUTION_AGE for at in read)


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
        unsettled = await self._unsettled(account, ask.server_ids)
        if ask.server_id in unsettled:  # never on to a fallback: that could be a second bill for one wish
            return Appraisal(None, None, (unsettled[ask.server_id],))
        found = [
            unsettled.get(number) or await self._payable(ask, number, evidence, owed, enforced=enforced)
            for number in ask.server_ids
        ]
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

    async def _unsettled(self, account: str, server_ids: Sequence[int]) -> dict[int, Unfit]:
        """The servers with a create on its way or uncertain: a second one could be a second bill."""
        program = self._desk.program

        def read(tx: Tx) -> list[Intent]:
            found = (intents.open_on(tx, account, number) for number in server_ids)
            return [held for held in found if held is not None]

        return {
            held.server_id: Unfit(
                held.server_id,
                "unsettled",
                f"An earlier create for server {held.server_id} is not settled yet ({held.state}), so no second one is"
                " sent. list_orders looks for it; take another server, or ask the person to run"
                f" `{program} settle {held.id} --order ID` or `--none`.",
            )
            for held in await self._desk.state.read(read)
        }

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
            wallet_covers_hours=_covered_hours(draw_of(first[0], terms.hours), evidence, owed),
        )

    async def _payable(
        self, ask: CreateOrder, server_id: int, evidence: Evidence, owed: Owed, *, enforced: bool
    ) -> Candidate | Unfit:
        """The server in the cheapest coin; where that wallet is too small and another is not, in the other."""
        first = await self._candidate(ask, server_id, evidence, enforced=enforced)
        if isinstance(first, Unfit) or ask.currency or not _short(first, evidence, owed, ask):
            return first
        others = [coin for coin in evidence.snapshot.server(server_id).allowed_coins if coin is not first.coin]
        found = [
            await self._candidate(
                ask.model_copy(update={"currency": coin.value}), server_id, evidence, enforced=enforced
            )
            for coin in others
        ]
        paid = [one for one in found if isinstance(one, Candidate) and not _short(one, evidence, owed, ask)]
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
    short = wallet_refusal(draw_of(candidate, terms.hours), evidence, owed_now(tx, account))
    if short is not None:
        refusals.append(short)
    unwatched = watchdog_refusal(tx, desk, account)
    if unwatched is not None:
        refusals.append(unwatched)
    return refusals


def watchdog_refusal(tx: Tx, desk: Desk, account: str, *, relied_on: bool = False) -> Refusal | None:
    """What stands against spending while nobody ends leases: nothing where a person is asked, unless the worst case was
    counted up to a lease's end (`relied_on`)."""
    if not (relied_on or desk.mode == "limits") or lease_end_is_enforced(tx, desk, account):
        return None
    why = (
        "the operator: CLORE_APPROVAL=limits needs a live watchdog"
        if desk.mode == "limits"
        else "the person, by calling again: whoever was to end the lease has stopped running"
    )
    return Refusal("watchdog", ZERO, ZERO, ZERO, why)


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
class Draw:
    """What an order takes from the wallet of its coin: so much an hour for so long, fee in, and `once` more. `order_id`
    when it runs already: then what it takes now is replaced, not added to."""

    coin: Coin
    usd_per_coin: Decimal
    per_hour: Decimal
    hours: Decimal
    once: Decimal = ZERO
    order_id: int | None = None

    @property
    def needed(self) -> Decimal:
        """All of it, in the coin."""
        return self.per_hour * self.hours + self.once


def draw_of(candidate: Candidate, hours: Decimal) -> Draw:
    """What a new order takes over the hours that were asked for."""
    return Draw(
        coin=candidate.coin,
        usd_per_coin=candidate.usd_per_coin,
        per_hour=candidate.listed_per_day / 24 * (1 + candidate.fee_fraction),
        hours=hours,
        once=candidate.creation_fee_usd / candidate.usd_per_coin,
    )


@dataclass(frozen=True, slots=True)
class Owed:
    """What will be taken from the wallets: the orders made here, and what is reserved for those not yet listed."""

    leases: Mapping[int, Lease]
    reserved: tuple[Reservation, ...]

    def unlisted(self, draw: Draw, listed: Set[int]) -> Decimal:
        """How much of the coin goes over the same hours to orders that Clore does not list yet."""
        hourly_usd = sum(
            (one.usd_per_hour for one in self.reserved if one.coin == draw.coin and one.order_id not in listed),
            ZERO,
        )
        return hourly_usd * draw.hours / draw.usd_per_coin


def owed_now(tx: Tx, account: str) -> Owed:
    """What this state knows to be owed."""
    leases = {lease.order_id: lease for lease in orders.active(tx, account)}
    return Owed(leases, tuple(intents.reservations_open(tx, account)))


def _free_balance(draw: Draw, evidence: Evidence, owed: Owed) -> Decimal | None:
    """What the other orders leave of the wallet; None where Clore does not tell its balance."""
    balance = evidence.wallets.balances.get(draw.coin)
    if balance is None:
        return None
    others = [row for row in evidence.current.rows if row.id != draw.order_id]
    taken = drained(draw.coin, others, owed.leases, evidence.fees, draw.hours, api_now=evidence.api_now)
    listed = {row.id for row in others} | ({draw.order_id} if draw.order_id is not None else set())
    return max(ZERO, balance - taken - owed.unlisted(draw, listed))


def wallet_refusal(draw: Draw, evidence: Evidence, owed: Owed) -> Refusal | None:
    """What stands against a draw when the wallet, less what other orders will take, does not cover it."""
    free, needed = _free_balance(draw, evidence, owed), draw.needed
    rate, coin = draw.usd_per_coin, draw.coin
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


def _short(candidate: Candidate, evidence: Evidence, owed: Owed, ask: CreateOrder) -> bool:
    return wallet_refusal(draw_of(candidate, ask.exact_hours), evidence, owed) is not None


def _covered_hours(draw: Draw, evidence: Evidence, owed: Owed) -> Decimal | None:
    free = _free_balance(draw, evidence, owed)
    return None if free is None or not draw.per_hour else free / draw.per_hour

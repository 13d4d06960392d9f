"""Checks every spending step: create, extend, raise and watch all call `check`.

It checks the operator's caps, Clore's own limit, the wallet, whether a process would end the lease, whether spending is
frozen, and how old the facts behind that are. `position` reads an account's position in the caller's transaction. So
the same check runs when a quote is made and inside the transaction that writes the reservation. Apart from it,
`used_now`, `owed_now` and `_reserved` read rows there. The rest is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final

from clore_mcp.market.pricing import Fees
from clore_mcp.market.snapshot import Snapshot
from clore_mcp.money import SECONDS_PER_DAY, ZERO, Coin, dollars, plain, up_to_coin
from clore_mcp.rental.account.reading import EXECUTION_AGE, Orders, Wallets
from clore_mcp.rental.context import Context, enforcer
from clore_mcp.rental.results import OPERATOR, Refusal
from clore_mcp.rental.rules.billing import ListedCost, drained, matches, shown_orders, worst_usd_per_hour
from clore_mcp.rental.terms import Candidate, Terms
from clore_mcp.settings import Approval, Caps
from clore_mcp.store import Lease, Reservation, Tx, intents, ledger, orders
from clore_mcp.store.intents import ActualCost

_SENT = ("sending", "uncertain")  # states in which a create may have made an order that is not adopted yet
_NAMED: Final = 3
_UNSEEN: Final = ListedCost(0, active=False, usd_per_hour=ZERO, usd_last_day=ZERO)
UNENDED: Final = "the person, by calling again, because the process that was to end the order has stopped"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The facts that a check uses, each with the time when it was read (this machine's clock). Completed orders are
    read just before the rest, because they only add what was spent."""

    snapshot: Snapshot
    fees: Fees
    current: Orders
    completed: Orders
    wallets: Wallets
    api_now: float

    def decides(self, now: float) -> bool:
        """Return whether all parts are recent enough to decide about money."""
        read = (self.snapshot.fetched_at, self.current.at, self.wallets.at)
        # A part from the future was read before the clock went back, so its age is unknown.
        return all(0 <= now - at <= EXECUTION_AGE for at in read)

    def require_whole(self) -> None:
        """Raise Undecided if a row of the orders can't be read."""
        if self.current.unreadable or self.completed.unreadable:
            raise Undecided(
                UndecidedReason.UNREADABLE,
                "Clore's list of orders has a row that can't be read, so the limits can't be checked",
            )

    def require_decisive(self, now: float) -> None:
        """Raise Undecided if the evidence is too old or incomplete to decide about money."""
        if not self.decides(now):
            raise Undecided(UndecidedReason.TOO_OLD, "Clore answers too slowly to check the limits")
        self.require_whole()


class UndecidedReason(StrEnum):
    """Why nothing can be decided, as the reason code that a caller reads."""

    TOO_OLD = "too_slow"
    UNREADABLE = "unreadable_orders"


class Undecided(Exception):
    """The evidence can't decide about money, so nothing was used. `why` is a sentence without its full stop."""

    def __init__(self, doubt: UndecidedReason, why: str) -> None:
        super().__init__(doubt.value)
        self.doubt = doubt
        self.why = why


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of each cap is used. `unpriced` orders count with the highest amounts that their known prices allow."""

    usd_per_hour: Decimal
    usd_per_day: Decimal
    active_orders: int
    unpriced: tuple[ListedCost, ...] = ()


@dataclass(frozen=True, slots=True)
class AddedUsage:
    """What a spending step would add to what is used now."""

    usd_per_hour: Decimal
    usd_per_order: Decimal  # over the order's whole life, so nothing is used of it now
    usd_per_day: Decimal
    active_orders: int = 1


@dataclass(frozen=True, slots=True)
class Spend:
    """What one step would add."""

    wanted: AddedUsage
    draw: Draw | None = None  # from a wallet; None if that is not known yet
    unended: str | None = None  # who can start a process that ends leases, if the step relies on one


@dataclass(frozen=True, slots=True)
class Position:
    """The caps of an account, and all that decides whether a step fits them."""

    caps: Caps
    sources: Mapping[str, str]  # where each cap was set
    used: Usage
    owed: WalletDebts
    evidence: Evidence | None
    ended: bool  # a process ends leases
    unasked: bool  # the limits alone decide
    frozen: bool = False


def position(
    tx: Tx, context: Context, account: str, evidence: Evidence, *, deciding: bool = False, instead_of: int | None = None
) -> Position:
    """Return the account's position, read in the caller's transaction, as if the order `instead_of` had ended. With
    `deciding`, money moves next, so it raises Undecided if the evidence does not allow that."""
    now = context.clock()
    if deciding:
        evidence.require_decisive(now)
    used = used_now(tx, account, evidence, now, context.settings.limits)
    held = None if instead_of is None else intents.reservation_of_order(tx, account, instead_of)
    if held is not None:
        used = replace(
            used,
            usd_per_hour=used.usd_per_hour - held.usd_per_hour,
            usd_per_day=used.usd_per_day - held.worst_usd,
            active_orders=used.active_orders - 1,
        )
    return Position(
        caps=context.settings.limits,
        sources=context.settings.sources,
        used=used,
        owed=owed_now(tx, account, evidence),
        evidence=evidence,
        ended=enforcer(tx, context, account) is not None,
        unasked=context.settings.approval is Approval.LIMITS,
        frozen=ledger.frozen(tx) is not None,
    )


def unused(context: Context, *, ended: bool) -> Position:
    """Return the position of an account that has used nothing. A step that `check` refuses there never fits."""
    return Position(
        context.settings.limits,
        context.settings.sources,
        Usage(ZERO, ZERO, 0),
        WalletDebts({}, ()),
        None,
        ended=ended,
        unasked=False,
    )


def check(stands: Position, spend: Spend) -> list[Refusal]:
    """Return every refusal of a step, or an empty list if it may be taken."""
    refusals = over_caps(stands.caps, stands.used, spend.wanted, stands.sources)
    evidence, taken = stands.evidence, stands.used.active_orders
    most = None if evidence is None or not spend.wanted.active_orders else evidence.current.limit
    if most is not None and taken >= most:
        change = "the person, by ending an order, because this is Clore's own limit"
        refusals.append(Refusal("active_orders", Decimal(most), Decimal(taken), Decimal(1), change))
    short = None if evidence is None or spend.draw is None else wallet_refusal(spend.draw, evidence, stands.owed)
    if short is not None:
        refusals.append(short)
    if not stands.ended and (stands.unasked or spend.unended is not None):
        by_operator = "the operator, by starting a watchdog, which CLORE_APPROVAL=limits needs"
        change = by_operator if stands.unasked else spend.unended or ""
        refusals.append(Refusal("watchdog", ZERO, ZERO, ZERO, change))
    if stands.frozen:
        refusals.append(Refusal("frozen", ZERO, ZERO, ZERO, "the person, who stopped all spending, with `stop --lift`"))
    return refusals


def spend_of(candidate: Candidate, terms: Terms, instead_of: int | None = None) -> Spend:
    """Return what a rental of one server would add. `instead_of` is the order that it replaces."""
    worst = terms.reserved_usd(candidate)
    wanted = AddedUsage(usd_per_hour=candidate.ceiling_usd_per_hour, usd_per_order=worst, usd_per_day=worst)
    return Spend(wanted, replace(draw_of(candidate, terms.hours), order_id=instead_of))


def over_caps(caps: Caps, used: Usage, wanted: AddedUsage, sources: Mapping[str, str]) -> list[Refusal]:
    """Return a refusal for each cap that the step would exceed. `sources` says where each cap was set."""
    rows = (
        ("usd_per_order", caps.usd_per_order, ZERO, wanted.usd_per_order),
        ("usd_per_hour", caps.usd_per_hour, used.usd_per_hour, wanted.usd_per_hour),
        ("usd_per_day", caps.usd_per_day, used.usd_per_day, wanted.usd_per_day),
        ("active_orders", Decimal(caps.active_orders), Decimal(used.active_orders), Decimal(wanted.active_orders)),
    )
    return [
        Refusal(
            name,
            cap,
            taken,
            needed,
            f"{OPERATOR}, with CLORE_MAX_{name.upper()} ({sources.get(name, 'default')} now){_unpriced(name, used)}",
        )
        for name, cap, taken, needed in rows
        if needed > 0 and taken + needed > cap
    ]


def _unpriced(limit: str, used: Usage) -> str:
    """Return which orders of unknown cost take part of a cap, and how to end them."""
    amounts = {
        order.order_id: order.usd_per_hour if limit == "usd_per_hour" else order.usd_last_day
        for order in used.unpriced
        if limit in ("usd_per_hour", "usd_per_day")
    }
    told = [f"order {order_id} counts as {dollars(usd)}" for order_id, usd in amounts.items() if usd]
    why = "the highest that its known prices allow, because its cost is unknown. To end it, use cancel_order"
    return f"; {', '.join(told[:_NAMED])}, {why}" if told else ""


def used_now(tx: Tx, account: str, evidence: Evidence, now: float, caps: Caps) -> Usage:
    """Return how much of the caps is used: for each order the larger of the ledger's figure and Clore's."""
    snapshot = evidence.snapshot
    return usage(
        _reserved(tx, account, evidence),
        intents.reservations_released(tx, account, now - SECONDS_PER_DAY),
        shown_orders(
            evidence.current.rows,
            evidence.completed.rows,
            evidence.fees,
            snapshot.rates,
            api_now=evidence.api_now,
            worst=lambda row: worst_usd_per_hour(
                row, snapshot.by_id.get(row.server_id or 0), snapshot.rates, caps.usd_per_hour
            ),
        ),
    )


def usage(
    open_: Iterable[Reservation], released: Iterable[ActualCost | Reservation], at_clore: Iterable[ListedCost]
) -> Usage:
    """Return what is used now: for each order the larger of this state's figure and Clore's.

    So neither a lost state nor an order that outlived its record frees anything. A reservation is the worst case of an
    order made here, so it counts if Clore does not show what the order costs.
    """
    shown_by_id = {order.order_id: order for order in at_clore}
    hourly, daily, active = ZERO, ZERO, 0
    for held in open_:
        seen = shown_by_id.pop(held.order_id, _UNSEEN) if held.order_id is not None else _UNSEEN
        seen = seen if seen.priced else _UNSEEN
        hourly += max(held.usd_per_hour, seen.usd_per_hour)
        daily += max(held.worst_usd, seen.usd_last_day)
        active += 1
    paid: dict[int, Decimal] = {}
    for entry in released:
        actual = entry.actual_usd or ZERO
        if entry.order_id is None:
            daily += actual
        else:
            paid[entry.order_id] = paid.get(entry.order_id, ZERO) + actual
    for order in shown_by_id.values():  # made elsewhere, or recorded as ended but still running
        hourly += order.usd_per_hour if order.active else ZERO
        daily += max(order.usd_last_day, paid.pop(order.order_id, ZERO))
        active += order.active
    unpriced = tuple(order for order in shown_by_id.values() if not order.priced)
    return Usage(hourly, daily + sum(paid.values(), ZERO), active, unpriced)


def _reserved(tx: Tx, account: str, evidence: Evidence) -> list[Reservation]:
    """Return the open reservations. An order that Clore shows before it is adopted must not count beside its own
    reservation, so the two are tied if exactly one order fits, by the rule that adopts it."""
    open_ = intents.reservations_open(tx, account)
    rows = {row.id: row for row in (*evidence.completed.rows, *evidence.current.rows)}
    taken = orders.made_here(tx, account, rows) | {one.order_id for one in open_ if one.order_id is not None}
    found = []
    for held in open_:
        intent = intents.get(tx, held.intent_id) if held.order_id is None and held.intent_id is not None else None
        fitting = matches(intent, rows.values(), taken) if intent is not None and intent.state in _SENT else []
        if len(fitting) == 1:
            taken.add(fitting[0].id)
            held = replace(held, order_id=fitting[0].id)
        found.append(held)
    return found


@dataclass(frozen=True, slots=True)
class Draw:
    """What an order takes from the wallet of its coin, including fees: `per_hour` for `hours`, plus `once`."""

    coin: Coin
    usd_per_coin: Decimal
    per_hour: Decimal
    hours: Decimal
    once: Decimal = ZERO
    order_id: int | None = None  # of an order that is already running; this replaces what it takes now

    @property
    def needed(self) -> Decimal:
        """The total, in the coin."""
        return self.per_hour * self.hours + self.once


def draw_of(candidate: Candidate, hours: Decimal) -> Draw:
    """Return what a new order takes over the requested hours."""
    return Draw(
        coin=candidate.coin,
        usd_per_coin=candidate.usd_per_coin,
        per_hour=candidate.listed_per_day / 24 * (1 + candidate.fee_fraction),
        hours=hours,
        once=candidate.creation_fee_usd / candidate.usd_per_coin,
    )


@dataclass(frozen=True, slots=True)
class WalletDebts:
    """What will be taken from the wallets: by orders made here, and by reservations for orders not yet listed."""

    leases: Mapping[int, Lease]
    reserved: tuple[Reservation, ...]

    def unlisted(self, draw: Draw, listed: Set[int]) -> Decimal:
        """Return how much of the coin is taken over the same hours by orders that Clore does not list yet."""
        unlisted = [one for one in self.reserved if one.coin == draw.coin and one.order_id not in listed]
        return sum((one.usd_per_hour for one in unlisted), ZERO) * draw.hours / draw.usd_per_coin


def owed_now(tx: Tx, account: str, evidence: Evidence) -> WalletDebts:
    """Return what this state knows to be owed."""
    leases = {lease.order_id: lease for lease in orders.active(tx, account)}
    return WalletDebts(leases, tuple(_reserved(tx, account, evidence)))


def free_balance(draw: Draw, evidence: Evidence, owed: WalletDebts) -> Decimal | None:
    """Return what the other orders leave in the wallet, below zero if they will take more than it holds. Returns None
    if Clore does not report its balance."""
    balance = evidence.wallets.balances.get(draw.coin)
    if balance is None:
        return None
    others = [row for row in evidence.current.rows if row.id != draw.order_id]
    taken = drained(draw.coin, others, owed.leases, evidence.fees, draw.hours, api_now=evidence.api_now)
    listed = {row.id for row in others} | ({draw.order_id} if draw.order_id is not None else set())
    return balance - taken - owed.unlisted(draw, listed)


def wallet_refusal(draw: Draw, evidence: Evidence, owed: WalletDebts) -> Refusal | None:
    """Return a refusal if the wallet, less what other orders will take, does not cover the draw."""
    free, needed = free_balance(draw, evidence, owed), draw.needed
    rate, coin = draw.usd_per_coin, draw.coin
    if free is None:
        why = f"the person, by naming another currency, because Clore does not report the {coin.ticker} balance"
        return Refusal("wallet", ZERO, ZERO, needed * rate, why)
    if needed <= free:
        return None
    balance = evidence.wallets.balances[coin]
    top_up = f"{plain(up_to_coin(needed - free, coin))} {coin.ticker}"
    return Refusal(
        "wallet",
        balance * rate,
        (balance - free) * rate,
        needed * rate,
        f"the person, by topping up {top_up} on clore.ai",
    )

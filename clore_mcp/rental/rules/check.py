"""The one judge of every spending step: create, extend, raise and watch all ask `check`.

What it looks at: the operator's caps, Clore's own limit, the wallet, a lease that nobody would end, the brake; and how
old what that rests on may be. `position` reads where the account stands from the rows of the caller's transaction, so
the same judgement runs when a quote is made and inside the transaction that writes the reservation. The rest is pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final

from clore_mcp.market.rates import Fees
from clore_mcp.market.snapshot import Snapshot
from clore_mcp.money import ZERO, Coin, plain, up_to_coin
from clore_mcp.rental.account.reading import EXECUTION_AGE, Orders, Wallets
from clore_mcp.rental.context import Context, lease_end_is_enforced
from clore_mcp.rental.create.presence import matches
from clore_mcp.rental.results import Refusal
from clore_mcp.rental.rules.billing import drained, shown_orders, worst_usd_per_hour
from clore_mcp.rental.rules.limits import Used, Wanted, over_caps, usage
from clore_mcp.rental.rules.terms import Candidate, Terms
from clore_mcp.settings import Approval, Caps
from clore_mcp.store import intents, ledger, orders
from clore_mcp.store.database import Tx
from clore_mcp.store.intents import Reservation
from clore_mcp.store.orders import Lease

_DAY_SECONDS = 86_400.0
_SENT = ("sending", "uncertain")  # whose create may have made an order that is not adopted yet


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

    def require_whole(self) -> None:
        """Raises Undecided where a row of the orders can't be read."""
        if self.current.unreadable or self.completed.unreadable:
            raise Undecided(Doubt.UNREADABLE)

    def require_decisive(self, now: float) -> None:
        """Raises Undecided where it can't decide over money: it has grown too old, or is not whole."""
        if not self.decides(now):
            raise Undecided(Doubt.TOO_OLD)
        self.require_whole()


class Doubt(StrEnum):
    """Why nothing can be decided, by the reason code that a caller reads."""

    TOO_OLD = "too_slow"
    UNREADABLE = "unreadable_orders"


_DOUBTS: Final = {
    Doubt.TOO_OLD: "Clore answers too slowly to check the limits",
    Doubt.UNREADABLE: "Clore's list of orders has a row that can't be read, so nothing can be counted against the"
    " limits",
}


class Undecided(Exception):
    """What a judgement rests on can't decide over money; nothing was used. `why` is a sentence without its full
    stop."""

    def __init__(self, doubt: Doubt) -> None:
        super().__init__(doubt.value)
        self.doubt = doubt
        self.why = _DOUBTS[doubt]


@dataclass(frozen=True, slots=True)
class Spend:
    """What one step would add. `draw` is what it takes from a wallet, None where that is not known yet. `unended` says
    who can change it that nobody ends leases, where the step relies on somebody who does."""

    wanted: Wanted
    draw: Draw | None = None
    unended: str | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Where an account stands: the caps and what is used of them, what its wallets owe, and who ends leases."""

    caps: Caps
    sources: Mapping[str, str]
    used: Used
    owed: Owed
    evidence: Evidence | None
    ended: bool
    unasked: bool
    frozen: bool = False


def position(
    tx: Tx, context: Context, account: str, evidence: Evidence, *, deciding: bool = False, instead_of: int | None = None
) -> Position:
    """Where the account stands, read in the caller's transaction; as if the order `instead_of` had ended. `deciding`:
    money moves by it. Raises Undecided then, where the evidence does not allow that."""
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
        ended=lease_end_is_enforced(tx, context, account),
        unasked=context.settings.approval is Approval.LIMITS,
        frozen=ledger.frozen(tx) is not None,
    )


def unused(context: Context, *, ended: bool) -> Position:
    """Where an account would stand that has used nothing yet: what `check` refuses then is never within the limits."""
    return Position(
        context.settings.limits,
        context.settings.sources,
        Used(ZERO, ZERO, 0),
        Owed({}, ()),
        None,
        ended=ended,
        unasked=False,
    )


def check(stands: Position, spend: Spend) -> list[Refusal]:
    """Everything that stands against a step; empty where it may be taken."""
    refusals = over_caps(stands.caps, stands.used, spend.wanted, stands.sources)
    evidence, taken = stands.evidence, stands.used.active_orders
    most = None if evidence is None or not spend.wanted.active_orders else evidence.current.limit
    if most is not None and taken >= most:
        change = "the person, by ending one: Clore's own limit"
        refusals.append(Refusal("active_orders", Decimal(most), Decimal(taken), Decimal(1), change))
    short = None if evidence is None or spend.draw is None else wallet_refusal(spend.draw, evidence, stands.owed)
    if short is not None:
        refusals.append(short)
    if not stands.ended and (stands.unasked or spend.unended is not None):
        change = "the operator: CLORE_APPROVAL=limits needs a live watchdog" if stands.unasked else spend.unended or ""
        refusals.append(Refusal("watchdog", ZERO, ZERO, ZERO, change))
    if stands.frozen:
        refusals.append(Refusal("frozen", ZERO, ZERO, ZERO, "the person, who stopped all spending: `stop --lift`"))
    return refusals


UNENDED: Final = "the person, by calling again: whoever was to end the lease has stopped running"


def spend_of(candidate: Candidate, terms: Terms, instead_of: int | None = None) -> Spend:
    """What a rental of one server would add; `instead_of` is an order that gives way to it."""
    worst = terms.reserved_usd(candidate)
    draw = replace(draw_of(candidate, terms.hours), order_id=instead_of)
    return Spend(Wanted(usd_per_hour=candidate.ceiling_usd_per_hour, usd_per_order=worst, usd_per_day=worst), draw)


def used_now(tx: Tx, account: str, evidence: Evidence, now: float, caps: Caps) -> Used:
    """How much of the caps is taken, by the larger of the ledger and what Clore shows."""
    snapshot = evidence.snapshot
    return usage(
        _reserved(tx, account, evidence),
        intents.reservations_released(tx, account, now - _DAY_SECONDS),
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


def _reserved(tx: Tx, account: str, evidence: Evidence) -> list[Reservation]:
    """What is reserved. An order that Clore shows before anybody has adopted it must not count beside its own
    reservation: the two are tied where exactly one order fits, by the rule that adopts it."""
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


def owed_now(tx: Tx, account: str, evidence: Evidence) -> Owed:
    """What this state knows to be owed."""
    leases = {lease.order_id: lease for lease in orders.active(tx, account)}
    return Owed(leases, tuple(_reserved(tx, account, evidence)))


def free_balance(draw: Draw, evidence: Evidence, owed: Owed) -> Decimal | None:
    """What the other orders leave of the wallet, below zero where they will take more than it holds; None where Clore
    does not tell its balance."""
    balance = evidence.wallets.balances.get(draw.coin)
    if balance is None:
        return None
    others = [row for row in evidence.current.rows if row.id != draw.order_id]
    taken = drained(draw.coin, others, owed.leases, evidence.fees, draw.hours, api_now=evidence.api_now)
    listed = {row.id for row in others} | ({draw.order_id} if draw.order_id is not None else set())
    return balance - taken - owed.unlisted(draw, listed)


def wallet_refusal(draw: Draw, evidence: Evidence, owed: Owed) -> Refusal | None:
    """What stands against a draw when the wallet, less what other orders will take, does not cover it."""
    free, needed = free_balance(draw, evidence, owed), draw.needed
    rate, coin = draw.usd_per_coin, draw.coin
    if free is None:
        why = f"the person: Clore does not tell the balance of the {coin.ticker} wallet; name another currency"
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

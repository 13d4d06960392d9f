"""Shows the account in one view: wallets, cost per hour, runway, fees, limits, waiting approvals and events.

Recent spending counts an order at the cost that Clore shows. An order that Clore no longer lists counts with its
receipt recorded here. Clore does not report how much of a cost fell into a window, so it counts there as if the order
had cost its price all the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from clore_mcp.clore import OrderRow
from clore_mcp.market.pricing import CREATION_FEE_AFTER_SECONDS, Fees, OrderType, Rates
from clore_mcp.money import SECONDS_PER_DAY, ZERO, Coin, coin_name, shown
from clore_mcp.rental import events
from clore_mcp.rental.account.account_view import (
    AccountView,
    EventView,
    FeesView,
    LimitView,
    PendingView,
    SpentView,
    WalletView,
)
from clore_mcp.rental.account.reading import BROWSING_AGE
from clore_mcp.rental.approvals import Approvals
from clore_mcp.rental.context import Context
from clore_mcp.rental.create.quote import Pricer
from clore_mcp.rental.orders.views import Overview
from clore_mcp.rental.rules import bid_record
from clore_mcp.rental.rules.bid_record import BidHistory
from clore_mcp.rental.rules.billing import Bill, began_of, bill, order_type_of, usd_per_hour
from clore_mcp.rental.rules.check import Evidence, Usage, used_now
from clore_mcp.rental.watches.watch import envelope_of
from clore_mcp.settings import Caps
from clore_mcp.store import End, Entry, Quote, Tx, Watch, ledger, orders, watches
from clore_mcp.text import clean, iso

DAY: Final = float(SECONDS_PER_DAY)
MONTH: Final = 30 * DAY
_MINUTE: Final = 60  # Clore may bill a minute more than an order has run
_PENDING_SHOWN: Final = 10
_EVENTS_SHOWN: Final = 10
_WHAT_SHOWN: Final = 160  # characters of one waiting item
_COSTS_SHOWN: Final = 20
_EVENTS_COUNTED: Final = 50


@dataclass(frozen=True, slots=True)
class OrderCost:
    """The cost of one order in USD, and when it ran (Clore's clock)."""

    bill: Bill
    began: float
    until: float
    dearest_usd_per_hour: Decimal | None  # the most that one of its hours has cost, if known

    def since(self, moment: float) -> Decimal:
        """Return the part of the cost from `moment` on: at most the highest hourly price for each hour of that time."""
        if self.began >= moment:
            return self.bill.total_usd
        seconds = max(ZERO, Decimal(str(self.until)) - Decimal(str(moment)))
        rent = self.bill.rent_usd + self.bill.fee_usd
        if not seconds:
            return ZERO
        if self.dearest_usd_per_hour is not None:
            rent = min(rent, self.dearest_usd_per_hour * (seconds + _MINUTE) / 3600)
        charged_later = self.began + CREATION_FEE_AFTER_SECONDS >= moment
        return rent + (self.bill.creation_fee_usd if charged_later else ZERO)


def costs(
    tx: Tx, account: str, rows: Iterable[OrderRow], fees: Fees, rates: Rates, *, api_now: float
) -> dict[int, OrderCost]:
    """Return the cost of each order, without those whose cost is unknown."""
    found = {}
    for row in rows:
        lease = orders.get(tx, account, row.id)
        began = began_of(row, lease, api_now)
        history = bid_record.read(tx, account, row, began, won_from=began) if row.spot else None
        billed = bill(row, fees, rates, api_now=api_now, lease=lease, history=history)
        if billed.priced:
            dearest = _dearest(row, history, fees, rates)
            found[row.id] = OrderCost(billed, began, row.ended_at or api_now, dearest)
    return found


def _dearest(row: OrderRow, history: BidHistory | None, fees: Fees, rates: Rates) -> Decimal | None:
    hourly = usd_per_hour(row, fees, rates)
    if history is None or hourly is None or not row.price:
        return hourly
    return hourly * max(bid for _, bid in history.bids) / row.price


def spent_since(found: Mapping[int, OrderCost], receipts: Mapping[int, Decimal], moment: float) -> Decimal:
    """Return the USD spent from `moment` on. `receipts` holds the recorded totals of orders that have ended since."""
    unlisted = (usd for order_id, usd in receipts.items() if order_id not in found)
    return sum((cost.since(moment) for cost in found.values()), ZERO) + sum(unlisted, ZERO)


def then(
    billing: Mapping[int, Decimal | None], ends: Mapping[int, End], found: Mapping[int, OrderCost], api_now: float
) -> tuple[int, Decimal] | None:
    """Return when the last of the orders billed now ends, and their total cost by then. None if there are none, or if
    one has no end that cancels it or no known cost. `billing` holds the USD per hour of each."""
    if not billing or any(usd is None or order_id not in found for order_id, usd in billing.items()):
        return None
    agreed = [ends.get(order_id) for order_id in billing]
    if any(end is None or end.on_end != "cancel" for end in agreed):
        return None
    total = ZERO
    for order_id, usd in billing.items():
        left = max(ZERO, Decimal(str(ends[order_id].ends_api_at - api_now))) / 3600
        total += found[order_id].bill.total_usd + (usd or ZERO) * left
    return max(ends[order_id].ends_api_at for order_id in billing), total


async def account_state(
    context: Context, pricer: Pricer, approvals: Approvals, overview: Overview, unrecorded: Sequence[Entry] = ()
) -> AccountView:
    """Return everything that get_account shows. `unrecorded` holds present events that may not be written."""
    evidence = await pricer.evidence(BROWSING_AGE)
    account = await context.readings.account()  # the lists just read may have shown which account it is
    now = context.clock()
    doubtful = [
        Entry(at=now, account=account, step="account_doubtful", caller="clore-mcp", order_id=lease.order_id)
        for lease in await context.readings.doubtful()
    ]
    running = [row for row in evidence.current.rows if not row.expired]
    rates = evidence.snapshot.rates
    happened = await context.state.read(
        lambda tx: ledger.of_steps(tx, account, events.NOTES, since=now - DAY, limit=_EVENTS_COUNTED)
    )
    freeze = await context.state.read(ledger.frozen)
    used = await context.state.read(lambda tx: used_now(tx, account, evidence, now, context.settings.limits))
    waiting = [
        *(_waiting(quote) for quote in await approvals.waiting(account)),
        *(_watching(watch) for watch in await context.state.read(lambda tx: watches.standing(tx, account, now))),
    ]
    told = [*doubtful, *unrecorded, *happened]
    unwon = await overview.books.waiting(running)
    hourly = {row.id: usd_per_hour(row, evidence.fees, rates) for row in running if row.id not in unwon}
    burn = sum((usd for usd in hourly.values() if usd is not None), ZERO)
    unpriced = [order_id for order_id, usd in hourly.items() if usd is None]
    spent = await context.state.read(lambda tx: _spent(tx, account, evidence, hourly, now))
    return AccountView(
        wallets=_wallets(evidence, [row for row in running if row.id in hourly]),
        burn_usd_per_hour=shown(burn),
        cost_not_known=tuple(unpriced[:_COSTS_SHOWN]),
        spent_usd=SpentView(shown(spent.day), shown(spent.month)),
        all_end_at=iso(spent.then[0]) if spent.then else None,
        spent_then_usd=shown(spent.then[1]) if spent.then else None,
        fees=_fees(evidence.fees),
        limits=_limits(context.settings.limits, used, Usage(burn, spent.day, len(running))),
        pending_approvals=tuple(waiting[:_PENDING_SHOWN]),
        events=tuple(
            EventView(iso(entry.at), entry.step.replace("_", " "), entry.order_id, events.note_of(entry))
            for entry in told[:_EVENTS_SHOWN]
        ),
        more=_more(
            len(waiting) - _PENDING_SHOWN, len(told) - _EVENTS_SHOWN, len(unpriced) - _COSTS_SHOWN, context.program
        ),
        frozen=f"by {freeze.by}, since {iso(freeze.at)}" if freeze else None,
        watchdog="alive" if await context.enforced_by() else "absent",
    )


@dataclass(frozen=True, slots=True)
class SpentSummary:
    """The USD spent in the last 24 hours and 30 days."""

    day: Decimal
    month: Decimal
    then: tuple[int, Decimal] | None  # when all orders billed now end, and their cost by then


def _spent(tx: Tx, account: str, evidence: Evidence, hourly: Mapping[int, Decimal | None], now: float) -> SpentSummary:
    api_now = evidence.api_now
    rows = {row.id: row for row in (*evidence.completed.rows, *evidence.current.rows)}
    lately = [row for row in rows.values() if (row.ended_at or api_now) > api_now - MONTH]
    found = costs(tx, account, lately, evidence.fees, evidence.snapshot.rates, api_now=api_now)
    day, month = (
        spent_since(found, orders.receipts_since(tx, account, now - seconds), api_now - seconds)
        for seconds in (DAY, MONTH)
    )
    agreed = {end.order_id: end for end in orders.ends(tx, account)}
    return SpentSummary(day, month, then(hourly, agreed, found, api_now))


def _more(approvals: int, happened: int, unpriced: int, program: str) -> str | None:
    """Return a text on what is not shown and where to find it, or None."""
    told = []
    if approvals > 0:
        told.append(f"And {approvals} more approvals: `{program} approvals` lists them.")
    if happened > 0:
        many = f"{happened} or more" if happened >= _EVENTS_COUNTED - _EVENTS_SHOWN else f"{happened} more"
        told.append(f"And {many} events: `{program} ledger` lists them.")
    if unpriced > 0:
        told.append(f"And {unpriced} more orders without a known cost: list_orders.")
    return " ".join(told) or None


def _wallets(evidence: Evidence, billing: Iterable[OrderRow]) -> tuple[WalletView, ...]:
    """Return the wallets, each with the hours until the orders billed now have emptied it."""
    burn: dict[Coin, Decimal] = {}
    for row in billing:
        coin = Coin.parse(row.currency or "")
        if coin is not None and row.price is not None:
            fee = evidence.fees.fraction(order_type_of(row), coin)
            burn[coin] = burn.get(coin, ZERO) + row.price / 24 * (1 + fee)
    lasts = {
        coin: round(float(max(ZERO, balance) / burn[coin]), 1)
        for coin, balance in evidence.wallets.balances.items()
        if burn.get(coin)
    }
    rates = evidence.snapshot.rates
    told = []
    for wallet in evidence.wallets.rows:
        coin, balance = Coin.parse(wallet.name), wallet.balance
        rate = rates.usd_per(coin) if coin else None
        usd = None if balance is None or rate is None else shown(balance * rate)
        held = None if balance is None else float(balance)
        told.append(WalletView(coin_name(wallet.name), held, usd, lasts.get(coin) if coin else None))
    return tuple(told)


def _limits(caps: Caps, used: Usage, taken: Usage) -> dict[str, LimitView]:
    """Return each cap with what is spent and what is reserved on top. `taken` is the used part that is not reserved."""

    def view(cap: Decimal, use: Decimal, spent: Decimal) -> LimitView:
        spent = min(use, spent)
        return LimitView(shown(cap), shown(spent), shown(use - spent), shown(max(ZERO, cap - use)))

    active = (Decimal(number) for number in (caps.active_orders, used.active_orders, taken.active_orders))
    return {
        "usd_per_hour": view(caps.usd_per_hour, used.usd_per_hour, taken.usd_per_hour),
        "usd_per_order": view(caps.usd_per_order, ZERO, ZERO),
        "usd_per_day": view(caps.usd_per_day, used.usd_per_day, taken.usd_per_day),
        "active_orders": view(*active),
    }


def _fees(fees: Fees) -> FeesView:
    def percents(kind: OrderType) -> dict[str, float]:
        return {coin.ticker: round(float(fees.fraction(kind, coin) * 100), 3) for coin in Coin}

    return FeesView(percents(OrderType.ON_DEMAND), percents(OrderType.SPOT), fees.assumed)


def _watching(watch: Watch) -> PendingView:
    what = clean(f"watch: {envelope_of(watch)}", _WHAT_SHOWN)
    return PendingView(watch.id, what, "approved", iso(watch.expires_at))


def _waiting(quote: Quote) -> PendingView:
    what = clean(quote.question.split("\n", 1)[0], _WHAT_SHOWN)
    return PendingView(quote.id, what, quote.state, iso(quote.expires_at))

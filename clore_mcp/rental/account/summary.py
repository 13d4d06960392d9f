"""The account in one view: wallets, burn, runway, fees, limits, what waits for a person, what happened unasked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from clore_mcp.clore import OrderRow
from clore_mcp.market.rates import Fees, OrderType
from clore_mcp.money import ZERO, Coin, shown
from clore_mcp.rental.account import spent
from clore_mcp.rental.account.reading import BROWSING_AGE
from clore_mcp.rental.approvals import Approvals
from clore_mcp.rental.context import Context, iso
from clore_mcp.rental.create.quote import Pricer
from clore_mcp.rental.monitoring import events
from clore_mcp.rental.orders.views import Overview
from clore_mcp.rental.question_queue import SHOWN
from clore_mcp.rental.rules.billing import order_type_of, usd_per_hour
from clore_mcp.rental.rules.check import Evidence, used_now
from clore_mcp.rental.rules.limits import Used
from clore_mcp.rental.watches.watch import envelope_of
from clore_mcp.settings import Caps
from clore_mcp.store import ledger, orders, reservations, watches
from clore_mcp.store.database import Tx
from clore_mcp.store.ledger import Entry
from clore_mcp.store.quotes import Quote
from clore_mcp.store.watches import Watch
from clore_mcp.text import clean

_EVENTS_SHOWN: Final = 10
_WHAT_SHOWN: Final = 160  # characters of one thing that waits
_COSTS_SHOWN: Final = 20
_EVENTS_COUNTED: Final = 50
_EVENTS_SINCE_SECONDS: Final = 86_400


async def account_state(
    context: Context, pricer: Pricer, approvals: Approvals, overview: Overview, unrecorded: Sequence[Entry] = ()
) -> dict[str, Any]:
    """Everything that get_account tells. `unrecorded` are events of now where none may be written."""
    evidence = await pricer.evidence(BROWSING_AGE)
    account = await context.readings.account()  # the lists that were just read may have told it
    now = context.clock()
    doubtful = [
        Entry(at=now, account=account, step="account_doubtful", caller="clore-mcp", order_id=lease.order_id)
        for lease in await context.readings.doubtful()
    ]
    running = [row for row in evidence.current.rows if not row.expired]
    rates = evidence.snapshot.rates
    happened = await context.state.read(
        lambda tx: ledger.of_steps(tx, account, events.NOTES, since=now - _EVENTS_SINCE_SECONDS, limit=_EVENTS_COUNTED)
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
    return {
        "wallets": _with_runway(await overview.balances(), evidence, [row for row in running if row.id in hourly]),
        "burn_usd_per_hour": shown(burn),
        "cost_not_known": unpriced[:_COSTS_SHOWN],
        "spent_usd": {"last_24_hours": shown(spent.day), "last_30_days": shown(spent.month)},
        **({"all_end_at": iso(spent.then[0]), "spent_then_usd": shown(spent.then[1])} if spent.then else {}),
        "fees": _fees(evidence.fees),
        "limits": _limits(context.settings.limits, used, Taken(burn, spent.day, len(running))),
        "pending_approvals": waiting[:SHOWN],
        "events": [_event(entry) for entry in told[:_EVENTS_SHOWN]],
        "more": _more(len(waiting) - SHOWN, len(told) - _EVENTS_SHOWN, len(unpriced) - _COSTS_SHOWN, context.program),
        **({"frozen": f"by {freeze.by}, since {iso(freeze.at)}"} if freeze else {}),
        "watchdog": "alive" if await context.enforced_by() else "absent",
    }


@dataclass(frozen=True, slots=True)
class SpentSummary:
    """What was spent in the last 24 hours and 30 days, in USD; and when all that bills ends, with its cost by then."""

    day: Decimal
    month: Decimal
    then: tuple[int, Decimal] | None


@dataclass(frozen=True, slots=True)
class Taken:
    """What of the limits is no reservation any more: billed an hour now, spent in a day, running."""

    usd_per_hour: Decimal
    usd_per_day: Decimal
    active_orders: int


def _spent(tx: Tx, account: str, evidence: Evidence, hourly: Mapping[int, Decimal | None], now: float) -> SpentSummary:
    api_now = evidence.api_now
    rows = {row.id: row for row in (*evidence.completed.rows, *evidence.current.rows)}
    lately = [row for row in rows.values() if (row.ended_at or api_now) > api_now - spent.MONTH]
    found = spent.costs(tx, account, lately, evidence.fees, evidence.snapshot.rates, api_now=api_now)
    day, month = (
        spent.spent_since(found, orders.receipts_since(tx, account, now - seconds), api_now - seconds)
        for seconds in (spent.DAY, spent.MONTH)
    )
    agreed = {end.order_id: end for end in reservations.ends(tx, account)}
    return SpentSummary(day, month, spent.then(hourly, agreed, found, api_now))


def _more(approvals: int, happened: int, unpriced: int, program: str) -> str | None:
    """What is not shown, and where it stands."""
    told = []
    if approvals > 0:
        told.append(f"And {approvals} more approvals: `{program} approvals` lists them.")
    if happened > 0:
        many = f"{happened} or more" if happened >= _EVENTS_COUNTED - _EVENTS_SHOWN else f"{happened} more"
        told.append(f"And {many} events: `{program} ledger` lists them.")
    if unpriced > 0:
        told.append(f"And {unpriced} more orders without a known cost: list_orders.")
    return " ".join(told) or None


def _with_runway(
    wallets: list[dict[str, Any]], evidence: Evidence, billing: Iterable[OrderRow]
) -> list[dict[str, Any]]:
    """The wallets, each with the hours until what bills now has emptied it."""
    burn: dict[str, Decimal] = {}
    for row in billing:
        coin = Coin.parse(row.currency or "")
        if coin is not None and row.price is not None:
            fee = evidence.fees.fraction(order_type_of(row), coin)
            burn[coin.ticker] = burn.get(coin.ticker, ZERO) + row.price / 24 * (1 + fee)
    balances = {coin.ticker: balance for coin, balance in evidence.wallets.balances.items()}
    lasts = {
        name: round(float(max(ZERO, balances[name]) / hourly), 1)
        for name, hourly in burn.items()
        if hourly and name in balances
    }
    return [{**wallet, "runway_hours": lasts.get(wallet["currency"])} for wallet in wallets]


def _limits(caps: Caps, used: Used, taken: Taken) -> dict[str, Any]:
    """Each cap with what is spent, and what is reserved on top: both together are what it counts as used."""
    rows = {
        "usd_per_hour": (caps.usd_per_hour, used.usd_per_hour, taken.usd_per_hour),
        "usd_per_order": (caps.usd_per_order, ZERO, ZERO),
        "usd_per_day": (caps.usd_per_day, used.usd_per_day, taken.usd_per_day),
        "active_orders": (Decimal(caps.active_orders), Decimal(used.active_orders), Decimal(taken.active_orders)),
    }
    return {
        name: {
            "cap": shown(cap),
            "spent": shown(min(use, spent)),
            "reserved": shown(use - min(use, spent)),
            "left": shown(max(ZERO, cap - use)),
        }
        for name, (cap, use, spent) in rows.items()
    }


def _fees(fees: Fees) -> dict[str, Any]:
    def percents(kind: OrderType) -> dict[str, float]:
        return {coin.ticker: round(float(fees.fraction(kind, coin) * 100), 3) for coin in Coin}

    return {
        "on_demand_percent": percents(OrderType.ON_DEMAND),
        "spot_percent": percents(OrderType.SPOT),
        "assumed": fees.assumed,
    }


def _event(entry: Entry) -> dict[str, Any]:
    return {
        "at": iso(entry.at),
        "what": entry.step.replace("_", " "),
        "order_id": entry.order_id,
        "note": events.note_of(entry),
    }


def _watching(watch: Watch) -> dict[str, Any]:
    return {
        "approval_id": watch.id,
        "what": clean(f"watch: {envelope_of(watch)}", _WHAT_SHOWN),
        "state": "approved",
        "expires_at": iso(watch.expires_at),
    }


def _waiting(quote: Quote) -> dict[str, Any]:
    return {
        "approval_id": quote.id,
        "what": clean(quote.question.split("\n", 1)[0], _WHAT_SHOWN),
        "state": quote.state,
        "expires_at": iso(quote.expires_at),
    }

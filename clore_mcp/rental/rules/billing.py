"""What orders cost, as Clore's rows show it: for the limits, the wallet and the bill. Pure.

`spend` excludes the fee and the creation fee (docs/clore-api.md, section 3), so both are added here. Limits count the
creation fee from the first second, as the documents disagree on the ten minutes; receipts follow the documented rule,
and name none for a bid that never won: nobody has seen one taken where nothing ran.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from clore_mcp.clore import OrderRow
from clore_mcp.market.listing import Listing
from clore_mcp.market.rates import HIGHEST_CREATION_FEE_USD, HIGHEST_FEE, Fees, OrderType, Rates, creation_fee_usd
from clore_mcp.money import SECONDS_PER_DAY, ZERO, Coin, DayPrice, coin_name, up_to_micro
from clore_mcp.rental.rules.limits import Shown
from clore_mcp.rental.spot import bid_record
from clore_mcp.rental.spot.bid_record import BidHistory
from clore_mcp.store.orders import Lease, OrderReceipt

CREATION_FEE_AFTER_SECONDS: Final = 600
_FLOAT_NOISE: Final = Decimal("1e-9")


@dataclass(frozen=True, slots=True)
class Bill:
    """What an order has cost, in USD."""

    hours: Decimal
    rent_usd: Decimal
    fee_usd: Decimal
    creation_fee_usd: Decimal
    never_won: bool = False  # a spot order for which Clore has billed nothing
    priced: bool = True  # False: nobody says what its coin is worth or what it has cost, so the parts are not known
    unsure: bool = False  # what a spot order has cost rests on when it had its server, which Clore does not tell

    @property
    def total_usd(self) -> Decimal:
        """The sum of the parts."""
        return self.rent_usd + self.fee_usd + self.creation_fee_usd

    def receipt(self) -> OrderReceipt:
        """For a person. Clore reports the rent; the fees are computed from its tables, so the whole is an estimate."""
        parts = (self.hours, self.rent_usd, self.fee_usd, self.creation_fee_usd, self.total_usd)
        hours, rent, fee, creation, total = (round(float(part), 6) for part in parts)
        return OrderReceipt(hours, rent, fee, creation, total)


def order_type_of(row: OrderRow) -> OrderType:
    """Clore marks spot orders only."""
    return OrderType.SPOT if row.spot else OrderType.ON_DEMAND


def free_cancel_until(row: OrderRow, fees: Fees, rates: Rates, lease: Lease | None, *, api_now: float) -> int | None:
    """Until when (Clore's clock) a cancel saves the creation fee. None once that is past, where an order has no such
    fee, and where nobody knows when it began. A spot order counts from its create: its server may have come later."""
    began = lease.started_api_at if lease else row.created_at
    coin = Coin.parse(row.currency or "")
    rate = rates.usd_per(coin) if coin else None
    free = coin is not None and rate is not None and not _creation_usd(row, fees, coin, rate)
    if began is None or row.expired or free or api_now >= began + CREATION_FEE_AFTER_SECONDS:
        return None
    return began + CREATION_FEE_AFTER_SECONDS


def never_won(row: OrderRow) -> bool:
    """Whether a spot order has had its server for nothing that Clore bills: its `spend` is told, and zero."""
    return bool(row.spot) and row.spend is not None and not row.spend


def usd_per_hour(row: OrderRow, fees: Fees, rates: Rates) -> Decimal | None:
    """What an order costs an hour while it runs, fee in; None where its coin or price is unknown."""
    coin = Coin.parse(row.currency or "")
    rate = rates.usd_per(coin) if coin else None
    if coin is None or rate is None or row.price is None:
        return None
    return DayPrice(row.price, coin).usd_per_hour(rate) * (1 + fees.fraction(order_type_of(row), coin))


def above(row: OrderRow, coin: Coin, ceiling_per_day: Decimal) -> bool:
    """Whether an order is dearer than approved, as far as its price is told, or in another coin: one that nobody knows
    may be worth anything, and a person's word can bring any here."""
    if names_coin(row) and Coin.parse(row.currency or "") is not coin:
        return True
    return row.price is not None and row.price > ceiling_per_day * (1 + _FLOAT_NOISE)


def names_coin(row: OrderRow) -> bool:
    """Whether the row tells a coin, known or not."""
    return bool((row.currency or "").strip())


def bill(
    row: OrderRow,
    fees: Fees,
    rates: Rates,
    *,
    api_now: float,
    lease: Lease | None = None,
    history: BidHistory | None = None,
) -> Bill:
    """What an order has cost so far, or in all once it has ended. An order made here keeps the rate it was approved at
    where the market has none. `history` is what is known of a spot order's bids; without it, what its row tells."""
    coin = Coin.parse(row.currency or "") or (Coin(lease.coin) if lease else None)
    rate = (rates.usd_per(coin) if coin else None) or (lease.usd_per_coin if lease else None)
    seconds = _seconds(row, api_now, lease)
    if row.spot and history is None:
        history = bid_record.of_row(row, began_of(row, lease, api_now))
    until = row.ended_at or api_now
    unsaid = row.spend is None and history is not None
    spent = history.most_spent(until) if unsaid and history is not None else spent_of(row, lease, api_now)
    if coin is None or rate is None or spent is None:
        return Bill(seconds / 3600, ZERO, ZERO, ZERO, priced=False)
    fewest, most = history.winning_seconds(spent, until) if history is not None else (seconds, seconds)
    kind = order_type_of(row)
    fraction = lease.fee_fraction if lease else fees.fraction(kind, coin)
    rent = up_to_micro(spent * rate)
    creation = _creation_usd(row, fees, coin, rate)
    unwon = never_won(row)
    charged = most > CREATION_FEE_AFTER_SECONDS and not unwon
    fee, once = up_to_micro(rent * fraction), up_to_micro(creation) if charged else ZERO
    unsure = unsaid or fewest <= CREATION_FEE_AFTER_SECONDS < most
    return Bill(seconds / 3600, rent, fee, once, never_won=unwon, unsure=unsure)


def _seconds(row: OrderRow, api_now: float, lease: Lease | None) -> Decimal:
    return max(ZERO, Decimal(str(row.ended_at or api_now)) - Decimal(began_of(row, lease, api_now)))


def began_of(row: OrderRow, lease: Lease | None, api_now: float) -> int:
    """When it began, by Clore's clock: one made here with its lease, which its create bounds."""
    return lease.started_api_at if lease else row.created_at or int(api_now)


def spent_of(row: OrderRow, lease: Lease | None, api_now: float) -> Decimal | None:
    """What an order has cost in its coin, fees aside. Where Clore does not say: its time at its price, or at what was
    approved; None where that is not known either."""
    if row.spend is not None:
        return row.spend
    began = lease.started_api_at if lease else row.created_at
    price = row.price if row.price is not None else lease.ceiling_native if lease else None
    if began is None or price is None:
        return None
    return price * max(ZERO, Decimal(str(row.ended_at or api_now)) - began) / SECONDS_PER_DAY


def shown_orders(
    active: Iterable[OrderRow],
    completed: Iterable[OrderRow],
    fees: Fees,
    rates: Rates,
    *,
    api_now: float,
    worst: Callable[[OrderRow], Decimal],
) -> list[Shown]:
    """Every order that still runs or cost something in the last 24 hours. `worst` says how many USD an hour an order
    counts as whose cost nobody knows.

    One that `completed`, read first, shows running and `active` no longer shows has ended in between.
    """
    running = {row.id: row for row in active if not row.expired}
    ended = [
        row for row in completed if row.id not in running and (row.ended_at or api_now) > api_now - SECONDS_PER_DAY
    ]
    return [_shown(row, fees, rates, api_now, worst, active=row.id in running) for row in (*running.values(), *ended)]


def _shown(
    row: OrderRow, fees: Fees, rates: Rates, api_now: float, worst: Callable[[OrderRow], Decimal], *, active: bool
) -> Shown:
    hourly = usd_per_hour(row, fees, rates) if active else ZERO
    last_day = _last_day(row, fees, rates, api_now)
    if hourly is not None and last_day is not None:
        return Shown(row.id, active, hourly, last_day)
    dearest = worst(row)
    began, until = row.created_at or api_now - SECONDS_PER_DAY, row.ended_at or api_now
    seconds = min(Decimal(SECONDS_PER_DAY), max(ZERO, Decimal(str(until)) - Decimal(str(began))))
    return Shown(
        row.id,
        active,
        hourly if hourly is not None else dearest,
        last_day if last_day is not None else up_to_micro(dearest * seconds / 3600 + HIGHEST_CREATION_FEE_USD),
        priced=False,
    )


def worst_usd_per_hour(row: OrderRow, listing: Listing | None, rates: Rates, cap: Decimal) -> Decimal:
    """What an order counts as whose cost nobody knows: the dearest price that is known of it, with the highest fee.
    That is its own in a coin that is unknown, read as USD (Clore names USDT and USDC), or its server's, in any coin.
    Where no price is known at all it takes the whole hourly cap, so that no cap is passed."""
    known = [DayPrice(row.price, Coin.USD)] if row.price is not None and _unknown_coin(row) else []
    if listing is not None:
        listed = (*listing.on_demand.items(), *listing.spot.items())
        known += [DayPrice(price, coin) for coin, price in listed]
    fee = 1 + HIGHEST_FEE[OrderType.ON_DEMAND]
    dear = [day.usd_per_hour(rate) * fee for day in known if (rate := rates.usd_per(day.coin)) is not None]
    return max(dear, default=cap)


def _unknown_coin(row: OrderRow) -> bool:
    return names_coin(row) and Coin.parse(row.currency or "") is None


def why_unpriced(row: OrderRow) -> str:
    """Why nobody says what an order costs."""
    if row.price is None:
        return "Clore names no price for it that makes sense"
    coin = coin_name(row.currency)
    return f"it is paid in {coin}, which has no rate in USD here" if coin else "Clore names no coin for it"


def _creation_usd(row: OrderRow, fees: Fees, coin: Coin, rate: Decimal) -> Decimal:
    """The creation fee that a row names, else the one of the tables."""
    usual = fees.creation_usd(order_type_of(row), coin, rate)
    return usual if row.creation_fee is None else creation_fee_usd(row.creation_fee, rate, usual)


def drained(
    coin: Coin, rows: Iterable[OrderRow], leases: Mapping[int, Lease], fees: Fees, hours: Decimal, *, api_now: float
) -> Decimal:
    """How much of a coin the running orders will take over `hours`: ours until the end that cancels them, others
    throughout."""
    total = ZERO
    for row in rows:
        if row.expired or Coin.parse(row.currency or "") is not coin or row.price is None:
            continue
        lease = leases.get(row.id)
        left = hours
        if lease is not None and lease.on_end == "cancel":
            left = min(hours, max(ZERO, Decimal(lease.ends_api_at - int(api_now)) / 3600))
        total += row.price / 24 * (1 + fees.fraction(order_type_of(row), coin)) * left
    return total


def _last_day(row: OrderRow, fees: Fees, rates: Rates, api_now: float) -> Decimal | None:
    coin = Coin.parse(row.currency or "")
    rate = rates.usd_per(coin) if coin else None
    spent = spent_of(row, None, api_now)
    if coin is None or rate is None or spent is None:
        return None
    if row.price and not row.spot:  # a spot bid may have been higher than it is now
        spent = min(spent, row.price)  # no day costs more than a day's price
    rent = spent * rate
    kind = order_type_of(row)
    creation = _creation_usd(row, fees, coin, rate)
    young = (row.created_at or api_now) > api_now - SECONDS_PER_DAY
    return up_to_micro(rent * (1 + fees.fraction(kind, coin))) + (up_to_micro(creation) if young else ZERO)

"""Reads Clore's rows of orders: which create made an order, and what it costs, for limits, wallet and bill.

`spend` excludes the fee and the creation fee (docs/clore-api.md, section 3), so both are added here. Limits count the
creation fee from the first second, because the documents disagree on the ten minutes. Receipts follow the documented
rule. They have no creation fee for a bid that never won, because no case is known in which one was charged without a
running order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from clore_mcp.clore import OrderRow
from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import (
    CREATION_FEE_AFTER_SECONDS,
    HIGHEST_CREATION_FEE_USD,
    HIGHEST_FEE,
    Fees,
    OrderType,
    Rates,
    creation_fee_usd,
)
from clore_mcp.money import SECONDS_PER_DAY, ZERO, Coin, DayPrice, coin_name, up_to_micro
from clore_mcp.rental.rules import bid_record
from clore_mcp.rental.rules.bid_record import BidHistory
from clore_mcp.store import Intent, Lease, OrderReceipt

_FLOAT_NOISE: Final = Decimal("1e-9")
# An order created more than this before or after a create was sent, by Clore's clock, is not its order.
_OLDER_SECONDS: Final = 120
_YOUNGER_SECONDS: Final = 900


def matches(intent: Intent, rows: Iterable[OrderRow], taken: Set[int]) -> list[OrderRow]:
    """Return the orders that this intent may have made: same server, image, type and coin, new since, not adopted."""
    return [row for row in rows if row.server_id == intent.server_id and may_be_of(intent, row, taken)]


def may_be_of(intent: Intent, row: OrderRow, taken: Set[int]) -> bool:
    """Return whether an order may belong to an intent, apart from its server."""
    return (
        row.id not in intent.known_order_ids
        and row.id not in taken
        and bool(row.spot) == (intent.order_type == "spot")
        and (row.image is None or _bare(row.image) == _bare(intent.image))
        and Coin.parse(row.currency or "") in (None, Coin(intent.coin))  # `above` judges an unknown coin
        and _made_then(intent.sent_api_at, row.created_at)
    )


def _made_then(sent_api_at: float | None, created_at: float | None) -> bool:
    """Return whether an order may come from a create sent at that time. Unknown times rule nothing out."""
    if sent_api_at is None or created_at is None:
        return True
    return sent_api_at - _OLDER_SECONDS <= created_at <= sent_api_at + _YOUNGER_SECONDS


def _bare(image: str) -> str:
    name = image.removeprefix("docker.io/").removeprefix("library/")
    return name.removesuffix(":latest")


@dataclass(frozen=True, slots=True)
class Bill:
    """The cost of an order so far, in USD."""

    hours: Decimal
    rent_usd: Decimal
    fee_usd: Decimal
    creation_fee_usd: Decimal
    never_won: bool = False  # a spot order for which Clore has billed nothing
    priced: bool = True  # False: the coin's rate or the amount spent is unknown, so the parts are unknown
    unsure: bool = False  # the cost of a spot order depends on when it had its server, which Clore does not report

    @property
    def total_usd(self) -> Decimal:
        """The sum of the parts."""
        return self.rent_usd + self.fee_usd + self.creation_fee_usd

    def receipt(self) -> OrderReceipt:
        """Return a receipt for a person. The fees come from Clore's tables, so the total is an estimate."""
        parts = (self.hours, self.rent_usd, self.fee_usd, self.creation_fee_usd, self.total_usd)
        hours, rent, fee, creation, total = (round(float(part), 6) for part in parts)
        return OrderReceipt(hours, rent, fee, creation, total)


def order_type_of(row: OrderRow) -> OrderType:
    """Return the order's type. Clore marks only spot orders."""
    return OrderType.SPOT if row.spot else OrderType.ON_DEMAND


def free_cancel_until(row: OrderRow, fees: Fees, rates: Rates, lease: Lease | None, *, api_now: float) -> int | None:
    """Return the time (Clore's clock) until which a cancel saves the creation fee. None if that time has passed, the
    order has no such fee, or its start is unknown. A spot order counts from its create, although it may get its server
    later."""
    began = lease.started_api_at if lease else row.created_at
    coin, rate = _coin_and_rate(row, rates)
    free = coin is not None and rate is not None and not _creation_usd(row, fees, coin, rate)
    if began is None or row.expired or free or api_now >= began + CREATION_FEE_AFTER_SECONDS:
        return None
    return began + CREATION_FEE_AFTER_SECONDS


def never_won(row: OrderRow) -> bool:
    """Return whether a spot order has never won: Clore reports its `spend` as zero."""
    return bool(row.spot) and row.spend is not None and not row.spend


def usd_per_hour(row: OrderRow, fees: Fees, rates: Rates) -> Decimal | None:
    """Return the order's cost per hour while it runs, including fees, or None if its coin or price is unknown."""
    coin, rate = _coin_and_rate(row, rates)
    if coin is None or rate is None or row.price is None:
        return None
    return DayPrice(row.price, coin).usd_per_hour(rate) * (1 + fees.fraction(order_type_of(row), coin))


def _coin_and_rate(row: OrderRow, rates: Rates) -> tuple[Coin | None, Decimal | None]:
    coin = Coin.parse(row.currency or "")
    return coin, rates.usd_per(coin) if coin else None


def above(row: OrderRow, coin: Coin, ceiling_per_day: Decimal) -> bool:
    """Return whether an order costs more than approved, if its price is known, or is paid in another coin. A coin that
    we do not know may be worth anything, and `settle` lets a person name any order."""
    if names_coin(row) and Coin.parse(row.currency or "") is not coin:
        return True
    return row.price is not None and row.price > ceiling_per_day * (1 + _FLOAT_NOISE)


def names_coin(row: OrderRow) -> bool:
    """Return whether the row names a coin, known or not."""
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
    """Return what an order has cost so far, or in total once it has ended. If the market has no rate, an order made
    here keeps the rate at which it was approved. `history` holds a spot order's bids; without it, its row is used."""
    coin = Coin.parse(row.currency or "") or (Coin(lease.coin) if lease else None)
    rate = (rates.usd_per(coin) if coin else None) or (lease.usd_per_coin if lease else None)
    began, until = began_of(row, lease, api_now), row.ended_at or api_now
    seconds = max(ZERO, Decimal(str(until)) - began)
    if row.spot and history is None:
        history = bid_record.of_row(row, began)
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


def began_of(row: OrderRow, lease: Lease | None, api_now: float) -> int:
    """Return when an order began, by Clore's clock. An order made here begins with its lease."""
    return lease.started_api_at if lease else row.created_at or int(api_now)


def spent_of(row: OrderRow, lease: Lease | None, api_now: float) -> Decimal | None:
    """Return what an order has cost in its coin, without fees. If Clore does not report it, compute it from the order's
    time and its price, or else the approved price. Returns None if those are unknown too."""
    if row.spend is not None:
        return row.spend
    began = lease.started_api_at if lease else row.created_at
    price = row.price if row.price is not None else lease.ceiling_native if lease else None
    if began is None or price is None:
        return None
    return price * max(ZERO, Decimal(str(row.ended_at or api_now)) - began) / SECONDS_PER_DAY


@dataclass(frozen=True, slots=True)
class ListedCost:
    """An order as Clore shows it: its cost per hour while active and its cost in the last 24 hours, in USD."""

    order_id: int
    active: bool
    usd_per_hour: Decimal
    usd_last_day: Decimal
    priced: bool = True  # False: the cost is unknown, and the amounts are the highest that its known prices allow


def shown_orders(
    active: Iterable[OrderRow],
    completed: Iterable[OrderRow],
    fees: Fees,
    rates: Rates,
    *,
    api_now: float,
    worst: Callable[[OrderRow], Decimal],
) -> list[ListedCost]:
    """Return every order that still runs or cost something in the last 24 hours. `worst` returns the USD per hour that
    an order of unknown cost counts as.

    An order that `completed`, which is read first, shows as running and `active` no longer shows has ended in between.
    """
    running = {row.id: row for row in active if not row.expired}
    ended = [
        row for row in completed if row.id not in running and (row.ended_at or api_now) > api_now - SECONDS_PER_DAY
    ]
    return [_shown(row, fees, rates, api_now, worst, active=row.id in running) for row in (*running.values(), *ended)]


def _shown(
    row: OrderRow, fees: Fees, rates: Rates, api_now: float, worst: Callable[[OrderRow], Decimal], *, active: bool
) -> ListedCost:
    hourly = usd_per_hour(row, fees, rates) if active else ZERO
    last_day = _last_day(row, fees, rates, api_now)
    if hourly is not None and last_day is not None:
        return ListedCost(row.id, active, hourly, last_day)
    dearest = worst(row)
    began, until = row.created_at or api_now - SECONDS_PER_DAY, row.ended_at or api_now
    seconds = min(Decimal(SECONDS_PER_DAY), max(ZERO, Decimal(str(until)) - Decimal(str(began))))
    return ListedCost(
        row.id,
        active,
        hourly if hourly is not None else dearest,
        last_day if last_day is not None else up_to_micro(dearest * seconds / 3600 + HIGHEST_CREATION_FEE_USD),
        priced=False,
    )


def worst_usd_per_hour(row: OrderRow, listing: Listing | None, rates: Rates, cap: Decimal) -> Decimal:
    """Return what an order of unknown cost counts as per hour: its highest known price with the highest fee. That is
    its own price in an unknown coin, read as USD (Clore names USDT and USDC), or its server's price in any coin. If no
    price is known, it takes the whole hourly cap, so that no cap is exceeded."""
    in_unknown_coin = names_coin(row) and Coin.parse(row.currency or "") is None
    known = [DayPrice(row.price, Coin.USD)] if row.price is not None and in_unknown_coin else []
    if listing is not None:
        listed = (*listing.on_demand.items(), *listing.spot.items())
        known += [DayPrice(price, coin) for coin, price in listed]
    fee = 1 + HIGHEST_FEE[OrderType.ON_DEMAND]
    dear = [day.usd_per_hour(rate) * fee for day in known if (rate := rates.usd_per(day.coin)) is not None]
    return max(dear, default=cap)


def why_unpriced(row: OrderRow) -> str:
    """Return why an order's cost is unknown."""
    if row.price is None:
        return "Clore names no usable price for it"
    coin = coin_name(row.currency)
    return f"it is paid in {coin}, whose USD rate is unknown" if coin else "Clore names no coin for it"


def _creation_usd(row: OrderRow, fees: Fees, coin: Coin, rate: Decimal) -> Decimal:
    """Return the creation fee that the row names, or else the one in the fee tables."""
    usual = fees.creation_usd(order_type_of(row), coin, rate)
    return usual if row.creation_fee is None else creation_fee_usd(row.creation_fee, rate, usual)


def drained(
    coin: Coin, rows: Iterable[OrderRow], leases: Mapping[int, Lease], fees: Fees, hours: Decimal, *, api_now: float
) -> Decimal:
    """Return how much of a coin the running orders will take over `hours`. Orders made here count until the end at
    which they are cancelled, others for all of the hours."""
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
    coin, rate = _coin_and_rate(row, rates)
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

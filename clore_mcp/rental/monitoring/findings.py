"""Finds problems of orders and wallets from Clore's rows, Clore's clock and what this state knows. Pure functions.

A memory of the conditions that held last turns each problem into one event each time it begins. It is kept while a
list of orders happens to miss an order. A condition that can't be judged (a reading is missing) stays as it was.

How certain each sign is (docs/clore-api.md, sections 3, 4 and 6): `mon_container` 2 means that a container is up, seen
in many captures. A server's book shows whether a spot bid runs (`active`). `online` of an order is about its host. It
was true in each capture and never false, so it must be false for two minutes. A host that is missing from the
marketplace proves nothing, because how Clore lists an offline host has never been seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from clore_mcp.clore import OrderRow
from clore_mcp.market.pricing import Fees
from clore_mcp.money import ZERO, Coin, plain
from clore_mcp.rental.rules.billing import above, order_type_of
from clore_mcp.store import End, Lease

DEPLOY_SECONDS: Final = 900.0
OFFLINE_SECONDS: Final = 120.0
UNENDED_HOURS: Final = Decimal(24)  # how long a wallet must last for orders that nothing here ends
_ENOUGH_AGAIN: Final = Decimal("1.05")  # of the need, to end a shortage: else each minute's bill could make an event
_REMEMBERED_SECONDS: Final = 86_400.0
_KINDS: Final[Mapping[str, float]] = {  # kinds of event, and how many seconds each must hold
    "never_deployed": 0.0,
    "outbid": 0.0,
    "host_offline": OFFLINE_SECONDS,
    "wallet_short": 0.0,
    "costs_more": 0.0,
    "unleased": 0.0,
}


Figures = dict[str, str | float | list[int]]
"""The figures of an event, as stored in the ledger."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One present problem. `step` is its name in the ledger."""

    step: str
    order_id: int | None = None
    server_id: int | None = None
    figures: Figures = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FindingState:
    """The time since which a condition holds (Clore's clock), and whether it has been reported."""

    since: float
    told: bool = False


Memory = dict[str, dict[str, FindingState]]
"""The conditions that hold for each order (by id) and each wallet (by coin)."""


@dataclass(frozen=True, slots=True)
class AccountSeen:
    """The account as Clore shows it. `wins` holds whether each spot order is running, if its book could be read.
    `balances` is None if the wallets could not be read. Only a `whole` list shows that an order is gone."""

    rows: Sequence[OrderRow]
    wins: Mapping[int, bool]
    balances: Mapping[Coin, Decimal] | None
    fees: Fees
    api_now: float
    whole: bool = True


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """The account as this state knows it: orders made here, agreed ends, servers with a create in progress, orders that
    a create which seemed to fail may have made, and orders whose bid is being changed."""

    leases: Mapping[int, Lease]
    ends: Mapping[int, End]
    made_here: Set[int]
    creating_on: Set[int]
    may_be_ours: Set[int]
    bidding: Set[int]


def judge(seen: AccountSeen, known: AccountRecord, before: Memory) -> tuple[Memory, list[Finding]]:
    """Return the conditions that hold now, and the problems to report: each once, after its minimum time."""
    after: Memory = {}
    new: list[Finding] = []
    rows = [row for row in seen.rows if not row.expired]
    for row in rows:
        was = before.get(str(row.id), {})
        held = _held(was, _conditions(row, was, seen, known), seen.api_now)
        told = _told(held, seen.api_now)
        after[str(row.id)] = held | told
        new += [_about(row, step, seen.api_now, known) for step in told]
    for coin in Coin:
        was = before.get(coin.value, {})
        short = _shortage(coin, rows, seen, known, stands="wallet_short" in was)
        held = _held(was, {"wallet_short": None if short is None else bool(short)}, seen.api_now)
        told = _told(held, seen.api_now)
        if held:
            after[coin.value] = held | told
        if short and told:
            new.append(Finding("wallet_short", figures=short))
    return after | _absent(before, after, seen), new


def standing(memory: Memory, seen: AccountSeen, known: AccountRecord) -> list[Finding]:
    """Return every problem that holds now and has lasted for its minimum time, not only new ones."""
    found = [
        _about(row, step, seen.api_now, known)
        for row in seen.rows
        for step, stand in memory.get(str(row.id), {}).items()
        if stand.told and step in _KINDS and not row.expired
    ]
    for coin in Coin:
        if "wallet_short" in memory.get(coin.value, {}):
            short = _shortage(coin, [row for row in seen.rows if not row.expired], seen, known, stands=True)
            found += [Finding("wallet_short", figures=short)] if short else []
    return found


def _held(was: Mapping[str, FindingState], holds: Mapping[str, bool | None], api_now: float) -> dict[str, FindingState]:
    """Return the conditions that hold now. None means that it can't be judged, so it stays as it was."""
    now = {name: was.get(name, FindingState(api_now)) for name, true in holds.items() if true}
    return now | {name: was[name] for name, true in holds.items() if true is None and name in was}


def _told(held: Mapping[str, FindingState], api_now: float) -> dict[str, FindingState]:
    """Return the unreported conditions that have held for long enough, marked as reported."""
    return {
        name: FindingState(stand.since, told=True)
        for name, stand in held.items()
        if not stand.told and name in _KINDS and api_now - stand.since >= _KINDS[name]
    }


def _absent(before: Memory, after: Memory, seen: AccountSeen) -> Memory:
    """Return the memory of orders that the list does not show: for a day, and while the list is incomplete."""
    left = {}
    for name, was in before.items():
        if name in after or not name.isdigit():
            continue
        gone = was.get("gone", FindingState(seen.api_now))
        if not seen.whole or seen.api_now - gone.since < _REMEMBERED_SECONDS:
            left[name] = {**was, "gone": gone}
    return left


def _conditions(
    row: OrderRow, was: Mapping[str, FindingState], seen: AccountSeen, known: AccountRecord
) -> dict[str, bool | None]:
    wins = seen.wins.get(row.id) if row.spot else True
    won = "wins" in was if wins is None else wins
    ran = "ran" in was or bool(row.spend) or (won and bool(row.spot))
    up = row.deployed or ("up" in was and won)
    return {
        "wins": wins,
        "ran": ran,
        "up": up and won,
        "never_deployed": _undeployed(row, was, up=up, wins=wins, api_now=seen.api_now),
        "outbid": None if wins is None else bool(row.spot) and ran and not wins,
        "host_offline": False if wins is False else None if row.online is None else not row.online,
        "costs_more": _dearer(row, known),
        "unleased": _unleased(row, known),
    }


def _unleased(row: OrderRow, known: AccountRecord) -> bool | None:
    """Return whether the order was neither made here nor given an end here. None while it may come from a create that
    seemed to fail, or from one in progress: on its server, or on any if Clore does not report its server."""
    if row.id in known.ends or row.id in known.made_here:
        return False
    if row.id in known.may_be_ours or row.server_id in known.creating_on:
        return None
    if row.server_id is None and known.creating_on:
        return None
    return True


def _undeployed(
    row: OrderRow, was: Mapping[str, FindingState], *, up: bool, wins: bool | None, api_now: float
) -> bool | None:
    """Return whether a billed container is not up in time, or None if unknown. A spot order's time starts when its
    bid wins."""
    if up or wins is False:
        return False
    if wins is None or row.container is None or row.created_at is None:
        return None
    since = was.get("wins", FindingState(api_now)).since if row.spot else row.created_at
    return api_now - since >= DEPLOY_SECONDS


def _dearer(row: OrderRow, known: AccountRecord) -> bool | None:
    """Return whether a spot bid is above the approved price, or None while it is being changed. On-demand orders
    above it are ended at once (closure.py)."""
    lease = known.leases.get(row.id)
    if lease is None or not row.spot:
        return False
    if row.id in known.bidding:
        return None
    return above(row, Coin(lease.coin), lease.ceiling_native)


def _about(row: OrderRow, step: str, api_now: float, known: AccountRecord) -> Finding:
    coin = Coin.parse(row.currency or "")
    figures: Figures = {}
    if row.price is not None and coin is not None:
        figures = {"price_per_day": plain(row.price), "coin": coin.ticker}
    if row.created_at is not None:
        figures["minutes"] = max(0, int(api_now - row.created_at) // 60)
    lease = known.leases.get(row.id)
    if step == "costs_more" and lease is not None:
        figures["ceiling_per_day"] = plain(lease.ceiling_native)
    return Finding(step, row.id, row.server_id, figures)


def _shortage(
    coin: Coin, rows: Iterable[OrderRow], seen: AccountSeen, known: AccountRecord, *, stands: bool
) -> Figures | None:
    """Return the figures of a wallet that does not last until the end of the orders that it pays for. Return {} if it
    lasts, and None if that is unknown. A bid counts as winning, because it may win at any time."""
    paying = [row for row in rows if Coin.parse(row.currency or "") is coin and row.price is not None]
    if not paying:
        return {}
    if seen.balances is None or coin not in seen.balances:
        return None
    draws = [(_per_hour(row, coin, seen.fees), _hours_left(row, seen, known)) for row in paying]
    balance, needed = seen.balances[coin], sum((hourly * hours for hourly, hours in draws), ZERO)
    if balance >= needed * (_ENOUGH_AGAIN if stands else 1):
        return {}
    return {
        "coin": coin.ticker,
        "hours_left": float(round(lasts_hours(balance, draws), 1)),
        "hours_needed": float(round(max(hours for _, hours in draws), 1)),
        "orders": [row.id for row in paying],
    }


def lasts_hours(balance: Decimal, draws: Iterable[tuple[Decimal, Decimal]]) -> Decimal:
    """Return how many hours a balance lasts, up to the end of the last draw. A draw is an amount per hour and the hours
    for which it is taken."""
    left, at = max(ZERO, balance), ZERO
    open_ = sorted(draws, key=lambda draw: draw[1])
    for place, (_, until) in enumerate(open_):
        hourly = sum((each for each, _ in open_[place:]), ZERO)
        if hourly * (until - at) > left:
            return at + left / hourly
        left -= hourly * (until - at)
        at = until
    return at


def _per_hour(row: OrderRow, coin: Coin, fees: Fees) -> Decimal:
    return (row.price or ZERO) / 24 * (1 + fees.fraction(order_type_of(row), coin))


def _hours_left(row: OrderRow, seen: AccountSeen, known: AccountRecord) -> Decimal:
    end = known.ends.get(row.id)
    if end is None or end.on_end != "cancel":
        return UNENDED_HOURS
    return max(ZERO, Decimal(end.ends_api_at - int(seen.api_now)) / 3600)


def memory_from(text: str | None) -> tuple[Memory, float]:
    """Return the stored memory, and when the list of orders it is based on was read. Empty and 0 if there is none."""
    try:
        kept = json.loads(text or "")
        stands = {
            about: {name: FindingState(float(since), bool(told)) for name, (since, told) in held.items()}
            for about, held in kept["of"].items()
        }
        return stands, float(kept["at"])
    except (ValueError, TypeError, KeyError, AttributeError):  # another version's: reporting twice is better than never
        return {}, 0.0


def memory_as(memory: Memory, at: float) -> str:
    """Return the text that `memory_from` reads."""
    of = {about: {name: [one.since, int(one.told)] for name, one in held.items()} for about, held in memory.items()}
    return json.dumps({"at": at, "of": of}, separators=(",", ":"))

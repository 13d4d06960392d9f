"""What people approved, as the questions showed it to them. This is the machine's own record, read only from the
texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from tests.machine.market import TICKERS, USD

STALE: Final = 20.0
"""Seconds: a decision's data may be ten seconds old, its send may be eight seconds later, and clocks differ
slightly."""

_QUOTE: Final = re.compile(r"^Quote (q\w+)\.", re.M)
_FIRST: Final = re.compile(r"^Server (\d+):", re.M)
_HOURS: Final = re.compile(r"\ARent .* for ([\d.]+) hours?,")
_NATIVE: Final = re.compile(r"\(([\d.]+) (\w+) per day (listed|bid)\)")
_MOST: Final = re.compile(r"at most \$([\d.]+) per hour including fees")
_FALLBACK: Final = re.compile(r"^If it is gone, server (\d+): .* at most \$([\d.]+) per hour$", re.M)
_TAG: Final = re.compile(r"(2\d{4})/tcp")
_CANCEL: Final = re.compile(r"\ACancel order (\d+) ")
_BID: Final = re.compile(r"\ARaise the bid of spot order (\d+) to \S+ per hour, including fees \(([\d.]+) ")
_EXTEND: Final = re.compile(r"\AExtend order (\d+) by ([\d.]+) hours?, to ")
_END: Final = re.compile(r"\AEnd order (\d+) in [\d.]+ hours?, at (\S+)\? ")
_WATCH: Final = re.compile(
    r"\ARent later without asking again: (?:one server|up to (?P<count>\d+) servers) of (?P<gpus>.+) for"
    r" (?P<hours>[\d.]+) hours?(?: each)?, whenever one costs \$(?P<most>[\d.]+) per hour or less\?$",
    re.M,
)
_WATCH_WORST: Final = re.compile(r"; worst case \$([\d.]+)(?: each, \$[\d.]+ in total)?\. Limits apply\.$", re.M)
_WATCH_UNTIL: Final = re.compile(r"^Until: (\S+) \(", re.M)
_ROOM: Final = Decimal("1.03")  # if the coin isn't USD, as the question says
ASKED_LASTS: Final = 600.0
OUTSIDE_LASTS: Final = 1_800.0
_MOMENT: Final = 0.1
_SLIP: Final = 2.0


@dataclass(frozen=True, slots=True)
class Consent:
    """One approval of one order, or one call that only the limits decide, for which the ceilings are None.

    A watch's approval is for `most_orders`, each on any server that fits.
    """

    key: str
    tag: int
    first: int
    usd_per_hour: Mapping[int, Decimal | None]
    native_per_day: Decimal | None
    coins: frozenset[str]  # of the first server; empty means any
    hours: Decimal
    spot: bool
    ends_enforced: bool
    since: float
    until: float
    most_usd: Decimal | None = None  # of a watch: the worst case of one order, in total
    most_orders: int = 1
    watch: bool = False

    def stood(self, at: float) -> bool:
        """Return whether an order that was requested then may be based on it."""
        return self.since - _SLIP <= at <= self.until + STALE

    def takes(self, coin: str, server_id: int) -> bool:
        """Return whether an order on this server may be paid in that coin."""
        return not self.coins or coin in self.coins or server_id != self.first


@dataclass(slots=True)
class Consents:
    """All approvals. An order carries its request's tag as one of its ports, which the product does not interpret."""

    orders: dict[str, Consent] = field(default_factory=dict)
    cancels: set[int] = field(default_factory=set)
    bids: dict[int, Decimal] = field(default_factory=dict)
    more_hours: dict[int, Decimal] = field(default_factory=dict)  # by which an order's end may have been moved
    ends: dict[int, float] = field(default_factory=dict)  # of an order that was not yet known to be ours
    declined: set[str] = field(default_factory=set)
    models: Mapping[int, str] = field(default_factory=dict)  # each server's GPU

    def yes(self, text: str, now: float, lasts: float) -> None:
        """Record that a person has read this and approved it."""
        if found := _CANCEL.match(text):
            self.cancels.add(int(found[1]))
        elif found := _EXTEND.match(text):
            self.extended(int(found[1]), Decimal(found[2]))
        elif found := _END.match(text):
            order_id, at = int(found[1]), datetime.fromisoformat(found[2]).timestamp()
            self.ends[order_id] = max(self.ends.get(order_id, 0.0), at)
        elif found := _BID.match(text):
            order_id = int(found[1])
            self.bids[order_id] = max(self.bids.get(order_id, Decimal(0)), Decimal(found[2]))
        elif _WATCH.match(text):
            self._keep(read_watch(text, now, self.models))
        else:
            consent = read_rent(text, now, lasts)
            self._keep(consent)

    def extended(self, order_id: int, hours: Decimal) -> None:
        """Record that an order's end may move by those hours."""
        self.more_hours[order_id] = self.more_hours.get(order_id, Decimal(0)) + hours

    def _keep(self, consent: Consent) -> None:
        if consent.key not in self.declined:
            self.orders.setdefault(consent.key, consent)

    def take_back(self, text: str) -> None:
        """Withdraw an approval that was not used."""
        key = quote_of(text)
        self.declined.add(key)
        self.orders.pop(key, None)

    def void(self, now: float, *, moving: bool) -> None:
        """End all approvals, because spending is frozen. `moving`: a create may be between its claim and its send."""
        until = now if moving else now - STALE + _MOMENT
        for one in self.orders.values():
            if one.until != float("inf"):
                self.orders[one.key] = replace(one, until=min(one.until, until))

    def no(self, text: str) -> None:
        """Record that a person has read this and declined it, and that the process has received the answer."""
        if quote_of(text) not in self.orders:
            self.declined.add(quote_of(text))

    def limits_decide(self, number: int, wish: Mapping[str, Any], tag: int, now: float) -> None:
        """Record a call in the mode in which no one is asked."""
        servers = [wish["server_id"], *wish.get("fallback_server_ids", [])]
        key = f"call {number}"
        self.orders[key] = Consent(
            key=key,
            tag=tag,
            first=servers[0],
            usd_per_hour=dict.fromkeys(servers),
            native_per_day=None,
            coins=frozenset([wish["currency"]] if "currency" in wish else []),
            hours=Decimal(str(wish["hours"])),
            spot=wish.get("order_type") == "spot",
            ends_enforced=True,
            since=now,
            until=float("inf"),  # a stopped call may continue whenever it resumes, and its limits are judged then
        )

    def limits_watch(self, number: int, wish: Mapping[str, Any], tag: int, now: float) -> None:
        """Record a call for a watch in that mode. What it asks for is what it may have."""
        key = f"call {number}"
        most = Decimal(str(wish["max_usd_per_hour"]))
        self.orders[key] = Consent(
            key=key,
            tag=tag,
            first=0,
            usd_per_hour={one: most for one, model in self.models.items() if model.endswith(wish["gpu"])},
            native_per_day=None,
            coins=frozenset(),
            hours=Decimal(str(wish["hours"])),
            spot=False,
            ends_enforced=True,
            since=now,
            until=float("inf"),  # until the call is over, because only then it is known when its watch ends
            most_orders=wish["max_orders"],
            watch=True,
        )

    def watch_begun(self, number: int, hours: float, now: float) -> None:
        """Record that the call is over. If it made a watch, the watch ends by then."""
        one = self.orders[f"call {number}"]
        self.orders[one.key] = replace(one, until=now + hours * 3600)

    def call_off(self, quote: str, tag: int, now: float, *, moving: bool) -> None:
        """End a cancelled watch's approval: the one of that question, or the one that the limits gave for that
        request."""
        until = now if moving else now - STALE + _MOMENT
        for one in self.of(tag):
            by_limits = one.watch and one.key.startswith("call") and one.until != float("inf")
            if one.key == quote or by_limits:
                self.orders[one.key] = replace(one, until=min(one.until, until))

    def of(self, tag: int) -> list[Consent]:
        return [one for one in self.orders.values() if one.tag == tag]


def quote_of(text: str) -> str:
    """Return the quote that a question is about, or "" if it names none."""
    found = _QUOTE.search(text)
    return found[1] if found else ""


def read_rent(text: str, now: float, lasts: float) -> Consent:
    """Return what a question about a rental asks for."""
    quote, first, hours, native, most, tag = (
        _one(pattern, text) for pattern in (_QUOTE, _FIRST, _HOURS, _NATIVE, _MOST, _TAG)
    )
    coin = TICKERS[native[2]]
    spot = native[3] == "bid"
    room = Decimal(1) if coin == USD or spot else _ROOM
    others = {int(found[1]): Decimal(found[2]) for found in _FALLBACK.finditer(text)}
    return Consent(
        key=quote[1],
        tag=int(tag[1]),
        first=int(first[1]),
        usd_per_hour={int(first[1]): Decimal(most[1]), **others},
        native_per_day=Decimal(native[1]) * room,
        coins=frozenset([coin]),
        hours=Decimal(hours[1]),
        spot=spot,
        ends_enforced="\nEnd: cancelled after" in text,
        since=now,
        until=now + lasts,
    )


def read_watch(text: str, now: float, models: Mapping[int, str]) -> Consent:
    """Return what a question about a watch asks for."""
    quote, asked, worst, until, tag = (
        _one(pattern, text) for pattern in (_QUOTE, _WATCH, _WATCH_WORST, _WATCH_UNTIL, _TAG)
    )
    most, hours, named = Decimal(asked["most"]), Decimal(asked["hours"]), asked["gpus"].split(" or ")
    return Consent(
        key=quote[1],
        tag=int(tag[1]),
        first=0,
        usd_per_hour={server: most for server, model in models.items() if model in named},
        native_per_day=None,
        coins=frozenset(),
        hours=hours,
        spot=False,
        ends_enforced="\nRents, and cancels after" in text,
        since=now,
        until=datetime.fromisoformat(until[1]).timestamp(),
        most_usd=Decimal(worst[1]),
        most_orders=int(asked["count"] or 1),
        watch=True,
    )


def _one(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = pattern.search(text)
    assert found is not None, f"the question does not say it ({pattern.pattern}): {text}"
    return found

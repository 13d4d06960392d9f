"""An envelope: a person's yes to one rental by any of several servers, within a price, a time and a sum.

It is given in a terminal only (`clore-mcp approve`), so that a failover to a server that nobody had thought of needs no
second question. Everything but the server, the hours and the bid stays as it was asked: image, command, ports, env,
SSH key, coin, order type, end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from clore_mcp.money import Coin, dollars, plain
from clore_mcp.rental.rules.terms import Candidate, Terms, worst_hours, worst_usd


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a rental may come to at most. `max_usd` is the worst case: end slack, fees and margins in."""

    server_ids: frozenset[int]
    coins: frozenset[Coin]  # a wish that names none would be paid in whatever the next server takes
    max_usd_per_hour: Decimal
    max_hours: Decimal
    max_usd: Decimal

    def cover(self, terms: Terms) -> bool:
        """Whether every server of these terms keeps within the bounds."""
        return (
            terms.hours <= self.max_hours
            and terms.usd_per_hour <= self.max_usd_per_hour
            and terms.alone().worst_usd <= self.max_usd
            and {one.server_id for one in terms.candidates} <= self.server_ids
            and {one.coin for one in terms.candidates} <= self.coins
        )

    def __str__(self) -> str:
        servers = ", ".join(map(str, sorted(self.server_ids)))
        coins = " or ".join(sorted(coin.ticker for coin in self.coins))
        return (
            f"one rental of any of servers {servers}, paid in {coins}, at most {dollars(self.max_usd_per_hour)}"
            f" per hour, {plain(self.max_hours)} hours, {dollars(self.max_usd)} in all at worst"
        )

    def as_json(self) -> dict[str, Any]:
        """For its row: exact decimals as text."""
        return {
            "server_ids": sorted(self.server_ids),
            "coins": sorted(self.coins),
            "max_usd_per_hour": str(self.max_usd_per_hour),
            "max_hours": str(self.max_hours),
            "max_usd": str(self.max_usd),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Bounds:
        """The bounds that `as_json` wrote."""
        return cls(
            frozenset(row["server_ids"]),
            frozenset(map(Coin, row["coins"])),
            Decimal(row["max_usd_per_hour"]),
            Decimal(row["max_hours"]),
            Decimal(row["max_usd"]),
        )


def around(
    terms: Terms,
    *,
    also: frozenset[int] = frozenset(),
    max_usd_per_hour: Decimal | None = None,
    max_hours: Decimal | None = None,
    max_usd: Decimal | None = None,
) -> Bounds:
    """Bounds around what was asked for, wider where the person says so; the sum follows from the rest if it is not
    given."""
    hourly = terms.usd_per_hour if max_usd_per_hour is None else max_usd_per_hour
    hours = terms.hours if max_hours is None else max_hours
    return Bounds(
        server_ids=frozenset(one.server_id for one in terms.candidates) | also,
        coins=frozenset(one.coin for one in terms.candidates),
        max_usd_per_hour=hourly,
        max_hours=hours,
        max_usd=max(_sum(one, terms, hourly, hours) for one in terms.candidates) if max_usd is None else max_usd,
    )


def _sum(candidate: Candidate, terms: Terms, hourly: Decimal, hours: Decimal) -> Decimal:
    longest = worst_hours(hours, max(hours, candidate.max_rental_hours), ends=terms.ends)
    return worst_usd(hourly, longest, candidate.creation_fee_usd, candidate.coin)

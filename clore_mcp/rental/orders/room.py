"""How far an end may be moved before a limit or the wallet stands against it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from clore_mcp.money import ZERO
from clore_mcp.rental.orders.extensions import Extension
from clore_mcp.rental.rules.check import Evidence, Owed, wallet_refusal
from clore_mcp.rental.rules.limits import Refusal, Used, Wanted, check
from clore_mcp.settings import Caps
from clore_mcp.store.intents import Reservation


@dataclass(frozen=True, slots=True)
class Room:
    """What an extension is held against; `held` is what is reserved for the order already."""

    caps: Caps
    sources: Mapping[str, str]
    used: Used
    owed: Owed
    evidence: Evidence
    held: Reservation | None

    def wanted(self, extension: Extension) -> Wanted:
        """What the extension adds to what is used."""
        before_hourly = self.held.usd_per_hour if self.held else extension.usd_per_hour
        return Wanted(
            usd_per_hour=extension.dearest_usd_per_hour - before_hourly,
            usd_per_order=extension.worst_usd,
            usd_per_day=extension.worst_usd - (self.held.worst_usd if self.held else ZERO),
            active_orders=0,
        )

    def refusals(self, extension: Extension) -> list[Refusal]:
        """Every limit that it would break, and the wallet where that does not cover it."""
        short = wallet_refusal(extension.draw, self.evidence, self.owed)
        found = check(self.caps, self.used, self.wanted(extension), self.sources)
        return found if short is None else [*found, short]

    def has(self, extension: Extension | None) -> bool:
        """Whether it is priced and nothing stands against it."""
        return extension is not None and not self.refusals(extension)


def most_seconds(fits: Callable[[int], bool], longest: int) -> int:
    """The most whole seconds up to `longest` that fit, where all fewer ones fit too; 0 where none do."""
    fitting, beyond = 0, max(0, longest) + 1
    while beyond - fitting > 1:
        middle = (fitting + beyond) // 2
        if fits(middle):
            fitting = middle
        else:
            beyond = middle
    return fitting

"""Exact amounts: coins, prices per day and per hour, and named roundings.

Clore lists prices per day, for the whole server, in one of three coins. People and limits think in USD per hour. All
arithmetic is `Decimal`. Storage is whole micro-dollars (`to_micros`) or the coin's own decimal text. Only a reply to a
model uses floats (`shown`). Rounding is always against us: what we might pay is rounded up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from enum import StrEnum
from typing import Any, Final

from clore_mcp.text import clean

LONGEST_RENTAL_HOURS: Final = 3_000  # Clore's own limit (docs/clore-api.md, section 2)
SECONDS_PER_DAY: Final = 86_400
HOURS_PER_DAY: Final = Decimal(24)
ZERO: Final = Decimal(0)
_MICRO: Final = Decimal("0.000001")
_WIDE: Final = Context(prec=400)  # enough digits that rounding never fails or happens twice


class Coin(StrEnum):
    """The coins that Clore accepts, by its own names."""

    BTC = "bitcoin"
    CLORE = "CLORE-Blockchain"
    USD = "USD-Blockchain"

    @property
    def precision(self) -> int:
        """The decimal places that Clore uses for prices in this coin."""
        return _TRAITS[self].precision

    @property
    def ticker(self) -> str:
        """The short name that people use: BTC, CLORE, USD."""
        return _TRAITS[self].ticker

    @property
    def dearest_day(self) -> Decimal:
        """The highest plausible price per day. No hardware has cost as much in 25 years: a row with more is faulty."""
        return _TRAITS[self].dearest_day

    @classmethod
    def parse(cls, text: str) -> Coin | None:
        """Return the coin that `text` names (Clore's name or a ticker, any case, hyphens or not), or None."""
        wanted = _letters(text)
        return next((coin for coin in cls if wanted in (_letters(coin.value), coin.ticker.lower())), None)

    @classmethod
    def _missing_(cls, value: object) -> Coin | None:
        """Return the coin of another name, so that `Coin("BTC")` works like `Coin("bitcoin")`."""
        return cls.parse(value) if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class _Traits:
    ticker: str
    precision: int
    dearest_day: Decimal


_TRAITS: Final = {
    Coin.BTC: _Traits("BTC", 8, Decimal(10**3)),
    Coin.CLORE: _Traits("CLORE", 2, Decimal(10**11)),
    Coin.USD: _Traits("USD", 2, Decimal(10**6)),
}
_TICKERS: Final = {coin.value: coin.ticker for coin in Coin}
_COIN_SHOWN: Final = 24  # characters of an unknown coin's name; Clore's longest name has 16


def coin_name(told: str | None) -> str:
    """Return the name of a coin for people and models: BTC, CLORE or USD. An unknown coin keeps Clore's name, cleaned.
    Without a name, return ''."""
    coin = Coin.parse(told or "")
    return coin.ticker if coin else clean(told or "", _COIN_SHOWN)


def with_coin_names(told: Any) -> Any:
    """Return a record for display, with tickers in place of Clore's own names of coins."""
    if isinstance(told, Mapping):
        return {name: with_coin_names(value) for name, value in told.items()}
    if isinstance(told, list | tuple):
        return [with_coin_names(value) for value in told]
    return _TICKERS.get(told, told) if isinstance(told, str) else told


def _letters(text: str) -> str:
    return "".join(text.split()).replace("-", "").replace("_", "").lower()


@dataclass(frozen=True, slots=True)
class DayPrice:
    """A price per day for a whole server, in one coin, as a listing or a bid states it, without the renter's fee."""

    value: Decimal
    coin: Coin

    def usd_per_hour(self, usd_per_coin: Decimal) -> Decimal:
        """Return this price in USD per hour at a rate, without the fee and not rounded."""
        return self.value * usd_per_coin / HOURS_PER_DAY

    def raised(self, fraction: Decimal) -> DayPrice:
        """Return this price with a margin on top (0.03 is 3 %)."""
        return DayPrice(self.value * (1 + fraction), self.coin)

    def floored(self) -> DayPrice:
        """Return this price rounded down to the coin's precision, so that a bid never exceeds what was approved."""
        return DayPrice(self.value.quantize(Decimal(1).scaleb(-self.coin.precision), ROUND_FLOOR, _WIDE), self.coin)


def up_to_coin(amount: Decimal, coin: Coin) -> Decimal:
    """Return an amount of a coin rounded up to its precision: what to pay in so that it is enough."""
    return amount.quantize(Decimal(1).scaleb(-coin.precision), ROUND_CEILING, _WIDE)


def up_to_micro(usd: Decimal) -> Decimal:
    """Return USD rounded up to a whole micro-dollar."""
    return usd.quantize(_MICRO, ROUND_CEILING, _WIDE)


def to_micros(usd: Decimal) -> int:
    """Return USD as whole micro-dollars, rounded up, so that a cost is never stored too small."""
    return int(up_to_micro(usd).scaleb(6, _WIDE))


def from_micros(micros: int) -> Decimal:
    """Return whole micro-dollars as USD, exactly."""
    return Decimal(micros).scaleb(-6, _WIDE)


def wire_number(value: Decimal) -> int | float:
    """Return the JSON number for a price: the shortest that reads back as the same number (10, not 10.0)."""
    return int(value) if value == value.to_integral_value() else float(value)


def shown(value: Decimal, digits: int = 4) -> float:
    """Return a number for a reply, rounded to `digits` places. Below 0.01 (for 4 digits) it keeps three figures."""
    if value and abs(value) < Decimal(1).scaleb(2 - digits):
        return float(f"{value:.3g}")
    return float(value.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN, _WIDE))


def shown_up(usd: Decimal) -> float:
    """Return a cost for a reply, rounded up to four places."""
    return float(usd.quantize(Decimal("0.0001"), ROUND_CEILING, _WIDE))


def dollars(usd: Decimal, *, up: bool = True) -> str:
    """Return USD for a person: '$1.42' from $1, or '$0.42' or '$0.0042' below. A cost is rounded up, a remainder
    (`up=False`) down."""
    places = 2 if abs(usd) >= 1 else 4
    rounded = usd.quantize(Decimal(1).scaleb(-places), ROUND_CEILING if up else ROUND_FLOOR, _WIDE)
    text = f"{rounded.copy_abs():f}"  # abs() would round again
    if places == 4 and text.endswith("00"):
        text = text[:-2]
    return f"-${text}" if rounded < 0 else f"${text}"


def plain(value: Decimal) -> str:
    """Return a Decimal without an exponent or trailing zeros, for texts and for storage."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text

"""Exact amounts: coins, prices per day and per hour, and every rounding by name.

Clore lists prices per day, for the whole server, in one of three coins. People and limits think in USD per hour.
All arithmetic is `Decimal`; storage is whole micro-dollars (`to_micros`) or the coin's own decimal text. Only a reply
to a model turns into a float (`shown`). Rounding is always against us: what we might pay rounds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from enum import StrEnum
from typing import Any, Final

from clore_mcp.text import clean

LONGEST_RENTAL_HOURS: Final = 3_000  # Clore's own bound (docs/clore-api.md, section 2)
SECONDS_PER_DAY: Final = 86_400
HOURS_PER_DAY: Final = Decimal(24)
ZERO: Final = Decimal(0)
_MICRO: Final = Decimal("0.000001")
_WIDE: Final = Context(prec=400)  # rounding must not fail, or round twice, because a number has many digits


class Coin(StrEnum):
    """The coins that Clore takes, by its own names."""

    BTC = "bitcoin"
    CLORE = "CLORE-Blockchain"
    USD = "USD-Blockchain"

    @property
    def precision(self) -> int:
        """Decimal places that Clore uses for prices in this coin."""
        return _TRAITS[self].precision

    @property
    def ticker(self) -> str:
        """The short name that people use: BTC, CLORE, USD."""
        return _TRAITS[self].ticker

    @property
    def dearest_day(self) -> Decimal:
        """A price per day above this is a fault of the row: no hardware has cost as much in 25 years."""
        return _TRAITS[self].dearest_day

    @classmethod
    def parse(cls, text: str) -> Coin | None:
        """The coin meant by `text` (Clore's name or a ticker, any case, hyphens or not), or None."""
        wanted = _letters(text)
        return next((coin for coin in cls if wanted in (_letters(coin.value), coin.ticker.lower())), None)

    @classmethod
    def _missing_(cls, value: object) -> Coin | None:
        """`Coin("BTC")` is a coin as `Coin("bitcoin")` is."""
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
_COIN_SHOWN: Final = 24  # characters of a coin that nobody knows; Clore's longest name has 16


def coin_name(told: str | None) -> str:
    """The one name that people and models read of a coin, whatever Clore calls it: BTC, CLORE or USD. A coin that is
    not known keeps Clore's name, cleaned; '' where none is told."""
    coin = Coin.parse(told or "")
    return coin.ticker if coin else clean(told or "", _COIN_SHOWN)


def with_coin_names(told: Any) -> Any:
    """A record to be shown, with the one name wherever a value is Clore's own name of a coin."""
    if isinstance(told, Mapping):
        return {name: with_coin_names(value) for name, value in told.items()}
    if isinstance(told, list | tuple):
        return [with_coin_names(value) for value in told]
    return _TICKERS.get(told, told) if isinstance(told, str) else told


def _letters(text: str) -> str:
    return "".join(text.split()).replace("-", "").replace("_", "").lower()


@dataclass(frozen=True, slots=True)
class DayPrice:
    """A price per day for a whole server, in one coin, as a listing or a bid states it (renter's fee not included)."""

    value: Decimal
    coin: Coin

    def usd_per_hour(self, usd_per_coin: Decimal) -> Decimal:
        """This price in USD per hour at a rate, fee not included, not rounded."""
        return self.value * usd_per_coin / HOURS_PER_DAY

    def raised(self, fraction: Decimal) -> DayPrice:
        """This price with a margin on top (0.03 is 3 %)."""
        return DayPrice(self.value * (1 + fraction), self.coin)

    def floored(self) -> DayPrice:
        """Rounded down to the coin's precision: the way a bid is cut so that it never exceeds what was approved."""
        return DayPrice(self.value.quantize(Decimal(1).scaleb(-self.coin.precision), ROUND_FLOOR, _WIDE), self.coin)


def up_to_coin(amount: Decimal, coin: Coin) -> Decimal:
    """An amount of a coin, rounded up to the coin's precision: what to pay in so that it is enough."""
    return amount.quantize(Decimal(1).scaleb(-coin.precision), ROUND_CEILING, _WIDE)


def up_to_micro(usd: Decimal) -> Decimal:
    """USD rounded up to a whole micro-dollar."""
    return usd.quantize(_MICRO, ROUND_CEILING, _WIDE)


def to_micros(usd: Decimal) -> int:
    """USD as whole micro-dollars, rounded up: a cost is never stored smaller than it is."""
    return int(up_to_micro(usd).scaleb(6, _WIDE))


def from_micros(micros: int) -> Decimal:
    """Whole micro-dollars as USD, exactly."""
    return Decimal(micros).scaleb(-6, _WIDE)


def wire_number(value: Decimal) -> int | float:
    """The JSON number for a price: the shortest that reads back as the same number (10, not 10.0)."""
    return int(value) if value == value.to_integral_value() else float(value)


def shown(value: Decimal, digits: int = 4) -> float:
    """A number for a reply: rounded to `digits` places, or to three figures where it would vanish."""
    if value and abs(value) < Decimal(1).scaleb(2 - digits):
        return float(f"{value:.3g}")
    return float(value.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN, _WIDE))


def shown_up(usd: Decimal) -> float:
    """A cost for a reply: rounded up to four places, as `dollars` shows it to a person."""
    return float(usd.quantize(Decimal("0.0001"), ROUND_CEILING, _WIDE))


def dollars(usd: Decimal, *, up: bool = True) -> str:
    """USD for a person, '$0.42' or '$0.0042': a cost is rounded up, what is left (`up=False`) is rounded down."""
    places = 2 if abs(usd) >= 1 else 4
    rounded = usd.quantize(Decimal(1).scaleb(-places), ROUND_CEILING if up else ROUND_FLOOR, _WIDE)
    text = f"{rounded.copy_abs():f}"  # abs() would round again
    if places == 4 and text.endswith("00"):
        text = text[:-2]
    return f"-${text}" if rounded < 0 else f"${text}"


def plain(value: Decimal) -> str:
    """A Decimal without an exponent or trailing zeros, for texts and for storage."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text

"""The numbers of a row, held to bounds as they arrive: what lies outside them is a fault of the row and not known.

Arithmetic on what is left can't fail or grow: a `Decimal` has at most 28 digits and an exponent near zero. The bounds
lie far outside of what Clore documents (prices of 0.1 to 10,000 USD a day), so no real amount is lost.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

from clore_mcp.money import Coin

STORED_ID_MAX: Final = 2**63 - 1  # what a column of the state holds
SHOWN_ID_MAX: Final = 10**40 - 1  # what is still shown and can be cancelled
_SMALLEST: Final = Decimal("1e-15")
_LARGEST: Final = Decimal("1e15")
_DEAREST_DAYS: Final = 1000  # of the dearest server: no order has run for as long


def _within_reason(value: Decimal | None) -> Decimal | None:
    if value and not _SMALLEST <= value.copy_abs() <= _LARGEST:
        return None
    return None if value is None else +value  # rounded to the context's 28 digits


def _not_negative(value: Decimal | None) -> Decimal | None:
    return None if value is None or value < 0 else value


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true is no number")
    return value


_Finite = Annotated[Decimal, Field(allow_inf_nan=False)] | None
Amount = Annotated[_Finite, AfterValidator(_within_reason)]
Cost = Annotated[_Finite, AfterValidator(_within_reason), AfterValidator(_not_negative)]
OrderId = Annotated[int, BeforeValidator(_no_bool), Field(gt=0, le=SHOWN_ID_MAX)]
ServerId = Annotated[int, BeforeValidator(_no_bool), Field(gt=0, le=STORED_ID_MAX)]


def sane_price(price: Decimal | None, currency: str | None) -> Decimal | None:
    """A day's price that an order can have in its coin, else None. Nothing is free on the marketplace."""
    return price if price is not None and 0 < price <= _dearest_day(currency) else None


def sane_spend(spend: Decimal | None, currency: str | None) -> Decimal | None:
    """What an order can have cost in its coin, else None."""
    return spend if spend is not None and spend <= _dearest_day(currency) * _DEAREST_DAYS else None


def _dearest_day(currency: str | None) -> Decimal:
    coin = Coin.parse(currency or "")
    return _LARGEST if coin is None else coin.dearest_day

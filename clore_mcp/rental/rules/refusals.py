"""What a failed create means for its chain: on to the next server, or no further; and its word for the record."""

from __future__ import annotations

from typing import Final

from clore_mcp.errors import (
    AlreadyRented,
    AmountTooLow,
    BidTooLow,
    CloreError,
    CurrencyNotAllowed,
    Failure,
    NotEnoughBalance,
    OnGigaspot,
    OwnServer,
    ServerOffline,
    ServerUnknown,
    SpotOrderHeld,
)

# Not SpotOrderHeld: another server would be a second bill for one wish.
_MOVE_ON: Final = (AlreadyRented, CurrencyNotAllowed, ServerUnknown, ServerOffline, BidTooLow, OwnServer, OnGigaspot)
_WORDS: Final[dict[type[Failure], str]] = {
    AlreadyRented: "server-already-rented",
    CurrencyNotAllowed: "currency-not-allowed",
    ServerUnknown: "server-dont-exist",
    ServerOffline: "server-offline",
    BidTooLow: "too_low_price",
    AmountTooLow: "amount_too_low",
    OwnServer: "cant_rent_from_yourself",
    OnGigaspot: "machine-is-on-gigaspot",
    SpotOrderHeld: "you_already_have_spot_order",
    NotEnoughBalance: "not_enough_balance",
}


def moves_on(error: Failure) -> bool:
    """Whether Clore definitely made no order, for a reason that another server may not have."""
    return isinstance(error, _MOVE_ON)


def word(error: Failure) -> str:
    """Clore's own word where it has one."""
    return _WORDS.get(type(error), error.code if not isinstance(error, CloreError) else type(error).__name__)

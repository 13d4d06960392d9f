"""Reads a reply of the Clore API and returns its fields, or raises the failure that it means.

Clore answers with an int `code` in the body, which overrides the HTTP status: a refusal may come with 200 or 500. All
messages here are our own. Text from Clore, a host or a proxy is data: it is cut, cleaned and kept in `reported`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

from pydantic_core import from_json

from clore_mcp.errors import (
    AlreadyRented,
    AmountTooLow,
    BidTooLow,
    CloreError,
    CurrencyNotAllowed,
    Failure,
    InternalFault,
    InvalidApiKey,
    InvalidEndpoint,
    InvalidInput,
    InvalidRentalLength,
    IssueTooLong,
    LoweringTooSoon,
    NotEnoughBalance,
    NotJson,
    NotYourOrder,
    OnGigaspot,
    OrderNotActive,
    OrderUnknown,
    OwnServer,
    ParametersMissing,
    RateLimited,
    Refused,
    ServerOffline,
    ServerUnknown,
    Spent,
    SpotOrderHeld,
    StepTooLarge,
    Truncated,
    Unclear,
    UnknownCode,
    UnknownRefusal,
)
from clore_mcp.text import clean

REPORTED_LENGTH: Final = 200
_BYTES_A_VALUE: Final = 16  # of the largest reply; no reply seen comes near this many values
LOOK_FIRST: Final = "Don't send it again. Check list_orders first."
_BLOCKED_HINT: Final = (
    "The request is correct. Try from another network, or ask the operator to look for a proxy in between."
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One call of the API, its words in messages ("make the order", and for a write "the order was made"), and the
    largest reply that is read. Most replies have a few hundred bytes.

    `spends`: it may move money, so only a body from Clore itself proves that it did nothing.
    """

    method: str
    path: str
    verb: str
    outcome: str = ""
    spends: bool = False
    most_bytes: int = 1024 * 1024
    most_rows: int = 1_000

    @property
    def writes(self) -> bool:
        """Whether the call changes something at Clore."""
        return bool(self.outcome)


def read_reply(status: int, headers: Mapping[str, str], body: bytes, endpoint: Endpoint) -> dict[str, Any]:
    """Return the fields of a reply with code 0. Anything else raises. Keys of `headers` must be lower case."""
    # Such a reply would take far more memory than its size: each `{}` in a list takes 72 bytes once it is read. Nothing
    # in a real reply is as small. A server has 611 bytes and 60 values.
    most_values = endpoint.most_bytes // _BYTES_A_VALUE
    if body.count(b",") + body.count(b"{") + body.count(b"[") > most_values:
        raise unexpected(endpoint, f"more than {most_values:,} values")
    if 300 <= status < 400:
        raise unclear(NotJson, endpoint, "a redirect came back, and the key is not carried to another address")
    fields = _parse(status, body, endpoint)
    code = fields.get("code") if fields is not None else None
    if fields is not None and isinstance(code, int) and not isinstance(code, bool):
        if code == 0:
            return fields
        raise _refusal(fields, endpoint) if code == 6 else _coded(code, f"code {code}", headers, endpoint)
    if not endpoint.spends and status in _CODES:
        raise _coded(_CODES[status], f"HTTP {status}", headers, endpoint)
    raise _not_clores(status, body, endpoint)


def unclear(kind: type[Unclear], endpoint: Endpoint, what: str, *, hint: str | None = None) -> Unclear:
    """Return the failure for a call with an unknown outcome. After a write, its hint is always to look first."""
    if not endpoint.writes:
        return kind(f"Clore could not {endpoint.verb}: {what}.", hint=hint, spent=Spent.NO)
    message = f"Clore could not say whether {endpoint.outcome}: {what}."
    return kind(message, hint=LOOK_FIRST, spent=Spent.UNKNOWN)


def unexpected(endpoint: Endpoint, what: str) -> Unclear:
    """Return the failure for a reply with code 0 and unexpected fields."""
    return unclear(NotJson, endpoint, f"the reply has {what}")


def header_time(headers: Mapping[str, str]) -> float | None:
    """Return the time of the reply by Clore's clock (HTTP Date), in unix seconds, or None."""
    try:
        return parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (TypeError, ValueError):
        return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of Retry-After, given as a number or as a date to compare with the reply's own Date."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    now, then = header_time(headers), header_time({"date": text})
    return max(then - now, 0.0) if now is not None and then is not None else None


def _parse(status: int, body: bytes, endpoint: Endpoint) -> dict[str, Any] | None:
    """Return the JSON object in a body, or None if it is something else. Raises Unclear if it breaks off."""
    try:
        value = from_json(body)
    except ValueError as error:
        broke_off = body.lstrip().startswith(b"{") and "EOF while parsing" in str(error)
    else:
        return value if isinstance(value, dict) else None
    if broke_off and 200 <= status < 300:
        raise unclear(Truncated, endpoint, "the reply broke off in the middle")
    return None


# What an HTTP status without a code means by Clore's own table.
_CODES: Final = {400: 2, 401: 3, 404: 4, 429: 5}


def _coded(code: int, by: str, headers: Mapping[str, str], endpoint: Endpoint) -> CloreError:
    """Return the failure that a code means, except 6. `by` names the code or the HTTP status that stands for it."""
    lead = f"Clore did not {endpoint.verb}: "
    if code == 1:
        return unclear(InternalFault, endpoint, f"its own database failed ({by})")
    if code == 2:
        what = "the request's fields" if by == "code 2" else "the request"
        return InvalidInput(f"{lead}it does not accept {what} ({by}).")
    if code == 3:
        return InvalidApiKey(f"{lead}it does not know this API key ({by}).")
    if code == 4:
        return InvalidEndpoint(f"{lead}it has no such endpoint ({by}).")
    if code == 5:
        seconds = retry_after(headers)
        return RateLimited(f"{lead}too many requests on this key ({by}).", retry_after_seconds=seconds)
    return unclear(UnknownCode, endpoint, f"its answer is undocumented ({by})")


def _refusal(fields: dict[str, Any], endpoint: Endpoint) -> CloreError:
    """Return the failure for code 6 by Clore's word and its numbers. Clore mixes hyphens and underscores."""
    error = fields.get("error")
    word = error.strip() if isinstance(error, str) else ""
    build = _REFUSALS.get(word.lower().replace("-", "_"))
    if build is not None:
        return build(f"Clore did not {endpoint.verb}: ", fields)
    if not word:
        return unclear(UnknownCode, endpoint, "its answer is undocumented (code 6 without an error)")
    what = "with undocumented words (code 6)"
    reported = clean(word, REPORTED_LENGTH)
    if not endpoint.writes:
        return UnknownRefusal(f"Clore refused to {endpoint.verb} {what}.", reported=reported)
    message = f"Clore could not say whether {endpoint.outcome}: it answered {what}."
    return UnknownRefusal(message, reported=reported, hint=LOOK_FIRST, spent=Spent.UNKNOWN)


def _not_clores(status: int, body: bytes, endpoint: Endpoint) -> Unclear:
    """Return the failure for a reply that is not Clore's or is undocumented."""
    if status == 403 and b"error code: 1010" in body[:1000]:
        what = "a proxy in front of it blocked this program's User-Agent or address (HTTP 403, error code 1010)"
        return unclear(NotJson, endpoint, what, hint=_BLOCKED_HINT)
    if not body.strip():
        return unclear(NotJson, endpoint, f"an empty reply came back (HTTP {status})")
    return unclear(NotJson, endpoint, f"a reply came back that is not Clore's (HTTP {status})")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _per_day(lead: str, value: float | None) -> str:
    return "" if value is None else f" ({lead} {value:.10g} per day in the order's currency)"


def _bid_too_low(lead: str, fields: dict[str, Any]) -> BidTooLow:
    least = _number(fields.get("min_price"))
    message = f"{lead}the bid is under the host's minimum{_per_day('at least', least)}."
    return BidTooLow(message, min_price_per_day=least)


def _step_too_large(lead: str, fields: dict[str, Any]) -> StepTooLarge:
    step = _number(fields.get("max_step"))
    return StepTooLarge(f"{lead}that lowers it too much at once{_per_day('at most', step)}.", max_step_per_day=step)


def _lowering_too_soon(lead: str, fields: dict[str, Any]) -> LoweringTooSoon:
    told = _number(fields.get("time_to_lowering"))
    seconds = 600.0 if told is None else told
    return LoweringTooSoon(f"{lead}a bid may be lowered once every 600 seconds.", retry_after_seconds=seconds)


Build = Callable[[str, dict[str, Any]], Refused]


def _says(kind: type[Refused], what: str) -> Build:
    return lambda lead, _: kind(f"{lead}{what}.")


_REFUSALS: Final[dict[str, Build]] = {
    "server_already_rented": _says(AlreadyRented, "the server is already rented, possibly by this account"),
    "currency_not_allowed": _says(CurrencyNotAllowed, "the host does not take this currency"),
    "server_dont_exist": _says(ServerUnknown, "the server is no longer on the marketplace"),
    "server_offline": _says(ServerOffline, "the server is offline"),
    "cant_rent_from_yourself": _says(OwnServer, "the server is this account's own"),
    "machine_is_on_gigaspot": _says(OnGigaspot, "the server is rented out through GigaSPOT"),
    "you_already_have_spot_order": _says(SpotOrderHeld, "this account already has a spot order on that server"),
    "not_enough_balance": _says(
        NotEnoughBalance, "the wallet does not hold enough, or it holds less than Clore's minimum for such an order"
    ),
    "order_dont_exist": _says(OrderUnknown, "it has no such order"),
    "you_dont_own_this_order": _says(NotYourOrder, "the order belongs to another account"),
    "order_not_active": _says(OrderNotActive, "the order is no longer active"),
    "issue_description_too_long": _says(IssueTooLong, "the comment is too long"),
    "amount_too_low": _says(AmountTooLow, "the amount is too low"),
    "not_all_parameters_present": _says(ParametersMissing, "the request lacks a field"),
    "invalid_mrl": _says(InvalidRentalLength, "it does not accept that rental length"),
    "invalid_input": _says(InvalidInput, "it does not accept the request's fields"),
    "too_low_price": _bid_too_low,
    "exceeded_max_step": _step_too_large,
    "can_lower_every_600_seconds": _lowering_too_soon,
}


# Not SpotOrderHeld: renting another server would be a second bill for one request.
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
    """Return whether Clore definitely made no order, for a reason that may not apply to another server."""
    return isinstance(error, _MOVE_ON)


def word(error: Failure) -> str:
    """Return Clore's own word for the failure. Without one, return our error code or the failure's name."""
    return _WORDS.get(type(error), error.code if not isinstance(error, CloreError) else type(error).__name__)

"""The tree of failures. Each one says whether money may have moved and what to do next.

Failure
├── SettingsInvalid          a setting is malformed: the program does not start
├── ArgumentInvalid          an argument can't be used; nothing was sent
├── NotFound                 no such server, order or approval
├── ReadOnly                 CLORE_READ_ONLY is set
├── SpendingFrozen           the operator stopped all spending
├── StateUnavailable         the state folder can't be read or written: nothing was sent
│   └── StateNewer           a newer clore-mcp has changed the tables since this process started
└── CloreError               the Clore API or the connection to it failed
    ├── NoApiKey             no API key is set; nothing was sent
    ├── QueueFull            our own pacing: the caller would wait too long
    ├── NotSent              no connection was made
    ├── Refused              Clore refused: nothing happened and no money moved
    │   ├── RateLimited          code 5
    │   ├── InvalidInput         code 2, invalid_input
    │   ├── ParametersMissing    not_all_parameters_present
    │   ├── InvalidRentalLength  invalid_mrl
    │   ├── InvalidApiKey        code 3 or HTTP 401
    │   ├── InvalidEndpoint      code 4
    │   ├── AlreadyRented        server-already-rented (also when this account rents it)
    │   ├── SpotOrderHeld        you_already_have_spot_order
    │   ├── OwnServer            cant_rent_from_yourself
    │   ├── OnGigaspot           machine-is-on-gigaspot
    │   ├── CurrencyNotAllowed   currency-not-allowed
    │   ├── ServerUnknown        server-dont-exist
    │   ├── ServerOffline        server-offline
    │   ├── BidTooLow            too_low_price (min_price_per_day)
    │   ├── AmountTooLow         amount_too_low
    │   ├── NotEnoughBalance     not_enough_balance
    │   ├── OrderUnknown         order_dont_exist
    │   ├── NotYourOrder         you_dont_own_this_order
    │   ├── OrderNotActive       order_not_active: it has ended already
    │   ├── IssueTooLong         issue_description_too_long
    │   ├── StepTooLarge         exceeded_max_step (max_step_per_day)
    │   └── LoweringTooSoon      can_lower_every_600_seconds (retry_after_seconds)
    └── Unclear              the outcome is unknown: after a write, look at the orders first
        ├── InternalFault        code 1
        ├── UnknownRefusal       code 6 with an undocumented error
        ├── UnknownCode          an undocumented code, or code 6 without an error
        ├── NotJson              a reply that is not Clore's: HTML, an empty body, garbage
        ├── Truncated            the reply broke off
        ├── TimedOut             no reply in time
        └── ConnectionLost       the connection broke after the request may have left
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Spent(StrEnum):
    """Whether the failed call may have moved money."""

    NO = "no"
    UNKNOWN = "unknown"


class Failure(Exception):
    """A failure in our own words: `message` says what happened, `hint` what to do next."""

    code: ClassVar[str] = "api_error"  # the contract's error code
    default_hint: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        spent: Spent = Spent.NO,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint
        self.spent = spent
        self.retry_after_seconds = retry_after_seconds


class SettingsInvalid(Failure):
    """A setting is malformed. The message names the variable, the value (unless secret) and what is accepted."""

    code = "invalid_argument"
    default_hint = "Correct or unset it and start again. `clore-mcp doctor` shows the settings in force."


class ArgumentInvalid(Failure):
    """An argument can't be used. Nothing was sent."""

    code = "invalid_argument"
    default_hint = "Correct the named argument. The tool's schema says what is accepted. Nothing was sent."


class NotFound(Failure):
    """No server, order or approval has that id."""

    code = "not_found"
    default_hint = "Take a server id from search_servers or an order id from list_orders."


class ReadOnly(Failure):
    """This installation only reads: it may not spend or cancel."""

    code = "read_only"
    default_hint = "The operator set CLORE_READ_ONLY. They can unset it and restart the server."


class SpendingFrozen(Failure):
    """The operator stopped all spending. Reading and cancelling still work."""

    code = "spending_frozen"
    default_hint = "Only the operator can lift the freeze, in their own terminal."


class StateUnavailable(Failure):
    """The state folder can't be used, so nothing can be counted against the limits and nothing was sent."""

    code = "state_unavailable"
    default_hint = "Check that the state folder exists, is writable and has space. `clore-mcp doctor` names it."


class StateNewer(StateUnavailable):
    """A newer clore-mcp has changed the tables of the state, so this process can neither read nor write them."""

    default_hint = "Restart this clore-mcp, so that it runs the version that changed the state."


class CloreError(Failure):
    """The Clore API or the connection to it failed."""


class NoApiKey(CloreError):
    """No key is set, so only the public marketplace can be read."""

    code = "no_api_key"
    default_hint = (
        "Ask the operator to set CLORE_API_KEY (a key is made on clore.ai under API) or to try `clore-mcp --sandbox`."
    )


class QueueFull(CloreError):
    """Too many requests are queued already, so the caller would wait too long. Nothing was sent."""

    code = "rate_limited"
    default_hint = "Clore accepts one request per second. Call again after retry_after_seconds."


class NotSent(CloreError):
    """No connection to Clore could be made, so the request was not sent. `why` is the cause, if it is known."""

    code = "api_unavailable"
    default_hint = "Check the network. `clore-mcp doctor` tests it. Nothing was sent."

    def __init__(self, message: str, *, why: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.why = why


class Refused(CloreError):
    """Clore refused the request. Nothing happened and no money moved."""


class RateLimited(Refused):
    """Code 5: more than one request per second on this key. Clore refused it without reading it."""

    code = "rate_limited"
    default_hint = "Another program may be using the same key. Call again after retry_after_seconds."


class InvalidInput(Refused):
    """Code 2 or `invalid_input`: Clore did not accept the request's fields."""

    default_hint = "Check image, ports and env against the tool's description. Nothing was rented or changed."


class ParametersMissing(Refused):
    """`not_all_parameters_present`: Clore requires a field that the request did not have."""

    default_hint = "Nothing was rented or changed. Update clore-mcp, and report it if that does not help."


class InvalidRentalLength(Refused):
    """`invalid_mrl`: Clore does not accept that rental length."""

    default_hint = "Clore rents a server for 6 to 3,000 hours at a time. Nothing was rented or changed."


class InvalidApiKey(Refused):
    """Code 3 or HTTP 401: Clore does not know this key."""

    code = "invalid_api_key"
    default_hint = "Ask the operator to make a new key on clore.ai and set CLORE_API_KEY. `clore-mcp doctor` checks it."


class InvalidEndpoint(Refused):
    """Code 4: Clore has no such endpoint. CLORE_API_URL is probably wrong."""

    default_hint = "Ask the operator to check CLORE_API_URL (default https://api.clore.ai/v1)."


class AlreadyRented(Refused):
    """`server-already-rented`: the server is rented, possibly by this account."""

    default_hint = "Search again and take another server, or check list_orders for an order of yours on this one."


class SpotOrderHeld(Refused):
    """`you_already_have_spot_order`: this account has a spot order on that server already."""

    default_hint = "list_orders shows it, sometimes a minute late. For a second server, name another server_id."


class OwnServer(Refused):
    """`cant_rent_from_yourself`: this account is the server's host."""

    default_hint = "Take a server of another host."


class OnGigaspot(Refused):
    """`machine-is-on-gigaspot`: the server is rented out through GigaSPOT, which clore-mcp does not use."""

    default_hint = "Take another server."


class CurrencyNotAllowed(Refused):
    """`currency-not-allowed`: the host lists a price in that coin but does not take it."""

    default_hint = "Leave `currency` out to use the cheapest accepted coin, or name another."


class ServerUnknown(Refused):
    """`server-dont-exist`: the server has left the marketplace."""

    code = "not_found"
    default_hint = "The listing is gone. Search again."


class ServerOffline(Refused):
    """`server-offline`: Clore can't reach the host now."""

    default_hint = "Take another server, or try again in a few minutes."


class BidTooLow(Refused):
    """`too_low_price`: the bid is under the host's minimum. `min_price_per_day` is that minimum in the order's coin."""

    default_hint = "Raise bid_usd_per_hour to at least get_server's spot.min_usd_per_hour."

    def __init__(self, message: str, *, min_price_per_day: float | None = None) -> None:
        super().__init__(message)
        self.min_price_per_day = min_price_per_day


class AmountTooLow(Refused):
    """`amount_too_low`: the bid is under Clore's own minimum."""

    default_hint = "Raise bid_usd_per_hour. Clore's documentation names 0.1 USD per day as the lowest price."


class NotEnoughBalance(Refused):
    """`not_enough_balance`: the wallet can't pay for it, or holds less than Clore's minimum for such an order."""

    default_hint = (
        "Clore requires an unpublished minimum balance for each order type and coin, so it may refuse even if the"
        " wallet covers the hours. Ask the person to top up that wallet on clore.ai, or name another currency or"
        " order_type. get_account shows balances."
    )


class OrderUnknown(Refused):
    """`order_dont_exist`: Clore has no such order."""

    code = "not_found"
    default_hint = "Take the id from list_orders."


class NotYourOrder(Refused):
    """`you_dont_own_this_order`: the order belongs to another account."""

    code = "not_found"
    default_hint = "Take the id from list_orders, which shows the orders of this key's account."


class OrderNotActive(Refused):
    """`order_not_active`: the order has ended, so there is nothing to cancel or change."""

    code = "not_found"
    default_hint = "list_orders with include_ended shows what it cost."


class IssueTooLong(Refused):
    """`issue_description_too_long`: the cancel's comment is too long. The order was not cancelled."""

    code = "invalid_argument"
    default_hint = "The order is still billed. Call cancel_order again without `issue`."


class StepTooLarge(Refused):
    """`exceeded_max_step`: the bid was lowered by more than `max_step_per_day`, which is in the order's coin."""

    default_hint = "Lower the bid in smaller steps, one every 600 seconds. Raising is not limited."

    def __init__(self, message: str, *, max_step_per_day: float | None = None) -> None:
        super().__init__(message)
        self.max_step_per_day = max_step_per_day


class LoweringTooSoon(Refused):
    """`can_lower_every_600_seconds`: a bid may be lowered once every ten minutes."""

    default_hint = "Call again after retry_after_seconds. Raising is not limited."


class Unclear(CloreError):
    """The outcome is unknown. After a read, try again. After a write, look at the orders before anything else."""

    code = "api_unavailable"
    default_hint = "Try again in a minute. `clore-mcp doctor` tests the connection."


class InternalFault(Unclear):
    """Code 1: Clore's database failed. A create that got this code may still have made the order."""


class UnknownRefusal(Unclear):
    """Code 6 with an undocumented error: Clore refused. `reported` holds Clore's words, as data."""

    code = "api_error"

    def __init__(self, message: str, *, reported: str = "", hint: str | None = None, spent: Spent = Spent.NO) -> None:
        super().__init__(message, hint=hint, spent=spent)
        self.reported = reported


class UnknownCode(Unclear):
    """An undocumented code, or code 6 without an error."""

    code = "api_error"


class NotJson(Unclear):
    """The reply is not Clore's: a proxy's HTML, an empty body or garbage."""


class Truncated(Unclear):
    """The reply broke off in the middle."""


class TimedOut(Unclear):
    """No reply came in time."""


class ConnectionLost(Unclear):
    """The connection broke after the request may have left."""

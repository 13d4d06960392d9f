"""The tree of failures. Each says whether money may have moved and what to do next.

Failure
├── SettingsInvalid          a setting is malformed: the program does not start
├── ArgumentInvalid          the caller's argument: nothing was sent
├── NotFound                 no such server, order or approval
├── ReadOnly                 CLORE_READ_ONLY is set
├── SpendingFrozen           the operator stopped all spending
├── StateUnavailable         the state folder can't be read or written: nothing was sent
│   └── StateNewer           a newer clore-mcp has changed the tables since this process started
└── CloreError               the Clore API, or the way to it
    ├── NoApiKey             nothing to sign in with: nothing was sent
    ├── QueueFull            our own pacing: the wait would outlast the caller's patience
    ├── NotSent              no connection was made
    ├── Refused              Clore answered no: nothing happened, money is safe
    │   ├── RateLimited          code 5
    │   ├── InvalidInput         code 2, invalid_input
    │   ├── ParametersMissing    not_all_parameters_present
    │   ├── InvalidRentalLength  invalid_mrl
    │   ├── InvalidApiKey        code 3 or HTTP 401
    │   ├── InvalidEndpoint      code 4
    │   ├── AlreadyRented        server-already-rented (also when it is rented by ourselves)
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
    │   ├── OrderNotActive       order_not_active: it is over already
    │   ├── IssueTooLong         issue_description_too_long
    │   ├── StepTooLarge         exceeded_max_step (max_step_per_day)
    │   └── LoweringTooSoon      can_lower_every_600_seconds (retry_after_seconds)
    └── Unclear              no answer that settles it: after a write, look before anything else
        ├── InternalFault        code 1
        ├── UnknownRefusal       code 6 with an error that no documentation names
        ├── UnknownCode          a code that no documentation names, or code 6 without an error
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
    """Something that did not work, in words of ours: `message` says what happened, `hint` what to do next."""

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
    """A setting is malformed; the message names the variable, the value (unless secret) and what is accepted."""

    code = "invalid_argument"
    default_hint = "Correct or unset it and start again; `clore-mcp doctor` shows what is in force."


class ArgumentInvalid(Failure):
    """An argument can't be used as it is; nothing was sent."""

    code = "invalid_argument"
    default_hint = "Correct the named argument; the tool's schema says what is accepted. Nothing was sent."


class NotFound(Failure):
    """No server, order or approval has that id."""

    code = "not_found"
    default_hint = "search_servers finds servers, list_orders shows orders; take an id from there."


class ReadOnly(Failure):
    """This installation may look but not spend or cancel."""

    code = "read_only"
    default_hint = "The operator set CLORE_READ_ONLY; they can unset it and restart the server."


class SpendingFrozen(Failure):
    """The operator stopped all spending; looking and cancelling still work."""

    code = "spending_frozen"
    default_hint = "Only the operator can lift that, in their own terminal."


class StateUnavailable(Failure):
    """The state folder can't be used, so nothing can be counted against the limits and nothing was sent."""

    code = "state_unavailable"
    default_hint = "Check that the state folder exists, is writable and has space; `clore-mcp doctor` names it."


class StateNewer(StateUnavailable):
    """A newer clore-mcp has changed the tables of the state, so this process can neither read nor write them."""

    default_hint = "Restart this clore-mcp, so that it runs the version that changed the state."


class CloreError(Failure):
    """The Clore API, or the way to it, failed."""


class NoApiKey(CloreError):
    """No key is set, so only the public marketplace can be read."""

    code = "no_api_key"
    default_hint = (
        "Ask the operator to set CLORE_API_KEY (a key is made on clore.ai under API) or to try `clore-mcp --sandbox`."
    )


class QueueFull(CloreError):
    """Requests already waiting for their turn would outlast the caller's patience; nothing was sent."""

    code = "rate_limited"
    default_hint = "Clore takes one request a second; call again after retry_after_seconds."


class NotSent(CloreError):
    """No connection to Clore could be made: the request never left. `why` says what broke, where that is known."""

    code = "api_unavailable"
    default_hint = "Check the network; `clore-mcp doctor` tests it. Nothing was sent."

    def __init__(self, message: str, *, why: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.why = why


class Refused(CloreError):
    """Clore answered no. Nothing happened and no money moved."""


class RateLimited(Refused):
    """Code 5: more than one request a second on this key; refused before it was looked at."""

    code = "rate_limited"
    default_hint = "Another program may be using the same key; call again after retry_after_seconds."


class InvalidInput(Refused):
    """Code 2 or `invalid_input`: Clore did not accept the request's fields."""

    default_hint = "Check image, ports and env against the tool's description; nothing was rented or changed."


class ParametersMissing(Refused):
    """`not_all_parameters_present`: Clore wants a field that the request did not have."""

    default_hint = "Nothing was rented or changed. Update clore-mcp, and report it if that does not help."


class InvalidRentalLength(Refused):
    """`invalid_mrl`: Clore takes no such rental length."""

    default_hint = "Clore rents a server for 6 to 3,000 hours at a time; nothing was rented or changed."


class InvalidApiKey(Refused):
    """Code 3 or HTTP 401: Clore does not know this key."""

    code = "invalid_api_key"
    default_hint = "Ask the operator to make a new key on clore.ai and set CLORE_API_KEY; `clore-mcp doctor` checks it."


class InvalidEndpoint(Refused):
    """Code 4: Clore has no such endpoint; CLORE_API_URL probably points elsewhere."""

    default_hint = "Ask the operator to check CLORE_API_URL (default https://api.clore.ai/v1)."


class AlreadyRented(Refused):
    """`server-already-rented`: someone holds the server; Clore says it also when that someone is this account."""

    default_hint = "Search again and take another server, or check list_orders for an order of yours on this one."


class SpotOrderHeld(Refused):
    """`you_already_have_spot_order`: this account has a spot order on that server already."""

    default_hint = "list_orders shows it, at times a minute late. For a second machine name another server_id."


class OwnServer(Refused):
    """`cant_rent_from_yourself`: this account is the server's host."""

    default_hint = "Take a server of another host."


class OnGigaspot(Refused):
    """`machine-is-on-gigaspot`: the server is rented out through GigaSPOT, which clore-mcp does not use."""

    default_hint = "Take another server."


class CurrencyNotAllowed(Refused):
    """`currency-not-allowed`: the host lists a price in that coin but does not take it."""

    default_hint = "Leave `currency` out to let the cheapest accepted coin be chosen, or name another."


class ServerUnknown(Refused):
    """`server-dont-exist`: the server has left the marketplace."""

    code = "not_found"
    default_hint = "Search again; the listing is gone."


class ServerOffline(Refused):
    """`server-offline`: the host is not reachable for Clore now."""

    default_hint = "Take another server, or try again in a few minutes."


class BidTooLow(Refused):
    """`too_low_price`: the bid is under the host's minimum; `min_price_per_day` is that minimum in the order's coin."""

    default_hint = "Raise bid_usd_per_hour to at least get_server's spot.min_usd_per_hour."

    def __init__(self, message: str, *, min_price_per_day: float | None = None) -> None:
        super().__init__(message)
        self.min_price_per_day = min_price_per_day


class AmountTooLow(Refused):
    """`amount_too_low`: the bid is under what Clore takes from anybody."""

    default_hint = "Raise bid_usd_per_hour; Clore's documentation names 0.1 USD per day as the lowest price."


class NotEnoughBalance(Refused):
    """`not_enough_balance`: the wallet can't pay for it, or holds less than Clore's minimum for such an order."""

    default_hint = (
        "Clore keeps a minimum balance for each order type and coin and does not publish it, so it may refuse though"
        " the wallet covers the hours. Ask the person to top up that wallet on clore.ai, or name another currency or"
        " order_type; get_account shows balances."
    )


class OrderUnknown(Refused):
    """`order_dont_exist`: Clore has no such order."""

    code = "not_found"
    default_hint = "list_orders shows the orders; take the id from there."


class NotYourOrder(Refused):
    """`you_dont_own_this_order`: the order is another account's."""

    code = "not_found"
    default_hint = "list_orders shows the orders of this key's account; take the id from there."


class OrderNotActive(Refused):
    """`order_not_active`: the order is over, so there is nothing to cancel or change."""

    code = "not_found"
    default_hint = "list_orders with include_ended shows what it cost."


class IssueTooLong(Refused):
    """`issue_description_too_long`: the comment beside a cancel is too long. The order was not cancelled."""

    code = "invalid_argument"
    default_hint = "Call cancel_order again without `issue`: the order still bills."


class StepTooLarge(Refused):
    """`exceeded_max_step`: lowered by more than one step; `max_step_per_day` is the step, in the order's coin."""

    default_hint = "Lower the bid in smaller steps, one every 600 seconds; raising is not limited."

    def __init__(self, message: str, *, max_step_per_day: float | None = None) -> None:
        super().__init__(message)
        self.max_step_per_day = max_step_per_day


class LoweringTooSoon(Refused):
    """`can_lower_every_600_seconds`: a bid may be lowered once in ten minutes."""

    default_hint = "Call again after retry_after_seconds; raising is not limited."


class Unclear(CloreError):
    """No answer that settles it. After a read: try again. After a write: look at the orders before anything else."""

    code = "api_unavailable"
    default_hint = "Try again in a minute; `clore-mcp doctor` tests the connection."


class InternalFault(Unclear):
    """Code 1: Clore's own database fault. A create that got this may have made the order all the same."""


class UnknownRefusal(Unclear):
    """Code 6 with an error that no documentation names: the application's no. `reported` holds its words, as data."""

    code = "api_error"

    def __init__(self, message: str, *, reported: str = "", hint: str | None = None, spent: Spent = Spent.NO) -> None:
        super().__init__(message, hint=hint, spent=spent)
        self.reported = reported


class UnknownCode(Unclear):
    """A code that no documentation names, or code 6 that does not say why."""

    code = "api_error"


class NotJson(Unclear):
    """The reply is not Clore's: HTML of a proxy, an empty body, garbage."""


class Truncated(Unclear):
    """The reply broke off in the middle."""


class TimedOut(Unclear):
    """No reply came in time."""


class ConnectionLost(Unclear):
    """The connection broke after the request may have left."""

"""The variables that are read, the values that each accepts, and how a single value is parsed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeVar

from clore_mcp.money import Coin

SSH_KEY_MAX: Final = 3_072  # characters that Clore accepts in ssh_key
DEFAULT_API_URL: Final = "https://api.clore.ai/v1"
DEFAULT_GAP_SECONDS: Final = 1.1  # Clore accepts one request a second; at 1.0 half are refused, because wake-ups jitter
TOOLSETS: Final = ("market", "orders", "account", "watches")
LIMITS_FILE: Final = "limits.toml"
APP_NAME: Final = "clore-mcp"

_USD = "a plain number of USD with at most six decimals, such as 5 or 0.50"
_PATH = "a path (~ is the home folder)"
ACCEPTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CLORE_API_KEY": "the key as clore.ai shows it: letters, digits and signs without spaces",
        "CLORE_API_KEY_FILE": f"{_PATH} of a UTF-8 text file with one line, the key",
        "CLORE_API_URL": "https://HOST/PATH, or http:// for a loopback host, without user name, query or fragment",
        "CLORE_STATE_DIR": f"{_PATH} of a folder",
        "CLORE_READ_ONLY": "1, true, yes, on, 0, false, no or off",
        "CLORE_TOOLSETS": f"a comma-separated list of {', '.join(TOOLSETS)}",
        "CLORE_APPROVAL": "ask, outside, passkey or limits",
        "CLORE_MAX_USD_PER_HOUR": _USD,
        "CLORE_MAX_USD_PER_ORDER": _USD,
        "CLORE_MAX_USD_PER_DAY": _USD,
        "CLORE_MAX_ACTIVE_ORDERS": "a whole number, such as 5; 0 lets nothing be rented",
        "CLORE_WATCHDOG": "auto or off",
        "CLORE_PAGE": "auto or off",
        "CLORE_NOTIFY_COMMAND": "a program and its arguments, quoted as in a shell; no shell runs it",
        "CLORE_SSH_PUBLIC_KEY": f"one line as in a .pub file: type and base64, up to {SSH_KEY_MAX} characters",
        "CLORE_SSH_PUBLIC_KEY_FILE": f"{_PATH} of a .pub file",
        "CLORE_CURRENCY": f"{', '.join(coin.ticker for coin in Coin)} or Clore's own names",
        "CLORE_REQUEST_GAP_SECONDS": "seconds from 0 to 60, and only when CLORE_API_URL is a loopback host",
    }
)
"""Each variable that is read, with what it accepts."""

_USD_MAX: Final = Decimal(999_999_999)
_MICRO: Final = Decimal("0.000001")
YES_NO: Final = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


class Approval(StrEnum):
    """How a person approves."""

    ASK = "ask"  # through the client; if that can't ask, the approval is decided outside the chat
    OUTSIDE = "outside"  # always outside the chat
    PASSKEY = "passkey"  # outside the chat, on the page, with the person's passkey
    LIMITS = "limits"  # no question: only the limits decide


class Watchdog(StrEnum):
    """Who starts the process that enforces leases."""

    AUTO = "auto"  # this program, with the first order
    OFF = "off"  # the operator, as a service


class Page(StrEnum):
    """Whether a question that can't be asked otherwise opens the person's page."""

    AUTO = "auto"  # if there is a display and this is not an SSH session
    OFF = "off"  # never: the person opens it, or decides in a terminal


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that the operator allows, in USD. `active_orders` is a count."""

    usd_per_hour: Decimal = Decimal(5)
    usd_per_order: Decimal = Decimal(50)
    usd_per_day: Decimal = Decimal(100)
    active_orders: int = 5


Member = TypeVar("Member", bound=StrEnum)


def exact_usd(value: object) -> Decimal | None:
    """Return an amount from a variable's text or a TOML number: from 0, of up to six decimals. Otherwise None."""
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,20})?", value):
            return None
        value = Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    amount = Decimal(value)
    if not amount.is_finite() or amount < 0 or amount > _USD_MAX:
        return None
    return Decimal(f"{amount:f}") if amount == amount.quantize(_MICRO) else None


def whole_number(value: object) -> int | None:
    """Return a count from a variable's text or a TOML number, or None unless it is whole and from 0 to 999,999."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"[0-9]{1,6}", value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 999_999 else None


def member_of(kind: type[Member], text: str) -> Member | None:
    """Return the member of `kind` that the text names, in any case, or None."""
    return next((member for member in kind if member.value == text.lower()), None)


def toolset_names(text: str) -> frozenset[str] | None:
    """Return the toolsets in a comma-separated list, or None if one is unknown or none is named."""
    names = {name.strip().lower() for name in text.split(",")} - {""}
    return frozenset(names) if names and names <= set(TOOLSETS) else None

"""Checks of the arguments of the spending tools. Each exists once, and its error says how to fix the value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ValidationInfo

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.money import Coin
from clore_mcp.rental.create.containers import DEFAULT, JUPYTER_PORT, brings_jupyter, with_ssh
from clore_mcp.settings import public_key_line
from clore_mcp.text import clean

_ID_MAX: Final = 2**53  # ids are JSON numbers; the state holds 64 bits
_ORDER_ID_MAX: Final = 10**40 - 1  # the largest id that a list of orders shows (clore/models.py)
_USD_PER_HOUR_MAX: Final = 10_000  # no offer costs more (market/pricing.py)
ISSUE_MAX: Final = 2_048  # characters of a comment that Clore accepts


def possible_id(number: int) -> int:
    """Return the id of a server, or of an order that the state can hold. Raises ValueError for a larger one."""
    if number > _ID_MAX:
        raise ValueError("is no id; take one from search_servers or list_orders")
    return number


def possible_order(number: int) -> int:
    """Return an order's id. Clore may show one larger than the state can hold, and that order can be ended too. Raises
    ValueError for one larger than Clore can show."""
    if number > _ORDER_ID_MAX:
        raise ValueError("is no id; take one from list_orders")
    return number


def affordable(usd: float | None) -> float | None:
    """Return a price in USD per hour. Raises ValueError for one so high that it must be per day."""
    if usd is not None and usd > _USD_PER_HOUR_MAX:
        raise ValueError(
            f"is above {_USD_PER_HOUR_MAX:,} USD per hour, more than any server costs; give USD per hour, not per day"
        )
    return usd


def _ticker(told: Any) -> Any:
    """Return the ticker for any name of a coin. Any other value is returned unchanged."""
    coin = Coin.parse(told) if isinstance(told, str) else None
    return coin.ticker if coin else told


def known_countries(words: list[str] | None) -> list[str] | None:
    """Return the words, each of which must name a country or a region."""
    from clore_mcp.market import regions  # imported here because listing the tools needs no countries

    wrong = []
    for word in words or ():
        try:
            regions.codes([word], "")
        except ArgumentInvalid as error:
            wrong.append(error.message.removeprefix(": "))
    if wrong:
        raise ValueError(" ".join((*wrong, "Give ISO codes (DE), names or regions (europe)")))
    return words


def known_cuda(text: str | None) -> str | None:
    """Return the text, which must be a CUDA version."""
    from clore_mcp.market.listing import version  # imported here because listing the tools needs no market

    if text is not None and version(text) is None:
        raise ValueError("is not a CUDA version; give one like 12.4")
    return text


Currency = Annotated[Literal["BTC", "CLORE", "USD"], BeforeValidator(_ticker)]


def one_key(line: str | None) -> str | None:
    """Return a public SSH key line, without a comment that Clore refuses."""
    try:
        return None if line is None else public_key_line(line)
    except ValueError as error:
        raise ValueError(f"{error}; give one line as in a .pub file, or leave it out") from None


def jupyter_has_a_port(jupyter: bool, info: ValidationInfo) -> bool:
    """Return `jupyter`. Raises ValueError if it is True and the named ports leave no http port for it."""
    ports = info.data.get("ports") or {}
    other = next((port for port, kind in ports.items() if kind == "http" and port != JUPYTER_PORT), None)
    if not jupyter:
        return jupyter
    if other is None and ports.get(JUPYTER_PORT) == "tcp":
        raise ValueError('needs 8888 as http, and ports names it as tcp; write {"8888":"http"} or leave it out')
    if other is not None and brings_jupyter(info.data.get("image", DEFAULT)):
        raise ValueError(
            f"takes the one http port, which is 8888 in this image, and ports names {other} as http; make {other} tcp,"
            " or leave jupyter out"
        )
    return jupyter


def with_jupyter(named: Mapping[str, str] | None, *, jupyter: bool) -> dict[str, str]:
    """Return the ports to request: the named ones, 22, and Jupyter's if no other port is http."""
    ports = with_ssh(named)
    if jupyter and "http" not in ports.values():
        ports[JUPYTER_PORT] = "http"
    return ports


def order_number(told: Any) -> Any:
    """Return an order's id as given, without the "#" of "#123"."""
    if isinstance(told, bool):  # True would be read as order 1
        raise ValueError("is no id; take one from list_orders")
    return told.strip().removeprefix("#") if isinstance(told, str) else told


NO_COMMENT: Final[tuple[object, ...]] = (None, False, [], {})


def comment(told: Any) -> str | None:
    """Return any comment as one line that Clore accepts, or None. A comment must never stop a cancel."""
    if told in NO_COMMENT:
        return None
    return clean(as_text(told), ISSUE_MAX) or None


def as_text(told: Any) -> str:
    """Return the given comment as text."""
    return told if isinstance(told, str) else json.dumps(told, default=str)

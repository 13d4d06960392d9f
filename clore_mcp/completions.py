"""Completes what a person types into an argument of a prompt or resource: GPUs, countries, images, order ids.

A completion never fails, causes up to one read from Clore, and gives up after two seconds. A fetch that it has started
continues, so that the next keystroke finds its answer.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final

import anyio
from mcp.server import MCPServer
from mcp.types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

from clore_mcp.errors import Failure
from clore_mcp.first_use import FirstUse
from clore_mcp.rental.containers import KNOWN, SHORT_NAMES
from clore_mcp.settings import Settings
from clore_mcp.text import clean

if TYPE_CHECKING:
    from clore_mcp.wiring import Services

log = logging.getLogger(__name__)

MOST: Final = 100  # the protocol's own maximum
GIVE_UP_SECONDS: Final = 2.0
_TYPED_MAX: Final = 80
_VALUE_MAX: Final = 80

Candidates = Callable[["Services", str], Awaitable[list[str]]]


def register(server: MCPServer[FirstUse], settings: Settings, current: Callable[[], Services]) -> None:
    """Add the completion handler. Arguments of a toolset that is off get no suggestions."""

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]  # the SDK leaves it untyped
    async def complete(
        _ref: PromptReference | ResourceTemplateReference, argument: CompletionArgument, _: CompletionContext | None
    ) -> Completion:
        toolset, candidates = _ARGUMENTS.get(argument.name, (None, None))
        if candidates is None or toolset not in settings.toolsets:
            return Completion(values=[])
        found: list[str] = []
        with anyio.move_on_after(GIVE_UP_SECONDS):
            try:
                found = await candidates(current(), clean(argument.value, _TYPED_MAX))
            except Failure:
                pass
            except Exception:
                log.exception("a completion failed")
        return Completion(values=found[:MOST], total=len(found), has_more=len(found) > MOST)


async def gpu_models(services: Services, typed: str) -> list[str]:
    """Return GPU models on the market, those with the most servers first. A snapshot of up to 15 minutes ago has the
    same models."""
    from clore_mcp.market.snapshot import STALE_LIMIT_SECONDS

    snapshot = await services.market.snapshot(STALE_LIMIT_SECONDS)
    counted = Counter({clean(model, _VALUE_MAX): len(servers) for model, servers in snapshot.by_model.items()})
    return matching((model for model, _ in counted.most_common()), typed)


async def countries(services: Services, typed: str) -> list[str]:
    """Return regions and country codes. In a list ("DE, US") the last word is completed and the others are kept."""
    from clore_mcp.market.regions import COUNTRIES, REGIONS

    before, comma, word = typed.rpartition(",")
    kept = f"{before.rstrip()}, " if comma else ""
    found = matching([*sorted(REGIONS), *sorted(COUNTRIES)], word)
    return [kept + value for value in [*found, *(code for code in _named(word) if code not in found)]]


async def images(_: Services, typed: str) -> list[str]:
    """Return the short names, then the Docker names, of the known images."""
    return matching([*SHORT_NAMES, *(known.image for known in KNOWN)], typed)


async def order_ids(services: Services, typed: str) -> list[str]:
    """Return the ids of current orders, newest first."""
    from clore_mcp.rental.account.reading import BROWSING_AGE

    rows = (await services.context.readings.orders(BROWSING_AGE)).rows
    return matching((str(row.id) for row in sorted(rows, key=lambda row: -row.id) if not row.expired), typed)


def matching(values: Iterable[str], typed: str) -> list[str]:
    """Return those of `values` that begin with what was typed, then those that contain it. Case, blanks and punctuation
    are ignored."""
    wanted = _letters(typed)
    ranked = [(_letters(value).find(wanted), value) for value in values]
    return [value for at, value in ranked if at == 0] + [value for at, value in ranked if at > 0]


def _named(word: str) -> list[str]:
    """Return the code of the country whose name was typed out."""
    from clore_mcp.market.regions import codes

    try:
        found = codes([word])
    except Failure:
        return []
    return sorted(found) if len(found) == 1 else []


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())


_ARGUMENTS: Final[dict[str, tuple[str, Candidates]]] = {
    "gpu": ("market", gpu_models),
    "countries": ("market", countries),
    "image": ("market", images),
    "order_id": ("orders", order_ids),
}

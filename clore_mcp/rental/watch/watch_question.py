"""The question before a watch: what may be rented later, unasked, and what all of it could cost at most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from clore_mcp.market.rates import HIGHEST_CREATION_FEE_USD
from clore_mcp.money import dollars, plain
from clore_mcp.rental.asks import CreateWatch
from clore_mcp.rental.disclosure import KeyShown, hours_text, quoted, run_lines

_GPUS_SHOWN = 8
_PLACES_SHOWN = 12


@dataclass(frozen=True, slots=True)
class WatchShown:
    """What a person reads besides the arguments. `models` are what the GPU's name stands for on the market;
    `cheapest_usd` is per hour, of what fits now; `worst_usd` of one order; `who` looks, rents and ends."""

    models: tuple[str, ...]
    cheapest_usd: Decimal | None
    worst_usd: Decimal
    ends: str
    who: str
    key: KeyShown


def watch_question(quote_id: str, ask: CreateWatch, shown: WatchShown) -> str:
    """The whole envelope, in the words of the other questions."""
    each = " each" if ask.max_orders > 1 else ""
    return "\n".join(
        [
            f"Rent later without asking again: {_count(ask)} of {_gpus(shown)} for {hours_text(ask.exact_hours)}{each},"
            f" whenever one costs {dollars(ask.exact_usd_per_hour)} per hour or less?",
            f"Any server that fits: {', '.join(_filters(ask))}",
            f"Price: at most {dollars(ask.exact_usd_per_hour)} per hour with fees for a whole server, and a creation"
            f" fee of about {dollars(HIGHEST_CREATION_FEE_USD)}; worst case {_worst(ask, shown)}. Limits apply.",
            f"Until: {shown.ends} ({hours_text(Decimal(str(ask.expires_hours)))}), or until you cancel it",
            f"Rents, and cancels after {hours_text(ask.exact_hours)}: {shown.who}",
            _now(ask, shown),
            *run_lines(ask, shown.key),
            f"Quote {quote_id}. Nothing is spent without a yes.",
        ]
    )


def _count(ask: CreateWatch) -> str:
    return "one server" if ask.max_orders == 1 else f"up to {ask.max_orders} servers"


def _gpus(shown: WatchShown) -> str:
    told = " or ".join(_name(model) for model in shown.models[:_GPUS_SHOWN])
    more = len(shown.models) - _GPUS_SHOWN
    return f"{told} or {more} more models" if more > 0 else told


def _name(model: str) -> str:
    return model if model.replace(" ", "").isalnum() and model.isascii() and len(model) < 40 else quoted(model, 40)


def _filters(ask: CreateWatch) -> Iterator[str]:
    if ask.min_gpus is not None and ask.min_gpus == ask.max_gpus:
        yield f"{ask.min_gpus} GPUs"
    elif ask.min_gpus is not None or ask.max_gpus is not None:
        most = "more" if ask.max_gpus is None else f"up to {ask.max_gpus}"
        yield f"{ask.min_gpus or 1} or {most} GPUs" if ask.max_gpus is None else f"{ask.min_gpus or 1} {most} GPUs"
    else:
        yield "any number of GPUs"
    if ask.min_vram_gb:
        yield f"{plain(Decimal(str(ask.min_vram_gb)))} GB or more on each"
    places = ask.countries or []
    if places:
        more = f" and {len(places) - _PLACES_SHOWN} more" if len(places) > _PLACES_SHOWN else ""
        yield f"in {', '.join(quoted(place, 20) for place in places[:_PLACES_SHOWN])}{more}"
    else:
        yield "in any country"
    yield (
        f"reliability {plain(Decimal(str(ask.min_reliability)))} or more" if ask.min_reliability else "any reliability"
    )


def _worst(ask: CreateWatch, shown: WatchShown) -> str:
    if ask.max_orders == 1:
        return dollars(shown.worst_usd)
    return f"{dollars(shown.worst_usd)} each, {dollars(shown.worst_usd * ask.max_orders)} in all"


def _now(ask: CreateWatch, shown: WatchShown) -> str:
    if shown.cheapest_usd is None:
        return "Now: none that fits is free"
    if shown.cheapest_usd <= ask.exact_usd_per_hour:
        return f"Now: one that fits costs {dollars(shown.cheapest_usd)} per hour, so it is rented AT ONCE after a yes"
    above = shown.cheapest_usd - ask.exact_usd_per_hour
    return f"Now: the cheapest that fits costs {dollars(shown.cheapest_usd)} per hour, {dollars(above)} too much"

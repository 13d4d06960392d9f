"""Writes the question before a watch: what it may rent later without asking, and the worst case in total."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from clore_mcp.market.pricing import HIGHEST_CREATION_FEE_USD
from clore_mcp.money import dollars, plain
from clore_mcp.rental.containers import least_cuda
from clore_mcp.rental.questions import KeyShown, hours_text, quoted, run_lines
from clore_mcp.rental.requests import CreateWatch

_PLACES_SHOWN = 12
_AT_LEAST = {
    "min_vram_gb": "{} GB or more on each",
    "min_ram_gb": "{} GB RAM or more",
    "min_disk_gb": "{} GB disk or more",
    "min_cpu_threads": "{} CPU threads or more",
    "min_download_mbps": "{} Mbps down or more",
    "min_upload_mbps": "{} Mbps up or more",
    "min_reliability": "reliability {} or more",
    "min_rating": "rating {} or more",
}


@dataclass(frozen=True, slots=True)
class WatchShown:
    """The facts of the question besides the arguments. `models` are those that the GPU's name stands for, and
    `gpu_counts` are their lowest and highest number. `cheapest_usd` is the lowest price per hour that fits now.
    `worst_usd` is per order. `who` names the process that watches, rents and cancels."""

    models: tuple[str, ...]
    gpu_counts: tuple[int | None, int | None]
    cheapest_usd: Decimal | None
    worst_usd: Decimal
    ends: str
    who: str
    key: KeyShown


def watch_question(quote_id: str, request: CreateWatch, shown: WatchShown) -> str:
    """Return the question, which lists everything that the watch may do."""
    count, each = "one server", ""
    if request.max_orders > 1:
        count, each = f"up to {request.max_orders} servers", " each"
    return "\n".join(
        [
            f"Rent later without asking again: {count} of {_gpus(shown)} for"
            f" {hours_text(request.exact_hours)}{each}, whenever one costs"
            f" {dollars(request.exact_usd_per_hour)} per hour or less?",
            f"Any server that fits: {', '.join(_filters(request, *shown.gpu_counts))}",
            f"Price: at most {dollars(request.exact_usd_per_hour)} per hour including fees for a whole server, and a"
            f" creation fee of about {dollars(HIGHEST_CREATION_FEE_USD)}; worst case {_worst(request, shown)}."
            " Limits apply.",
            f"Until: {shown.ends} ({hours_text(Decimal(str(request.expires_hours)))}), or until you cancel it",
            f"Rents, and cancels after {hours_text(request.exact_hours)}: {shown.who}",
            _now(request, shown),
            *run_lines(request, shown.key),
            f"Quote {quote_id}. Nothing is spent without a yes.",
        ]
    )


def notice(quote_id: str, request: CreateWatch, shown: WatchShown) -> str:
    """Return what a watch does that only notifies. It spends nothing, so nobody has to approve it."""
    return (
        f"Notify when {_gpus(shown)} costs {dollars(request.exact_usd_per_hour)} per hour or less, until {shown.ends}."
        f" Any server that fits: {', '.join(_filters(request, *shown.gpu_counts))}. Quote {quote_id}. It rents nothing."
    )


def _gpus(shown: WatchShown) -> str:
    return " or ".join(map(_name, shown.models))


def _name(model: str) -> str:
    return model if model.replace(" ", "").isalnum() and model.isascii() and len(model) < 40 else quoted(model, 40)


def _filters(request: CreateWatch, least: int | None, most: int | None) -> Iterator[str]:
    """Yield every filter in words, because a missing one could be anything."""
    yield _number_of_gpus(least, most)
    for name, words in _AT_LEAST.items():
        if value := getattr(request, name):
            yield words.format(plain(Decimal(str(value))))
    if cuda := least_cuda(request.image, request.min_cuda):
        yield f"CUDA {quoted(cuda, 12)} or newer{'' if cuda == request.min_cuda else ', which the image needs'}"
    if request.currency:
        yield f"paid in {request.currency}"
    yield f"in {_places(request.countries)}" if request.countries else "in any country"
    if request.exclude_countries:
        yield f"not in {_places(request.exclude_countries)}"
    if not request.min_reliability:
        yield "any reliability"


def _number_of_gpus(least: int | None, most: int | None) -> str:
    if most is None:
        return "any number of GPUs" if least is None else f"{least} or more GPUs"
    return f"{most} GPUs" if least == most else f"{least or 1} up to {most} GPUs"


def _places(places: Sequence[str]) -> str:
    more = f" and {len(places) - _PLACES_SHOWN} more" if len(places) > _PLACES_SHOWN else ""
    return f"{', '.join(quoted(place, 20) for place in places[:_PLACES_SHOWN])}{more}"


def _worst(request: CreateWatch, shown: WatchShown) -> str:
    if request.max_orders == 1:
        return dollars(shown.worst_usd)
    return f"{dollars(shown.worst_usd)} each, {dollars(shown.worst_usd * request.max_orders)} in total"


def _now(request: CreateWatch, shown: WatchShown) -> str:
    if shown.cheapest_usd is None:
        return "Now: no server that fits is free"
    if shown.cheapest_usd <= request.exact_usd_per_hour:
        return (
            f"Now: one that fits costs {dollars(shown.cheapest_usd)} per hour, so it will be rented AT ONCE after a yes"
        )
    above = shown.cheapest_usd - request.exact_usd_per_hour
    return f"Now: the cheapest that fits costs {dollars(shown.cheapest_usd)} per hour, {dollars(above)} too much"

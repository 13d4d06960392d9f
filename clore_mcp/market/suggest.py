"""Writes why few servers or none matched, and which one filter to relax to which value, in short sentences of our
own."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Final

from clore_mcp.market.cards import nearest
from clore_mcp.market.pricing import Priced, PricedServer, Unpriced
from clore_mcp.market.query import AT_LEAST, GPU_VRAM, RENTED, UNPRICED
from clore_mcp.market.wish import Unknown
from clore_mcp.money import plain

_Offer = tuple[int | None, Decimal]  # a server's memory in GB and its price in USD per hour

MOST: Final = 4  # sentences; more are not read
_ENOUGH: Final = 5  # a suggested value aims at this many more servers
_NAMED: Final = 3  # countries, models or reasons named in one sentence
_WHOLE: Final = 100  # from this value on, decimals only clutter
_CENT: Final = Decimal("0.01")
_FIELDS: Final = AT_LEAST | {"min_gpus": "gpu_count", "min_cuda": "cuda_version"}
_LAST: Final = frozenset({"gpu", UNPRICED})  # other GPUs (see stand_ins) and unpayable servers are rarely wanted


def for_unknown(unknown: Unknown, popular: Sequence[str], fitting: Iterable[PricedServer]) -> tuple[str, ...]:
    """Return a sentence about words that name no GPU. `fitting` are the servers that pass the other filters."""
    if not popular:
        return ("The marketplace snapshot is empty.",)
    offers = _offers(fitting)
    commonest = f"The commonest: {_priced(popular, offers)}."
    if unknown.said is None:
        return (f"gpu: '{unknown.query}' names no GPU model. {commonest}",)
    nearest_names = f"Nearest names: {_priced(unknown.nearest, offers)}." if unknown.nearest else commonest
    return (f"gpu: '{unknown.said}' is no GPU that is known or listed now. {nearest_names}",)


def stand_ins(wanted: Iterable[str], fitting: Sequence[PricedServer], free: Sequence[PricedServer]) -> tuple[str, ...]:
    """Return the free models nearest to the wanted ones by memory and class, with a server's price. They come from the
    servers that pass the other filters or, if none does, from all."""
    wanted = frozenset(wanted)
    for servers, which in ((fitting, "pass the other filters"), (free, "are free, whatever the other filters")):
        offers = {model: offer for model, offer in _offers(servers).items() if model not in wanted}
        if models := nearest(wanted, offers)[:_NAMED]:
            return (f"Nearest by memory and class that {which}: {_priced(models, offers)}.",)
    return ()


def _offers(servers: Iterable[PricedServer]) -> dict[str, _Offer]:
    """Return the memory and the price of each model's cheapest server."""
    found: dict[str, _Offer] = {}
    for server, priced in servers:
        if isinstance(priced, Priced) and (server.gpu not in found or priced.usd_per_hour < found[server.gpu][1]):
            found[server.gpu] = (server.vram_gb, priced.usd_per_hour)
    return found


def _priced(models: Iterable[str], offers: Mapping[str, _Offer]) -> str:
    return ", ".join(f"{model} ({_offer(offers.get(model))})" for model in models)


def _offer(offer: _Offer | None) -> str:
    if offer is None:
        return "none fits"
    vram_gb, usd = offer
    memory = "" if vram_gb is None else f"{vram_gb} GB, "
    return f"{memory}from {plain(usd.quantize(_CENT / 100, ROUND_CEILING))} USD per hour"


def for_few(
    near: Mapping[str, Sequence[PricedServer]], total: int, same_gpu: Sequence[PricedServer]
) -> tuple[str, ...]:
    """Return what to relax, best first. `near` has the servers that one filter alone removed, `same_gpu` free ones."""
    ranked = sorted(near.items(), key=lambda item: (item[0] in _LAST, -len(item[1])))
    found = [
        _value_to_give(name, servers, total) or _what_is_left_out(name, servers)
        for name, servers in ranked
        if servers and not (total and name == "gpu")
    ]
    if not found and not total:
        found = [_several_filters(same_gpu)]
    return tuple(found[:MOST])


def _value_to_give(name: str, servers: Sequence[PricedServer], total: int) -> str | None:
    """Return the value to relax a filter to, or None for a filter without values in order."""
    if name == "max_usd_per_hour":
        return _dearer(name, servers, total)
    if name == "max_gpus":
        return _too_many_gpus(name, servers, total)
    return _missed_least(name, servers, total) if name.startswith("min_") else None


def _dearer(name: str, servers: Sequence[PricedServer], total: int) -> str:
    prices = sorted(priced.usd_per_hour for _, priced in servers if isinstance(priced, Priced))
    wanted = prices[min(len(prices), _ENOUGH) - 1]
    value = wanted.quantize(_CENT if wanted >= 10 * _CENT else _CENT / 100, ROUND_CEILING)
    count = total + sum(price <= value for price in prices)
    return f"{name} {plain(value)} would match {count}."


def _too_many_gpus(name: str, servers: Sequence[PricedServer], total: int) -> str:
    counts = sorted(server.gpu_count for server, _ in servers)
    value = counts[min(len(counts), _ENOUGH) - 1]
    return f"{name} {value} would match {total + sum(count <= value for count in counts)}."


def _missed_least(name: str, servers: Sequence[PricedServer], total: int) -> str:
    field = operator.attrgetter(_FIELDS[name])
    values = sorted((value for server, _ in servers if (value := field(server)) is not None), reverse=True)
    if not values:
        return f"{name}: {_count(len(servers))} that would match do not state it."
    value = values[min(len(values), _ENOUGH) - 1]
    if name == "min_cuda":
        told = f"{value[0]}.{value[1]}"
    else:
        whole = value >= _WHOLE or float(value).is_integer()
        told = value = math.floor(value) if whole else math.floor(value * 1000) / 1000  # never above an actual value
    return f"{name} {told} would match {total + sum(have >= value for have in values)}."


def _what_is_left_out(name: str, servers: Sequence[PricedServer]) -> str:
    """Return the sentence of a filter whose values have no order."""
    number = len(servers)
    if name == "countries":
        return f"{name}: {number} elsewhere ({_countries(servers)})."
    if name == "exclude_countries":
        return f"{name}: {number} more without it ({_countries(servers)})."
    if name == "currency":
        return f"{name}: {number} more in another coin."
    if name == "gpu":
        return f"{name}: {number} with other GPUs ({_commonest(server.gpu for server, _ in servers)})."
    if name == GPU_VRAM:
        sizes = _commonest(f"{server.vram_gb or '?'} GB:" for server, _ in servers)
        return f"gpu: {number} with other memory ({sizes})."
    if name == RENTED:
        are = "is" if number == 1 else "are"
        return f"{_count(number)} that would match {are} rented now, in whole or in part."
    reasons = _commonest(str(priced) for _, priced in servers if isinstance(priced, Unpriced))
    return f"{_count(number)} that would match can't be priced: {reasons}."


def _several_filters(same_gpu: Sequence[PricedServer]) -> str:
    prices = [priced.usd_per_hour for _, priced in same_gpu if isinstance(priced, Priced)]
    if not prices:
        return "No such server is free at a known price now, whatever the other filters."
    cheapest = plain(min(prices).quantize(_CENT / 100, ROUND_CEILING))
    return (
        f"Several filters together exclude all; of {_count(len(prices))} of this kind free now "
        f"the cheapest costs {cheapest} USD per hour."
    )


def _countries(servers: Sequence[PricedServer]) -> str:
    return _commonest(server.country or "not stated" for server, _ in servers)


def _commonest(words: Iterable[str]) -> str:
    counted = Counter(words)
    named = [f"{word} {count}" for word, count in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join([*named[:_NAMED], *(["…"] if len(named) > _NAMED else [])])


def _count(number: int) -> str:
    return "1 server" if number == 1 else f"{number} servers"

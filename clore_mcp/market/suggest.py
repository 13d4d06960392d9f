"""Writes why few servers or none matched, and which one filter to relax to which value, in short sentences of our
own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Final

from clore_mcp.market.cards import nearest
from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import Priced, PricedServer, Unpriced
from clore_mcp.market.query import AT_LEAST, GPU_VRAM, RENTED, UNPRICED
from clore_mcp.market.wish import Unknown
from clore_mcp.money import plain

MOST: Final = 4  # sentences; more are not read
_ENOUGH: Final = 5  # a suggested value aims at this many more servers
_NAMED: Final = 3  # countries, models or reasons named in one sentence
_WHOLE: Final = 100  # from this value on, decimals only clutter
_CENT: Final = Decimal("0.01")
_LAST: Final = frozenset({"gpu", UNPRICED})  # other GPUs (see stand_ins) and unpayable servers are rarely wanted


def for_unknown(unknown: Unknown, popular: Sequence[str], fitting: Iterable[PricedServer]) -> tuple[str, ...]:
    """Return a sentence about words that name no GPU. `fitting` are the servers that pass the other filters."""
    if not popular:
        return ("The marketplace snapshot is empty.",)
    offers = _offers(fitting)
    if unknown.said is None:
        named = _priced(popular, offers)
        return (f"gpu: '{unknown.query}' names no GPU model. The commonest: {named}.",)
    what = f"gpu: '{unknown.said}' is no GPU that is known or listed now."
    if unknown.nearest:
        return (f"{what} Nearest names: {_priced(unknown.nearest, offers)}.",)
    return (f"{what} The commonest: {_priced(popular, offers)}.",)


def stand_ins(wanted: Iterable[str], fitting: Sequence[PricedServer], free: Sequence[PricedServer]) -> tuple[str, ...]:
    """Return the free models nearest to the wanted ones by memory and class, with a server's price. They come from the
    servers that pass the other filters or, if none does, from all."""
    wanted = frozenset(wanted)
    for servers, which in ((fitting, "pass the other filters"), (free, "are free, whatever the other filters")):
        offers = {model: offer for model, offer in _offers(servers).items() if model not in wanted}
        if models := nearest(wanted, offers)[:_NAMED]:
            return (f"Nearest by memory and class that {which}: {_priced(models, offers)}.",)
    return ()


_Offer = tuple[int | None, Decimal]


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
    """Return what to relax, best first. `near` holds the servers that one filter alone removed, `same_gpu` the free
    ones."""
    ranked = sorted(near.items(), key=lambda item: (item[0] in _LAST, -len(item[1])))
    found = [
        _SENTENCES.get(name, _missed_least)(name, servers, total)
        for name, servers in ranked
        if servers and not (total and name == "gpu")
    ]
    if not found and not total:
        found = [_several_filters(same_gpu)]
    return tuple(found[:MOST])


def _dearer(name: str, servers: Sequence[PricedServer], total: int) -> str:
    prices = sorted(priced.usd_per_hour for _, priced in servers if isinstance(priced, Priced))
    wanted = prices[min(len(prices), _ENOUGH) - 1]
    value = wanted.quantize(_CENT if wanted >= 10 * _CENT else _CENT / 100, ROUND_CEILING)
    count = total + sum(price <= value for price in prices)
    return f"{name} {plain(value)} would match {count}."


def _missed_least(name: str, servers: Sequence[PricedServer], total: int) -> str:
    values = sorted((value for server, _ in servers if (value := _stated(name, server)) is not None), reverse=True)
    if not values:
        return f"{name}: {_count(len(servers))} that would match do not state it."
    wanted = values[min(len(values), _ENOUGH) - 1]
    whole = wanted >= _WHOLE or float(wanted).is_integer()
    value = math.floor(wanted) if whole else math.floor(wanted * 1000) / 1000  # never above an actual value
    count = total + sum(have >= value for have in values)
    return f"{name} {value} would match {count}."


def _stated(name: str, server: Listing) -> float | None:
    value: float | None = getattr(server, AT_LEAST.get(name, "gpu_count"))
    return value


def _too_many_gpus(name: str, servers: Sequence[PricedServer], total: int) -> str:
    counts = sorted(server.gpu_count for server, _ in servers)
    value = counts[min(len(counts), _ENOUGH) - 1]
    return f"{name} {value} would match {total + sum(count <= value for count in counts)}."


def _older_cuda(name: str, servers: Sequence[PricedServer], total: int) -> str:
    known = sorted((server.cuda_version for server, _ in servers if server.cuda_version is not None), reverse=True)
    if not known:
        return f"{name}: {_count(len(servers))} that would match do not state it."
    value = known[min(len(known), _ENOUGH) - 1]
    count = total + sum(version >= value for version in known)
    return f"{name} {value[0]}.{value[1]} would match {count}."


def _elsewhere(name: str, servers: Sequence[PricedServer], _: int) -> str:
    return f"{name}: {len(servers)} elsewhere ({_commonest(server.country or 'not stated' for server, _ in servers)})."


def _unwanted(name: str, servers: Sequence[PricedServer], _: int) -> str:
    where = _commonest(server.country or "not stated" for server, _ in servers)
    return f"{name}: {len(servers)} more without it ({where})."


def _rented(_: str, servers: Sequence[PricedServer], __: int) -> str:
    return f"{_count(len(servers))} that would match {_are(servers)} rented now, in whole or in part."


def _other_coin(name: str, servers: Sequence[PricedServer], _: int) -> str:
    return f"{name}: {len(servers)} more in another coin."


def _unpayable(_: str, servers: Sequence[PricedServer], __: int) -> str:
    reasons = _commonest(str(priced) for _, priced in servers if isinstance(priced, Unpriced))
    return f"{_count(len(servers))} that would match can't be priced: {reasons}."


def _other_gpus(name: str, servers: Sequence[PricedServer], _: int) -> str:
    return f"{name}: {len(servers)} with other GPUs ({_commonest(server.gpu for server, _ in servers)})."


def _other_memory(_: str, servers: Sequence[PricedServer], __: int) -> str:
    sizes = _commonest(f"{server.vram_gb or '?'} GB:" for server, _ in servers)
    return f"gpu: {len(servers)} with other memory ({sizes})."


_SENTENCES: Final[dict[str, Callable[[str, Sequence[PricedServer], int], str]]] = {
    "max_usd_per_hour": _dearer,
    "max_gpus": _too_many_gpus,
    "min_cuda": _older_cuda,
    "countries": _elsewhere,
    "exclude_countries": _unwanted,
    "currency": _other_coin,
    "gpu": _other_gpus,
    GPU_VRAM: _other_memory,
    RENTED: _rented,
    UNPRICED: _unpayable,
}


def _several_filters(same_gpu: Sequence[PricedServer]) -> str:
    prices = [priced.usd_per_hour for _, priced in same_gpu if isinstance(priced, Priced)]
    if not prices:
        return "No such server is free at a known price now, whatever the other filters."
    cheapest = plain(min(prices).quantize(_CENT / 100, ROUND_CEILING))
    return (
        f"Several filters together exclude all; of {_count(len(prices))} of this kind free now "
        f"the cheapest costs {cheapest} USD per hour."
    )


def _commonest(words: Iterable[str]) -> str:
    counted = Counter(words)
    named = [f"{word} {count}" for word, count in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join([*named[:_NAMED], *(["…"] if len(named) > _NAMED else [])])


def _count(number: int) -> str:
    return "1 server" if number == 1 else f"{number} servers"


def _are(servers: Sequence[PricedServer]) -> str:
    return "is" if len(servers) == 1 else "are"

"""The search: filters, prices, sorting, pages, and suggestions if few servers match.

A server that fails only one filter is counted under that filter. A server that fails two is counted under none. So each
answer says exactly what relaxing one filter would add.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import heapq
import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Final

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.market import suggest
from clore_mcp.market.concerns import concerns
from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import Fees, OrderType, Priced, PricedServer, Unpriced, Wallet, choose, per_gpu
from clore_mcp.market.query import Filter, Query, SortBy, filters_of, gpu_counts
from clore_mcp.market.snapshot import Snapshot
from clore_mcp.market.summary import Quartiles, typical, usual_prices
from clore_mcp.market.wish import Match, Unknown, resolve
from clore_mcp.text import clean

Payable = tuple[Listing, Priced]
Key = tuple[Decimal, Decimal, int]

_MOST_FIRST: Final = {
    SortBy.RELIABILITY: "reliability",
    SortBy.VRAM: "vram_gb",
    SortBy.DOWNLOAD: "download_mbps",
}  # the listing's field
_FEW: Final = 3
_POPULAR: Final = 5
_GPU_SHOWN: Final = 60
_CURSOR_LIMIT: Final = 400  # characters; ours are shorter


@dataclass(frozen=True, slots=True)
class FoundServer:
    """A server that matched, and its price. All `usd` fields include the renter's fee."""

    listing: Listing
    priced: Priced
    usd_per_gpu_hour: Decimal
    spot_min_usd_per_hour: Decimal | None
    concerns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One page of a search, and facts about the rest."""

    matches: tuple[FoundServer, ...]
    total_matches: int
    next_cursor: str | None
    excluded: Mapping[str, int]
    suggestions: tuple[str, ...]
    typical_usd_per_gpu_hour: Quartiles | None
    snapshot_age_seconds: float
    gpu_models: tuple[str, ...] = ()  # listed now or not
    gpu_counts: tuple[int | None, int | None] = (None, None)  # least and most
    unknown_gpu: Unknown | None = None
    stale_because: str | None = None


async def find(snapshot: Snapshot, query: Query, fees: Fees, wallet: Wallet | None, now: float) -> Result:
    """Run `search` in a thread, so that it does not block the event loop."""
    return await asyncio.to_thread(search, snapshot, query, fees, wallet, now)


def search(snapshot: Snapshot, query: Query, fees: Fees, wallet: Wallet | None, now: float) -> Result:
    """Return a page of the servers that pass every filter, in the requested order. Raises ArgumentInvalid for an
    unusable filter or cursor."""
    named = resolve(query.gpu, snapshot.by_model) if query.gpu and query.gpu.strip() else None
    match, unknown = (None, named) if isinstance(named, Unknown) else (named, None)
    filters = filters_of(query, match)
    market = snapshot.priced(query.order_type, fees, wallet=wallet, preferred=query.preferred, only=query.currency)
    passed, near = _sift(market, filters)
    same_gpu = [server for server in market if server[0].gpu in match.models] if match else market
    fitting = [] if unknown else [(listing, priced) for listing, priced in passed if isinstance(priced, Priced)]
    page, next_cursor = _page(fitting, query)
    if unknown:
        popular = sorted(snapshot.by_model, key=lambda model: (-len(snapshot.by_model[model]), model))[:_POPULAR]
        suggestions = suggest.for_unknown(unknown, popular, passed)
    else:
        suggestions = _suggestions(snapshot, query, match, market, same_gpu, near, len(fitting))
    return Result(
        matches=tuple(_found(snapshot, query.order_type, fees, page)),
        total_matches=len(fitting),
        next_cursor=next_cursor,
        excluded={} if unknown else {name: len(servers) for name, servers in near.items() if servers},
        suggestions=suggestions,
        typical_usd_per_gpu_hour=typical(same_gpu) if match else None,
        snapshot_age_seconds=snapshot.age_seconds(now),
        gpu_models=tuple(sorted(match.models)) if match else (),
        gpu_counts=gpu_counts(query, match),
        unknown_gpu=unknown,
        stale_because=snapshot.stale_because,
    )


def _sift(
    market: Iterable[PricedServer], filters: Sequence[Filter]
) -> tuple[list[PricedServer], dict[str, list[PricedServer]]]:
    """Return the servers that pass every filter and, for each filter, those that it alone removed."""
    passed: list[PricedServer] = []
    near: dict[str, list[PricedServer]] = {name: [] for name, _ in filters}
    for server in market:
        listing, priced = server
        failed = None
        for name, passes in filters:
            if not passes(listing, priced):
                if failed is not None:
                    break
                failed = name
        else:
            (passed if failed is None else near[failed]).append(server)
    return passed, near


def _free(servers: Iterable[PricedServer]) -> list[PricedServer]:
    return [one for one in servers if not one[0].rented and not one[0].partial]


def _page(fitting: list[Payable], query: Query) -> tuple[list[Payable], str | None]:
    """Return the servers of the requested page, and the cursor of the next one."""
    digest = hashlib.sha256(repr(replace(query, cursor=None, limit=1)).encode(errors="replace")).hexdigest()[:16]
    keyed = [(_key(one, query.sort_by), one) for one in fitting]
    if query.cursor is not None:
        after = _read_cursor(query.cursor, digest)
        keyed = [one for one in keyed if one[0] > after]
    page = heapq.nsmallest(query.limit, keyed, key=operator.itemgetter(0))
    more = len(keyed) > len(page)
    return [one for _, one in page], _write_cursor(digest, page[-1][0]) if more else None


def _key(candidate: Payable, sort_by: SortBy) -> Key:
    """Return an ascending sort key: what was asked for, then the price, then the id. No two servers are equal."""
    listing, priced = candidate
    first = priced.usd_per_hour
    if sort_by is SortBy.PRICE_PER_GPU:
        first = per_gpu(listing, priced)
    elif sort_by in _MOST_FIRST:
        most = getattr(listing, _MOST_FIRST[sort_by])
        first = Decimal(1) if most is None else -Decimal(repr(most))
    return first, priced.usd_per_hour, listing.server_id


def _suggestions(
    snapshot: Snapshot,
    query: Query,
    match: Match | None,
    market: Sequence[PricedServer],
    same_gpu: Sequence[PricedServer],
    near: Mapping[str, Sequence[PricedServer]],
    matching: int,
) -> tuple[str, ...]:
    """Return suggestions if few servers or none match."""
    if matching >= _FEW:
        return ()
    others: tuple[str, ...] = ()
    if match and not matching:
        others = suggest.stand_ins(match.models, near["gpu"], _free(market))
        if match.models.isdisjoint(snapshot.by_model):
            return (f"'{clean(query.gpu or '', _GPU_SHOWN)}' is known, but none is listed now.", *others)
    removed = {name: servers for name, servers in near.items() if not (others and name == "gpu")}
    return (*suggest.for_few(removed, matching, _free(same_gpu))[: suggest.MOST - len(others)], *others)


def _found(snapshot: Snapshot, order_type: OrderType, fees: Fees, page: Sequence[Payable]) -> Iterator[FoundServer]:
    """Yield the servers of a page. Concerns use both kinds of price as they are shown. The price of the searched type
    may be in another coin than the cheapest."""
    for_bid = order_type is OrderType.SPOT
    usual = usual_prices(snapshot, fees, {listing.gpu for listing, _ in page})
    for listing, priced in page:
        other = OrderType.ON_DEMAND if for_bid else OrderType.SPOT
        beside = choose(listing, other, fees, snapshot.rates)
        bid, fixed = map(usd_per_hour, (priced, beside) if for_bid else (beside, priced))
        against = concerns(listing, fixed, bid, usual.get(listing.gpu), for_bid=for_bid)
        yield FoundServer(listing, priced, per_gpu(listing, priced), bid, against)


def usd_per_hour(priced: Priced | Unpriced) -> Decimal | None:
    """Return the price in USD per hour, or None if there is none."""
    return priced.usd_per_hour if isinstance(priced, Priced) else None


def _write_cursor(digest: str, key: Key) -> str:
    text = json.dumps([digest, str(key[0]), str(key[1]), key[2]], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str, expected: str) -> Key:
    hint = "Give next_cursor of the last page with the same filters, or leave cursor out for the first page."
    padded = cursor[:_CURSOR_LIMIT] + "=" * (-len(cursor[:_CURSOR_LIMIT]) % 4)
    try:
        digest, first, second, server_id = json.loads(base64.urlsafe_b64decode(padded))
        key = (Decimal(first), Decimal(second), int(server_id))
        if not (key[0].is_finite() and key[1].is_finite()):
            raise ValueError("a price that is no number")
    except (ValueError, TypeError, OverflowError, InvalidOperation, RecursionError) as error:
        raise ArgumentInvalid("cursor: it is not a valid cursor.", hint=hint) from error
    if digest != expected:
        raise ArgumentInvalid("cursor: it belongs to another search.", hint=hint)
    return key

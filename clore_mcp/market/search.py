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
from clore_mcp.market.query import MAX_LIMIT, Filter, Query, SortBy, filters_of, gpu_counts
from clore_mcp.market.snapshot import Snapshot
from clore_mcp.market.summary import Quartiles, typical, usual_prices
from clore_mcp.market.wish import Match, Unknown, resolve
from clore_mcp.text import clean

Payable = tuple[Listing, Priced]
Key = tuple[Decimal, Decimal, int]

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
    if not 1 <= query.limit <= MAX_LIMIT:
        raise ArgumentInvalid(f"limit: {query.limit} is not between 1 and {MAX_LIMIT}.", hint="Give a number like 10.")
    match = _match(snapshot, query)
    filters = filters_of(query, match if isinstance(match, Match) else None)
    market = snapshot.priced(query.order_type, fees, wallet=wallet, preferred=query.preferred, only=query.currency)
    passed, near = _sift(market, filters)
    fitting = [] if isinstance(match, Unknown) else _payable(passed)
    page, next_cursor = _page(fitting, query)
    excluded = {} if isinstance(match, Unknown) else {name: len(servers) for name, servers in near.items() if servers}
    return Result(
        matches=tuple(_found(snapshot, query.order_type, fees, page)),
        total_matches=len(fitting),
        next_cursor=next_cursor,
        excluded=excluded,
        suggestions=_suggestions(snapshot, query, match, market, near, passed, len(fitting)),
        typical_usd_per_gpu_hour=typical(_same_gpu(market, match)) if isinstance(match, Match) else None,
        snapshot_age_seconds=snapshot.age_seconds(now),
        gpu_models=tuple(sorted(match.models)) if isinstance(match, Match) else (),
        gpu_counts=gpu_counts(query, match if isinstance(match, Match) else None),
        unknown_gpu=match if isinstance(match, Unknown) else None,
        stale_because=snapshot.stale_because,
    )


def _match(snapshot: Snapshot, query: Query) -> Match | Unknown | None:
    if query.gpu is None or not query.gpu.strip():
        return None
    return resolve(query.gpu, snapshot.by_model)


def _sift(
    market: Iterable[PricedServer], filters: Sequence[Filter]
) -> tuple[list[PricedServer], dict[str, list[PricedServer]]]:
    """Return the servers that pass every filter and, for each filter, those that it alone removed."""
    passed: list[PricedServer] = []
    near: dict[str, list[PricedServer]] = {one.name: [] for one in filters}
    checks = [(one.name, one.passes) for one in filters]
    for server in market:
        listing, priced = server
        failed = None
        for name, passes in checks:
            if not passes(listing, priced):
                if failed is not None:
                    break
                failed = name
        else:
            (passed if failed is None else near[failed]).append(server)
    return passed, near


def _payable(servers: Iterable[PricedServer]) -> list[Payable]:
    return [(listing, priced) for listing, priced in servers if isinstance(priced, Priced)]


def _same_gpu(market: Sequence[PricedServer], match: Match | None) -> Sequence[PricedServer]:
    return market if match is None else [one for one in market if one[0].gpu in match.models]


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
    """Return an ascending sort key: what was asked for, then the price, then the id, so that no two servers are
    equal."""
    listing, priced = candidate
    most: float | None = None
    match sort_by:
        case SortBy.PRICE:
            return priced.usd_per_hour, priced.usd_per_hour, listing.server_id
        case SortBy.PRICE_PER_GPU:
            return per_gpu(listing, priced), priced.usd_per_hour, listing.server_id
        case SortBy.RELIABILITY:
            most = listing.reliability
        case SortBy.VRAM:
            most = listing.vram_gb
        case SortBy.DOWNLOAD:
            most = listing.download_mbps
    return Decimal(1) if most is None else -Decimal(repr(most)), priced.usd_per_hour, listing.server_id


def _suggestions(
    snapshot: Snapshot,
    query: Query,
    match: Match | Unknown | None,
    market: Sequence[PricedServer],
    near: Mapping[str, Sequence[PricedServer]],
    passed: Sequence[PricedServer],
    matching: int,
) -> tuple[str, ...]:
    """Return suggestions if few servers or none match."""
    if isinstance(match, Unknown):
        popular = sorted(snapshot.by_model, key=lambda model: (-len(snapshot.by_model[model]), model))[:_POPULAR]
        return suggest.for_unknown(match, popular, passed)
    if matching >= _FEW:
        return ()
    stand_ins = () if matching else _stand_ins(snapshot, query, match, market, near.get("gpu", ()))
    removed = {name: servers for name, servers in near.items() if not (stand_ins and name == "gpu")}
    unlisted = match is not None and match.models.isdisjoint(snapshot.by_model)
    told = () if unlisted else suggest.for_few(removed, matching, _free(_same_gpu(market, match)))
    return (*told[: suggest.MOST - len(stand_ins)], *stand_ins)


def _stand_ins(
    snapshot: Snapshot,
    query: Query,
    match: Match | None,
    market: Sequence[PricedServer],
    others: Sequence[PricedServer],
) -> tuple[str, ...]:
    """Return suggestions if no server with the GPU matches: that none is listed, if so, and the nearest models."""
    if match is None:
        return ()
    told = suggest.stand_ins(match.models, others, _free(market))
    if match.models.isdisjoint(snapshot.by_model):
        return (f"'{clean(query.gpu or '', _GPU_SHOWN)}' is known, but none is listed now.", *told)
    return told


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
    except (ValueError, TypeError, OverflowError, InvalidOperation, RecursionError) as error:
        raise ArgumentInvalid("cursor: it is not a valid cursor.", hint=hint) from error
    if not (key[0].is_finite() and key[1].is_finite()):
        raise ArgumentInvalid("cursor: it is not a valid cursor.", hint=hint)
    if digest != expected:
        raise ArgumentInvalid("cursor: it belongs to another search.", hint=hint)
    return key

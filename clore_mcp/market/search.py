"""The search: filters, prices, order, pages, and what to say when little matches.

One pass over the snapshot. A server that fails one filter is remembered under that filter (what it alone removed), a
server that fails two is forgotten, so each answer says exactly what relaxing one filter would bring.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Final

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.market import suggest
from clore_mcp.market.gpus import Match, Unknown, resolve
from clore_mcp.market.listing import SPOT_ABOVE_ON_DEMAND, Listing
from clore_mcp.market.pricing import Priced, Wallet, prices_of
from clore_mcp.market.query import Query, SortBy, Test, filters_of
from clore_mcp.market.rates import Fees, OrderType
from clore_mcp.market.snapshot import Snapshot
from clore_mcp.market.suggest import Candidate
from clore_mcp.market.summary import Quartiles, per_gpu, typical

_FEW: Final = 3
_POPULAR: Final = 5
_CURSOR_LIMIT: Final = 400  # characters; ours are shorter

Key = tuple[Decimal, Decimal, int]


@dataclass(frozen=True, slots=True)
class Found:
    """A server that matched, at its price. All `usd` have the renter's fee in."""

    listing: Listing
    priced: Priced
    usd_per_gpu_hour: Decimal
    spot_min_usd_per_hour: Decimal | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One page of a search, and what is worth knowing about the rest."""

    matches: tuple[Found, ...]
    total_matches: int
    next_cursor: str | None
    excluded: Mapping[str, int]
    suggestions: tuple[str, ...]
    typical_usd_per_gpu_hour: Quartiles | None
    snapshot_age_seconds: float
    gpu_models: tuple[str, ...] = ()
    unknown_gpu: Unknown | None = None
    stale_because: str | None = None


def search(snapshot: Snapshot, query: Query, fees: Fees, wallet: Wallet | None, now: float) -> Result:
    """The servers that pass every filter, in the order asked for; ArgumentInvalid for an unusable filter or cursor."""
    match = _match(snapshot, query)
    filters = filters_of(query, match if isinstance(match, Match) else None)
    after = _read_cursor(query)
    if isinstance(match, Unknown):
        return _nothing_of_the_kind(snapshot, match, now)
    prices = snapshot.prices(query.order_type, fees, wallet=wallet, preferred=query.preferred, only=query.currency)
    servers = list(zip(snapshot.listings, prices, strict=True))
    passed, near = _sift(servers, filters)
    ordered = sorted(((_key(query.sort_by, *server), server) for server in passed), key=lambda item: item[0])
    rest = [item for item in ordered if item[0] > after] if after else ordered
    page = rest[: query.limit]
    same_gpu = [server for server in servers if match is None or server[0].gpu in match.models]
    return Result(
        matches=tuple(_found(snapshot, query, fees, *server) for _, server in page),
        total_matches=len(ordered),
        next_cursor=_write_cursor(query, page[-1][0]) if len(rest) > query.limit else None,
        excluded=MappingProxyType({name: len(removed) for name, removed in near.items() if removed}),
        suggestions=suggest.for_few(near, len(ordered), _free(same_gpu)) if len(ordered) < _FEW else (),
        typical_usd_per_gpu_hour=typical(same_gpu) if match else None,
        snapshot_age_seconds=snapshot.age_seconds(now),
        gpu_models=tuple(sorted(match.models)) if match else (),
        stale_because=snapshot.stale_because,
    )


def _match(snapshot: Snapshot, query: Query) -> Match | Unknown | None:
    if query.gpu is None or not query.gpu.strip():
        return None
    return resolve(query.gpu, snapshot.by_model)


def _sift(
    servers: list[Candidate], filters: Mapping[str, Test]
) -> tuple[list[tuple[Listing, Priced]], dict[str, list[Candidate]]]:
    passed: list[tuple[Listing, Priced]] = []
    near: dict[str, list[Candidate]] = {name: [] for name in filters}
    checks = list(filters.items())
    for server in servers:
        listing, priced = server
        failed: str | None = None
        for name, passes in checks:
            if not passes(listing, priced):
                if failed is not None:
                    break
                failed = name
        else:
            if failed is not None:
                near[failed].append(server)
            elif isinstance(priced, Priced):
                passed.append((listing, priced))
    return passed, near


def _key(sort_by: SortBy, listing: Listing, priced: Priced) -> Key:
    """Ascending: what was asked for, then the price, then the id, so that no two servers are equal."""
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


def _found(snapshot: Snapshot, query: Query, fees: Fees, listing: Listing, priced: Priced) -> Found:
    spot = _cheapest(snapshot, listing, OrderType.SPOT, fees)
    warnings = listing.warnings
    if query.order_type is OrderType.SPOT and SPOT_ABOVE_ON_DEMAND not in warnings:
        on_demand = _cheapest(snapshot, listing, OrderType.ON_DEMAND, fees)
        if on_demand is not None and priced.usd_per_hour > on_demand:
            warnings = (SPOT_ABOVE_ON_DEMAND, *warnings)
    return Found(listing, priced, per_gpu(listing, priced), spot, warnings)


def _cheapest(snapshot: Snapshot, listing: Listing, order_type: OrderType, fees: Fees) -> Decimal | None:
    offers = prices_of(listing, order_type, fees, snapshot.rates).values()
    return min((offer.usd_per_hour for offer in offers if isinstance(offer, Priced)), default=None)


def _free(servers: list[Candidate]) -> list[Candidate]:
    return [server for server in servers if not server[0].rented and not server[0].partial]


def _nothing_of_the_kind(snapshot: Snapshot, unknown: Unknown, now: float) -> Result:
    popular = sorted(snapshot.by_model, key=lambda model: (-len(snapshot.by_model[model]), model))[:_POPULAR]
    return Result(
        matches=(),
        total_matches=0,
        next_cursor=None,
        excluded=MappingProxyType({}),
        suggestions=suggest.for_unknown(unknown, popular),
        typical_usd_per_gpu_hour=None,
        snapshot_age_seconds=snapshot.age_seconds(now),
        unknown_gpu=unknown,
        stale_because=snapshot.stale_because,
    )


def _digest(query: Query) -> str:
    """What a cursor belongs to: the query itself, whatever the size of its pages."""
    return hashlib.sha256(repr(replace(query, cursor=None, limit=1)).encode(errors="replace")).hexdigest()[:16]


def _write_cursor(query: Query, key: Key) -> str:
    text = json.dumps([_digest(query), str(key[0]), str(key[1]), key[2]], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(query: Query) -> Key | None:
    if query.cursor is None:
        return None
    hint = "Give next_cursor of the last page with the same filters, or leave cursor out for the first page."
    padded = query.cursor[:_CURSOR_LIMIT] + "=" * (-len(query.cursor[:_CURSOR_LIMIT]) % 4)
    try:
        digest, first, second, server_id = json.loads(base64.urlsafe_b64decode(padded))
        key = (Decimal(first), Decimal(second), int(server_id))
    except (ValueError, TypeError, OverflowError, InvalidOperation, RecursionError) as error:
        raise ArgumentInvalid("cursor: it is none of ours.", hint=hint) from error
    if not (key[0].is_finite() and key[1].is_finite()):
        raise ArgumentInvalid("cursor: it is none of ours.", hint=hint)
    if digest != _digest(query):
        raise ArgumentInvalid("cursor: it belongs to another search.", hint=hint)
    return key

"""The search: filters, prices, order, pages, and what to say when little matches.

Each filter runs over one column of the whole market. A server that fails one filter is counted under that filter (what
it alone removed), a server that fails two under none, so each answer says exactly what relaxing one filter would bring.
What a question comes to is kept with the snapshot; its age and how old is too old are not.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.market import suggest
from clore_mcp.market.columns import Candidate, Columns, Key
from clore_mcp.market.concerns import concerns
from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import Priced, Unpriced, Wallet, per_gpu
from clore_mcp.market.query import MAX_LIMIT, Filter, Query, filters_of, gpu_counts
from clore_mcp.market.rates import Fees, OrderType
from clore_mcp.market.snapshot import Snapshot, held_coins
from clore_mcp.market.summary import Quartiles, typical, usual_prices
from clore_mcp.market.wish import Match, Unknown, resolve
from clore_mcp.money import Coin
from clore_mcp.text import clean

_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
_FEW: Final = 3
_POPULAR: Final = 5
_GPU_SHOWN: Final = 60
_CURSOR_LIMIT: Final = 400  # characters; ours are shorter


@dataclass(frozen=True, slots=True)
class Found:
    """A server that matched, at its price. All `usd` have the renter's fee in."""

    listing: Listing
    priced: Priced
    usd_per_gpu_hour: Decimal
    spot_min_usd_per_hour: Decimal | None
    concerns: tuple[str, ...]


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
    gpu_models: tuple[str, ...] = ()  # listed now or not
    gpu_counts: tuple[int | None, int | None] = (None, None)  # least and most
    unknown_gpu: Unknown | None = None
    stale_because: str | None = None
    page: object = None  # equal for the same matches of one snapshot


@dataclass(frozen=True, slots=True)
class _Sifted:
    """What a question comes to, whatever page of it is asked for and when."""

    columns: Columns
    order: Sequence[int]
    excluded: Mapping[str, int]
    suggestions: tuple[str, ...]
    typical: Quartiles | None
    match: Match | Unknown | None
    digest: str  # what a cursor belongs to


async def find(snapshot: Snapshot, query: Query, fees: Fees, wallet: Wallet | None, now: float) -> Result:
    """`search`, in a thread where the answer has to be worked out: the event loop is not held up, however many servers
    there are."""
    if snapshot.knows(_question(query, fees, wallet)):
        return search(snapshot, query, fees, wallet, now)
    return await asyncio.to_thread(search, snapshot, query, fees, wallet, now)


def search(snapshot: Snapshot, query: Query, fees: Fees, wallet: Wallet | None, now: float) -> Result:
    """The servers that pass every filter, in the order asked for; ArgumentInvalid for an unusable filter or cursor."""
    if not 1 <= query.limit <= MAX_LIMIT:
        raise ArgumentInvalid(f"limit: {query.limit} is not between 1 and {MAX_LIMIT}.", hint="Give a number like 10.")
    question = _question(query, fees, wallet)
    sifted = snapshot.kept(question, lambda: _sift(snapshot, question.query, fees, wallet))
    columns, begins = sifted.columns, 0
    if query.cursor is not None:
        after = _read_cursor(query.cursor, sifted.digest)
        begins = bisect_right(sifted.order, after, key=partial(columns.key, query.sort_by))
    ends = begins + query.limit
    page, positions = (question, begins, ends), sifted.order[begins:ends]
    more = len(sifted.order) > ends
    match = sifted.match
    return Result(
        matches=snapshot.kept(page, lambda: tuple(_found(snapshot, columns, query.order_type, fees, positions))),
        total_matches=len(sifted.order),
        next_cursor=_write_cursor(sifted.digest, columns.key(query.sort_by, positions[-1])) if more else None,
        excluded=sifted.excluded,
        suggestions=sifted.suggestions,
        typical_usd_per_gpu_hour=sifted.typical,
        snapshot_age_seconds=snapshot.age_seconds(now),
        gpu_models=tuple(sorted(match.models)) if isinstance(match, Match) else (),
        gpu_counts=gpu_counts(query, match if isinstance(match, Match) else None),
        unknown_gpu=match if isinstance(match, Unknown) else None,
        stale_because=snapshot.stale_because,
        page=page,
    )


class _Question(NamedTuple):
    """All that an answer depends on besides the snapshot."""

    query: Query
    fees: tuple[Decimal, ...]
    held: frozenset[Coin] | None


def _question(query: Query, fees: Fees, wallet: Wallet | None) -> _Question:
    fractions = tuple(fees.fraction(order_type, coin) for order_type in OrderType for coin in Coin)
    return _Question(replace(query, cursor=None, limit=1), fractions, held_coins(wallet))


def _sift(snapshot: Snapshot, query: Query, fees: Fees, wallet: Wallet | None) -> _Sifted:
    match = _match(snapshot, query)
    filters = filters_of(query, match if isinstance(match, Match) else None)
    columns = snapshot.columns(query.order_type, fees, wallet=wallet, preferred=query.preferred, only=query.currency)
    digest = hashlib.sha256(repr(query).encode(errors="replace")).hexdigest()[:16]
    passed, near = _split(columns, filters)
    if isinstance(match, Unknown):
        popular = sorted(snapshot.by_model, key=lambda model: (-len(snapshot.by_model[model]), model))[:_POPULAR]
        told = suggest.for_unknown(match, popular, columns.candidates(passed))
        return _Sifted(columns, (), _NOTHING, told, None, match, digest)
    order = columns.ordered(passed, query.sort_by)
    same_gpu = next((columns.passing(one) for one in filters if one.name == "gpu"), columns.every)
    suggestions: tuple[str, ...] = ()
    if len(order) < _FEW:
        removed = {name: list(columns.candidates(servers)) for name, servers in near.items()}
        stand_ins = _stand_ins(snapshot, query, match, columns, removed.get("gpu", ())) if not len(order) else ()
        if stand_ins:
            removed.pop("gpu", None)
        told = () if _unlisted(snapshot, match) else suggest.for_few(removed, len(order), _free(columns, same_gpu))
        suggestions = (*told[: suggest.MOST - len(stand_ins)], *stand_ins)
    excluded = MappingProxyType({name: servers.bit_count() for name, servers in near.items() if servers})
    usual = typical(columns.candidates(same_gpu)) if match else None
    return _Sifted(columns, order, excluded, suggestions, usual, match, digest)


def _unlisted(snapshot: Snapshot, match: Match | None) -> bool:
    return match is not None and match.models.isdisjoint(snapshot.by_model)


def _stand_ins(
    snapshot: Snapshot, query: Query, match: Match | None, columns: Columns, others: Sequence[Candidate]
) -> tuple[str, ...]:
    """What to say where no server with the GPU matches: that none is listed, if so, and which models come nearest."""
    if match is None:
        return ()
    told = suggest.stand_ins(match.models, others, _free(columns, columns.every))
    if _unlisted(snapshot, match):
        return (f"'{clean(query.gpu or '', _GPU_SHOWN)}' is known, but none is listed now.", *told)
    return told


def _match(snapshot: Snapshot, query: Query) -> Match | Unknown | None:
    if query.gpu is None or not query.gpu.strip():
        return None
    return resolve(query.gpu, snapshot.by_model)


def _split(columns: Columns, filters: Sequence[Filter]) -> tuple[int, dict[str, int]]:
    """The servers that pass every filter, and for each filter those that it alone removed."""
    passed, near = columns.every, dict.fromkeys((one.name for one in filters), 0)
    for one in filters:
        passing = columns.passing(one)
        near = {name: servers & passing for name, servers in near.items()}
        near[one.name] = passed & ~passing
        passed &= passing
    return passed, near


def _found(
    snapshot: Snapshot, columns: Columns, order_type: OrderType, fees: Fees, page: Sequence[int]
) -> Iterator[Found]:
    """The servers of a page. Both kinds of price are judged as they are shown: the one that was searched by may be paid
    in another coin than the cheapest."""
    for_bid = order_type is OrderType.SPOT
    spot, on_demand = snapshot.prices(OrderType.SPOT, fees), snapshot.prices(OrderType.ON_DEMAND, fees)
    usual = usual_by_model(snapshot, fees)
    for at in page:
        listing, priced = columns.at(at)
        bid, fixed = map(usd_per_hour, (priced, on_demand[at]) if for_bid else (spot[at], priced))
        against = concerns(listing, fixed, bid, usual.get(listing.gpu), for_bid=for_bid)
        yield Found(listing, priced, per_gpu(listing, priced), bid, against)


def usual_by_model(snapshot: Snapshot, fees: Fees) -> Mapping[str, Quartiles]:
    """`usual_prices`, worked out once for a snapshot."""
    fractions = tuple(fees.fraction(OrderType.ON_DEMAND, coin) for coin in Coin)
    return snapshot.kept(("usual prices", fractions), lambda: usual_prices(snapshot, fees))


def usd_per_hour(priced: Priced | Unpriced) -> Decimal | None:
    """The price, where there is one."""
    return priced.usd_per_hour if isinstance(priced, Priced) else None


def _free(columns: Columns, servers: int) -> list[Candidate]:
    return [one for one in columns.candidates(servers) if not one[0].rented and not one[0].partial]


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
        raise ArgumentInvalid("cursor: it is none of ours.", hint=hint) from error
    if not (key[0].is_finite() and key[1].is_finite()):
        raise ArgumentInvalid("cursor: it is none of ours.", hint=hint)
    if digest != expected:
        raise ArgumentInvalid("cursor: it belongs to another search.", hint=hint)
    return key

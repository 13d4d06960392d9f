"""A server as we hold it: one row from Clore, cleaned and checked once.

Everything that a host wrote is either a plausible number, a cleaned short text, or missing. Nothing here depends on
rates or fees. pricing.py decides whether a price can be paid.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from clore_mcp.clore.models import ServerRow
from clore_mcp.market import gpus
from clore_mcp.money import LONGEST_RENTAL_HOURS, Coin
from clore_mcp.text import clean

TEXT_LIMIT: Final = 60
_NOMINAL_GB: Final = (1, 2, 3, 4, 6, 8, 10, 11, 12, 16, 20, 22, 24, 32, 40, 48, 64, 80, 94, 96, 128, 141, 180, 192, 288)
_NOMINAL_SHORTFALL: Final = 0.9  # 45 of 48 and 15 of 16 GB are seen; if more is missing, it is another size
_PRICE_RANGE: Final = (Decimal("1e-12"), Decimal("1e12"))  # native per day; a price outside it is not a real one
_COINS: Final = MappingProxyType({coin.value: coin for coin in Coin})
_COIN_SETS: Final[dict[frozenset[Coin], frozenset[Coin]]] = {}
_DISK_TAIL: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,20})?)\s*GB\s*$")
_ENCODED: Final = re.compile(r"x(2[0-9a-f])")
_BROKEN_CODE: Final = re.compile(r"x2?$")  # names are cut at 20 characters, often in the middle of a code
_VERSION: Final = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,4}))?(?:\.([0-9]{1,4}))?")
_THREADS: Final = re.compile(r"[0-9]{1,5}/([0-9]{1,5})")
_COUNTRY: Final = re.compile(r"[A-Z]{2}")


@dataclass(frozen=True, slots=True)
class Listing:
    """One server of the marketplace, as listed. Prices are native per day, without the fee, positive and finite."""

    server_id: int
    gpu: str
    gpu_count: int
    gpu_mix: tuple[tuple[str, int], ...]
    vram_gb: int | None
    ram_gb: float | None
    disk_gb: float | None
    disk_model: str
    cpu: str
    cpu_threads: int | None
    board: str
    country: str | None
    reliability: float | None
    rating: float | None
    rating_count: int
    download_mbps: float | None
    upload_mbps: float | None
    cuda: str
    cuda_version: tuple[int, int, int] | None
    max_rental_hours: float | None
    pcie_revision: float | None
    pcie_width: float | None
    disk_mb_per_second: float | None
    rented: bool
    partial: bool
    on_demand: Mapping[Coin, Decimal]
    spot: Mapping[Coin, Decimal]
    allowed_coins: frozenset[Coin]
    gpus_disputed: bool  # two different counts are stated; `gpu_count` is the smaller one


def read_listing(row: ServerRow, read_gpus: Callable[..., gpus.Gpus] = gpus.of_server) -> Listing:
    """Return the listing that a row describes. `read_gpus` lets a caller share the work on names that repeat."""
    vram_gb = _within(row.vram_gb, 0.1, 1024)
    cards = read_gpus(row.gpu, tuple(row.gpu_array or ()), vram_gb)
    cuda = clean(row.cuda or "", 12)
    longest = _within(row.max_rental_hours, 0, math.inf)
    total, free = row.partial_gpus_total, row.partial_gpus_free
    return Listing(
        server_id=row.id,
        gpu=cards.model,
        gpu_count=cards.count,
        gpu_mix=cards.mix,
        vram_gb=nominal_gb(vram_gb),
        ram_gb=_within(row.ram_gb, 0, 100_000),
        disk_gb=_disk_gb(row.disk),
        disk_model=_disk_model(row.disk),
        cpu=clean(row.cpu or "", TEXT_LIMIT),
        cpu_threads=_threads(row.cpu_cores_threads),
        board=clean(row.board or "", TEXT_LIMIT),
        country=country_code(row.country),
        reliability=_within(row.reliability, 0, 1),
        rating=_within(row.rating, 0, 5),
        rating_count=min(max(0, row.rating_count or 0), 10**9),
        download_mbps=_within(row.download_mbps, 0, 1e6),
        upload_mbps=_within(row.upload_mbps, 0, 1e6),
        cuda=cuda,
        cuda_version=version(cuda),
        max_rental_hours=min(longest, LONGEST_RENTAL_HOURS) if longest else None,
        pcie_revision=_within(row.pcie_revision, 0, 100),
        pcie_width=_within(row.pcie_width, 0, 64),
        disk_mb_per_second=_within(row.disk_mb_per_second, 0, 1e6),
        rented=bool(row.rented),
        partial=total is not None and free is not None and free < total,
        on_demand=_prices(row.on_demand),
        spot=_prices(row.spot),
        allowed_coins=_coins(row.allowed_coins),
        gpus_disputed=cards.disputed,
    )


def nominal_gb(reported: float | None) -> int | None:
    """Return the size that a card is sold as: 23.99 and 23 are 24, 31 is 32, 79.1 is 80."""
    if reported is None:
        return None
    size = next((size for size in _NOMINAL_GB if size >= reported - 0.05), None)
    if size is not None and reported >= size * _NOMINAL_SHORTFALL:
        return size
    return max(1, round(reported))


def version(text: str) -> tuple[int, int, int] | None:
    """Return a dotted version as numbers that compare (12.10 is newer than 12.4), or None."""
    found = _VERSION.fullmatch(text.strip())
    return (int(found[1]), int(found[2] or 0), int(found[3] or 0)) if found else None


def _coins(names: Iterable[str] | None) -> frozenset[Coin]:
    coins = frozenset(_COINS[name] for name in names or () if name in _COINS)
    return _COIN_SETS.setdefault(coins, coins)  # all servers share seven sets


def _prices(wire: Mapping[str, Decimal | None] | None) -> dict[Coin, Decimal]:
    low, high = _PRICE_RANGE
    return {
        _COINS[name]: +price  # rounded to the context's 28 digits: a price of a million digits is an attack
        for name, price in (wire or {}).items()
        if name in _COINS and price is not None and low <= price <= high
    }


def _within(value: float | None, low: float, high: float) -> float | None:
    return value if value is not None and math.isfinite(value) and low <= value <= high else None


def _disk_gb(text: str | None) -> float | None:
    found = _DISK_TAIL.search((text or "")[-80:])
    return _within(float(found[1]), 0, 1e7) if found else None


def _disk_model(text: str | None) -> str:
    name = _DISK_TAIL.sub("", (text or "")[:400]).strip()
    decoded = _ENCODED.sub(lambda found: chr(int(found[1], 16)), name)
    return clean(_BROKEN_CODE.sub("", decoded) if decoded != name else decoded, TEXT_LIMIT)


def _threads(text: str | None) -> int | None:
    found = _THREADS.fullmatch((text or "").strip())
    return int(found[1]) if found and int(found[1]) else None


def country_code(text: str | None) -> str | None:
    """Return a country's two letters, or None for anything else."""
    code = (text or "").strip().upper()
    return code if _COUNTRY.fullmatch(code) else None

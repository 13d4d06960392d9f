"""Every row of a real marketplace, where the captures lie beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clore_mcp.clore.models import ServerRow, read_rows
from clore_mcp.market.gpus import UNKNOWN
from clore_mcp.market.pricing import Fees, market_rates
from clore_mcp.market.query import Query
from clore_mcp.market.search import search
from clore_mcp.market.snapshot import Snapshot, build_snapshot, with_rates
from clore_mcp.market.wish import Match, resolve
from clore_mcp.money import Coin
from tests.market.rows import RATES, row

CAPTURES = Path(__file__).parents[2].parent / "shared" / "captures"
pytestmark = pytest.mark.skipif(not CAPTURES.is_dir(), reason="the captures are not beside this checkout")


def load(name: str) -> Any:
    return json.loads((CAPTURES / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def market() -> Snapshot:
    got = read_rows(ServerRow, load("marketplace_2024_sample.json")["servers"])
    return with_rates(build_snapshot(got.rows, fetched_at=0), RATES)


def test_nothing_is_lost(market: Snapshot) -> None:
    assert len(market.listings) == len(load("marketplace_2024_sample.json")["servers"])


def test_every_server_has_a_model_a_country_and_a_disk(market: Snapshot) -> None:
    for listing in market.listings:
        assert listing.gpu != UNKNOWN
        assert listing.vram_gb
        assert listing.country
        assert listing.cpu
        assert listing.cpu_threads
        assert listing.disk_gb is not None
        assert listing.allowed_coins
        assert listing.max_rental_hours


def test_every_model_answers_to_its_name_and_every_free_server_to_a_search(market: Snapshot) -> None:
    for model in market.models:
        match = resolve(model, market.models)
        assert isinstance(match, Match)
        assert model in match.models
    result = search(market, Query(limit=50), Fees.highest_documented(), None, 0)
    unpriced = result.excluded.get("unpriced", 0)
    assert result.total_matches + unpriced == sum(not listing.rented for listing in market.listings)
    assert unpriced < len(market.listings) / 20


def test_the_rates_of_real_price_blocks_agree() -> None:
    blocks = load("price_blocks_2026.json")["blocks"]
    rates = market_rates(row(block["id"], price=block) for block in blocks)
    for coin, low, high in ((Coin.BTC, 64_000, 64_300), (Coin.CLORE, 0.00124, 0.00126)):
        rate = rates.usd_per(coin)
        assert rate is not None
        assert low < rate < high

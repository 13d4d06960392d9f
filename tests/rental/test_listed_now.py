"""What is held against the listing just before a create leaves: nothing dearer, longer or other than asked."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from clore_mcp.market.listing import Listing
from clore_mcp.market.pricing import Fees, Rates
from clore_mcp.money import Coin, DayPrice
from clore_mcp.rental.account.reading import Orders, Wallets
from clore_mcp.rental.create.send import listed_now
from clore_mcp.rental.requests import CreateOrder
from clore_mcp.rental.results import Attempt
from clore_mcp.rental.rules.check import Evidence
from tests.market.rows import snapshot
from tests.rental.wishes import RATES, ask, candidate, fees, listing, terms

HOST = "clore-mcp on desk"


def evidence(
    place: Listing | None = None,
    table: Fees | None = None,
    rates: Rates = RATES,
    *,
    market: float = 0.0,
    orders: float = 0.0,
    wallets: float = 0.0,
) -> Evidence:
    """What was just read: one listing, no orders, empty wallets; and when each part was."""
    seen = replace(snapshot(), rates=rates, by_id={} if place is None else {1: place}, fetched_at=market)
    return Evidence(
        seen, table or fees(), Orders([], 0, None, orders, None), Orders([], 0, None, 0.0, None),
        Wallets([], wallets), 0.0,
    )  # fmt: skip


def price_now(wish: CreateOrder, was: Listing, now: Evidence, *, enforced: bool = True) -> Decimal | Attempt:
    """What to ask for by the evidence, after a yes to `was`."""
    bid = DayPrice(Decimal(5), Coin.USD) if wish.order_type == "spot" else None
    one = candidate(wish, was, fees(), enforced=enforced, bid=bid)
    return listed_now(one, terms(wish, one, enforced_by=HOST if enforced else None), now)


def outcome(*args: Any, **more: Any) -> str:
    skipped = price_now(*args, **more)
    assert isinstance(skipped, Attempt)
    assert skipped.server_id == 1
    return skipped.outcome


def test_an_unchanged_listing_is_asked_for_at_its_own_number() -> None:
    assert price_now(ask(), listing(), evidence(listing())) == Decimal("9.6")
    assert price_now(ask(), listing(), evidence(listing(per_day="9"))) == Decimal(9), "cheaper is never refused"


def test_a_coin_that_fell_pays_for_no_price_above_the_one_per_day_that_was_approved() -> None:
    was, dearer = listing(Coin.CLORE, "7680"), listing(Coin.CLORE, "7920")  # 3.1 % more: the ceiling is 3 %
    half = Rates({**RATES.usd, Coin.CLORE: RATES.usd[Coin.CLORE] / 2})
    assert outcome(ask(), was, evidence(dearer, rates=half)).startswith("price_moved: ")
    assert price_now(ask(), was, evidence(listing(Coin.CLORE, "7900"), rates=half)) == 7900


def test_a_coin_that_rose_is_above_the_approved_price_in_usd() -> None:
    dear = Rates({**RATES.usd, Coin.CLORE: RATES.usd[Coin.CLORE] * Decimal("1.04")})
    place = listing(Coin.CLORE, "7680")
    assert outcome(ask(), place, evidence(place, rates=dear)).startswith("price_moved: ")


def test_a_creation_fee_above_the_approved_one_is_not_paid() -> None:
    assert outcome(ask(), listing(), evidence(listing(), fees(creation_usd="0.11"))).startswith("price_moved: ")
    assert price_now(ask(), listing(), evidence(listing(), fees(creation_usd="0.1"))) == Decimal("9.6")


@pytest.mark.parametrize(
    ("wish", "enforced", "mrl", "changed"),
    [
        (ask(), True, 1, "rented for at most 1 hours now, 2 approved"),
        (ask(), True, 1000, None),  # somebody ends it long before
        (ask(), False, 169, "it may run for 169 hours now, worst case 168 approved"),
        (ask(on_end="notify"), True, None, "it may run for 3000 hours now, worst case 168 approved"),
        (ask(), False, 167, None),
        (ask(order_type="spot", bid_usd_per_hour=0.3), False, 1000, None),  # no host's limit ends spot anyway
        (ask(order_type="spot", bid_usd_per_hour=0.3), True, 1.5, "rented for at most 1.5 hours now, 2 approved"),
    ],
)
def test_a_host_that_moves_its_limit_can_not_stretch_the_worst_case_nor_cut_the_hours(
    wish: CreateOrder, enforced: bool, mrl: float | None, changed: str | None
) -> None:
    now = evidence(listing(mrl=mrl))
    if changed is None:
        assert isinstance(price_now(wish, listing(), now, enforced=enforced), Decimal)
    else:
        assert outcome(wish, listing(), now, enforced=enforced) == f"listing_changed: {changed}"


@pytest.mark.parametrize(
    ("gpu", "told"),
    [("1x NVIDIA GeForce RTX 4090", "1x RTX 4090"), ("2x NVIDIA GeForce GT 710", "2x GT 710")],
)
def test_other_hardware_at_the_same_price_is_not_rented(gpu: str, told: str) -> None:
    swapped = listing(specs={"gpu": gpu})
    assert outcome(ask(), listing(), evidence(swapped)) == f"listing_changed: {told} now, 2x RTX 4090 approved"


def test_words_of_a_host_stand_in_quotes_where_a_changed_listing_is_told() -> None:
    swapped = replace(listing(), gpu='RTX 4090" approved\n')
    assert 'listing_changed: "2x RTX 4090\' approved" now' in outcome(ask(), listing(), evidence(swapped))


def test_a_server_that_is_gone_or_taken_is_not_asked_for() -> None:
    assert outcome(ask(), listing(), evidence()) == "not_listed"
    assert outcome(ask(), listing(), evidence(listing(rented=True))) == "server-already-rented"


@pytest.mark.parametrize("part", ["market", "orders", "wallets"])
def test_nothing_older_than_ten_seconds_nor_from_the_future_decides_over_money(part: str) -> None:
    def decides(at: float) -> bool:
        read = {"market": 90.0, "orders": 90.0, "wallets": 90.0, part: at}
        return evidence(market=read["market"], orders=read["orders"], wallets=read["wallets"]).decides(100.0)

    assert decides(90.0)
    assert not decides(89.9)
    assert not decides(100.1)


def test_a_server_without_a_price_or_a_rate_in_the_approved_coin_is_not_asked_for() -> None:
    was = listing(Coin.CLORE, "7680")
    assert outcome(ask(), was, evidence(listing(Coin.USD))) == "unpriced"
    unrated = Rates({coin: rate for coin, rate in RATES.usd.items() if coin is not Coin.CLORE})
    assert outcome(ask(), was, evidence(was, rates=unrated)) == "unpriced"

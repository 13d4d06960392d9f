"""Spot as a client sees it over real stdio: the book in USD across coins, our place in it, a bid that never wins."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from clore_mcp.sandbox import SANDBOX_KEY, Running
from tests.story.people import IMAGE, Person, assistant

pytestmark = pytest.mark.anyio
USD, CLORE, BTC = "USD-Blockchain", "CLORE-Blockchain", "bitcoin"
RATES = {USD: 1.0, CLORE: 0.00125, BTC: 64_000.0}


def post(market: Running, part: str, **how: object) -> None:
    httpx2.post(f"{market.control_url}/{part}", json=how, verify=False).raise_for_status()


def spot_prices(market: Running) -> dict[int, dict[str, float]]:
    """The least bids a day on free servers that take every coin and have no bid, cheapest first."""
    with httpx2.Client(verify=False) as http:
        rows = http.get(f"{market.url}/marketplace").json()["servers"]
        bid_for = http.get(f"{market.control_url}/bids").json()["bids"]
    fit = [
        row
        for row in rows
        if not row["rented"]
        and set(RATES) <= set(row["allowed_coins"])
        and set(RATES) <= set(row["price"]["spot"])
        and 0.5 < row["price"]["spot"][USD] < 5
    ]
    fit.sort(key=lambda row: float(row["price"]["spot"][USD]))
    return {row["id"]: row["price"]["spot"] for row in fit if str(row["id"]) not in bid_for}


def bids(market: Running, server_id: int) -> list[Any]:
    reply = httpx2.get(f"{market.control_url}/servers/{server_id}", verify=False).json()
    found: list[Any] = reply["bids"]
    return found


def hourly(per_day: float, coin: str) -> float:
    """USD per hour with the renter's spot fee in."""
    return per_day * RATES[coin] / 24 * 1.0125


async def test_the_book_is_shown_in_usd_across_coins_with_our_rank_and_the_bid_that_wins(
    market: Running, tmp_path: Path, mode: str
) -> None:
    server_id, least = next(iter(await asyncio.to_thread(lambda: spot_prices(market).items())))
    async with assistant(market, tmp_path, mode, Person(True, True, True)) as us:
        empty = (await us.call("get_server", server_id=server_id))["spot"]
        cheapest = min(hourly(price, coin) for coin, price in least.items())
        assert empty["min_usd_per_hour"] == pytest.approx(cheapest, abs=2e-4)
        assert empty["min_usd_per_hour"] >= cheapest and empty["to_win_usd_per_hour"] >= empty["min_usd_per_hour"]
        assert not empty.get("offers") and "our_rank" not in empty

        for coin, factor in ((CLORE, 1.3), (BTC, 1.5), (USD, 1.1)):
            post(market, "bids", server_id=server_id, bid=least[coin] * factor, currency=coin)
        book = (await us.call("get_server", server_id=server_id))["spot"]
        dearest = hourly(least[BTC] * 1.5, BTC)
        told = [one["usd_per_hour"] for one in book["offers"]]
        assert told == pytest.approx(
            [hourly(least[coin] * by, coin) for coin, by in ((BTC, 1.5), (CLORE, 1.3), (USD, 1.1))], abs=1e-4
        )
        assert [one.get("active", False) for one in book["offers"]] == [True, False, False]
        assert not any(one.get("mine") for one in book["offers"])
        assert dearest < book["to_win_usd_per_hour"] < dearest * 1.02

        wish = {"server_id": server_id, "image": IMAGE, "hours": 1, "order_type": "spot", "currency": USD}
        low = {**wish, "bid_usd_per_hour": round(hourly(least[USD] * 1.2, USD), 4)}
        quote = await us.call("quote_order", **low)
        assert quote["allowed"] and "The bid would not win now: winning takes $" in quote["next"]
        made = await us.call("create_order", **low)
        assert made["status"] == "created" and "queued and costs nothing" in made["next"]
        post(market, "clock", advance=30)
        behind = (await us.call("get_server", server_id=server_id))["spot"]
        assert behind["our_rank"] == 3 and [one.get("mine", False) for one in behind["offers"]] == [
            False,
            False,
            True,
            False,
        ]
        assert behind["to_win_usd_per_hour"] == book["to_win_usd_per_hour"], "our own bid is no rival"
        waits = await us.call("wait_for_order", order_id=made["order_id"], timeout_seconds=1)
        assert waits["status"] == "queued" and "nothing is billed" in waits["next"]

        won = await us.call("set_spot_price", order_id=made["order_id"], bid_usd_per_hour=dearest * 1.03)
        assert (won["status"], won["rank"]) == ("updated", 1)
        ahead = (await us.call("get_server", server_id=server_id))["spot"]
        assert ahead["our_rank"] == 1 and ahead["offers"][0] == {
            "usd_per_hour": pytest.approx(dearest * 1.03, abs=5e-4), "active": True, "mine": True
        }  # fmt: skip
        gone = await us.call("cancel_order", order_id=made["order_id"])
        assert gone["status"] == "cancelled"


async def test_a_bid_that_never_won_is_cancelled_with_a_receipt_of_zero_that_says_why(
    market: Running, tmp_path: Path, mode: str
) -> None:
    server_id, least = next(iter(await asyncio.to_thread(lambda: spot_prices(market).items())))
    post(market, "bids", server_id=server_id, bid=least[USD] * 2, currency=USD)
    wallets = {"auth": SANDBOX_KEY}
    before = httpx2.get(f"{market.url}/wallets", headers=wallets, verify=False).json()
    person = Person(True, True)
    async with assistant(market, tmp_path, mode, person) as us:
        made = await us.call(
            "create_order", server_id=server_id, image=IMAGE, hours=3, order_type="spot", currency=USD,
            bid_usd_per_hour=round(hourly(least[USD] * 1.2, USD), 4),
        )  # fmt: skip
        assert "You pay only while it wins. The bid would NOT win now; $" in person.asked[0]
        post(market, "clock", advance=3600)
        gone = await us.call("cancel_order", order_id=made["order_id"])
        assert gone["status"] == "cancelled"
        assert gone["receipt"]["total_usd"] == 0 and gone["receipt"]["hours"] > 1
        assert "The bid never won" in gone["next"] and "nothing was billed" in gone["next"]
        again = await us.call("cancel_order", order_id=made["order_id"])
        assert again["status"] == "already_ended" and "The bid never won" in again["next"]
        account = await us.call("get_account")
        assert [one["what"] for one in account["events"]][:1] == ["never won nothing billed"]
    assert httpx2.get(f"{market.url}/wallets", headers=wallets, verify=False).json() == before

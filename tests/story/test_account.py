"""One look at the account over real stdio, and the two answers that do a person's sums: how much longer, which bid."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from clore_mcp.sandbox import Running
from tests.story.people import IMAGE, Assistant, Person, assistant
from tests.story.test_spot import BTC, CLORE, USD, hourly, post, spot_prices

pytestmark = pytest.mark.anyio


def hours_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds() / 3600


async def fresh(us: Assistant) -> dict[str, Any]:
    """The account, once what was read of it before is too old to be told again."""
    await asyncio.sleep(0.1)
    return await us.call("get_account")


async def test_one_call_says_what_was_spent_how_long_it_lasts_and_when_all_ends(
    market: Running, tmp_path: Path, mode: str
) -> None:
    post(market, "clock", speed=1)
    async with assistant(market, tmp_path, mode, Person(True, True)) as us:
        idle = await us.call("get_account")
        assert idle["spent_usd"] == {"last_24_hours": 0, "last_30_days": 0}
        assert "all_end_at" not in idle and not any(one.get("runway_hours") for one in idle["wallets"])

        found = (await us.call("search_servers", gpu="3090", currency="USD"))["servers"]
        made = [
            await us.call("create_order", server_id=row["server_id"], image=IMAGE, hours=hours, currency="USD")
            for row, hours in zip(found, (3, 5), strict=False)
        ]
        assert [one["status"] for one in made] == ["created", "created"]
        post(market, "clock", advance=3600)
        account, orders = await fresh(us), await us.call("list_orders")

        burn = sum(one["usd_per_hour"] for one in made)
        assert account["burn_usd_per_hour"] == pytest.approx(burn, rel=0.01)
        spent = account["spent_usd"]
        assert spent["last_24_hours"] == spent["last_30_days"] == pytest.approx(burn + 2 * 0.1, rel=0.05)
        assert spent["last_24_hours"] == pytest.approx(orders["total_spent_usd"], rel=0.02)
        usd = next(one for one in account["wallets"] if one["currency"] == "USD")
        assert usd["runway_hours"] == pytest.approx(usd["usd"] / account["burn_usd_per_hour"], rel=0.01)
        assert account["all_end_at"] == max(one["ends_at"] for one in made)
        all_of_it = sum(one["usd_per_hour"] * hours + 0.1 for one, hours in zip(made, (3, 5), strict=True))
        assert account["spent_then_usd"] == pytest.approx(all_of_it, rel=0.02)
        for name, limit in account["limits"].items():
            assert limit["left"] == pytest.approx(limit["cap"] - limit["spent"] - limit["reserved"], abs=1e-3), name
        day, hour = account["limits"]["usd_per_day"], account["limits"]["usd_per_hour"]
        assert day["spent"] == pytest.approx(spent["last_24_hours"], rel=0.01)
        assert day["spent"] + day["reserved"] == pytest.approx(sum(one["reserved_usd"] for one in made), rel=0.01)
        assert hour["spent"] == pytest.approx(burn, rel=0.01)
        assert account["limits"]["active_orders"] == {"cap": 5, "spent": 2, "reserved": 0, "left": 3}


async def test_a_bid_that_is_to_win_is_found_within_the_ceiling_and_refused_beyond_it(
    market: Running, tmp_path: Path, mode: str
) -> None:
    prices = await asyncio.to_thread(spot_prices, market)
    server_id, least = next(iter(prices.items()))
    rival = hourly(least[CLORE] * 1.5, CLORE)
    post(market, "bids", server_id=server_id, bid=least[CLORE] * 1.5, currency=CLORE)
    person = Person(True, True)
    async with assistant(market, tmp_path, mode, person) as us:
        made = await us.call(
            "create_order", server_id=server_id, image=IMAGE, hours=1, order_type="spot", currency="USD",
            bid_usd_per_hour=round(hourly(least[USD] * 1.1, USD), 4),
        )  # fmt: skip
        assert made["status"] == "created"
        post(market, "clock", advance=30)
        wish = {"order_id": made["order_id"], "to_win": True}
        low = await us.call("set_spot_price", **wish, max_usd_per_hour=round(rival * 0.9, 4))
        assert low["status"] == "refused" and len(person.asked) == 1
        assert low["to_win_usd_per_hour"] == pytest.approx(rival, rel=0.05)
        won = await us.call("set_spot_price", **wish, max_usd_per_hour=round(rival * 1.5, 4))
        assert (won["status"], won["rank"], won["currency"]) == ("updated", 1, "USD")
        assert rival < won["bid_usd_per_hour"] < rival * 1.05, "no more than it takes"
        assert won["was_usd_per_hour"] < rival and won["on_demand_usd_per_hour"] > 0
        both = await us.call("set_spot_price", **wish, bid_usd_per_hour=1)
        assert both["error"] == "invalid_argument" and "max_usd_per_hour" in both["message"]


@pytest.mark.parametrize("stands_against", ["usd_per_order", "wallet", "max_rental_hours"])
async def test_an_extension_that_is_refused_names_the_most_hours_and_these_are_taken(
    market: Running, tmp_path: Path, mode: str, stands_against: str
) -> None:
    post(market, "clock", speed=1)
    wide = {"CLORE_MAX_USD_PER_DAY": "9000", "CLORE_MAX_USD_PER_ORDER": "9000"}
    async with assistant(market, tmp_path, mode, Person(True)) as us:
        rows = (await us.call("search_servers", gpu="3090", currency="USD", limit=50))["servers"]
        row = min((one for one in rows if one["max_rental_hours"] > 24), key=lambda one: one["max_rental_hours"])
        made = await us.call("create_order", server_id=row["server_id"], image=IMAGE, hours=2, currency="USD")
        assert made["status"] == "created"
    price, reserved = made["usd_per_hour"], made["reserved_usd"]
    if stands_against == "usd_per_order":
        wide["CLORE_MAX_USD_PER_ORDER"] = f"{reserved + 1.5 * price:.4f}"
    post(market, "wallets", balances={USD: 3.5 * price if stands_against == "wallet" else 9000, BTC: 0})
    async with assistant(market, tmp_path, mode, Person(True), **wide) as us:
        longer = {
            "order_id": made["order_id"],
            "hours": row["max_rental_hours"] if stands_against == "max_rental_hours" else 20,
        }
        no = await us.call("extend_order", **longer)
        assert no["status"] == "refused" and no["next"]
        assert no["most_hours"] > 0 and f"p to {no['most_hours']:g} more hours" in no["next"], no
        if stands_against == "max_rental_hours":
            assert hours_between(made["ends_at"], no["latest_ends_at"]) == pytest.approx(no["most_hours"], abs=0.02)
        else:
            assert no["refusals"][0]["limit"] == stands_against and no["most_hours"] == pytest.approx(1.5, abs=0.25)
        yes = await us.call("extend_order", **longer | {"hours": round(no["most_hours"] - 0.02, 2)})
        assert yes["status"] == "extended", yes

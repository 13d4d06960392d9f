"""Figures that explain themselves, over real stdio: what was agreed to, what is charged when, and what bills."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from clore_mcp.sandbox import Running
from tests.story.people import IMAGE, Person, assistant

pytestmark = pytest.mark.anyio
USD = "USD-Blockchain"


async def test_a_quote_and_a_rental_say_what_was_agreed_to_and_when_the_creation_fee_is_charged(
    market: Running, tmp_path: Path, mode: str
) -> None:
    person = Person(True)
    async with assistant(market, tmp_path, mode, person) as us:
        found = (await us.call("search_servers", gpu="3060"))["servers"]
        ids = [row["server_id"] for row in found[:2]]
        wish = {"server_id": ids[0], "image": IMAGE, "hours": 2, "fallback_server_ids": ids[1:]}
        quote = await us.call("quote_order", **wish)
        parts = quote["rent_usd"] + quote["fee_usd"] + quote["creation_fee_usd"]
        assert quote["total_usd"] == pytest.approx(parts, abs=2e-6)
        assert quote["margin"].startswith("The worst case is $") and "It covers" in quote["margin"]
        assert quote["creation_fee_due"] == "after 10 minutes; free if cancelled before that"

        made = await us.call("create_order", **wish)
        agreed = made["approved"]
        assert agreed["worst_case_usd"] == quote["worst_case_usd"] >= agreed["total_usd"] >= quote["total_usd"]
        assert agreed["margin"] == quote["margin"]
        assert (agreed["image"], agreed["fallbacks"]) == (IMAGE, ids[1:])
        assert agreed["by"].startswith("the person, asked through")
        assert f"${agreed['total_usd']:.2f}"[:4] in person.asked[0].splitlines()[0]
        listed = (await us.call("list_orders"))["orders"][0]
        free = datetime.fromisoformat(made["free_cancel_until"]) - datetime.fromisoformat(listed["started_at"])
        assert free.total_seconds() == 600
        due = f"{made['free_cancel_until'][11:16]} UTC, and is free if you cancel before that."
        charged = f"creation fee is charged at {due}"
        assert charged in made["next"] and made["creation_fee_usd"] == 0.1
        again = await us.call("create_order", **wish)
        assert again["repeated"] and again["approved"] == agreed

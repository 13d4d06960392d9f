"""A rental while nobody is there: approved, the client gone, the price falls, found ready, ended, with a receipt."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from clore_mcp.sandbox import Running
from tests.conftest import watchdogs_started
from tests.story.people import IMAGE, Assistant, Person, assistant
from tests.story.records import control, orders, rows

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are looked up by signal"),
]


async def until(happened: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
    give_up_at = time.monotonic() + seconds
    while not (found := await asyncio.to_thread(happened)):
        assert time.monotonic() < give_up_at, f"not within {seconds:.0f} s: {what}"
        await asyncio.sleep(0.1)
    return found


def change(market: Running, path: str, **what: Any) -> None:
    with httpx2.Client(trust_env=False, verify=False) as http:
        http.post(f"{market.control_url}{path}", json=what, timeout=60).raise_for_status()


async def cheapest(us: Assistant) -> dict[str, Any]:
    found = await us.call("search_servers", gpu="3090", countries=["europe"], max_gpus=1, currency="USD-Blockchain")
    row: dict[str, Any] = found["servers"][0]
    return row


async def test_what_a_person_approved_is_rented_at_night_and_ended(market: Running, tmp_path: Path, mode: str) -> None:
    person = Person(True)
    async with assistant(market, tmp_path, mode, person) as us:
        first = await cheapest(us)
        ceiling = round(first["usd_per_hour"] * 0.6, 4)
        wish = {
            "gpu": "3090",
            "countries": ["europe"],
            "max_gpus": 1,
            "max_usd_per_hour": ceiling,
            "hours": 1,
            "image": IMAGE,
            "env": {"HF_TOKEN": "hf_not_a_real_token"},
            "expires_hours": 24,
        }
        made = await us.call("create_watch", **wish)
        assert made["status"] == "waiting", made
        assert "hf_not_a_real_token" not in person.asked[0] and "without asking again" in person.asked[0]
        assert (await us.call("create_watch", **wish))["watch_id"] == made["watch_id"] and len(person.asked) == 1
        (pid,) = await until(lambda: watchdogs_started(tmp_path / "state"), "a watchdog of its own")
    assert orders(market) == [], "nothing was cheap enough"

    change(market, f"/servers/{first['server_id']}", price_factor=0.5)  # 3 a.m.
    (order,) = await until(lambda: orders(market), "nobody is there, and it is rented")
    assert order["server_id"] == first["server_id"] and float(order["price"]) / 24 * 1.05 <= ceiling

    async with assistant(market, tmp_path, mode, Person()) as us:
        (listed,) = (await us.call("list_watches", include_ended=True))["watches"]
        assert listed["watch_id"] == made["watch_id"]
        ready = await us.call("wait_for_order", order_id=order["id"], timeout_seconds=50)
        assert ready["ready"] and ready["ssh"]["command"].startswith("ssh "), ready
        (running,) = (await us.call("list_orders"))["orders"]
        assert running["made_here"] and running["ends_at"]
        await until(lambda: [row["state"] for row in rows(tmp_path, "watches")] == ["fired"], "the watch is over")
        events = [event["what"] for event in (await us.call("get_account"))["events"]]
        assert "watch fired" in events

        change(market, "/clock", advance=3_600)
        await until(lambda: orders(market)[0]["ended_at"], "its lease ends")
        await until(lambda: rows(tmp_path, "orders")[0]["receipt"], "its receipt")
        (ended,) = (await us.call("list_orders", include_ended=True))["orders"]
        assert ended["status"] == "ended" and ended["spent_usd"] > 0
    assert len(orders(market)) == 1, "and nothing was rented in its place"
    lasted = orders(market)[0]["ended_at"] - orders(market)[0]["ct"]
    assert 3_600 <= lasted < 3_600 + 1_200, "an hour as approved, and 20 s of a busy machine"
    assert len([one for one in control(market, "/requests")["requests"] if one["endpoint"] == "create_order"]) == 1
    await until(lambda: not _lives(pid), "with nothing left to do the watchdog ends")


async def test_a_watch_is_shown_as_the_yes_that_it_is_and_can_be_taken_back(market: Running, tmp_path: Path) -> None:
    async with assistant(market, tmp_path, "auto", Person(True)) as us:
        first = await cheapest(us)
        made = await us.call(
            "create_watch", gpu="3090", max_usd_per_hour=0.01, hours=1, image=IMAGE, expires_hours=1, max_orders=2
        )
        waits = (await us.call("get_account"))["pending_approvals"]
        assert [one["approval_id"] for one in waits] == [made["watch_id"]] and "up to 2 orders" in waits[0]["what"]
        gone = await us.call("cancel_watch", watch_id=made["watch_id"])
        assert gone["status"] == "cancelled"
        assert (await us.call("list_watches"))["watches"] == []
        change(market, f"/servers/{first['server_id']}", price_factor=0.01)
        assert (await us.call("cancel_watch", watch_id="wnobody"))["error"] == "not_found"
    assert orders(market) == []


def _lives(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"

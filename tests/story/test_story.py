"""The main job as a client drives it: over real stdio, in both protocol eras, against the simulated marketplace."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from mcp import Client, StdioServerParameters

from clore_mcp.sandbox import Running
from tests.conftest import environment
from tests.story.people import ERAS, IMAGE, Assistant, Person, assistant
from tests.story.records import rows


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ERAS)
async def test_a_server_is_found_rented_used_and_returned(market: Running, tmp_path: Path, mode: str) -> None:
    person = Person(False, True, True)
    async with assistant(market, tmp_path, mode, person) as us:
        found = await us.call("search_servers", gpu="4090", countries=["europe"], max_usd_per_hour=0.4)
        assert found["servers"], "the market has 4090s in Europe under 40 cents"
        assert all(row["gpu"] == "RTX 4090" and row["usd_per_hour"] <= 0.4 for row in found["servers"])
        wish = {
            "server_id": found["servers"][0]["server_id"],
            "image": IMAGE,
            "hours": 2,
            "fallback_server_ids": [found["servers"][1]["server_id"]],
            "env": {"HF_TOKEN": "hf_not_a_real_token"},
            "jupyter": True,
        }
        quote = await us.call("quote_order", **wish)
        assert quote["allowed"] and not person.asked, "a quote asks nobody"
        parts = quote["rent_usd"] + quote["fee_usd"] + quote["creation_fee_usd"]
        assert quote["total_usd"] == pytest.approx(parts, abs=1e-9)

        no = await us.call("create_order", **wish)
        assert no["status"] == "declined"
        assert (await us.call("list_orders"))["orders"] == []

        made = await us.call("create_order", **wish)
        assert made["status"] == "created" and len(person.asked) == 2
        assert f"Server {made['server_id']}" in person.asked[1] and "hf_not_a_real_token" not in person.asked[1]
        again = await us.call("create_order", **wish)
        assert again["repeated"] and again["order_id"] == made["order_id"] and len(person.asked) == 2

        ready = await us.call("wait_for_order", order_id=made["order_id"], timeout_seconds=40)
        assert ready["ready"] and ready["status"] == "running"
        assert ready["ssh"]["command"].endswith(f"root@{ready['ssh']['host']}")

        account = await us.call("get_account")
        assert account["burn_usd_per_hour"] == made["usd_per_hour"] and account["watchdog"] == "alive"
        assert account["limits"]["active_orders"]["spent"] == 1

        recorded = rows(tmp_path, "ledger")
        quoted = json.loads(next(row["data"] for row in recorded if row["step"] == "quoted"))
        assert (quoted["protocol"] == "MCP 2026-07-28") == (mode == "auto") and quoted["protocol"].startswith("MCP 20")
        assert {"quoted", "declined", "reserved", "sending", "answered", "created"} <= {row["step"] for row in recorded}

        gone = await us.call("cancel_order", order_id=made["order_id"], issue="slow disk")
        assert gone["status"] == "cancelled" and gone["still_running"] == []
        receipt = gone["receipt"]
        parts = receipt["rent_usd"] + receipt["fee_usd"] + receipt["creation_fee_usd"]
        assert receipt["total_usd"] == pytest.approx(parts, abs=1e-6)
        assert (await us.call("list_orders"))["total_usd_per_hour"] == 0
        assert (await us.call("cancel_order", order_id=made["order_id"]))["status"] == "already_ended"
        assert not person.answers, "every question was asked"


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ERAS)
async def test_a_spot_bid_is_placed_raised_and_cancelled(market: Running, tmp_path: Path, mode: str) -> None:
    person = Person(True, True, True)
    async with assistant(market, tmp_path, mode, person) as us:
        found = await us.call("search_servers", gpu="3090", order_type="spot", max_gpus=1)
        server_id = found["servers"][0]["server_id"]
        win = (await us.call("get_server", server_id=server_id))["spot"]["to_win_usd_per_hour"]
        made = await us.call(
            "create_order", server_id=server_id, image=IMAGE, hours=1, order_type="spot", bid_usd_per_hour=win
        )
        assert made["status"] == "created" and made["usd_per_hour"] <= win

        raised = await us.call("set_spot_price", order_id=made["order_id"], bid_usd_per_hour=win * 1.5)
        assert raised["status"] == "updated" and raised["rank"] == 1
        assert raised["bid_usd_per_hour"] == pytest.approx(win * 1.5, rel=0.01)
        assert "Raise the bid" in person.asked[1]

        same = await us.call("set_spot_price", order_id=made["order_id"], bid_usd_per_hour=win * 1.5)
        assert same["status"] == "unchanged" and len(person.asked) == 2

        low = await us.call("set_spot_price", order_id=made["order_id"], bid_usd_per_hour=win * 1.01)
        assert low["status"] == "refused" and low["reason"] == "exceeded_max_step"
        assert win < low["lowest_usd_per_hour_now"] < win * 1.5
        assert len(person.asked) == 2, "lowering needs no yes"

        gone = await us.call("cancel_order", order_id=made["order_id"])
        assert gone["status"] == "cancelled"


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ERAS)
async def test_a_lease_is_extended_once_with_a_yes_and_never_shortened(
    market: Running, tmp_path: Path, mode: str
) -> None:
    person = Person(True, False, True, True)
    async with assistant(market, tmp_path, mode, person) as us:
        found = await us.call("search_servers", gpu="3060")
        wish = {"server_id": found["servers"][0]["server_id"], "image": IMAGE, "hours": 1}
        made = await us.call("create_order", **wish)
        order_id = made["order_id"]
        assert "extend_order" in (await us.call("create_order", **wish))["next"]

        no = await us.call("extend_order", order_id=order_id, hours=2)
        assert no["status"] == "declined" and no["order_id"] == order_id
        assert (await us.call("list_orders"))["orders"][0]["ends_at"] == made["ends_at"]

        moved = await us.call("extend_order", order_id=order_id, hours=2)
        assert moved["status"] == "extended" and moved["previous_ends_at"] == made["ends_at"]
        later = datetime.fromisoformat(moved["ends_at"]) - datetime.fromisoformat(made["ends_at"])
        assert later == timedelta(hours=2) and moved["reserved_usd"] > made["reserved_usd"]
        assert person.asked[2].startswith(f"Extend order {order_id} by 2 hours, to {moved['ends_at']}")
        assert f"It ends at {made['ends_at']} now." in person.asked[2]
        again = await us.call("extend_order", order_id=order_id, hours=2)
        assert again["repeated"] and again["ends_at"] == moved["ends_at"] and len(person.asked) == 3

        sooner = await us.call("extend_order", order_id=order_id, hours=-1.5)
        assert sooner["error"] == "invalid_argument" and "use cancel_order" in sooner["message"]
        beyond = await us.call("extend_order", order_id=order_id, hours=3000)
        assert beyond["status"] == "refused" and beyond["reason"] == "max_rental_hours" and beyond["latest_ends_at"]
        (order,) = (await us.call("list_orders"))["orders"]
        assert order["ends_at"] == moved["ends_at"]

        assert (await us.call("cancel_order", order_id=order_id))["status"] == "cancelled"
        assert (await us.call("extend_order", order_id=order_id, hours=1))["reason"] == "ended"
        steps = [row["step"] for row in rows(tmp_path, "ledger")]
        assert steps.count("extended") == 1
        assert not person.answers, "every question was asked"


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_that_cannot_be_asked_rents_nothing(market: Running, tmp_path: Path, mode: str) -> None:
    async with assistant(market, tmp_path, mode) as us:
        found = await us.call("search_servers", gpu="3060")
        wish = {"server_id": found["servers"][0]["server_id"], "image": IMAGE, "hours": 1}
        first = await us.call("create_order", **wish)
        second = await us.call("create_order", **wish)
        assert first["status"] == second["status"] == "approval_required"
        assert first["approval_id"] == second["approval_id"], "the same call waits for the same decision"
        assert f"clore-mcp approve {first['approval_id']}" in first["next"]
        assert (await us.call("list_orders"))["orders"] == []
        waiting = (await us.call("get_account"))["pending_approvals"]
        assert [one["approval_id"] for one in waiting] == [first["approval_id"]]


@pytest.mark.anyio
async def test_the_operator_can_move_every_question_outside_the_chat(market: Running, tmp_path: Path) -> None:
    person = Person()
    async with assistant(market, tmp_path, "auto", person, CLORE_APPROVAL="outside") as us:
        found = await us.call("search_servers", gpu="3060")
        made = await us.call("create_order", server_id=found["servers"][0]["server_id"], image=IMAGE, hours=1)
        assert made["status"] == "approval_required" and not person.asked


@pytest.mark.anyio
async def test_read_only_offers_nothing_that_spends(market: Running, tmp_path: Path) -> None:
    async with assistant(market, tmp_path, "auto", CLORE_READ_ONLY="1") as us:
        names = {tool.name for tool in (await us.client.list_tools()).tools}
        assert names == {
            "search_servers", "get_server", "quote_order", "list_orders", "wait_for_order", "get_account",
            "list_watches", "price_history",
        }  # fmt: skip


@pytest.mark.anyio
async def test_without_a_key_the_market_can_be_searched_and_the_rest_says_what_is_missing(
    market: Running, tmp_path: Path
) -> None:
    env = {name: value for name, value in environment(market, tmp_path).items() if name != "CLORE_API_KEY"}
    server = StdioServerParameters(command=sys.executable, args=["-m", "clore_mcp"], env=env)
    async with Client(server) as client:
        us = Assistant(client)
        assert (await us.call("search_servers", gpu="4090"))["servers"]
        for tool, arguments in (("list_orders", {}), ("get_account", {}), ("cancel_order", {"order_id": 1})):
            refused = await us.call(tool, **arguments)
            assert refused["error"] == "no_api_key" and "CLORE_API_KEY" in refused["hint"], tool


@pytest.mark.anyio
async def test_ordering_again_never_stands_for_staying_longer(market: Running, tmp_path: Path) -> None:
    person = Person(True)
    async with assistant(market, tmp_path, "auto", person) as us:
        found = (await us.call("search_servers", gpu="3060"))["servers"]
        first, other = found[0]["server_id"], found[1]["server_id"]
        made = await us.call("create_order", server_id=first, image=IMAGE, hours=1)
        longer = await us.call("create_order", server_id=first, image=IMAGE, hours=5, fallback_server_ids=[other])
        assert longer["status"] == "refused" and f"Order {made['order_id']}" in longer["next"]
        assert len(person.asked) == 1, "nobody is asked in vain, and no fallback becomes a second bill"
        assert len((await us.call("list_orders"))["orders"]) == 1


@pytest.mark.anyio
async def test_looking_needs_only_what_it_looks_at(market: Running, tmp_path: Path) -> None:
    async with assistant(market, tmp_path, "auto") as us:
        for endpoint in ("wallets", "spot_marketplace", "renter_fees"):
            fault = {"endpoint": endpoint, "kind": "http502", "times": 1000}
            httpx2.post(f"{market.control_url}/faults", json=fault, verify=False).raise_for_status()
        found = await us.call("search_servers", gpu="3090", order_type="spot")
        assert found["servers"] and found["fees_assumed"]
        one = await us.call("get_server", server_id=found["servers"][0]["server_id"])
        assert one["spot"]["min_usd_per_hour"] > 0 and "offers" not in one["spot"]


@pytest.mark.anyio
async def test_a_broken_key_file_takes_no_order_from_the_list(market: Running, tmp_path: Path) -> None:
    async with assistant(market, tmp_path, "auto", Person(True)) as us:
        found = await us.call("search_servers", gpu="3060")
        made = await us.call("create_order", server_id=found["servers"][0]["server_id"], image=IMAGE, hours=1)
        (tmp_path / "state" / "ssh" / "id_ed25519").write_text("not a key")
        (order,) = (await us.call("list_orders"))["orders"]
        assert order["order_id"] == made["order_id"]


@pytest.mark.anyio
async def test_a_cursor_of_nobodys_is_refused(market: Running, tmp_path: Path, mode: str) -> None:
    async with assistant(market, tmp_path, mode) as us:
        for cursor in ("\u00b2", "abc", "-1", "1.5"):
            refused = await us.call("list_orders", cursor=cursor)
            assert refused["error"] == "invalid_argument" and "next_cursor" in refused["message"], cursor


@pytest.mark.anyio
async def test_where_nobody_is_asked_the_model_is_told_to_ask(market: Running, tmp_path: Path) -> None:
    async with assistant(market, tmp_path, "legacy", CLORE_APPROVAL="limits") as us:
        assert "ask the person in the chat before create_order" in (us.client.instructions or "")
        found = await us.call("search_servers", gpu="3060")
        quote = await us.call("quote_order", server_id=found["servers"][0]["server_id"], image=IMAGE, hours=1)
        assert "without a question" in quote["next"]

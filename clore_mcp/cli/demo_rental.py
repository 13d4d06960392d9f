"""The first part of the tour: search, quote, question, rental, SSH, cancel, receipt."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from clore_mcp.cli.demo_guide import FOURTH_PLACE, Guide, usd

IMAGE: Final = "cloreai/jupyter:ubuntu24.04-v2"
FITTING: Final[Mapping[str, Any]] = {"gpu": "4090", "countries": ["europe"], "min_reliability": 0.99}
"""What the person wishes for, whatever it costs."""

_WISH: Final = {**FITTING, "max_usd_per_hour": 0.4, "limit": 4}
_HOURS: Final = 2


async def rent_and_cancel(guide: Guide) -> Sequence[Mapping[str, Any]]:
    """Steps 1 to 7; the servers that the search found, cheapest first."""
    servers = await _search(guide)
    ask = {"server_id": servers[0]["server_id"], "image": IMAGE, "hours": _HOURS, "jupyter": True}
    await _quote(guide, ask, servers[0])
    order_id = await _rent(guide, ask)
    await _wait(guide, order_id)
    await _list(guide, order_id)
    await _receipt(guide, await _cancel(guide, order_id), order_id)
    return servers


async def _search(guide: Guide) -> Sequence[Mapping[str, Any]]:
    guide.heading(1, "Search")
    guide.screen.say("The assistant looks around. Looking costs nothing and asks nobody.")
    found = await guide.call("search_servers", _WISH)
    servers: list[Mapping[str, Any]] = found.get("servers", [])
    guide.check(bool(servers), "it found no server")
    for row in servers:
        fits = "4090" in row["gpu"] and row["usd_per_hour"] <= _WISH["max_usd_per_hour"] and not row["rented"]
        guide.check(fits, f"server {row['server_id']} is not what was asked for")
    age = found["snapshot_age_seconds"]
    guide.screen.result(f"{found['total_matches']} servers", f"the cheapest {len(servers)}, seen {age:g} s ago:")
    guide.screen.table(
        ("server", "GPU", "where", "reliable", "RAM", "down", "USD/hour"),
        [
            (
                str(row["server_id"]),
                f"{row['gpu_count']}x {row['gpu']}",
                row.get("country", "?"),
                f"{row.get('reliability', 0):.1%}",
                f"{row.get('ram_gb', 0):g} GB",
                f"{row.get('download_mbps', 0):g} Mbps",
                f"{row['usd_per_hour']:.4f}",
            )
            for row in servers
        ],
        right=(3, 4, 5, 6),
    )
    return servers


async def _quote(guide: Guide, ask: Mapping[str, Any], server: Mapping[str, Any]) -> None:
    guide.heading(2, "Quote")
    guide.screen.say("What would two hours on the cheapest one cost, with every fee?")
    quote = await guide.call("quote_order", ask)
    parts = [quote["rent_usd"], quote["fee_usd"], quote["creation_fee_usd"]]
    guide.check(quote["allowed"], "the limits refuse it")
    guide.check(
        abs(parts[0] + parts[1] - server["usd_per_hour"] * _HOURS) < _HOURS * FOURTH_PLACE,
        "rent and fee are not the hourly price of the search",
    )
    guide.screen.result(
        "allowed", f"{usd(quote['usd_per_hour'], 4)} per hour; worst case {usd(quote['worst_case_usd'], 4)}"
    )
    guide.sum(quote)


async def _rent(guide: Guide, ask: Mapping[str, Any]) -> int:
    guide.heading(3, "Question and rental")
    guide.screen.say("create_order asks you first, through the client. The model cannot answer for you.")
    made = await guide.asked("create_order", ask, "created", "Nothing was rented and nothing was spent.")
    order_id = int(made.get("order_id", 0))
    guide.check(made.get("server_id") == ask["server_id"], "it rented another server")
    guide.screen.result(
        "created",
        f"order {order_id}, {usd(made['usd_per_hour'], 4)} per hour, until {made['ends_at']}",
        f"{usd(made['reserved_usd'], 4)} are counted against your limits: the worst case, not the hope",
    )
    return order_id


async def _wait(guide: Guide, order_id: int) -> None:
    guide.heading(4, "Wait for SSH")
    guide.screen.say("The container is pulled and started. Clore bills that too, so the assistant stays.")
    began = time.monotonic()
    order = await guide.call("wait_for_order", {"order_id": order_id, "timeout_seconds": 50})
    command = order.get("ssh", {}).get("command", "")
    guide.check(order.get("ready") is True, f"the order is not ready ({order.get('status')})")
    guide.check(command.startswith("ssh "), "there is no SSH line")
    guide.screen.result("ready", f"after {time.monotonic() - began:.0f} s. You would paste this:")
    guide.screen.line(command)
    guide.screen.say("(Here that port only says hello: there is no machine behind it.)", "dim")


async def _list(guide: Guide, order_id: int) -> None:
    guide.heading(5, "What runs now?")
    guide.screen.say("Any time, in any chat: every order of the account and what it costs.")
    told = await guide.call("list_orders", {})
    orders: list[Mapping[str, Any]] = told.get("orders", [])
    guide.check([row["order_id"] for row in orders] == [order_id], "it does not list just the new order")
    total = sum(row["usd_per_hour"] for row in orders)
    guide.check(abs(total - told["total_usd_per_hour"]) < FOURTH_PLACE, "the total is not the sum of the orders")
    guide.screen.result(f"{len(orders)} order", f"{usd(told['total_usd_per_hour'], 4)} per hour in all")
    show_orders(guide, orders)


async def _cancel(guide: Guide, order_id: int) -> Mapping[str, Any]:
    guide.heading(6, "Cancel")
    guide.screen.say("You are done early. Cancelling deletes the container, so it asks as well.")
    gone = await guide.asked("cancel_order", {"order_id": order_id}, "cancelled", "The order runs on and bills.")
    guide.screen.result("cancelled", f"order {order_id} is proven gone, not just asked to go")
    return gone


async def _receipt(guide: Guide, gone: Mapping[str, Any], order_id: int) -> None:
    guide.heading(7, "Receipt")
    receipt = gone.get("receipt", {})
    guide.check(bool(receipt), "there is no receipt")
    guide.screen.say(
        f"{receipt['hours'] * 3600:.0f} seconds of the market's time for order {order_id}."
        " Clore takes its creation fee only after ten minutes."
    )
    guide.sum(receipt)
    guide.screen.say("And nothing may be left behind:")
    await guide.nothing_runs()


def show_orders(guide: Guide, orders: Sequence[Mapping[str, Any]]) -> None:
    """What runs, as a table."""
    guide.screen.table(
        ("order", "server", "state", "GPU", "USD/hour", "spent", "ends"),
        [
            (
                str(row["order_id"]),
                str(row["server_id"]),
                row["status"],
                f"{row['gpu_count']}x {row['gpu']}",
                f"{row['usd_per_hour']:.4f}",
                usd(row["spent_usd"], 4),
                row["ends_at"][11:16] + " UTC",
            )
            for row in orders
        ],
        right=(4, 5),
    )

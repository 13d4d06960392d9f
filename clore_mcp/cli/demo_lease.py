"""The second part of the tour: an order that nobody cancels, and that ends all the same."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from clore_mcp.cli.demo_guide import Guide, usd
from clore_mcp.cli.demo_rental import IMAGE
from clore_mcp.cli.serve import SANDBOX_SPEED

_HOURS: Final = 0.02
_SECONDS: Final = _HOURS * 3600


async def let_a_lease_end(guide: Guide, server: Mapping[str, Any]) -> None:
    """Step 8: rent for a moment, do nothing, and see the order ended, told and billed."""
    screen = guide.screen
    guide.heading(8, "A lease ends by itself")
    screen.say(
        "Nothing runs on forgotten: each order has an agreed end, and that is kept without the assistant. Here the"
        " server keeps it; on your account a watchdog, a small process that goes on when the chat is closed, as long"
        " as the computer is awake."
    )
    screen.say(f"A lease of {_SECONDS:.0f} seconds of the market's time, {_SECONDS / SANDBOX_SPEED:.0f} of yours:")
    ask = {"server_id": server["server_id"], "image": IMAGE, "hours": _HOURS}
    made = await guide.asked("create_order", ask, "created", "Nothing was rented and nothing was spent.")
    order_id = int(made.get("order_id", 0))
    guide.check(made.get("server_id") == ask["server_id"], "it rented another server")
    screen.result("created", f"order {order_id}, until {made['ends_at'][11:19]} by the market's own clock")
    screen.say("Nobody cancels it. The tour only looks on:")
    await _gone(guide, order_id)
    await _told(guide, order_id)
    await _billed(guide, order_id, made["reserved_usd"])


async def _gone(guide: Guide, order_id: int) -> None:
    def order(told: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return next((row for row in told.get("orders", []) if row["order_id"] == order_id), None)

    def sign(told: Mapping[str, Any]) -> str:
        row = order(told) or {}
        return f"{row.get('status')}, {usd(row.get('spent_usd', 0), 4)} spent"

    began = time.monotonic()
    await guide.until(lambda told: order(told) is None, "list_orders", {}, sign)
    guide.screen.result("gone", f"after {time.monotonic() - began:.0f} s, though nobody called cancel_order")


async def _told(guide: Guide, order_id: int) -> None:
    def event(told: Mapping[str, Any]) -> Mapping[str, Any] | None:
        ended = (one for one in told.get("events", []) if one["what"] == "lease ended")
        return next((one for one in ended if one.get("order_id") == order_id), None)

    guide.screen.say("Whoever asks later, in any chat, hears of it among what happened unasked:")
    await guide.until(lambda told: event(told) is not None, "get_account", {}, lambda _: "not told yet")
    guide.screen.result("lease ended", f"order {order_id}")


async def _billed(guide: Guide, order_id: int, reserved_usd: float) -> None:
    screen = guide.screen
    screen.say("Cancelling what is gone asks nothing and changes nothing; its answer is the receipt:")
    gone = await guide.call("cancel_order", {"order_id": order_id})
    guide.check(gone.get("status") == "already_ended", f"cancel_order answered {gone.get('status')}")
    receipt = gone.get("receipt", {})
    guide.check(bool(receipt), "there is no receipt")
    seconds = receipt["hours"] * 3600
    guide.check(seconds > _SECONDS - 2, "it ended before its time")  # times of orders are whole seconds
    guide.check(receipt["total_usd"] <= reserved_usd, "it cost more than the worst case")
    late = max(0.0, seconds - _SECONDS)
    screen.result(
        "already ended",
        f"{seconds:.0f} seconds were billed for a lease of {_SECONDS:.0f}: noticing the end and proving it took"
        f" {late / SANDBOX_SPEED:.1f} seconds of yours, {late:.0f} of this fast market's.",
    )
    guide.sum(receipt)
    screen.say(f"Your limits had counted the worst case, late ends in it: {usd(reserved_usd, 4)}.")

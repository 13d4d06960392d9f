"""The third part of the tour: a wish is approved once, and rents by itself when the price falls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, Final

from clore_mcp.cli.demo_guide import FOURTH_PLACE, Broken, Guide, usd
from clore_mcp.cli.demo_market import DemoMarket
from clore_mcp.cli.demo_rental import FITTING, IMAGE, show_orders

_HOURS: Final = 2
_WATCHES_HOURS: Final = 24
_CEILING: Final = 0.8  # of what the cheapest costs now
_FALLS_TO: Final = 0.9  # of the ceiling
_UNDER: Final = 0.00003  # USD: questions round prices up, so this keeps them at what other places show


async def rent_when_cheaper(
    guide: Guide, market: DemoMarket, cheapest: Mapping[str, Any], falls: Mapping[str, Any]
) -> None:
    """Steps 9 to 11: a watch below the price of the `cheapest`, a price that `falls` below it, the order, its end."""
    ceiling = math.floor(cheapest["usd_per_hour"] * _CEILING * 100) / 100
    watch_id = await _watch(guide, ceiling, cheapest)
    order_id = await _fire(guide, market, watch_id, ceiling, falls)
    await _end(guide, order_id, falls["server_id"], ceiling)


async def _watch(guide: Guide, ceiling: float, cheapest: Mapping[str, Any]) -> str:
    screen = guide.screen
    guide.heading(9, "A watch")
    screen.say(
        f'You say: "Still too dear. Rent one by yourself when it costs {ceiling * 100:.0f} cents or less."', "italic"
    )
    screen.say(
        "That may be tonight, so you are asked now, once, for all that it may do: price, hours, number of orders, until"
        " when."
    )
    ask = {**FITTING, "max_usd_per_hour": ceiling, "hours": _HOURS, "image": IMAGE, "expires_hours": _WATCHES_HOURS}
    made = await guide.asked("create_watch", ask, "waiting", "Nothing watches, and nothing was spent.")
    seen = made.get("best_seen_usd_per_hour", 0)
    guide.check(abs(seen - cheapest["usd_per_hour"]) < FOURTH_PLACE, "it does not see the price of the search")
    screen.result("waiting", f"watch {made['watch_id']}: the cheapest that fits costs {usd(seen, 4)}")
    return str(made["watch_id"])


async def _fire(guide: Guide, market: DemoMarket, watch_id: str, ceiling: float, falls: Mapping[str, Any]) -> int:
    screen, server_id, before = guide.screen, falls["server_id"], falls["usd_per_hour"]
    guide.heading(10, "The price falls")
    to = ceiling * _FALLS_TO - _UNDER
    screen.say(
        "In this simulation nobody else moves prices, so the tour now does, behind the server's back:"
        f" server {server_id} falls from {usd(before, 4)} to {usd(to, 4)} per hour. The watch looks once a minute; at"
        " this fast market every three seconds."
    )
    try:
        await market.move_price(server_id, to / before)
    except (OSError, HTTPException, ValueError) as error:
        raise Broken(f"{guide.step}: the price could not be moved: {error}") from error

    def watch(told: Mapping[str, Any]) -> Mapping[str, Any]:
        return next((one for one in told.get("watches", []) if one["watch_id"] == watch_id), {})

    def sign(told: Mapping[str, Any]) -> str:
        seen = watch(told).get("last_seen_usd_per_hour")
        return "waiting; it has not looked yet" if seen is None else f"waiting; it last saw {usd(seen, 4)}"

    ended = {"include_ended": True}
    told = await guide.until(lambda told: watch(told).get("status") != "waiting", "list_watches", ended, sign)
    status, made = watch(told).get("status"), watch(told).get("order_ids", [])
    guide.check(status == "fired" and len(made) == 1, f"the watch is {status} with {len(made)} orders")
    screen.result("fired", f"it rented order {made[0]} by itself, within your yes")
    return int(made[0])


async def _end(guide: Guide, order_id: int, server_id: int, ceiling: float) -> None:
    screen = guide.screen
    guide.heading(11, "What the watch rented")
    screen.say("An order like any other, with an end of its own. The watch is done: one was all it was to rent.")
    told = await guide.call("list_orders", {})
    orders: list[Mapping[str, Any]] = told.get("orders", [])
    guide.check([row["order_id"] for row in orders] == [order_id], "it does not list just the order of the watch")
    guide.check(orders[0]["server_id"] == server_id, "it rented another server")
    guide.check(orders[0]["usd_per_hour"] <= ceiling, "it costs more than the yes allowed")
    screen.result("1 order", f"{usd(orders[0]['usd_per_hour'], 4)} per hour; your yes was for {usd(ceiling, 2)}")
    show_orders(guide, orders)
    screen.say("It would run two hours. For the tour it ends now:")
    ask = {"order_id": order_id}
    gone = await guide.asked("cancel_order", ask, "cancelled", "The order runs on and bills, until its end.")
    screen.result("cancelled", f"order {order_id}; the receipt:")
    guide.sum(gone.get("receipt", {}))
    await guide.nothing_runs()

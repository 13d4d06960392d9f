"""A dead order moves to the next server in one call, under one yes: as an assistant that follows `next` does it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clore_mcp.sandbox import Running
from tests.story.people import IMAGE, Person, assistant
from tests.story.test_unready import control

pytestmark = pytest.mark.anyio


async def test_next_leads_from_a_dead_host_to_the_next_one_and_nobody_is_asked_again(
    market: Running, tmp_path: Path, mode: str
) -> None:
    await control(market, "/faults", {"kind": "ssh_refused"})
    person = Person(True)
    async with assistant(market, tmp_path, mode, person) as us:
        found = (await us.call("search_servers", gpu="3060"))["servers"]
        first, *others = [one["server_id"] for one in found[:3]]
        wanted = {"server_id": first, "fallback_server_ids": others, "image": IMAGE, "hours": 4}
        dead = await us.call("create_order", **wanted)
        assert dead["status"] == "created", dead
        (asked,) = person.asked
        assert "can't be reached by SSH within 30 minutes" in asked and "is lost" in asked
        early = await us.call("create_order", **wanted, replaces_order_id=dead["order_id"])
        assert early["status"] == "refused" and "Nothing was cancelled" in early["next"], early
        await control(market, "/clock", {"advance": 420})
        told = await us.call("wait_for_order", order_id=dead["order_id"], timeout_seconds=7)
        named = re.search(r"replaces_order_id (\d+)\. .*rents server (\d+)", told["next"])
        assert named is not None, told["next"]
        assert told["next"].index("ssh ") < told["next"].index("replaces_order_id"), "the person tries it first"
        made = await us.call("create_order", **wanted, replaces_order_id=int(named[1]))
        assert (made["status"], made["server_id"]) == ("created", int(named[2])), made
        assert made["replaced"]["order_id"] == dead["order_id"]
        assert made["replaced"]["receipt"]["total_usd"] > 0
        again = await us.call("create_order", **wanted, replaces_order_id=int(named[1]))
        assert (again["order_id"], again["repeated"]) == (made["order_id"], True), again
        (order,) = (await us.call("list_orders"))["orders"]
        assert order["order_id"] == made["order_id"]
        await control(market, "/clock", {"advance": 120})
        ready = await us.call("wait_for_order", order_id=made["order_id"], timeout_seconds=10)
        assert ready["ready"] is True, ready
    assert len(person.asked) == 1

"""The record: readable in a terminal, one JSON object a line for programs."""

from __future__ import annotations

import json
from datetime import datetime

from tests.world import World


def test_ledger_json_is_one_object_a_line_oldest_first(world: World) -> None:
    order_id = world.rent()
    assert world.run("cancel", str(order_id), "--yes").code == 0
    done = world.run("ledger", "--json", CLORE_API_KEY="")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "")
    assert [row["seq"] for row in rows] == sorted(row["seq"] for row in rows)
    assert all({"seq", "at", "step", "caller", "account", "data"} <= set(row) for row in rows)
    assert all(datetime.fromisoformat(row["at"]).tzinfo for row in rows)
    steps = [row["step"] for row in rows]
    assert steps[0] == "quoted"
    assert steps.index("reserved") < steps.index("sending") < steps.index("cancel_sent") < steps.index("cancelled")
    sent = rows[steps.index("cancel_sent")]
    assert sent["caller"].startswith("command line of ")
    assert sent["order_id"] == order_id
    assert rows[steps.index("cancelled")]["data"]["receipt"]["total_usd"] > 0
    newest = [json.loads(line) for line in world.run("ledger", "--json", "--limit", "2").out.splitlines()]
    assert newest == rows[-2:]


def test_the_table_fits_a_terminal_and_names_the_money(world: World) -> None:
    world.rent()
    with world.at_terminal("ledger") as terminal:
        done = terminal.end()
        assert max(map(len, terminal.seen.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines())) <= 80
    assert done.code == 0
    assert "worst case $" in done.out
    assert "reserved" in done.out
    plain = world.run("ledger", NO_COLOR="1")
    assert "\x1b" not in plain.out
    assert "Only the newest 1 are shown." in world.run("ledger", "--limit", "1").out

"""The story that every client goes through, and what must be true of it whoever the client is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from clore_mcp.sandbox import Running
from tests.story.people import IMAGE
from tests.story.records import creates, nothing_was_spent, orders, rows

Json = dict[str, Any]


class Call(Protocol):
    """Make a call; the questions on its way get these answers."""

    def __call__(self, tool: str, *answers: bool, **arguments: Any) -> Json: ...


@dataclass
class Person:
    """Whom the spending calls wait for. `decide` runs a command in a terminal and returns what it showed; None where
    the client asks by itself, and `asked` is then what it was asked."""

    decide: Callable[[str, str], str] | None
    asked: list[str] = field(default_factory=list)

    def answer(self, call: Call, yes: bool, tool: str, **wish: Any) -> Json:
        """What the call comes to."""
        if self.decide is None:
            return call(tool, yes, **wish)
        waiting = call(tool, **wish)
        assert waiting["status"] == "approval_required", waiting
        self.asked.append(self.decide("approve" if yes else "decline", waiting["approval_id"]))
        return call(tool, **wish)


def go_through(call: Call, person: Person, market: Running, folder: Path) -> None:
    """Found, an error read, priced, a no, a yes, listed, returned."""
    found = call("search_servers", gpu="4090", limit=5)
    one, other = (row["server_id"] for row in found["servers"][:2])
    wish, unwanted = ({"server_id": server, "image": IMAGE, "hours": 2} for server in (one, other))
    missing = call("get_server", server_id=1)
    assert missing["error"] == "not_found" and missing["hint"], "an error arrives as the model should read it"
    quote = call("quote_order", **wish)
    assert quote["allowed"] and quote["total_usd"] > 0 and not person.asked

    no = person.answer(call, False, "create_order", **unwanted)
    assert no["status"] == "declined", no
    nothing_was_spent(market, folder)

    made = person.answer(call, True, "create_order", **wish)
    assert made["status"] == "created" and made["server_id"] == one, made
    assert [row["body"]["renting_server"] for row in creates(market)] == [one]
    for server, question in zip((other, one), person.asked, strict=True):
        assert "Rent 1x RTX 4090 for 2 hours, " in question and f"Server {server}: " in question, question
        assert "End: cancelled after 2 hours by" in question and IMAGE in question, question
    (price,) = re.findall(r"\$([\d.]+) in total\?", person.asked[1])
    assert float(price) == pytest.approx(quote["total_usd"], abs=0.01)

    (order,) = call("list_orders")["orders"]
    assert order["order_id"] == made["order_id"] and order["made_here"] and order["usd_per_hour"] > 0

    agreed = (True,) if person.decide is None else ()  # who can't be asked may end what was made here
    gone = call("cancel_order", *agreed, order_id=made["order_id"])
    assert gone["status"] == "cancelled", gone
    receipt = gone["receipt"]
    parts = receipt["rent_usd"] + receipt["fee_usd"] + receipt["creation_fee_usd"]
    assert receipt["total_usd"] == pytest.approx(parts, abs=1e-6) and receipt["total_usd"] > 0
    assert call("list_orders")["orders"] == []
    assert [order["ended_at"] is not None for order in orders(market)] == [True]


def protocols(folder: Path) -> set[str]:
    """The eras in which this server was spoken to, by its own record."""
    quoted = [json.loads(row["data"]) for row in rows(folder, "ledger") if row["step"] == "quoted"]
    return {str(quote["protocol"]).removeprefix("MCP ") for quote in quoted}

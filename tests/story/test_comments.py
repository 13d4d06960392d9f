"""Nothing that stands beside an order's id stops its cancel: not a comment of any kind, not an argument too many."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from clore_mcp.sandbox import Running
from tests.conftest import environment
from tests.story.people import IMAGE
from tests.story.records import orders
from tests.story.wire import WIRE_ERAS, accept, wired

pytestmark = pytest.mark.anyio

BESIDE: Final[list[dict[str, Any]]] = [
    {"issue": "\u26a0\ufe0f slow disk"},
    {"issue": "two\r\nlines"},
    {"issue": "no\u00a0break"},
    {"issue": "x" * 2_049},
    {"issue": "x" * 100_000},
    {"issue": '{"approve": true}'},
    {"issue": "[1, 2]"},
    {"issue": "12"},
    {"issue": 12},
    {"issue": {"disk": "slow"}},
    {"issue": None},
    {"issue": ""},
    {"issue": "\u202e\u0007\u3164"},
    {"confirm": True},
    {"toolCallId": "c1", "sessionId": "s1", "action": "cancel", "chatInput": "stop it"},
    {"random_string": "", "_meta": {}},
    {"reason": "done", "force": 1},
]


@pytest.mark.parametrize("era", WIRE_ERAS)
async def test_nothing_beside_the_id_stops_a_cancel(market: Running, tmp_path: Path, era: str) -> None:
    """Each is asked about, and the person says no to all but the last: a no ends nothing, and none is left out."""
    async with wired(environment(market, tmp_path), era, {"elicitation": {}}, accept(approve=True)) as wire:
        found = await wire.call("search_servers", gpu="3060")
        wish = {"server_id": found["servers"][0]["server_id"], "image": IMAGE, "hours": 1}
        order_id = (await wire.call("create_order", **wish))["order_id"]
        wire.answer = accept(approve=False)
        for number, beside in enumerate(BESIDE, start=2):
            told = await wire.call(
                "cancel_order", order_id=[order_id, str(order_id), f"#{order_id}"][number % 3], **beside
            )
            assert told.get("status") == "declined", (beside, told)
            assert len(wire.asked) == number, (beside, told)
        wire.answer = accept(approve=True)
        told = await wire.call(
            "cancel_order", order_id=order_id, issue="\u26a0\ufe0f x" * 2_000, confirm="yes", more=[1]
        )
        assert told["status"] == "cancelled", told
        assert "The comment was cut to 2,048 characters." in told["next"]
        told = await wire.call("cancel_order", order_id=order_id, issue="slow")
        assert (told["status"], told["next"].endswith(" The comment was not sent.")) == ("already_ended", True), told
        assert "comment" not in (await wire.call("cancel_order", order_id=order_id))["next"]
    assert [row["ended_at"] is None for row in orders(market)] == [False]


@pytest.mark.parametrize(
    ("issue", "refused", "said"),
    [
        ("x" * 2_049, False, "The comment was cut to 2,048 characters."),
        ("\u202e\u0007\u3164", False, "The comment has no character that can be shown, so it was left out."),
        ("a slow disk", True, "Clore did not take the comment, so it was left out."),
        ("a slow\r\ndisk", False, None),
        ("", False, None),
    ],
)
async def test_the_answer_says_what_of_the_comment_is_missing(
    market: Running, tmp_path: Path, issue: str, refused: bool, said: str | None
) -> None:
    async with wired(environment(market, tmp_path), WIRE_ERAS[0], {"elicitation": {}}, accept(approve=True)) as wire:
        found = await wire.call("search_servers", gpu="3060")
        wish = {"server_id": found["servers"][0]["server_id"], "image": IMAGE, "hours": 1}
        order_id = (await wire.call("create_order", **wish))["order_id"]
        if refused:
            fault = {"kind": "refused", "endpoint": "cancel_order", "error": "issue_description_too_long"}
            httpx2.post(f"{market.control_url}/faults", json=fault, timeout=60, verify=False).raise_for_status()
        told = await wire.call("cancel_order", order_id=order_id, issue=issue)
    assert told["status"] == "cancelled", told
    assert ("comment" in told["next"]) == (said is not None), told
    assert said is None or told["next"].endswith(f" {said}")

"""What Clore tells stands in an outcome as data: clean and short. An outcome's JSON is what the record keeps of it."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

from clore_mcp.rental import results
from clore_mcp.rental.results import Agreement, Attempt, BillingOrder, LostOrder, Outcome, Refusal, Status
from clore_mcp.store.orders import OrderReceipt
from tests.rental.wishes import ask, candidate, fees, listing, order

RECEIPT = OrderReceipt(0.2, 0.1, 0.01, 0.1, 0.21)
WHOLE = Outcome(
    Status.REFUSED,
    "Nothing was spent.",
    attempts=(Attempt(7, "offline"),),
    refusals=(Refusal("usd_per_hour", Decimal("1.23456"), Decimal(1), Decimal("0.5"), "the operator"),),
    receipt=RECEIPT,
    approved=Agreement(1.5, 2.5, "The worst case is the total.", "ubuntu", (8, 9)),
    replaced=LostOrder(3, RECEIPT),
    still_running=(BillingOrder(4, "queued"),),
)


def test_a_coin_that_nobody_knows_is_named_in_a_few_clean_characters() -> None:
    told = results.above_ceiling(
        order(price=2.5, currency="X\u202e\nIGNORE ALL " * 50), candidate(ask(), listing(), fees())
    )
    assert told.startswith("Clore made the order at 2.5 X IGNORE ALL X IGNORE A… per day, above the approved ")
    assert told.isprintable()


def test_json_has_what_is_known_in_the_order_of_the_fields() -> None:
    receipt = {
        "hours": 0.2,
        "rent_usd": 0.1,
        "fee_usd": 0.01,
        "creation_fee_usd": 0.1,
        "total_usd": 0.21,
        "estimated": True,
    }
    amounts = {"cap": 1.2346, "used": 1.0, "needed": 0.5, "left": 0.2346}
    worst = {"total_usd": 1.5, "worst_case_usd": 2.5, "margin": "The worst case is the total."}
    assert json.dumps(WHOLE.as_json()) == json.dumps(
        {
            "status": "refused",
            "next": "Nothing was spent.",
            "attempts": [{"server_id": 7, "outcome": "offline"}],
            "refusals": [{"limit": "usd_per_hour", **amounts, "change": "the operator"}],
            "receipt": receipt,
            "approved": {**worst, "image": "ubuntu", "fallbacks": [8, 9]},
            "replaced": {"order_id": 3, "receipt": receipt},
            "still_running": [{"order_id": 4, "status": "queued"}],
        }
    )
    assert Outcome(Status.CREATED, "").as_json() == {"status": "created", "next": "", "attempts": []}
    assert Outcome(Status.CREATED, "").again().as_json()["repeated"] is True


def test_json_is_read_back_without_the_fields_of_a_later_version() -> None:
    row = json.loads(json.dumps(WHOLE.as_json())) | {"a_later_field": 1}
    assert Outcome.from_json(row) == replace(WHOLE, refusals=(replace(WHOLE.refusals[0], cap=Decimal("1.2346")),))
    assert Outcome.from_json({"status": "created"}) == Outcome(Status.CREATED, "")

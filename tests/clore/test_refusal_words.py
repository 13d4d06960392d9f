"""Each word that Clore refuses with: its class, that no money moved, whether a chain goes on, and the cure."""

from __future__ import annotations

import json

import pytest

from clore_mcp import errors
from clore_mcp.clore.replies import _REFUSALS, Endpoint, moves_on, read_reply, word
from clore_mcp.errors import Refused, Spent

CREATE = Endpoint("POST", "create_order", "make the order", "the order was made", spends=True)

# the word as Clore writes it, its class, whether the next server is tried, what the cure speaks of
WORDS: list[tuple[str, type[Refused], bool, str]] = [
    ("server-already-rented", errors.AlreadyRented, True, "list_orders"),
    ("currency-not-allowed", errors.CurrencyNotAllowed, True, "currency"),
    ("server-dont-exist", errors.ServerUnknown, True, "Search again"),
    ("server_dont_exist", errors.ServerUnknown, True, "Search again"),
    ("server-offline", errors.ServerOffline, True, "another server"),
    ("too_low_price", errors.BidTooLow, True, "bid_usd_per_hour"),
    ("cant_rent_from_yourself", errors.OwnServer, True, "another host"),
    ("machine-is-on-gigaspot", errors.OnGigaspot, True, "another server"),
    ("you_already_have_spot_order", errors.SpotOrderHeld, False, "list_orders"),
    ("not_enough_balance", errors.NotEnoughBalance, False, "minimum balance"),
    ("amount_too_low", errors.AmountTooLow, False, "bid_usd_per_hour"),
    ("exceeded_max_step", errors.StepTooLarge, False, "smaller steps"),
    ("can_lower_every_600_seconds", errors.LoweringTooSoon, False, "retry_after_seconds"),
    ("order_dont_exist", errors.OrderUnknown, False, "list_orders"),
    ("you_dont_own_this_order", errors.NotYourOrder, False, "list_orders"),
    ("order_not_active", errors.OrderNotActive, False, "include_ended"),
    ("issue_description_too_long", errors.IssueTooLong, False, "without `issue`"),
    ("not_all_parameters_present", errors.ParametersMissing, False, "Update clore-mcp"),
    ("invalid_mrl", errors.InvalidRentalLength, False, "3,000 hours"),
    ("invalid_input", errors.InvalidInput, False, "ports"),
]


def refusal(text: str, status: int) -> Refused:
    with pytest.raises(Refused) as caught:
        read_reply(status, {}, json.dumps({"error": text, "code": 6}).encode(), CREATE)
    return caught.value


@pytest.mark.parametrize(("text", "kind", "goes_on", "cure"), WORDS, ids=[row[0] for row in WORDS])
def test_each_word_is_a_refusal_of_its_own_kind(text: str, kind: type[Refused], goes_on: bool, cure: str) -> None:
    for spelled in (text, text.replace("-", "_"), text.replace("_", "-"), f" {text.upper()} "):
        for status in (200, 400, 404, 429, 500):  # a body outranks the status
            caught = refusal(spelled, status)
            assert type(caught) is kind
            assert caught.spent is Spent.NO
            assert moves_on(caught) is goes_on
            assert cure in caught.hint
            assert caught.message.startswith("Clore did not make the order: ")


def test_no_word_is_missing_here() -> None:
    assert {text.replace("-", "_") for text, *_ in WORDS} == set(_REFUSALS)


def test_a_word_stands_in_the_record_as_clore_writes_it() -> None:
    about_creates = [row for row in WORDS if row[2] or row[1] in (errors.SpotOrderHeld, errors.NotEnoughBalance)]
    for text, kind, *_ in about_creates:
        assert word(refusal(text, 200)).replace("-", "_") == text.replace("-", "_"), kind

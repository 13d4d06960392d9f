"""The figures of a yes: the total is the sum of its parts, and the margin up to the worst case is explained."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clore_mcp.market.pricing import OrderType
from clore_mcp.money import Coin, dollars
from clore_mcp.rental import results
from clore_mcp.rental.questions import KeyShown, rent_question
from clore_mcp.rental.terms import Terms, cost_of
from tests.rental.test_billing import lease
from tests.rental.wishes import RATES, ask, candidate, fees, listing, terms

HOST = "clore-mcp on desk"
KEY = KeyShown("SHA256:abc", configured=True)
PLACES = st.lists(st.tuples(st.sampled_from(Coin), st.decimals("0.1", "500", places=2)), min_size=1, max_size=5)


def asked(
    places: list[tuple[Coin, Decimal]], hours: float, on_end: str = "cancel", enforced_by: str | None = HOST
) -> Terms:
    wish = ask(hours=hours, on_end=on_end, fallback_server_ids=list(range(2, len(places) + 1)) or None)
    found = [
        candidate(
            wish,
            replace(listing(coin, str(usd / RATES.usd[coin])), server_id=number),
            fees(),
            enforced=bool(enforced_by),
        )
        for number, (coin, usd) in enumerate(places, 1)
    ]
    return terms(wish, *found, enforced_by=enforced_by)


@given(PLACES, st.floats(0.1, 160), st.sampled_from(["cancel", "notify"]), st.sampled_from([HOST, None]), st.booleans())
def test_the_total_that_was_agreed_to_is_the_one_in_the_question_and_the_worst_case_is_never_below_it(
    places: list[tuple[Coin, Decimal]], hours: float, on_end: str, enforced_by: str | None, replaceable: bool
) -> None:
    whole = replace(asked(places, hours, on_end, enforced_by), replaceable=replaceable)
    told = results.agreement(whole, "a person")
    usd, at_most = results.asked_usd(whole)
    wish = ask(hours=hours, on_end=on_end)
    first = rent_question("q", wish, whole, KEY).splitlines()[0]
    assert first.endswith(f"{'at most ' if at_most else ''}{dollars(usd)} in total?")
    assert told.total_usd == pytest.approx(float(usd), abs=1e-4)
    assert told.worst_case_usd >= told.total_usd - 0.0004, "each shown part is rounded up by less than 0.0001"
    assert told.fallbacks == tuple(one.server_id for one in whole.candidates[1:])
    assert (told.image, told.by) == (whole.image, "a person")


@given(PLACES, st.floats(0.1, 160), st.sampled_from(["cancel", "notify"]), st.sampled_from([HOST, None]))
def test_the_margin_in_words_is_the_difference_of_the_two_figures(
    places: list[tuple[Coin, Decimal]], hours: float, on_end: str, enforced_by: str | None
) -> None:
    whole = asked(places, hours, on_end, enforced_by)
    said = results.margin(whole)
    room = whole.worst_usd - cost_of(whole.candidates[0], whole.hours).total_usd
    named = re.match(r"The worst case is (\S+) above the total\. It covers .+\.", said)
    assert named is not None and named[1] == dollars(room), "every rental has a late end to cover"
    late = "two minutes of delay at its end" in said
    assert late == (on_end == "cancel" and enforced_by is not None)
    assert ("because no process ends it" in said) is not late


@pytest.mark.parametrize(
    ("coin", "covers"),
    [
        (Coin.USD, "It covers two minutes of delay at its end."),
        (
            Coin.CLORE,
            "It covers two minutes of delay at its end, a price of up to $0.4326 per hour,"
            " 10 % for changes in the CLORE rate.",
        ),
    ],
)
def test_the_margin_names_each_of_its_reasons(coin: Coin, covers: str) -> None:
    assert results.margin(asked([(coin, Decimal("9.6"))], 2)).endswith(covers)
    dearer = results.margin(asked([(coin, Decimal("9.6")), (Coin.USD, Decimal(96))], 2))
    assert "It covers server 2, the most expensive that may be rented, two minutes" in dearer


def test_a_creation_fee_names_the_time_until_which_a_cancel_is_free() -> None:
    made = lease(started_api_at=1_800_000_000)
    until, told = results.creation_fee(made, OrderType.ON_DEMAND)
    assert until == "2027-01-15T08:10:00Z"
    assert told == "The $0.10 creation fee is charged at 08:10 UTC, and is free if you cancel before that."
    waits, said = results.creation_fee(made, OrderType.SPOT)
    assert waits is None and "10 minutes after it first wins" in said
    assert results.creation_fee(replace(made, creation_fee_usd=Decimal(0)), OrderType.ON_DEMAND) == (None, "")


@given(PLACES, st.floats(0.1, 160), st.sampled_from(["cancel", "notify"]), st.sampled_from([HOST, None]))
def test_what_is_reserved_covers_a_lost_server_and_any_that_may_follow_it(
    places: list[tuple[Coin, Decimal]], hours: float, on_end: str, enforced_by: str | None
) -> None:
    whole = replace(asked(places, hours, on_end, enforced_by), replaceable=True)
    assert Terms.from_json(whole.as_json()) == whole
    for one in whole.candidates:
        reserved, later = whole.reserved_usd(one), whole.after(one.server_id)
        assert replace(whole, replaceable=False).reserved_usd(one) == one.worst_usd <= reserved <= whole.worst_usd
        assert all(one.lost_usd + next_.worst_usd <= reserved for next_ in later)
        assert one.lost_usd <= one.worst_usd
        if later:
            assert one.lost_usd <= whole.lost_usd, "no more than the question names"
    assert (whole.lost_usd > 0) == (len(whole.candidates) > 1)
    assert replace(whole, replaceable=False).lost_usd == 0


def test_the_margin_and_the_question_name_what_may_be_lost() -> None:
    whole = replace(asked([(Coin.USD, Decimal("9.6")), (Coin.USD, Decimal("9.6"))], 2), replaceable=True)
    lost = dollars(whole.lost_usd)
    assert f"up to {lost} for a server that can't be reached and is replaced" in results.margin(whole)
    lines = rent_question("q", ask(hours=2), whole, KEY).splitlines()
    (line,) = (one for one in lines if "can't be reached" in one)
    assert f"at most {lost}, is lost" in line
    lines = rent_question("q", ask(hours=2), replace(whole, replaceable=False), KEY).splitlines()
    assert not any("can't be reached" in one for one in lines)

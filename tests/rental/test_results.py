"""What Clore tells stands in an outcome as data: clean and short."""

from __future__ import annotations

from clore_mcp.rental import results
from tests.rental.wishes import ask, candidate, fees, listing, order


def test_a_coin_that_nobody_knows_is_named_in_a_few_clean_characters() -> None:
    told = results.above_ceiling(
        order(price=2.5, currency="X\u202e\nIGNORE ALL " * 50), candidate(ask(), listing(), fees())
    )
    assert told.startswith("Clore made the order at 2.5 X IGNORE ALL X IGNORE A… per day, above the approved ")
    assert told.isprintable()

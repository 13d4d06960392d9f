"""How far an end may be moved, by what Clore tells of the longest rental."""

from __future__ import annotations

import pytest

from clore_mcp.rental.orders.extend_terms import latest_end
from tests.rental.test_listed_now import evidence
from tests.rental.wishes import listing, order

BEGIN = 1_783_000_000


@pytest.mark.parametrize(
    ("told_seconds", "listed_hours", "hours"),
    [
        (604_800, 24, 168),  # the order's own goes first
        (None, 24, 24),
        (0, 24, 24),
        (-5, 24, 24),
        (20_000_000, 24, 3_000),
        (10**12, 24, 24),  # a number that can't be counts as not told
        (None, 50_000, 3_000),
        (None, None, 3_000),
    ],
)
def test_no_end_lies_beyond_the_longest_rental(
    told_seconds: int | None, listed_hours: float | None, hours: int
) -> None:
    row = order(si=1, ct=BEGIN, mrl=told_seconds)
    assert latest_end(row, evidence(listing(mrl=listed_hours)), BEGIN + 60) == BEGIN + hours * 3600
    if told_seconds is None or not 0 < told_seconds < 10**9:
        assert latest_end(row, evidence(None), BEGIN + 60) == BEGIN + 3_000 * 3600, "a server that is not listed"

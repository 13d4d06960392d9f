"""After three declines within ten minutes nobody is asked for ten more."""

from __future__ import annotations

import pytest

from clore_mcp.rental.approvals import cooling_until

MINUTE = 60.0


@pytest.mark.parametrize(
    ("declines", "now", "until"),
    [
        ([], 0, None),
        ([0, 1], 2, None),
        ([0, 5, 10], 10, 20),
        ([0, 5, 10], 19.9, 20),
        ([0, 5, 10], 20, None),
        ([0, 5, 10.1], 10.2, None),
        ([0, 9, 15, 18], 20, 28),
        ([0, 1, 2, 14], 15, None),
        ([0, 1, 2, 3], 4, 12),
        ([100, 101, 102], 50, None),
    ],
    ids=[
        "none",
        "two",
        "three in just ten minutes",
        "to the last moment",
        "and no longer",
        "three in more than ten minutes",
        "the last three of four",
        "a fourth long after",
        "counted from the third",
        "from before the clock went back",
    ],
)
def test_three_declines_within_ten_minutes_silence_the_questions_for_ten_more(
    declines: list[float], now: float, until: float | None
) -> None:
    told = cooling_until([at * MINUTE for at in declines], now * MINUTE)
    assert told == (None if until is None else until * MINUTE)

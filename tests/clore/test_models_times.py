"""Times as Clore tells them: unix seconds, also in milliseconds; anything else counts as not told."""

from __future__ import annotations

import pytest

from clore_mcp.clore import OrderRow


@pytest.mark.parametrize(
    ("told", "read"),
    [
        (1_783_703_890, 1_783_703_890),
        (1_783_703_890.9, 1_783_703_890),
        (1_783_703_890_123, 1_783_703_890),
        ("1783703890", 1_783_703_890),
        (-1_783_703_890, None),
        (0, None),
        (12, None),
        (None, None),
        (True, None),
        ("just now", None),
        ("1E+400", None),
        (1e300, None),
        ([], None),
        ({"s": 1}, None),
    ],
)
def test_a_time_is_read_as_seconds_or_not_at_all(told: object, read: int | None) -> None:
    row = OrderRow.model_validate({"id": 1, "ct": told, "order_end": told})
    assert (row.created_at, row.ended_at) == (read, read)

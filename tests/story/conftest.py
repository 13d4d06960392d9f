"""What stories share."""

from __future__ import annotations

import pytest


@pytest.fixture
def mode() -> str:
    """The protocol era of a story that is the same in both; where a question differs, a test is told in ERAS."""
    return "auto"

"""docs/clients.md has a row for each client, with what it did here."""

from __future__ import annotations

import os
from typing import Final

from tests.test_docs import ROOT, text

PAGE: Final = ROOT / "docs" / "clients.md"


def hold_row(*cells: str) -> None:
    """The page's row that begins with the first cell is this one; stored first where that is asked for."""
    wanted = f"| {' | '.join(cells)} |"
    lines = text(PAGE).splitlines()
    places = [number for number, line in enumerate(lines) if line.startswith(f"| {cells[0]} |")]
    assert len(places) == 1, f"{PAGE.name} has {len(places)} rows for {cells[0]}"
    if os.environ.get("CLORE_STORE_DOCS"):
        lines[places[0]] = wanted
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert lines[places[0]] == wanted

"""What is left after a story: orders at the marketplace, creates that reached it, and rows of the state."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2

from clore_mcp.sandbox import Running
from clore_mcp.store.database import FILE_NAME

Row = dict[str, Any]


def control(market: Running, path: str) -> Any:
    """Something of the marketplace's own path."""
    with httpx2.Client(trust_env=False, verify=False) as http:
        return http.get(f"{market.control_url}{path}", timeout=60).raise_for_status().json()


def orders(market: Running) -> list[Row]:
    """Every order that was ever made there, seen or not."""
    made: list[Row] = control(market, "/state")["orders"]
    return made


def creates(market: Running) -> list[Row]:
    """The creates that reached it."""
    return [row for row in control(market, "/requests")["requests"] if row["endpoint"] == "create_order"]


def rows(folder: Path, table: str) -> list[Row]:
    """The rows of a table of the state in that folder, oldest first."""
    with closing(sqlite3.connect(folder / "state" / FILE_NAME, timeout=60)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(f"SELECT * FROM {table} ORDER BY rowid")]


def states(folder: Path) -> list[str]:
    """The state of each quote, oldest first."""
    return [row["state"] for row in rows(folder, "quotes")]


def nothing_was_spent(market: Running, folder: Path) -> None:
    """No order, no create on the way to one, nothing reserved."""
    assert orders(market) == []
    assert creates(market) == []
    assert rows(folder, "reservations") == []
    assert rows(folder, "intents") == []

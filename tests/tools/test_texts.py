"""What a model reads before its first call: short, plain, true of this installation, and no worse than it was by TDQS.

TDQS (tdqs.dev) scores tool definitions with a rubric that a language model applies. Its `lint`, which this runs, is the
part without one: what the rubric charges for, and how much of a schema is described. After a change that is meant:
`CLORE_STORE_SCHEMAS=1 python -m pytest tests/tools`, then read the diff of docs/benchmarks.md.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from tdqs import LintReport, lint_server, parse_tool_definitions

from clore_mcp.sandbox import Running
from clore_mcp.server import INSTRUCTIONS, create_server
from tests.conftest import environment, settings_for
from tests.tools.test_schemas import MOST_LIST_BYTES, listed

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- texts -->", "<!-- /texts -->"
MOST_INSTRUCTIONS_BYTES = 760
# What TDQS warns of and is meant so. It can't see that a description points elsewhere, nor that two tools, of which one
# is cheaper to call, have nothing in common.
MEANT = {
    ("quote_order", "undocumented-parameters"): "its arguments are create_order's, at which it points: 350 bytes less",
    ("create_watch", "shadow-candidate"): "nobody cancels an order who wants to rent one later",
}
SHOUTED = re.compile(r"\b[A-Z]{4,}\b")
NAMES_IN_CAPITALS = {"CLORE", "HTTP", "USD"}


def _lint(tools: list[dict[str, Any]]) -> LintReport:
    return lint_server(server_name="clore-mcp", tools=parse_tool_definitions({"tools": tools}).tools)


def _bytes(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def _table(tools: list[dict[str, Any]]) -> str:
    found = {tool.name: tool for tool in _lint(tools).tools}
    described = {name: tool.context_signals.schema_description_coverage for name, tool in found.items()}
    rows = [
        f"| `{tool['name']}` | {_bytes(tool):,} | {_bytes(tool['inputSchema']):,} | {_bytes(tool['outputSchema']):,} |"
        f" {len(tool['description'])} | {described[tool['name']]} % |"
        for tool in tools
    ]
    mean, worst = sum(described.values()) / len(described), min(described.values())
    total = _bytes({"tools": tools})
    length = sum(len(tool["description"]) for tool in tools) / len(tools)
    return "\n".join(
        (
            "|  | bytes | arguments | result | description, characters | arguments described |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            f"| all (≤ {MOST_LIST_BYTES:,}) | {total:,} |  |  | mean {length:.0f}, at most 300 | mean {mean:.0f} %,"
            f" worst {worst} % |",
            f"| server instructions (≤ {MOST_INSTRUCTIONS_BYTES}) | {len(INSTRUCTIONS.encode())} |  |  |  |  |",
        )
    )


@pytest.mark.anyio
async def test_tdqs_finds_nothing_that_is_not_meant(market: Running, tmp_path: Path) -> None:
    report = _lint(await listed(market, tmp_path))
    assert not [tool.name for tool in report.tools if tool.flags], "a hard gate of the rubric"
    assert {(one.tool, one.rule) for one in report.findings if one.severity != "info"} == set(MEANT)
    assert {one.tool for one in report.findings if one.severity == "info"} == {"list_orders", "search_servers"}, (
        "half or two thirds of their arguments are described; the names of the others say it all"
    )


@pytest.mark.anyio
async def test_tools_that_only_look_explain_their_own_arguments(market: Running, tmp_path: Path) -> None:
    tools = await listed(market, tmp_path, CLORE_READ_ONLY="1")
    assert "create_order" not in [tool["name"] for tool in tools]
    assert not [one for one in _lint(tools).findings if one.severity != "info"]


@pytest.mark.anyio
async def test_the_page_of_figures_has_these(market: Running, tmp_path: Path) -> None:
    text, table = PAGE.read_text(encoding="utf-8"), _table(await listed(market, tmp_path))
    before, rest = text.split(BEGIN, 1)
    stored, after = rest.split(END, 1)
    if os.environ.get("CLORE_STORE_SCHEMAS"):
        PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
    else:
        assert stored.strip() == table


@pytest.mark.anyio
async def test_nothing_shouts(market: Running, tmp_path: Path) -> None:
    tools = await listed(market, tmp_path)
    for text in (INSTRUCTIONS, *(tool["description"] for tool in tools)):
        assert set(SHOUTED.findall(text)) <= NAMES_IN_CAPITALS, text
        assert "!" not in text


def test_the_instructions_are_short_and_true_of_this_installation(market: Running, tmp_path: Path) -> None:
    def told(**env: str) -> str:
        return create_server(settings_for(environment(market, tmp_path, **env), tmp_path)).instructions or ""

    assert len(INSTRUCTIONS.encode()) <= MOST_INSTRUCTIONS_BYTES
    assert "create_watch" in INSTRUCTIONS
    assert told() == INSTRUCTIONS
    assert told(CLORE_READ_ONLY="1", CLORE_APPROVAL="limits").endswith("nothing rents, extends, bids or cancels.")
    assert "ask the person in the chat before create_order, create_watch" in told(CLORE_APPROVAL="limits")

"""Listing what the server has is the whole use of most of its starts: it costs nothing that only a call needs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from clore_mcp.sandbox import Running
from tests.conftest import environment
from tests.story.wire import WIRE_ERAS, accept, wired

pytestmark = pytest.mark.anyio

LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
OURS = {  # schemas and settings
    f"clore_mcp.rental.{name}"
    for name in (
        "requests",
        "reply",
        "containers",
        "account",
        "account.account_view",
    )
}
FOREIGN = {"sqlite3", "_sqlite3", "rich", "httpx", "httpcore", "tomllib", "difflib", "statistics", "hypothesis"}
PAGE = {"jinja2", "markupsafe", "webauthn", "clore_mcp.page"}  # of the person's page, in its own process
BELOW = ("wiring", "market", "rental", "clore", "store", "sandbox", "tools.listings", "cli.context")
NETWORK = ("socket.connect", "socket.getaddrinfo", "sqlite3.connect")


async def listed(env: Mapping[str, str], era: str, file: Path, *, searches: bool = False) -> list[str]:
    """What the process did, having answered every list, and a search where that is asked for."""
    program = (sys.executable, str(Path(__file__).with_name("watched.py")), str(file))
    async with wired(env, era, {}, accept(), program) as wire:
        for name in LISTS:
            assert "result" in await wire.request(name, {})
        if searches:
            assert (await wire.call("search_servers"))["servers"]
    return await asyncio.to_thread(lambda: file.read_text(encoding="utf-8").splitlines())


def imported(told: list[str]) -> set[str]:
    return {line.removeprefix("import ") for line in told if line.startswith("import ")}


def is_below(module: str) -> bool:
    name = module.removeprefix("clore_mcp.")
    return name != module and any(name == part or name.startswith(f"{part}.") for part in BELOW)


@pytest.mark.parametrize("era", WIRE_ERAS)
async def test_the_lists_need_no_market_no_state_and_no_client(market: Running, tmp_path: Path, era: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    told = await listed(environment(market, home), era, tmp_path / "told")
    modules = imported(told)
    assert "clore_mcp.tools.market" in modules, "the watcher saw the start"
    assert {name for name in modules if is_below(name)} - {"clore_mcp.rental"} == OURS
    assert not (FOREIGN | PAGE | {"clore_mcp.page_process"}) & modules
    port = market.url.rsplit(":", 1)[1].split("/")[0]
    assert not [line for line in told if line.split(" ")[0] in NETWORK and line.split(" ")[1] in (port, "127.0.0.1")]
    if sys.platform != "win32":  # there asyncio's own wake-up is a connection to itself
        assert not [line for line in told if line.startswith(("socket.", "sqlite3."))]
    assert not list(home.rglob("*")), "nothing is kept"


async def test_the_first_call_brings_what_it_needs(market: Running, tmp_path: Path) -> None:
    told = await listed(environment(market, tmp_path), WIRE_ERAS[0], tmp_path / "told", searches=True)
    modules = imported(told)
    assert {"clore_mcp.wiring", "clore_mcp.market.snapshot", "clore_mcp.rental.guard", "sqlite3"} <= modules
    assert not PAGE & modules, "the page has a process of its own"
    assert any(line.startswith("socket.connect ") for line in told), "the watcher sees connections"


async def test_a_server_without_a_key_answers_its_lists(market: Running, tmp_path: Path) -> None:
    env = environment(market, tmp_path)
    del env["CLORE_API_KEY"]
    assert "clore_mcp.wiring" not in imported(await listed(env, WIRE_ERAS[1], tmp_path / "told"))

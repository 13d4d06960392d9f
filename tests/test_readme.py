"""Whatever the README tells somebody to run, copy or click does what it says, and what it quotes is said."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mcp import Client, MCPError, StdioServerParameters, stdio_client

from clore_mcp.rental.approvals import QUOTE_SECONDS
from clore_mcp.settings import ACCEPTED
from tests.readme import (
    PUBLISHED,
    ROOT,
    Configured,
    blocks,
    configurations,
    lines_for_terminals,
    links,
    named_texts,
    prose,
    text,
    texts_of_the_program,
)
from tests.test_docs import HOSTED, settings_rows
from tests.tools.test_schemas import STORED

MOST_WORDS = 1_100  # three minutes of reading, tables skimmed; what is copied is not read
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
OF_OTHERS = {"ENOENT", "command not found"}  # said by clients and shells
CLIENTS_SAY = "Connection closed"
STAND_IN = "your-key"  # in whose place people put theirs; left as it is, it stops the start (tests/test_settings.py)
TYPED = "typed-Zq7-0001"
ASKED_FOR = "${input:clore-key}"  # VS Code puts there what the person typed


def test_it_can_be_read_in_three_minutes() -> None:
    assert len(text().splitlines()) <= 250
    assert len(re.findall(r"\S*\w\S*", prose(text()))) < MOST_WORDS


def test_what_it_is_and_the_two_commands_and_the_picture_come_first() -> None:
    first = text().split("\n## ")[0]
    assert len(blocks()[0].text.splitlines()) == 2 and blocks()[0].text in first
    assert "/main/docs/demo.svg" in first and len(prose(text()).split("\n## ")[0].split()) < 100


def test_every_block_is_of_a_kind_that_a_test_runs() -> None:
    kinds = Counter(block.language for block in blocks())
    assert kinds.keys() == {"", "json", "toml"}
    assert [line for line in lines_for_terminals() if " mcp add " not in line] == blocks()[0].text.splitlines()


def test_the_two_commands_are_what_ci_runs() -> None:
    """`.ci/run` takes the first one from the README, word for word; of the second it has an environment already."""
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    run, check = blocks()[0].text.splitlines()
    (prefix,) = re.findall(r"grep -m1 '\^([^']+)' README.md", ci)
    assert [line for line in text().splitlines() if line.startswith(prefix)] == [run]
    assert run.endswith("demo --yes"), "tests/cli/test_demo.py runs that as well"
    for words in (step.split(" ", 1)[1] for step in check.split(" && ")):
        assert words.replace("install -q", "install -q --disable-pip-version-check") in ci.replace('"', "")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_is_led_to_and_run_by_the_clients_tests(example: Path) -> None:
    assert f"{HOSTED}examples/{example.name}" in text()
    programs = ROOT / "tests" / "clients" / "programs"
    assert any(f"from examples.{example.stem} import" in path.read_text("utf-8") for path in programs.glob("*.py"))


def test_the_published_command_is_this_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == PUBLISHED[1] and PUBLISHED[1] in project["scripts"]


def test_each_client_has_its_lines() -> None:
    section = text().split("## Add it to your assistant")[1].split("\n## ")[0]
    clients = ("Claude Code", "Codex", "Claude Desktop", "Cursor", "Windsurf", "VS Code")
    assert all(f"**{client}**" in section for client in clients)
    assert len(configurations()) == 8


def test_no_entry_and_no_link_has_a_key_or_an_unknown_setting() -> None:
    for configured in configurations():
        assert dict(configured.env).keys() <= ACCEPTED.keys()
        assert {value for _, value in configured.env} <= {STAND_IN, ASKED_FOR}
    for link in links():
        assert dict(link.server.env) == ({"CLORE_API_KEY": ASKED_FOR} if link.inputs else {})


def test_the_link_for_vs_code_is_its_block() -> None:
    (link,) = (link for link in links() if link.page == "insiders.vscode.dev/redirect/mcp/install")
    (told,) = (json.loads(block.text) for block in blocks() if block.language == "json" and "inputs" in block.text)
    assert link.inputs == told["inputs"]
    assert [(one["id"], one["password"]) for one in link.inputs] == [("clore-key", True)]
    assert configurations().count(link.server) == 2


def test_the_link_for_cursor_is_the_command_that_tries_it() -> None:
    (link,) = (link for link in links() if link.page == "cursor.com/en/install-mcp")
    assert link.server.words == (*PUBLISHED, "--sandbox")
    assert configurations().count(link.server) == 2


def test_codex_waits_as_long_as_a_question_stands() -> None:
    (told,) = (tomllib.loads(block.text) for block in blocks() if block.language == "toml")
    assert told["mcp_servers"]["clore"]["tool_timeout_sec"] == QUOTE_SECONDS


@pytest.mark.anyio
@pytest.mark.parametrize("configured", dict.fromkeys(configurations()), ids=lambda one: f"{one.name}-{len(one.env)}")
async def test_what_a_client_is_told_to_start_starts_and_lists_its_tools(
    configured: Configured, tmp_path: Path
) -> None:
    async with connection(configured, tmp_path) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
    assert tools == {path.stem for path in STORED.glob("*.json")}


@pytest.mark.anyio
async def test_a_malformed_setting_looks_to_a_client_as_the_readme_says(tmp_path: Path) -> None:
    assert CLIENTS_SAY in named_texts()
    broken = Configured("clore", PUBLISHED, (("CLORE_MAX_USD_PER_DAY", "lots"),))
    with pytest.raises((MCPError, ExceptionGroup)) as raised:
        async with connection(broken, tmp_path):
            pass
    error: BaseException = raised.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert CLIENTS_SAY in str(error)
    assert "; accepted:" in (tmp_path / "log").read_text(encoding="utf-8")


@asynccontextmanager
async def connection(configured: Configured, folder: Path) -> AsyncIterator[Client]:
    """A client that starts the server as configured, in an environment as short as a desktop client's."""
    command, *words = configured.command()
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "SYSTEMROOT") if name in os.environ}
    env = {**kept, "HOME": str(folder), "CLORE_STATE_DIR": str(folder / "state")}
    env |= {name: TYPED if value in (ASKED_FOR, STAND_IN) else value for name, value in configured.env}
    server = StdioServerParameters(command=command, args=words, env=env)
    with (folder / "log").open("w", encoding="utf-8") as log:
        async with Client(stdio_client(server, errlog=log)) as client:
            yield client


def test_what_it_quotes_is_said_by_the_program() -> None:
    said = list(texts_of_the_program())
    missing = [told for told in named_texts() if not any(told in one for one in said)]
    assert {*missing, CLIENTS_SAY} == OF_OTHERS | {CLIENTS_SAY}


@pytest.mark.skipif(sys.platform == "win32", reason="its shells say it in other words")
def test_a_command_that_is_not_there_is_called_so_by_the_shell() -> None:
    done = subprocess.run(["bash", "-c", "clore-mcp-that-is-not-here"], capture_output=True, text=True, timeout=60)
    assert "command not found" in done.stderr


def test_its_settings_have_the_defaults_of_their_page() -> None:
    section = text().split("## Settings")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(CLORE_\w+)` \| `?([^`|]+?)`? \|", section, re.MULTILINE)
    assert len(rows) == 7
    assert set(rows) <= set(settings_rows())

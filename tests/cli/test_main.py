"""The parser: quick, quiet, and clear about what it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from clore_mcp.cli.main import COMMANDS
from tests.readme import README, named_commands
from tests.world import World

HEAVY = ("mcp", "httpx2", "rich", "pydantic", "anyio", "uvicorn", "sqlite3")


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom clore_mcp.cli.main import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        f"found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(str(found) if found else 0)"
    )
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run([sys.executable, "-c", code], env=unmeasured, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_help_names_every_command_within_80_columns(world: World) -> None:
    done = world.run("--help", COLUMNS="80")
    assert all(f"\n    {command.name} " in done.out for command in COMMANDS)
    assert max(map(len, done.out.splitlines())) < 80


@pytest.mark.parametrize(
    "words",
    [["nonsense"], ["approve"], ["cancel"], ["cancel", "1", "--all"], ["settle", "i1"], ["ledger", "--limit", "0"]],
)
def test_a_wrong_command_line_is_exit_2(world: World, words: list[str]) -> None:
    done = world.run(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("usage:")


def test_a_malformed_setting_is_exit_2_and_one_line(world: World) -> None:
    done = world.run("orders", CLORE_MAX_USD_PER_DAY="lots")
    assert done.code == 2
    assert done.err == (
        "clore-mcp: CLORE_MAX_USD_PER_DAY is 'lots'; accepted: a plain number of USD with at most six decimals,"
        " such as 5 or 0.50.\n"
    )


def test_a_missing_key_is_told_to_the_person_not_to_a_model(world: World) -> None:
    done = world.run("orders", CLORE_API_KEY="")
    assert done.code == 1
    assert "set CLORE_API_KEY" in done.err
    assert "operator" not in done.err


def test_state_commands_need_no_key_and_make_nothing(world: World) -> None:
    assert world.run("approvals", CLORE_API_KEY="").out == "Nothing waits for your approval.\n"
    assert world.run("ledger", CLORE_API_KEY="").out == "Nothing has been asked for or spent here.\n"
    assert world.run("ledger", "--json", CLORE_API_KEY="").out == ""
    assert not world.state.exists()


def test_an_order_can_be_followed_through_the_sandbox_of_a_server(world: World) -> None:
    refused = world.run("--sandbox", "orders", CLORE_API_URL="", CLORE_REQUEST_GAP_SECONDS="")
    assert refused.code == 1
    assert "Start that first" in refused.err
    inside = world.state / "sandbox"
    inside.mkdir(parents=True)
    (inside / "url").write_text("http://127.0.0.1:9/v1", encoding="utf-8")  # it ran once, and is gone
    assert "No simulated marketplace is running" in world.run("orders", "--sandbox").err
    assert world.run("--sandbox", "approvals").out == "Nothing waits for your approval.\n"


def test_a_server_with_its_own_sandbox_is_found(world: World) -> None:
    command = [sys.executable, "-m", "clore_mcp", "--sandbox"]
    env = world.env | {"CLORE_API_URL": "", "CLORE_API_KEY": "", "CLORE_REQUEST_GAP_SECONDS": ""}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}).encode() + b"\n"
        )
        server.stdin.flush()
        assert server.stdout.readline()
        found = world.run("--sandbox", "orders", CLORE_API_URL="", CLORE_API_KEY="", CLORE_REQUEST_GAP_SECONDS="")
        server.stdin.close()
        server.wait(30)
    assert (found.code, found.out, found.err) == (0, "No orders. Nothing is billed.\n", "")


@pytest.mark.parametrize("name", ["approvals", "orders", "ledger", "doctor"])
def test_what_the_readme_names_for_looking_is_right_in_a_sandbox(world: World, name: str) -> None:
    """The commands that do something have tests of their own."""
    assert [name] in named_commands(README.read_text(encoding="utf-8"))
    done = world.run(name)
    assert done.code == 0, done.out + done.err

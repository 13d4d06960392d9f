"""A network that the environment names wrongly: tools, commands and the watchdog name it, and nothing is sent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cli.test_key_file_network import ACCOUNT, NO_INTERNET
from tests.cli.watchdogs import Server
from tests.world import World

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the account's own folder is looked up in passwd")

SECRET: Final = "hunter2"
# Every connection and every look-up of a process, and of those it starts, is written down.
HEARD: Final = """
import os, sys
def hear(event, arguments, file=os.environ["HEARD"]):
    if event in ("socket.connect", "socket.getaddrinfo"):
        with open(file, "a") as heard:
            print(event, arguments[-1 if event == "socket.connect" else 0], file=heard)
sys.addaudithook(hear)
"""
BAD: Final = {
    "socks": ({"ALL_PROXY": f"socks5://ann:{SECRET}@127.0.0.1:1"}, "ALL_PROXY names a SOCKS proxy"),
    "malformed": (
        {"https_proxy": f"http://ann:12{SECRET}#@127.0.0.1:1"},
        "https_proxy does not hold a proxy's address",
    ),
    "no file": ({"SSL_CERT_FILE": "/nowhere/at/all.pem"}, "SSL_CERT_FILE names something that does not exist"),
    "no folder": ({"SSL_CERT_DIR": "/nowhere/at/all"}, "SSL_CERT_DIR names a folder that can't be read"),
}
# Each kind meets each part of the program once; what each is told of by name, tests/clore/test_network.py holds.


@pytest.fixture
def away(world: World, tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose API is the real one, on a machine without internet."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    account = f"import pwd\nhome = {str(tmp_path)!r}\n{ACCOUNT}"
    (hooks / "sitecustomize.py").write_text(HEARD + NO_INTERNET + account, encoding="utf-8")
    return {
        "CLORE_API_URL": "", "CLORE_REQUEST_GAP_SECONDS": "", "CLORE_WATCHDOG": "off", "PYTHONPATH": str(hooks),
        "HEARD": str(tmp_path / "heard"),
    }  # fmt: skip


def heard(env: dict[str, str]) -> list[str]:
    """What the processes looked up or connected with, other than this machine's own sockets."""
    file = Path(env["HEARD"])
    told = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [line for line in told if "clore" in line or "127.0.0.1" in line]


@pytest.mark.parametrize("kind", ["socks", "no folder"])
def test_the_tools_say_it_and_nothing_is_sent(world: World, away: dict[str, str], kind: str) -> None:
    bad, said = BAD[kind]
    server = Server(world, **(away | bad))
    try:
        wishes: dict[str, dict[str, Any]] = {
            "search_servers": {}, "get_account": {}, "list_orders": {}, "get_server": {"server_id": 1},
            "create_order": {"server_id": 1, "image": "ubuntu", "hours": 1}, "cancel_order": {"order_id": 1},
        }  # fmt: skip
        for tool, wish in wishes.items():
            told = server.call(tool, **wish)
            assert told["error"] == "api_unavailable", (tool, told)
            assert said in told["message"], (tool, told)
            assert told["hint"].startswith("Ask the operator to"), (tool, told)
            assert SECRET not in json.dumps(told)
    finally:
        server.kill()
    assert heard(away) == []


@pytest.mark.parametrize("kind", ["malformed"])
def test_the_commands_say_it_and_none_ends_in_a_traceback(world: World, away: dict[str, str], kind: str) -> None:
    bad, said = BAD[kind]
    order_id = world.rent()
    for words in (
        ["doctor"], ["orders"], ["cancel", str(order_id), "--yes"], ["cancel", "--all", "--yes"],
        ["watchdog", "--once"],
    ):  # fmt: skip
        done = world.run(*words, **away, **bad)
        assert "Ask the operator" not in done.out + done.err, "the operator sits here"
        assert done.code == 1, (words, done)
        assert said in done.out + done.err, (words, done)
        assert SECRET not in done.out + done.err
        assert "defect" not in done.out + done.err
        if words == ["doctor"]:
            assert f"Start here: API: https://api.clore.ai/v1 can't be reached: {said}" in done.out
    assert heard(away) == []


@pytest.mark.parametrize("kind", ["no file"])
def test_stop_freezes_and_says_that_nothing_was_ended(world: World, away: dict[str, str], kind: str) -> None:
    bad, said = BAD[kind]
    empty = world.run("stop", **away, **bad)
    assert empty.code == 1, "what runs is not known"
    assert "Spending is frozen" in empty.out
    assert "Nothing was ended" in empty.err and said in empty.err
    assert "No order made here is running" not in empty.out
    assert world.rows("SELECT name FROM meta WHERE name = 'frozen'")
    assert SECRET not in empty.out + empty.err
    assert heard(away) == []


def test_stop_names_each_order_that_it_could_not_end(world: World, away: dict[str, str]) -> None:
    bad, said = BAD["socks"]
    order_id = world.rent()
    done = world.run("stop", **away, **bad)
    assert done.code == 1
    assert f"Order {order_id} is STILL BILLING as far as is known" in done.err
    assert "Nothing was ended" in done.err and said in done.err
    assert f"Order {order_id} ended." in world.run("stop").out


@pytest.mark.parametrize(
    ("kind", "trusted"), [("socks", False), ("malformed", True), ("no file", False), ("no folder", True)]
)
def test_for_a_key_from_a_file_only_what_its_owner_trusts_counts(
    world: World, away: dict[str, str], tmp_path: Path, kind: str, trusted: bool
) -> None:
    bad, said = BAD[kind]
    kept = tmp_path / "key"
    kept.write_text(world.key, encoding="utf-8")
    kept.chmod(0o600)
    own = tmp_path / ("Library/Application Support" if sys.platform == "darwin" else ".config") / "clore-mcp"
    own.mkdir(parents=True)
    (own / "limits.toml").write_text(f"trust_environment_network = {str(trusted).lower()}", encoding="utf-8")
    done = world.run("doctor", **away, **bad, CLORE_API_KEY="", CLORE_API_KEY_FILE=str(kept))
    assert done.code == 1
    assert (said in done.out) is trusted
    assert ("of the environment is not used" in done.out) is not trusted
    assert bool(heard(away)) is not trusted, "what is not trusted does not stand in the way either"
    assert SECRET not in done.out + done.err


def test_a_running_watchdog_says_it_with_its_cure(world: World, away: dict[str, str]) -> None:
    bad, said = BAD["malformed"]
    world.rent()
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "clore_mcp", "watchdog"], env=world.env | away | bad,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    ) as process:  # fmt: skip
        assert process.stderr is not None
        try:
            line = next(one for one in process.stderr if "can't be read" in one)
        finally:
            process.terminate()
    assert said in line and "Correct or unset https_proxy" in line
    assert SECRET not in line

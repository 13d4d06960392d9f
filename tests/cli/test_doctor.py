"""The doctor names the first fault with its cure, shows no secret, and never crashes."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from pathlib import Path

import pytest

from clore_mcp.cli import checks
from clore_mcp.state.database import FILE_NAME
from tests.cli.conftest import Desk, Done

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJMQWxjeemqSsc7LBZvuHT6oenQG/+SvRGXVx+NJ0LVB me@home"


def _first_fault(done: Done) -> str:
    last = done.out.splitlines()[-1]
    assert done.code == 1, done.out
    assert last.startswith("Start here: "), done.out
    return last.removeprefix("Start here: ")


def test_all_well_is_exit_0_and_shows_no_secret(desk: Desk) -> None:
    done = desk.run("doctor", CLORE_SSH_PUBLIC_KEY=PUBLIC_KEY)
    assert done.code == 0, done.out
    assert done.out.splitlines()[-1] == "All is well."
    assert "from CLORE_API_KEY" in done.out
    assert "usd_per_day $100.00 (default)" in done.out
    assert "SHA256:" in done.out
    assert desk.key not in done.out + done.err
    assert not (desk.state / FILE_NAME).exists()  # it keeps its turn in the schedule, and begins no record


def test_json_says_the_same(desk: Desk) -> None:
    told = json.loads(desk.run("doctor", "--json", CLORE_MAX_USD_PER_DAY="0").out)
    assert told["start_here"] == "limit"
    assert [one["name"] for one in told["checks"] if one["kind"] == "fault"] == ["limit"]


def test_no_key(desk: Desk) -> None:
    assert _first_fault(desk.run("doctor", CLORE_API_KEY="")).startswith("key: no API key is set. Make one on clore.ai")


def test_a_wrong_key(desk: Desk) -> None:
    done = desk.run("doctor", CLORE_API_KEY="wrong-key-000000000000000000000")
    assert "it does not know this API key" in _first_fault(done)
    assert "wrong-key" not in done.out + done.err


def test_an_api_that_nobody_serves(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    fault = _first_fault(desk.run("doctor", CLORE_API_URL=f"http://127.0.0.1:{port}/v1"))
    assert fault.startswith(f"API: http://127.0.0.1:{port}/v1 does not answer as it should: No connection")
    assert "Check the network" in fault


def test_a_limit_at_zero(desk: Desk) -> None:
    fault = _first_fault(desk.run("doctor", CLORE_MAX_ACTIVE_ORDERS="0"))
    assert fault == (
        "limit: active_orders is 0 (CLORE_MAX_ACTIVE_ORDERS), so nothing can be rented. Raise CLORE_MAX_ACTIVE_ORDERS."
    )
    config = Path(desk.env["XDG_CONFIG_HOME"], "clore-mcp")
    config.mkdir(parents=True)
    (config / "limits.toml").write_text("max_usd_per_hour = 0\n", encoding="utf-8")
    assert _first_fault(desk.run("doctor")).endswith("Raise max_usd_per_hour in limits.toml.")


def test_a_state_folder_that_can_not_be_made(desk: Desk) -> None:
    file = desk.folder / "file"
    file.touch()
    fault = _first_fault(desk.run("doctor", CLORE_STATE_DIR=str(file / "state")))
    assert fault.startswith(f"state: {file / 'state'} can't be made: {file} is not a folder that you can write to.")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_state_folder_that_is_not_ours(desk: Desk) -> None:
    desk.state.mkdir(mode=0o500)
    assert "can't be written to" in _first_fault(desk.run("doctor"))


def test_a_state_that_others_could_change_or_a_newer_version_wrote(desk: Desk) -> None:
    desk.rent()
    if os.name == "posix":
        desk.state.chmod(0o777)
        assert "others can write to" in _first_fault(desk.run("doctor"))
        desk.state.chmod(0o700)
    connection = sqlite3.connect(desk.state / "state.sqlite3")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "written by a newer clore-mcp; upgrade" in _first_fault(desk.run("doctor"))


def test_a_malformed_setting_is_a_finding(desk: Desk) -> None:
    fault = _first_fault(desk.run("doctor", CLORE_APPROVAL="never"))
    assert fault.startswith("settings: CLORE_APPROVAL is 'never'; accepted: ask, outside or limits.")


def test_orders_that_nobody_ends_and_what_waits(desk: Desk) -> None:
    desk.hold(desk.ask(place=1))
    desk.rent()
    done = desk.run("doctor")
    assert "1 waiting for you" in done.out
    assert _first_fault(done).startswith("watchdog: absent, and 1 running orders have an end; the first is due in ")


def test_a_sandbox_that_does_not_run_is_a_finding(desk: Desk) -> None:
    done = desk.run("--sandbox", "doctor", CLORE_API_URL="", CLORE_REQUEST_GAP_SECONDS="")
    assert _first_fault(done).startswith("API: No simulated marketplace is running.")


def test_a_clock_is_a_fault_beyond_five_seconds_of_the_real_clore() -> None:
    assert checks.clock(4.9, simulated=False).kind == "ok"
    assert checks.clock(-6.0, simulated=False).said == "this machine is 6 s ahead of Clore."
    assert checks.clock(6.0, simulated=False).kind == "fault"
    assert checks.clock(600.0, simulated=True).kind == "note"
    assert checks.clock(None, simulated=False).kind == "note"

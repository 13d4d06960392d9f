"""The doctor names the fault to mend first with its cure, each thing once, shows no secret, and never crashes."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from clore_mcp.cli.doctor import clock
from clore_mcp.rental.requests import CreateWatch
from clore_mcp.sandbox import SANDBOX_KEY, Options, Running, start_in_thread
from clore_mcp.store import ledger
from clore_mcp.store.database import FILE_NAME
from clore_mcp.wiring import Services
from tests.cli.tls import certificate, in_front_of
from tests.terminal import Done
from tests.world import IMAGE, World

WRONG_KEY = "wrong-key-000000000000000000000"
ZERO = {"CLORE_MAX_USD_PER_DAY": "0"}
TEN_MINUTES = 600


def _first_fault(done: Done) -> str:
    """What it says to begin with: the last line, said nowhere else."""
    *others, last = done.out.splitlines()
    assert done.code == 1, done.out
    assert last.startswith("Start here: "), done.out
    first = last.removeprefix("Start here: ")
    said = first.split(": ", 1)[1]
    assert not [line for line in others if said in line], done.out
    return first


def _others(done: Done) -> list[str]:
    """The names of the faults that it does not begin with, as they are listed."""
    return [line.split()[1] for line in done.out.splitlines() if line.startswith("!!")]


def _unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def nobody() -> dict[str, str]:
    """Settings for an API that nobody serves."""
    return {"CLORE_API_URL": f"http://127.0.0.1:{_unused_port()}/v1"}


@pytest.fixture(scope="module")
def dated() -> Iterator[Running]:
    """A marketplace that lives in real time."""
    with start_in_thread(Options(servers=50, rate_limit="off", ssh_listener=False)) as running:
        yield running


@pytest.fixture
def real(world: World, dated: Running, tmp_path: Path) -> Iterator[World]:
    """The same person with a marketplace over TLS, which counts as Clore and not as a simulated one."""
    cert = certificate(tmp_path)
    with in_front_of(dated.port, cert) as url:
        made = World(dated, tmp_path)
        made.env = world.env | {"CLORE_API_URL": url, "CLORE_API_KEY": SANDBOX_KEY, "SSL_CERT_FILE": str(cert)}
        yield made
        made.close()


def test_all_well_is_exit_0_and_shows_no_secret(world: World) -> None:
    done = world.run("doctor")
    assert done.code == 0, done.out
    assert done.out.splitlines()[-1] == "All is well."
    assert "set, from CLORE_API_KEY, accepted by Clore" in done.out
    assert "usd_per_day $100.00 (default)" in done.out
    assert world.key not in done.out + done.err
    assert not (world.state / FILE_NAME).exists()  # it keeps its turn in the schedule, and begins no record


def test_json_says_the_same(world: World) -> None:
    told = json.loads(world.run("doctor", "--json", CLORE_API_KEY=WRONG_KEY, **ZERO).out)
    assert told["start_here"] == "key"
    assert {one["name"] for one in told["checks"] if one["kind"] == "fault"} == {"key", "limit"}


def test_no_key(world: World) -> None:
    assert _first_fault(world.run("doctor", CLORE_API_KEY="")).startswith(
        "key: no API key is set. Make one on clore.ai"
    )


def test_a_wrong_key(world: World) -> None:
    done = world.run("doctor", CLORE_API_KEY=WRONG_KEY)
    assert _first_fault(done) == (
        "key: Clore does not know the key from CLORE_API_KEY. Make a new one on clore.ai under API and set it where the"
        " old one is."
    )
    assert "wrong-key" not in done.out + done.err


def test_a_key_that_can_not_be_one(world: World) -> None:
    done = world.run("doctor", CLORE_API_KEY="wrong key with blanks")
    assert _first_fault(done).startswith("settings: CLORE_API_KEY is not an API key; accepted: ")
    assert "wrong key" not in done.out + done.err


def test_an_api_that_nobody_serves(world: World, nobody: dict[str, str]) -> None:
    done = world.run("doctor", **nobody)
    assert _first_fault(done) == (
        f"API: {nobody['CLORE_API_URL']} can't be reached: nothing listens at its address."
        " Check the network and any proxy, then CLORE_API_URL if you set it."
    )
    assert "set, from CLORE_API_KEY, not tested" in done.out
    assert _others(done) == []


def test_a_host_that_has_no_address(world: World) -> None:
    done = world.run("doctor", CLORE_API_URL="https://nobody.invalid/v1", CLORE_REQUEST_GAP_SECONDS="")
    fault = _first_fault(done)
    assert fault.startswith("API: https://nobody.invalid/v1 can't be reached: the name of its host can't be looked up.")


def test_a_clock_is_held_against_clores(real: World) -> None:
    assert real.run("doctor").code == 0
    real.post("/clock", {"advance": 30})
    slow = real.run("doctor")
    assert slow.code == 0, slow.out
    assert " !  clock     this computer's is " in slow.out and "Set it from the network (NTP)" in slow.out
    assert slow.out.splitlines()[-1] == "Nothing stops you from renting. The lines marked ! can be improved."
    real.post("/clock", {"advance": TEN_MINUTES})
    fault = _first_fault(real.run("doctor"))
    assert fault.startswith("clock: this computer's is 10 min behind Clore's. Set it from the network (NTP)")
    # A limit stops renting, the clock does not; and behind a key that Clore does not know it is not compared.
    both = real.run("doctor", **ZERO)
    assert _first_fault(both).startswith("limit: ")
    assert _others(both) == ["clock"]
    assert _first_fault(real.run("doctor", CLORE_API_KEY=WRONG_KEY)).startswith("key: ")


@pytest.mark.parametrize(
    ("days", "said"), [((1, 2), "its certificate is not valid yet by"), ((-2, -1), "its certificate has expired by")]
)
def test_a_clock_that_explains_why_tls_fails_goes_first(
    real: World, dated: Running, tmp_path: Path, days: tuple[int, int], said: str
) -> None:
    cert = certificate(tmp_path, valid_from_days=days[0], valid_until_days=days[1])
    with in_front_of(dated.port, cert) as url:
        done = real.run("doctor", CLORE_API_URL=url, SSL_CERT_FILE=str(cert), CLORE_API_KEY=WRONG_KEY, **ZERO)
    fault = _first_fault(done)
    assert fault.startswith(f"API: {url} can't be reached: {said} this computer's clock (20"), fault
    assert "Set the computer's clock from the network (NTP)" in fault
    assert _others(done) == ["limit"]


def test_a_certificate_that_nobody_vouches_for_is_not_the_clocks_fault(
    real: World, dated: Running, tmp_path: Path
) -> None:
    with in_front_of(dated.port, certificate(tmp_path, valid_until_days=3)) as url:
        fault = _first_fault(real.run("doctor", CLORE_API_URL=url))
    assert "its certificate or TLS was not accepted. Check the computer's clock, and whether a proxy" in fault


def test_a_clock_is_no_fault_where_clores_is_simulated_or_not_told() -> None:
    assert clock(4.9, simulated=False).kind == "ok"
    assert clock(-6.0, simulated=False).said == "this computer's is 6 s ahead of Clore's."
    assert clock(600.0, simulated=True).kind == "note"
    assert clock(None, simulated=False).kind == "note"


def test_a_limit_at_zero(world: World) -> None:
    fault = _first_fault(world.run("doctor", CLORE_MAX_ACTIVE_ORDERS="0"))
    assert fault == (
        "limit: active_orders is 0 (CLORE_MAX_ACTIVE_ORDERS), so nothing can be rented. Raise CLORE_MAX_ACTIVE_ORDERS."
    )
    config = Path(world.env["XDG_CONFIG_HOME"], "clore-mcp")
    config.mkdir(parents=True)
    (config / "limits.toml").write_text("max_usd_per_hour = 0\n", encoding="utf-8")
    assert _first_fault(world.run("doctor")).endswith("Raise max_usd_per_hour in limits.toml.")


def test_a_fault_that_explains_another_goes_before_it(world: World, nobody: dict[str, str]) -> None:
    def ask(**env: str) -> tuple[str, list[str]]:
        done = world.run("doctor", **env)
        return _first_fault(done).split(":")[0], _others(done)

    assert ask(CLORE_API_KEY="", **nobody) == ("API", ["key"])  # without a network there is no key to be had
    assert ask(CLORE_API_KEY=WRONG_KEY, **nobody) == ("API", [])  # nobody can say whether it is wrong
    assert ask(**ZERO, **nobody) == ("API", ["limit"])
    assert ask(CLORE_API_KEY="", **ZERO) == ("key", ["limit"])
    assert ask(CLORE_API_KEY=WRONG_KEY, **ZERO) == ("key", ["limit"])
    assert ask(CLORE_APPROVAL="never", CLORE_API_KEY="", **ZERO) == ("settings", [])
    file = world.folder / "file"
    file.touch()
    assert ask(CLORE_STATE_DIR=str(file / "state"), CLORE_API_KEY="") == ("state", ["key"])

    world.rent()
    world.write(lambda tx: ledger.freeze(tx, "person at ann@laptop, terminal", 1_000_000_000.0))
    assert ask(CLORE_API_KEY=WRONG_KEY, **ZERO) == ("key", ["limit", "spending"])
    assert ask(**ZERO) == ("spending", ["watchdog", "limit"])
    world.write(ledger.lift)
    assert ask(**ZERO) == ("limit", ["watchdog"])
    assert ask() == ("watchdog", [])


def test_frozen_spending_names_who_and_what_lifts_it(world: World) -> None:
    world.rent()
    world.write(lambda tx: ledger.freeze(tx, "person at ann@laptop, terminal", 1_000_000_000.0))
    fault = _first_fault(world.run("doctor"))
    assert fault.startswith("spending: frozen ")
    assert fault.endswith(
        "by person at ann@laptop, terminal, so nothing can be rented. `clore-mcp stop --lift` allows spending again."
    )


def test_a_state_folder_that_can_not_be_made(world: World) -> None:
    file = world.folder / "file"
    file.touch()
    fault = _first_fault(world.run("doctor", CLORE_STATE_DIR=str(file / "state")))
    said = f"state: {file / 'state'} can't be created, because {file} is not a folder that you can write to."
    assert fault.startswith(said)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_state_folder_that_is_not_ours(world: World) -> None:
    world.state.mkdir(mode=0o500)
    assert "can't be written to" in _first_fault(world.run("doctor"))


def test_a_state_that_others_could_change_or_a_newer_version_wrote(world: World) -> None:
    world.rent()
    if os.name == "posix":
        world.state.chmod(0o777)
        assert "others can write to" in _first_fault(world.run("doctor"))
        world.state.chmod(0o700)
    connection = sqlite3.connect(world.state / "state.sqlite3")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "written by a newer clore-mcp; upgrade" in _first_fault(world.run("doctor"))


def test_a_malformed_setting_is_a_finding(world: World) -> None:
    fault = _first_fault(world.run("doctor", CLORE_APPROVAL="never"))
    assert fault.startswith("settings: CLORE_APPROVAL is 'never'; accepted: ask, outside, passkey or limits.")


def test_orders_that_nobody_ends(world: World) -> None:
    world.rent()
    done = world.run("doctor")
    fault = _first_fault(done)
    assert fault.startswith("watchdog: absent, and 1 running order has an end; the first is due in ")
    assert fault.endswith("Run `clore-mcp watchdog`, or `clore-mcp cancel --all`.")


def test_a_watch_that_nobody_keeps(world: World) -> None:
    ask = CreateWatch(gpu="4090", max_usd_per_hour=0.01, hours=1.5, image=IMAGE, expires_hours=24)

    async def work(services: Services) -> str:
        await services.keep_leases()
        held = await services.guard.hold(ask, caller="claude-code", can_ask=True, replay=False)
        return str((await services.guard.conclude(held, ask, answer=True, caller="claude-code")).status)

    assert world.with_services(work) == "waiting"
    assert _first_fault(world.run("doctor")) == (
        "watchdog: absent, and 1 watch waits for a price, but no process checks prices. Run `clore-mcp watchdog`."
    )


def test_no_watchdog_by_choice(world: World) -> None:
    done = world.run("doctor", CLORE_WATCHDOG="off")
    assert done.code == 0, done.out
    assert " !  watchdog  absent, and CLORE_WATCHDOG=off, so only a cancel ends an order." in done.out
    fault = _first_fault(world.run("doctor", CLORE_WATCHDOG="off", CLORE_APPROVAL="limits"))
    assert fault.startswith("watchdog: absent, and CLORE_APPROVAL=limits rents nothing without one.")


def test_a_sandbox_that_does_not_run_is_a_finding(world: World) -> None:
    done = world.run("--sandbox", "doctor", CLORE_API_URL="", CLORE_REQUEST_GAP_SECONDS="")
    assert _first_fault(done).startswith("API: No simulated marketplace is running.")

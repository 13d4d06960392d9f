"""A key that lies in a file goes to Clore alone, whatever proxy and certificates the environment names."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from clore_mcp.clore.exchange import Exchange
from clore_mcp.settings import Settings
from tests.cli.tls import certificate
from tests.preforked import python

# In a process of its own the real host is this machine's closed port: no test leaves it.
NO_INTERNET = """
import socket
found = socket.getaddrinfo
def getaddrinfo(host, port, *others, **more):
    local = host in ("127.0.0.1", "localhost", None)
    return found(host if local else "127.0.0.1", port if local else 1, *others, **more)
socket.getaddrinfo = getaddrinfo
"""
ACCOUNT = """
looked_up = pwd.getpwuid
pwd.getpwuid = lambda uid: pwd.struct_passwd((*looked_up(uid)[:5], home, "/bin/sh"))
"""
KEY = "Zq7-not-a-real-key-000000000000x"
POSIX = pytest.mark.skipif(os.name != "posix", reason="the account's own folder is looked up in passwd")


@contextmanager
def stranger() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that writes down what it is sent."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    guest, _ = server.accept()
                except OSError:
                    return
                with guest:
                    guest.settimeout(5)
                    heard.append(guest.recv(65_536))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", heard
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def settings(folder: Path, env: dict[str, str], *, owner: str = "") -> Settings:
    account = folder / "account"
    account.mkdir(exist_ok=True)
    if owner:
        (account / "limits.toml").write_text(owner, encoding="utf-8")
    moved = folder / "moved"
    moved.mkdir(exist_ok=True)
    (moved / "limits.toml").write_text("trust_environment_network = true", encoding="utf-8")
    return Settings.from_env(
        env, home=folder, config_dir=moved, state_dir_default=folder / "state", account_dir=account
    )


@pytest.fixture(autouse=True)
def no_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)  # put back after the test
    exec(NO_INTERNET, {})  # the same as in the other processes


@pytest.fixture
def at_home(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that has the key from a file and nothing else."""
    account = f"import pwd\nhome = {str(tmp_path)!r}\n{ACCOUNT}"
    (tmp_path / "sitecustomize.py").write_text(NO_INTERNET + account, encoding="utf-8")
    names = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
    gone = {*names, *map(str.lower, names)}
    kept = {name: value for name, value in os.environ.items() if name not in gone and not name.startswith("CLORE_")}
    return kept | {
        "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "moved"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"), "CLORE_STATE_DIR": str(tmp_path / "state"),
        "CLORE_API_KEY_FILE": key_file(tmp_path), "CLORE_WATCHDOG": "off",
    }  # fmt: skip


@POSIX
def test_the_doctor_names_what_it_does_not_use_and_a_stranger_hears_nothing(
    tmp_path: Path, at_home: dict[str, str]
) -> None:
    moved = tmp_path / "moved" / "clore-mcp"
    moved.mkdir(parents=True)
    (moved / "limits.toml").write_text("trust_environment_network = true", encoding="utf-8")
    cert = certificate(tmp_path)
    with stranger() as (address, heard):
        env = at_home | {"HTTPS_PROXY": address, "SSL_CERT_FILE": str(cert)}
        command = [python(), "-W", "error", "-m", "clore_mcp", "doctor", "--json"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, encoding="utf-8", timeout=120)
        assert heard == []
    found = {(one["name"], one["kind"]): f"{one['said']} {one['cure']}" for one in json.loads(done.stdout)["checks"]}
    assert "HTTPS_PROXY and SSL_CERT_FILE of the environment are not used" in found["note", "note"]
    assert "trust_environment_network = true" in found["note", "note"]
    assert str(moved) not in found["note", "note"], "a folder that the environment has moved counts for nothing"
    assert "can't be reached" in found["API", "fault"]
    assert KEY not in done.stdout + done.stderr


@POSIX
@pytest.mark.anyio
@pytest.mark.parametrize("named", [True, False])
async def test_a_server_that_is_cut_off_says_so_of_a_proxy_only_where_one_is_named(
    at_home: dict[str, str], named: bool
) -> None:
    with stranger() as (address, heard):
        env = at_home | ({"https_proxy": address} if named else {})
        server = StdioServerParameters(command=python(), args=["-m", "clore_mcp"], env=env)
        async with Client(stdio_client(server), read_timeout_seconds=120) as client:
            told = await client.call_tool("list_orders", {})
        assert heard == []
    text = str(told.content)
    assert told.is_error
    assert ("is not used for a key from a file" in text) is named
    assert ("trust_environment_network = true" in text) is named


def key_file(folder: Path) -> str:
    path = folder / "key"
    path.write_text(KEY, encoding="utf-8")
    path.chmod(0o600)
    return str(path)


async def _asks_clore(wanted: Settings) -> None:
    from clore_mcp.clore import CloreClient
    from clore_mcp.clore.exchange import Timing
    from clore_mcp.clore.pacer import Pacer

    client = CloreClient(
        pacer=Pacer(), api_url=wanted.api_url, api_key=wanted.api_key, trusts_network=wanted.trusts_network,
        timing=Timing(connect_seconds=1.0, read_seconds=2.0, attempts=1),
    )  # fmt: skip
    try:
        await client.wallets()
    except Exception as error:
        print(type(error).__name__, error)  # noqa: T201 - what pytest shows with a failure
    finally:
        await client.aclose()


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("given", "owner", "asked"),
    [
        ("a file", "", False),
        ("a file", "trust_environment_network = false", False),
        ("a file", "trust_environment_network = true", True),
        ("the environment", "", True),
    ],
)
def test_a_proxy_of_the_environment_is_used_for_a_key_of_the_environment_or_by_its_owners_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, given: str, owner: str, asked: bool
) -> None:
    for other in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(other, raising=False)
    with stranger() as (address, heard):
        monkeypatch.setenv(name, address)
        env = {name: address}
        env |= {"CLORE_API_KEY_FILE": key_file(tmp_path)} if given == "a file" else {"CLORE_API_KEY": KEY}
        wanted = settings(tmp_path, env, owner=owner)
        asyncio.run(_asks_clore(wanted))
        assert bool(heard) is asked
        assert (f"{name} of the environment is not used" in " ".join(wanted.notes)) is not asked
        assert KEY not in " ".join(wanted.notes)


@pytest.mark.parametrize("trusted", [True, False])
def test_certificates_of_the_environment_are_trusted_as_its_proxy_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    cert = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    wanted = settings(
        tmp_path,
        {"SSL_CERT_FILE": str(cert), "CLORE_API_KEY_FILE": key_file(tmp_path)},
        owner="trust_environment_network = true" if trusted else "",
    )
    assert wanted.trusts_network is trusted
    assert trusted or ("SSL_CERT_FILE" in wanted.notes[-1] and "limits.toml" in wanted.notes[-1])

    async def roots() -> set[str]:
        from clore_mcp.clore.exchange import Timing
        from clore_mcp.clore.pacer import Pacer

        exchange = Exchange(
            api_url=wanted.api_url, api_key=KEY, pacer=Pacer(), timing=Timing(),
            trusts_network=wanted.trusts_network,
        )  # fmt: skip
        pools = await exchange._build_pools()
        try:
            context = pools.reads._transport._pool._ssl_context  # type: ignore[attr-defined]
            return {str(one["subject"]) for one in context.get_ca_certs()}
        finally:
            await pools.reads.aclose()
            await pools.writes.aclose()

    assert any("a marketplace of a test" in one for one in asyncio.run(roots())) is trusted


def test_the_accounts_limits_hold_for_a_loopback_address_too(tmp_path: Path) -> None:
    env = {"CLORE_API_URL": "http://127.0.0.1:9/v1", "CLORE_API_KEY": KEY, "CLORE_MAX_USD_PER_DAY": "999"}
    assert settings(tmp_path, env, owner="max_usd_per_day = 1").limits.usd_per_day == 1

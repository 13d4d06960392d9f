"""A proxy or certificates of the environment that can't be used: the variable is named, nothing is sent or shown."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clore_mcp.clore import CloreClient
from clore_mcp.clore.exchange import Timing
from clore_mcp.clore.network import way_to
from clore_mcp.clore.pacer import Pacer
from clore_mcp.errors import NotSent
from tests.cli.tls import certificate

URL = "https://api.clore.ai/v1"
SECRET = "hunter2"
NAMES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="elsewhere Python may add the system's own proxy, and names have no case"
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that names no network, on a machine that reaches nobody else."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    found = socket.getaddrinfo

    def nobody(host: object, *others: object, **more: object) -> object:
        if host in ("127.0.0.1", "localhost"):
            return found(host, *others, **more)  # type: ignore[arg-type]
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)


async def failure(*, trusted: bool = True) -> NotSent:
    client = CloreClient(
        pacer=Pacer(), api_url=URL, api_key="Zq7-not-a-real-key", trusts_network=trusted,
        timing=Timing(connect_seconds=2.0, attempts=1),
    )  # fmt: skip
    async with client:
        with pytest.raises(NotSent) as caught:
            await client.wallets()
    return caught.value


SOCKS = [
    ("HTTPS_PROXY", f"socks5://ann:{SECRET}@127.0.0.1:1080"),
    ("https_proxy", f"socks5h://ann:{SECRET}@127.0.0.1:1080"),
    ("ALL_PROXY", f"SOCKS://ann:{SECRET}@127.0.0.1:1080/"),
    ("all_proxy", f"socks4a://ann:{SECRET}@127.0.0.1:1080"),
]
MALFORMED = [
    "http://",
    "://",
    "http:/proxy:3128",
    "//proxy:3128",
    "http://proxy:99999",
    "http://proxy:port",
    "http://proxy:0",
    "http://[::1",
    "http://pro xy:3128",
    "http://${PROXY_HOST}:3128",
    "http://\u200bproxy:3128/",
    "http://pro\x01xy:3128",
    "ftp://proxy:21",
    f"http://ann:12#{SECRET}@proxy:3128",
    f"http://ann:{SECRET}#more@proxy:3128",
    f"http://ann:12/{SECRET}@proxy:3128",
    f"http://ann:12?{SECRET}@proxy:3128",
    f"{SECRET}#@proxy:3128",
]


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "address"), SOCKS)
async def test_a_socks_proxy_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, address: str) -> None:
    monkeypatch.setenv(name, address)
    told = await failure()
    assert f"{name} names a SOCKS proxy" in told.message
    assert "HTTPS_PROXY" in told.hint and "NO_PROXY" in told.hint
    assert told.code == "api_unavailable"
    assert SECRET not in told.message + told.hint + told.why


@pytest.mark.anyio
@pytest.mark.parametrize("address", MALFORMED)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy"])
async def test_a_malformed_proxy_is_named_and_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, address: str
) -> None:
    monkeypatch.setenv(name, address)
    with caplog.at_level(logging.WARNING):
        told = await failure()
    assert f"{name} does not hold a proxy's address" in told.message
    assert f"correct or unset {name}" in told.hint
    assert told.code == "api_unavailable"
    assert told.__cause__ is None and told.__context__ is None, "nothing that a log could print with it"
    assert SECRET not in told.message + told.hint + told.why + caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY", "https_proxy"])
@pytest.mark.parametrize("address", ["direct", "http://127.0.0.1:1", "127.0.0.1:1", "https://127.0.0.1:1/"])
async def test_a_proxy_that_is_not_there_is_named_too(monkeypatch: pytest.MonkeyPatch, name: str, address: str) -> None:
    monkeypatch.setenv(name, f" {address}\r\n")
    told = await failure()
    assert f"through a proxy ({name})" in told.hint
    assert told.code == "api_unavailable"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "env",
    [
        {"HTTP_PROXY": "socks5://127.0.0.1:1080"},
        {"http_proxy": "http://[::1"},
        {"HTTPS_PROXY": "  "},
        {"https_proxy": "", "HTTPS_PROXY": "socks5://127.0.0.1:1080"},  # lower case counts, and says: none
        {"SSL_CERT_FILE": " ", "SSL_CERT_DIR": ""},
        {"SSLKEYLOGFILE": "/nowhere/at/all"},
        {"NO_PROXY": "http://[::1,,%%%, ,:::,a:b:c"},
        *({"HTTPS_PROXY": "socks5://127.0.0.1:1080", "NO_PROXY": one} for one in (
            "*", "api.clore.ai", "clore.ai", ".clore.ai", "*.clore.ai", "https://api.clore.ai", "api.clore.ai:443",
            "localhost, API.clore.ai", "localhost 127.0.0.1 api.clore.ai", "https://api.clore.ai/",
        )),
        {"ALL_PROXY": "http://[::1", "no_proxy": "clore.ai"},
    ],
)  # fmt: skip
async def test_what_a_request_does_not_use_stops_none(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert (await failure()).why == "the name of its host can't be looked up"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "listed", ["api.clore.ai:8080", "lore.ai", "clore.ai.example", "10.0.0.0/8", "", "xapi.clore.ai"]
)
async def test_a_name_that_is_another_hosts_excepts_none(monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    monkeypatch.setenv("NO_PROXY", listed)
    assert "SOCKS" in (await failure()).message


def test_a_network_may_be_excepted_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,fd00::/8,[2001:db8::1]")
    assert way_to("https://10.1.2.3/v1", trusts_network=True).proxy is None
    assert way_to("https://[fd00::7]/v1", trusts_network=True).proxy is None
    assert way_to("https://[2001:db8::1]/v1", trusts_network=True).proxy is None
    assert way_to("https://11.1.2.3/v1", trusts_network=True).proxy is not None
    assert way_to("https://127.0.0.1/v1", trusts_network=True).proxy is None


@contextmanager
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that writes down the first it is sent and hangs up."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            with server.accept()[0] as guest:
                heard.append(guest.recv(65_536))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", heard
        thread.join(10)


@pytest.mark.anyio
async def test_beside_a_socks_proxy_for_the_rest_the_one_for_https_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy() as (address, heard):
        monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
        monkeypatch.setenv("https_proxy", f"http://ann:p%23ss@{address}/")
        await failure()
    assert heard[0].startswith(b"CONNECT api.clore.ai:443 ")
    assert b"Proxy-Authorization: Basic YW5uOnAjc3M=" in heard[0]
    assert b"Zq7" not in heard[0]


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
async def test_what_is_not_trusted_is_not_looked_at(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "socks5://127.0.0.1:1080")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/at/all")
    told = await failure(trusted=False)
    assert told.why == "the name of its host can't be looked up"
    assert "is not used for a key from a file" in told.hint


def _missing(folder: Path) -> Path:
    return folder / "missing"


def _empty(folder: Path) -> Path:
    (folder / "empty").touch()
    return folder / "empty"


def _folder(folder: Path) -> Path:
    return folder


def _no_pem(folder: Path) -> Path:
    (folder / "no.pem").write_bytes(b"\x30\x82\x01\x00 not a certificate \xff")
    return folder / "no.pem"


def _cut_pem(folder: Path) -> Path:
    whole = certificate(folder).read_text()
    (folder / "cut.pem").write_text(whole[:200])
    return folder / "cut.pem"


def _closed(folder: Path) -> Path:
    path = certificate(folder)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this account reads everything")
    return path


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def _below_a_file(folder: Path) -> Path:
    return _empty(folder) / "more"


def _unprepared(folder: Path) -> Path:
    certificate(folder)
    return folder


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("SSL_CERT_FILE", _missing, "something that does not exist"),
        ("SSL_CERT_FILE", _empty, "an empty file"),
        ("SSL_CERT_FILE", _folder, "does not name a file"),
        ("SSL_CERT_FILE", _no_pem, "without a certificate that can be read"),
        ("SSL_CERT_FILE", _cut_pem, "without a certificate that can be read"),
        ("SSL_CERT_FILE", _closed, "can't be read (Permission denied)"),
        ("SSL_CERT_FILE", _pipe, "does not name a file"),
        ("SSL_CERT_FILE", _below_a_file, "can't be read (Not a directory)"),
        ("SSL_CERT_DIR", _missing, "can't be read (No such file or directory)"),
        ("SSL_CERT_DIR", _empty, "can't be read (Not a directory)"),
        ("SSL_CERT_DIR", _folder, "without certificates under their hashes"),
        ("SSL_CERT_DIR", _unprepared, "without certificates under their hashes"),
    ],
)  # fmt: skip
async def test_certificates_that_are_not_there_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, make: object, said: str
) -> None:
    assert callable(make)
    monkeypatch.setenv(name, str(make(tmp_path)))
    told = await failure()
    assert name in told.message and said in told.message
    assert f"let {name} name" in told.hint and "unset" in told.hint
    assert told.code == "api_unavailable"


def test_certificates_that_are_there_are_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cert = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", f"{cert}\n")
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")  # the file counts before it
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "secrets"))
    context = way_to(URL, trusts_network=True).trusted
    assert context.cert_store_stats()["x509"] == 1
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    assert not (tmp_path / "secrets").exists()

    hashed = tmp_path / "hashed"
    hashed.mkdir()
    (hashed / "0a1b2c3d.0").symlink_to(cert)
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", os.pathsep.join(("/nowhere", str(hashed))))
    assert way_to(URL, trusts_network=True).trusted.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.anyio
async def test_a_fault_that_is_mended_while_the_program_runs_is_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "later.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    client = CloreClient(pacer=Pacer(), api_url=URL, api_key="k", timing=Timing(attempts=1))
    async with client:
        with pytest.raises(NotSent, match="SSL_CERT_FILE"):
            await client.wallets()
        path.write_bytes(certificate(tmp_path).read_bytes())
        with pytest.raises(NotSent, match="can't be looked up"):
            await client.wallets()

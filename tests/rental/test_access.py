"""Pasteable lines: nothing that a host reports becomes more than a host name and a port."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import string
import subprocess
from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clore_mcp.clore.models import OrderRow
from clore_mcp.rental.ssh.access import (
    BAD_ADDRESS,
    BAD_PORT,
    BAD_URL,
    Access,
    ReadyReason,
    Ssh,
    access_of,
    host_name,
    probe,
    quoted_path,
    ssh_config,
    ssh_of,
)
from clore_mcp.rental.ssh.keys import SshKey
from tests.rental.wishes import order

HOST = "n1.us.clorecloud.net"
OURS = SshKey("ssh-ed25519 AAAA", Path("/state of ada/ssh/id_ed25519"))
USUAL = SshKey("ssh-ed25519 AAAA", Path("/home/ada/.ssh/id_ed25519"), True)
ELSEWHERE = SshKey("ssh-ed25519 AAAA")


def reported(
    hosts: Sequence[str] | None = None, tcp_ports: Sequence[str] | None = None, http_host: str | None = None
) -> OrderRow:
    return order().model_copy(update={"hosts": hosts, "tcp_ports": tcp_ports, "http_host": http_host})


@pytest.mark.parametrize("key", [USUAL, ELSEWHERE, None], ids=["usual", "elsewhere", "unknown"])
def test_the_line_is_short_for_a_key_that_ssh_finds_or_that_we_do_not_know(key: SshKey | None) -> None:
    ssh = ssh_of([HOST], ["22:1972"], key)
    assert ssh == Ssh(HOST, 1972, f"ssh -p 1972 root@{HOST}", "root", key.private_path if key else None)


def test_the_line_names_a_key_that_ssh_would_not_find() -> None:
    ssh = ssh_of([HOST], ["22:1972"], OURS)
    assert ssh is not None
    assert shlex.split(ssh.command) == ["ssh", "-i", str(OURS.private_path), "-p", "1972", f"root@{HOST}"]


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("C:/Users/ada/state/id", "C:/Users/ada/state/id"),
        ("C:\\Users\\ada\\id", "C:/Users/ada/id"),
        ("C:\\Users\\Ada Lovelace\\id", '"C:/Users/Ada Lovelace/id"'),
    ],
)
def test_a_path_on_windows_is_one_word_in_each_of_its_shells(path: str, word: str) -> None:
    assert quoted_path(Path(path), windows=True) == word
    assert len(shlex.split(word)) == 1


@given(st.text(min_size=1, max_size=30).filter(lambda text: "\x00" not in text))
def test_any_path_is_one_word_of_a_posix_line(name: str) -> None:
    path = Path("/state") / name
    assert shlex.split(quoted_path(path, windows=False)) == [str(path)]


def test_an_order_as_clore_sends_it_gives_line_and_url() -> None:
    row = OrderRow.model_validate(
        {
            "id": 1939941,
            "pub_cluster": [HOST, "n2.us.clorecloud.net"],
            "tcp_ports": ["8888:2001", "22:1972"],
            "http_port": "8080",
            "http_pub": "2q8138x0hvvzh.us.clorecloud.net",
        }
    )
    assert access_of(row, USUAL) == Access(
        ssh=Ssh(HOST, 1972, f"ssh -p 1972 root@{HOST}", "root", USUAL.private_path),
        http_url="https://2q8138x0hvvzh.us.clorecloud.net",
        warning=None,
    )


@pytest.mark.parametrize(
    "row",
    [
        reported(),
        reported(hosts=[HOST]),
        reported(hosts=[], tcp_ports=[], http_host=""),
        reported(hosts=[""], tcp_ports=[""]),
        reported(tcp_ports=["22:1972"]),
        reported(hosts=[HOST], tcp_ports=["80:1973"]),
    ],
)
def test_an_order_that_is_not_there_yet_gives_nothing_and_no_warning(row: OrderRow) -> None:
    assert access_of(row, USUAL) == Access()


@pytest.mark.parametrize(
    ("row", "warning"),
    [
        (reported([f"{HOST}; rm -rf ~"], ["22:1972"]), BAD_ADDRESS),
        (reported(["-oProxyCommand=id"], ["22:1972"]), BAD_ADDRESS),
        (reported(["$(id).example", HOST], ["22:1972"]), BAD_ADDRESS),
        (reported([HOST], ["22:1972; id"]), BAD_PORT),
        (reported([HOST], ["22:0"]), BAD_PORT),
        (reported([HOST], ["22:65536"]), BAD_PORT),
        (reported([HOST], ["22:01972"]), BAD_PORT),
        (reported([HOST], ["22:١٩٧٢"]), BAD_PORT),
        (reported([HOST], ["1972"]), BAD_PORT),
        (reported([HOST], None, "evil.example/`id`"), BAD_URL),
        (reported(["a b"], ["22:x"], "user@evil.example"), f"{BAD_ADDRESS} {BAD_URL}"),
    ],
)
def test_what_is_reported_but_unusable_gives_a_warning_that_does_not_repeat_it(row: OrderRow, warning: str) -> None:
    assert access_of(row, USUAL) == Access(warning=warning)


def test_one_odd_port_among_good_ones_is_no_reason_to_warn() -> None:
    access = access_of(reported([HOST], ["x", "22:1972"]), None)
    assert (access.ssh is not None, access.warning) == (True, None)


@pytest.mark.parametrize(
    "good", [HOST, "localhost", "a", "A-1.example", "192.0.2.7", "x" * 63, "1a.2b", "3com.example"]
)
def test_a_host_name_or_an_ipv4_address_is_taken_as_it_stands(good: str) -> None:
    assert host_name(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "", ".", "a.", ".a", "a..b", "-a", "a-", "a_b", "a b", " a", "a\n", "a\x00", "ä.example", "a․b", "ａ", "::1",
        "[::1]", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "2130706433", "0x7f.1", "a.0x7f", "x" * 64,
        ".".join(["x" * 63] * 4), "root@a", "a:22", "a/b", "a%b", "$a", "a;b", "a'b", 'a"b', "a\\b", "~a", "{a,b}",
    ],
)  # fmt: skip
def test_anything_else_is_no_host(bad: str) -> None:
    assert host_name(bad) is None
    assert ssh_of([bad], ["22:1972"], USUAL) is None


WORDS_ALLOWED = set(string.ascii_letters + string.digits + ".-")
hostile_text = st.one_of(
    st.text(max_size=40),
    st.text(alphabet=string.printable, max_size=40),
    st.tuples(st.sampled_from([HOST, "22:1972", "192.0.2.7"]), st.text(max_size=5), st.booleans()).map(
        lambda parts: parts[0] + parts[1] if parts[2] else parts[1] + parts[0]
    ),
    st.from_regex(r"\A[a-z0-9.-]{1,40}\Z"),
)


@given(
    hosts=st.none() | st.lists(hostile_text, max_size=3),
    tcp_ports=st.none() | st.lists(hostile_text | st.integers().map(lambda port: f"22:{port}"), max_size=3),
    http_host=st.none() | hostile_text,
)
@example(hosts=[HOST], tcp_ports=["22:1972"], http_host=HOST)
@example(hosts=[HOST + "\n"], tcp_ports=["22:1972\n"], http_host=HOST + "\n")
def test_no_text_yields_a_line_with_other_words_than_these(
    hosts: list[str] | None, tcp_ports: list[str] | None, http_host: str | None
) -> None:
    access = access_of(reported(hosts, tcp_ports, http_host), USUAL)
    if access.ssh is not None:
        assert hosts is not None
        assert shlex.split(access.ssh.command) == ["ssh", "-p", str(access.ssh.port), f"root@{hosts[0]}"]
        assert access.ssh.command.split(" ") == shlex.split(access.ssh.command)
        assert set(access.ssh.host) <= WORDS_ALLOWED
        assert not access.ssh.host.startswith("-")
        assert f"22:{access.ssh.port}" in (tcp_ports or [])
        assert 1 <= access.ssh.port <= 65_535
    if access.http_url is not None:
        assert access.http_url == f"https://{http_host}"
        assert set(access.http_url.removeprefix("https://")) <= WORDS_ALLOWED
    known = {BAD_ADDRESS, BAD_PORT, BAD_URL, f"{BAD_ADDRESS} {BAD_URL}", f"{BAD_PORT} {BAD_URL}", None}
    assert access.warning in known


@given(
    st.lists(st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?\Z"), min_size=1, max_size=5), st.integers(1, 65_535)
)
def test_every_proper_name_and_port_yields_a_line(labels: list[str], port: int) -> None:
    host = ".".join([*labels, "example"])
    ssh = ssh_of([host], [f"22:{port}"], None)
    assert ssh is not None
    assert (ssh.host, ssh.port) == (host, port)


class TestTheConfigBlock:
    def test_keeps_strangers_apart(self) -> None:
        ssh = ssh_of([HOST], ["22:1972"], OURS)
        assert ssh is not None
        assert ssh_config(77, ssh, Path("/state of ada")) == (
            "Host clore-77\n"
            f"    HostName {HOST}\n"
            "    Port 1972\n"
            "    User root\n"
            "    HostKeyAlias clore-77\n"
            "    CheckHostIP no\n"
            "    StrictHostKeyChecking accept-new\n"
            '    UserKnownHostsFile "/state of ada/known_hosts"\n'
            '    IdentityFile "/state of ada/ssh/id_ed25519"\n'
            "    IdentitiesOnly yes\n"
            "    ForwardAgent no\n"
            "    ForwardX11 no\n"
        )

    def test_names_no_key_that_is_not_known(self) -> None:
        ssh = ssh_of([HOST], ["22:1972"], ELSEWHERE)
        assert ssh is not None
        assert "Identit" not in ssh_config(77, ssh, Path("/state"))

    @pytest.mark.parametrize("name", ["a\nb", 'a"b', "${HOME}"])
    def test_leaves_out_a_path_that_no_quoting_carries(self, name: str) -> None:
        ssh = ssh_of([HOST], ["22:1972"], OURS)
        assert ssh is not None
        assert "UserKnownHostsFile" not in ssh_config(77, ssh, Path("/state") / name)

    @pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH is not installed")
    def test_means_to_openssh_what_it_says(self, tmp_path: Path) -> None:
        state = tmp_path / "100% ada's"
        key = SshKey("ssh-ed25519 AAAA", state / "id")
        ssh = ssh_of([HOST], ["22:1972"], key)
        assert ssh is not None
        (tmp_path / "config").write_text(ssh_config(77, ssh, state), encoding="utf-8")
        shown = subprocess.run(
            ["ssh", "-G", "-F", str(tmp_path / "config"), "clore-77"],
            capture_output=True,
            text=True,
            check=True,
            stdin=subprocess.DEVNULL,
        ).stdout
        said = dict(re.findall(r"(?m)^(\w+) (.*)$", shown))
        assert (said["hostname"], said["port"], said["user"]) == (HOST, "1972", "root")
        assert (said["hostkeyalias"], said["stricthostkeychecking"]) == ("clore-77", "accept-new")
        assert Path(said["identityfile"].replace("%%", "%")) == state / "id"
        assert Path(said["userknownhostsfile"].replace("%%", "%")) == state / "known_hosts"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def found_when(chunks: Sequence[bytes], timeout_seconds: float = 5, *, hold: bool = False) -> ReadyReason:
    """What `probe` finds at a server that sends these chunks, and then closes or stays silent."""

    async def greet(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            for chunk in chunks:
                await stream.send(chunk)
                await anyio.lowlevel.checkpoint()
            if hold:
                await anyio.sleep_forever()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, greet)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        found = await probe("127.0.0.1", port, timeout_seconds)
        tasks.cancel_scope.cancel()
    return found


@pytest.mark.anyio
@pytest.mark.parametrize(
    "chunks",
    [[b"SSH-2.0-OpenSSH_9.6\r\n"], [b"SS", b"H-2.0-x\r\n"], [b"Welcome\r\n", b"SSH-2.0-x\r\n"]],
    ids=["at once", "in pieces", "after a line"],
)
async def test_a_server_that_greets_as_ssh_answers(chunks: list[bytes]) -> None:
    assert await found_when(chunks, hold=True) is ReadyReason.READY


@pytest.mark.anyio
@pytest.mark.parametrize(
    "chunks",
    [[], [b"HTTP/1.1 400 SSH-less\r\n"], [b"x" * 10_000], [b"\x00\xff" * 3_000]],
    ids=["", "http", "long", "noise"],
)
async def test_a_server_that_says_something_else_does_not(chunks: list[bytes]) -> None:
    assert await found_when(chunks) is ReadyReason.NO_SSH_BANNER


@pytest.mark.anyio
async def test_a_silent_server_does_not_within_the_time() -> None:
    assert await found_when([], 0.05, hold=True) is ReadyReason.NO_SSH_BANNER


@pytest.mark.anyio
async def test_a_port_where_nobody_listens_does_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert await probe("127.0.0.1", taken.getsockname()[1], 5) is ReadyReason.CONNECTION_REFUSED


@pytest.mark.anyio
@pytest.mark.parametrize(("host", "port"), [("a b", 22), ("-oProxyCommand=id", 22), ("127.0.0.1", 0), (HOST, 65_536)])
async def test_what_is_no_address_is_not_even_tried(host: str, port: int) -> None:
    assert await probe(host, port, 5) is ReadyReason.NAME_NOT_FOUND


@pytest.mark.anyio
async def test_a_name_that_does_not_resolve_does_not_answer() -> None:
    assert await probe("no-such-host.invalid", 22, 10) is ReadyReason.NAME_NOT_FOUND

"""Builds the SSH command, the URL and the ssh-config block of an order, and checks whether an SSH server answers yet.

Hosts are strangers, and what they report ends up in a person's terminal. So a command is built only from a valid host
name and a valid port. Anything else gives a warning in our own words and no command.

The state keeps which orders this machine could reach in the last hours, so that this outlives the process. One dead
host proves nothing about this machine, but two do.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import ByteReceiveStream

from clore_mcp.clore import OrderRow
from clore_mcp.rental.ssh.keys import SshKey

USER: Final = "root"
BAD_ADDRESS: Final = "Clore reported an address that is not a host name; no command is shown."
BAD_PORT: Final = "Clore reported an SSH port that is not a port; no command is shown."
BAD_URL: Final = "Clore reported a web address that is not a host name; no URL is shown."
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")  # a last label that resolvers read as part of an address
_SSH_PORT: Final = re.compile(r"22:([1-9][0-9]{0,4})")
_GREETING_MAX: Final = 4_096  # bytes read for the banner; RFC 4253 lets a server send other lines before it
STARTING_MINUTES: Final = 5  # containers take 2 to 5 minutes, and an SSH server starts last
OVERDUE_MINUTES: Final = 15
_REMEMBERED_SECONDS: Final = 6 * 3_600.0


class ReadyReason(StrEnum):
    """Why an order can or can't be used over SSH now."""

    IMAGE_LOADING = "image_loading"
    NAME_NOT_FOUND = "name_not_found"
    CONNECTION_REFUSED = "connection_refused"
    TIMED_OUT = "timed_out"
    NO_SSH_BANNER = "no_ssh_banner"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Ssh:
    """The address of an order's SSH server, and a command to paste. Only `ssh_of` builds it."""

    host: str
    port: int
    command: str
    user: str = USER
    identity: Path | None = None  # the private key, if known


@dataclass(frozen=True, slots=True)
class Access:
    """The ways to reach an order. `warning` is set if something was reported but can't be used."""

    ssh: Ssh | None = None
    http_url: str | None = None
    warning: str | None = None


def access_of(row: OrderRow, key: SshKey | None) -> Access:
    """Return how an order can be reached, from its row. `key` is the order's SSH key, None if unknown."""
    url = f"https://{row.http_host}" if row.http_host and host_name(row.http_host) else None
    warnings = (_ssh_warning(row.hosts, row.tcp_ports), BAD_URL if row.http_host and url is None else None)
    return Access(
        ssh=ssh_of(row.hosts, row.tcp_ports, key),
        http_url=url,
        warning=" ".join(text for text in warnings if text) or None,
    )


def ssh_of(hosts: Sequence[str] | None, tcp_ports: Sequence[str] | None, key: SshKey | None) -> Ssh | None:
    """Return the SSH command for the first host and the port that leads to 22, or None if either can't be used."""
    host, port = host_name(hosts[0]) if hosts else None, _ssh_port(tcp_ports)
    if host is None or port is None:
        return None
    words = ["ssh", "-p", str(port), f"{USER}@{host}"]
    identity = key.private_path if key else None
    if key and identity and not key.offered_by_default:
        words[1:1] = ["-i", quoted_path(identity)]
    return Ssh(host, port, " ".join(words), identity=identity)


def ssh_config(order_id: int, ssh: Ssh, state_dir: Path) -> str:
    """Return a ~/.ssh/config block for `ssh clore-<id>`. Addresses are reused, so each order has its own host key."""
    known_hosts = _config_path(state_dir / "known_hosts")
    identity = _config_path(ssh.identity) if ssh.identity else None
    lines = [
        f"Host clore-{order_id}",
        f"    HostName {ssh.host}",
        f"    Port {ssh.port}",
        f"    User {ssh.user}",
        f"    HostKeyAlias clore-{order_id}",  # its host key is stored under this name, never this host's earlier one
        "    CheckHostIP no",
        "    StrictHostKeyChecking accept-new",
        *([f"    UserKnownHostsFile {known_hosts}"] if known_hosts else []),
        *([f"    IdentityFile {identity}", "    IdentitiesOnly yes"] if identity else []),
        "    ForwardAgent no",
        "    ForwardX11 no",
    ]
    return "\n".join(lines) + "\n"


async def probe(host: str, port: int, timeout_seconds: float) -> ReadyReason:
    """Connect from this machine and return READY if an SSH server answers, else what went wrong. The timeout applies
    separately to the name lookup, the connection and the greeting."""
    if host_name(host) is None or not 1 <= port <= 65_535:
        return ReadyReason.NAME_NOT_FOUND
    try:
        with anyio.fail_after(timeout_seconds):
            await anyio.getaddrinfo(host, port)
    except (OSError, UnicodeError):  # TimeoutError is an OSError
        return ReadyReason.NAME_NOT_FOUND
    try:
        with anyio.fail_after(timeout_seconds):
            stream = await anyio.connect_tcp(host, port)
    except OSError as error:
        return ReadyReason.CONNECTION_REFUSED if _refused(error) else ReadyReason.TIMED_OUT
    with anyio.move_on_after(timeout_seconds):
        async with stream:
            if await _greets(stream):
                return ReadyReason.READY
    return ReadyReason.NO_SSH_BANNER


async def connects(host: str, port: int, timeout_seconds: float) -> bool:
    """Return whether that port accepts a direct connection from this machine within the time. Nothing is sent."""
    with anyio.move_on_after(timeout_seconds):
        try:
            async with await anyio.connect_tcp(host, port):
                return True
        except (OSError, UnicodeError):
            return False
    return False


def _refused(error: BaseException | None) -> bool:
    """Return whether an address of the host refused. The errors of a name with several addresses are in a group."""
    if isinstance(error, BaseExceptionGroup):
        return any(_refused(each) for each in error.exceptions)
    return error is not None and (isinstance(error, ConnectionRefusedError) or _refused(error.__cause__))


async def _greets(stream: ByteReceiveStream) -> bool:
    """Return whether an SSH server sends its banner."""
    heard = b""
    with contextlib.suppress(OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        while len(heard) < _GREETING_MAX:
            heard += await stream.receive(_GREETING_MAX - len(heard))
            if heard.startswith(b"SSH-") or b"\nSSH-" in heard:
                return True
    return False


def host_name(text: str) -> str | None:
    """Return `text` unchanged if it is a host name (RFC 1123, ASCII) or a dotted IPv4 address, else None."""
    labels = text.split(".")
    if len(text) > 253 or not all(map(_LABEL.fullmatch, labels)):
        return None
    if not _NUMBER.fullmatch(labels[-1]):
        return text
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        return None


def quoted_path(path: Path, *, windows: bool = os.name == "nt") -> str:
    """Return a path as one word of a shell command, on Windows in double quotes, which both shells there accept."""
    if not windows:
        return shlex.quote(str(path))
    text = str(path).replace("\\", "/")  # ssh on Windows accepts both, but a POSIX shell there only this
    return text if re.fullmatch(r"[\w./:-]+", text, re.ASCII) else f'"{text}"'


def _ssh_port(tcp_ports: Sequence[str] | None) -> int | None:
    """Return the public port that leads to the container's port 22, as in "22:1972", or None."""
    for entry in tcp_ports or ():
        found = _SSH_PORT.fullmatch(entry)
        if found is not None and int(found[1]) <= 65_535:
            return int(found[1])
    return None


def _ssh_warning(hosts: Sequence[str] | None, tcp_ports: Sequence[str] | None) -> str | None:
    """Return what is wrong with the reported address, without repeating it. None if it is only incomplete."""
    if hosts and hosts[0] and host_name(hosts[0]) is None:
        return BAD_ADDRESS
    odd = [entry for entry in tcp_ports or () if entry and not re.fullmatch(r"(?!22:)[0-9]+:[0-9]+", entry)]
    return BAD_PORT if odd and _ssh_port(tcp_ports) is None else None


def _config_path(path: Path) -> str | None:
    """Return a path as an ssh-config value, or None if it can't be quoted there."""
    text = str(path).replace("\\", "/") if os.name == "nt" else str(path)
    if not text.isprintable() or re.search(r'["\\]|\$\{', text):
        return None
    return '"{}"'.format(text.replace("%", "%%"))  # ssh reads % as the start of a token


@dataclass(frozen=True, slots=True)
class SshLook:
    """The result of the last look at an order's SSH. `at` is this machine's clock. `online` means that this machine
    then reached another order's SSH or Clore itself."""

    server_id: int | None
    reason: ReadyReason
    at: float
    online: bool = False


Memory = Mapping[int, SshLook]
"""The last attempt at each order, by its id."""


def is_settled(reason: ReadyReason, minutes: int) -> bool:
    """Return whether that result is about the host or the network, not just about a container that is starting."""
    # The other failures are normal while an SSH server starts.
    at_once = (ReadyReason.READY, ReadyReason.NAME_NOT_FOUND, ReadyReason.TIMED_OUT)
    return reason in at_once or minutes >= STARTING_MINUTES


def remembered(memory: Memory, order_id: int, attempt: SshLook) -> dict[int, SshLook]:
    """Return the memory with this attempt added, without attempts of more than six hours before it."""
    kept = {about: one for about, one in memory.items() if abs(attempt.at - one.at) < _REMEMBERED_SECONDS}
    return {**kept, order_id: attempt}


def others(memory: Memory, order_id: int, server_id: int | None, now: float) -> dict[int, SshLook]:
    """Return the attempts of the last six hours at orders on other servers."""
    return {
        about: one
        for about, one in memory.items()
        if about != order_id
        and (server_id is None or one.server_id != server_id)
        and abs(now - one.at) < _REMEMBERED_SECONDS
    }


def memory_from(text: str | None) -> dict[int, SshLook]:
    """Return what `memory_as` wrote. Empty if there is none or another version wrote it."""
    try:
        return {
            int(about): SshLook(server_id, ReadyReason(reason), float(at), *map(bool, online))
            for about, (server_id, reason, at, *online) in json.loads(text or "{}").items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}


def memory_as(memory: Memory) -> str:
    """Return the text that `memory_from` reads."""
    rows = {about: [one.server_id, one.reason.value, one.at, one.online] for about, one in memory.items()}
    return json.dumps(rows, separators=(",", ":"))

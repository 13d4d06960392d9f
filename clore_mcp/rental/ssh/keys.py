"""Chooses the SSH key for an order: the operator's, the usual one, or a pair made and kept in the state folder.

Only public keys are read. The only private key that this module touches is the one it made itself.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio.to_thread

from clore_mcp.errors import ArgumentInvalid, StateUnavailable
from clore_mcp.settings import SSH_KEY_MAX, public_key_line

_USUAL: Final = ("id_ed25519", "id_ecdsa", "id_rsa")  # in order of preference; ssh offers these by itself
_COMMENT: Final = "clore-mcp"
_HALF_WRITTEN_TRIES: Final = 20  # of 50 ms each, for file systems where a key file can't appear all at once


@dataclass(frozen=True, slots=True)
class SshKey:
    """A public key for orders, and the path of its private key, if known."""

    line: str
    private_path: Path | None = None
    offered_by_default: bool = False  # ssh tries that private key by default

    @property
    def fingerprint(self) -> str:
        """See `fingerprint`."""
        return fingerprint(self.line)


def public_key(settings_key: str | None, home: Path, state_dir: Path) -> SshKey:
    """Return the configured key, else the usual one in ~/.ssh, else a pair made once. Raises StateUnavailable."""
    if settings_key is not None:
        line = validate(settings_key)  # its private key is known if the pair is in ~/.ssh
        same = (name for name, other in _own_keys(home) if other.split()[:2] == line.split()[:2])
        name = next(same, None)
        return SshKey(line, home / ".ssh" / name if name else None, name in _USUAL)
    for name, line in _own_keys(home):
        if name in _USUAL:
            return SshKey(line, home / ".ssh" / name, offered_by_default=True)
    path = state_dir / "ssh" / "id_ed25519"
    try:
        return SshKey(_kept_pair(path), path)
    except OSError as error:
        raise StateUnavailable(f"The SSH key in {path.parent} can't be made or read ({error.strerror}).") from error


def validate(line: str) -> str:
    """Return a public key from a tool call as one clean line. Raises ArgumentInvalid, which does not repeat the key."""
    try:
        return public_key_line(line)
    except ValueError as error:
        raise ArgumentInvalid(
            f"ssh_public_key {error}.",
            hint=f"Give one line as in a .pub file, up to {SSH_KEY_MAX} characters, or leave it out for the usual key.",
        ) from None


def fingerprint(line: str) -> str:
    """Return the SHA256:… fingerprint of a valid public key line, as ssh-keygen -l shows it."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


async def key_line(given: str | None, own: Callable[[], SshKey]) -> str:
    """Return the line of the key to let in: the one given in the call, or else the operator's own, read in a thread."""
    return validate(given) if given else (await anyio.to_thread.run_sync(own)).line


def _own_keys(home: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and line of each readable pair in ~/.ssh, the usual ones first."""
    with contextlib.suppress(OSError):  # no folder, or no permission to read it: it counts as holding no keys
        files = {path.stem: path for path in sorted((home / ".ssh").glob("*.pub"))}
        usual = [name for name in _USUAL if name in files]
        for name in dict.fromkeys((*usual, *files)):
            with contextlib.suppress(OSError, ValueError):
                if files[name].with_suffix("").is_file():
                    yield name, public_key_line(files[name].read_text(encoding="utf-8"))


def _kept_pair(path: Path) -> str:
    """Return the public line of the pair at `path`, made if there is none. Processes that start at once agree on it."""
    path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if not path.exists():
        _make_pair(path)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        path.chmod(0o600)  # ssh refuses a private key that others can read
    for _ in range(_HALF_WRITTEN_TRIES):
        with contextlib.suppress(ValueError):
            return _public_half(path.read_bytes())
        time.sleep(0.05)
    raise StateUnavailable(
        f"{path} is not a private key without passphrase.", hint="Move that file away and a new pair is made."
    )


def _public_half(private: bytes) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm  # imported here: mcp installs it, and few calls need it
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

    try:
        public = load_ssh_private_key(private, password=None).public_key()
    except (TypeError, UnsupportedAlgorithm) as error:  # a passphrase, or an unsupported type of key
        raise ValueError(str(error)) from None
    return f"{public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} {_COMMENT}"


def _make_pair(path: Path) -> None:
    """Put a whole new private key at `path`, or keep one that another process has put there meanwhile."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    text = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    try:
        _write_new(draft, text)
        with contextlib.suppress(FileExistsError):  # another process was first: use its pair
            try:
                path.hardlink_to(draft)
            except OSError:  # a file system without hard links
                _write_new(path, text)
    finally:
        draft.unlink(missing_ok=True)


def _write_new(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read. Raises FileExistsError if it exists."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

"""The SSH public key that orders are given: one well-formed line, never a private key."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Final

from clore_mcp.settings.environment import Environment
from clore_mcp.settings.values import SSH_KEY_MAX

_SSH_LINE: Final = re.compile(r"(\S+)[ \t]+(\S+)(?:[ \t]+(.*))?", re.DOTALL)
# The comments that Clore accepts (docs/clore-api.md, section 4.4). Others are dropped, because sshd ignores them.
_SSH_COMMENT: Final = re.compile(r"[A-Za-z0-9@.+/= -]+")
_SSH_TYPES: Final[Mapping[str, int]] = {  # number of length-prefixed fields in the base64, including the type
    "ssh-ed25519": 2,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "ssh-rsa": 3,
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}


def read_ssh_public_key(reader: Environment) -> str | None:
    name, text = "CLORE_SSH_PUBLIC_KEY", reader.text("CLORE_SSH_PUBLIC_KEY")
    if text is None:
        name = "CLORE_SSH_PUBLIC_KEY_FILE"
        found = reader.file(name)
        text = None if found is None else found[1]
    elif reader.text("CLORE_SSH_PUBLIC_KEY_FILE"):
        reader.notes.append("CLORE_SSH_PUBLIC_KEY_FILE is not read because CLORE_SSH_PUBLIC_KEY is set.")
    if text is None:
        return None
    try:
        return public_key_line(text)
    except ValueError as error:
        raise reader.secret(name, str(error)) from None


def public_key_line(text: str) -> str:
    """Return an SSH public key as one clean line. Raises ValueError with a reason that does not repeat the text."""
    text = text.strip()
    if re.search(r"PRIVATE KEY|PuTTY-User-Key-File|Private-Lines", text, re.IGNORECASE):
        raise ValueError("holds a private key, which belongs nowhere but on its owner's machine; give the .pub line")
    if "\n" in text or "\r" in text:
        raise ValueError("has more than one line")
    words = _SSH_LINE.fullmatch(text)
    if len(text if words is None else f"{words[1]} {words[2]}") > SSH_KEY_MAX:
        raise ValueError(f"is longer than {SSH_KEY_MAX} characters")
    if words is None or words[1] not in _SSH_TYPES:
        raise ValueError(f"does not begin with a known key type ({', '.join(_SSH_TYPES)}) and its base64")
    kind, body, comment = words[1], words[2], (words[3] or "").strip()
    if not _is_key_blob(kind, body):
        raise ValueError(f"holds base64 that is no key of type {kind}")
    line = f"{kind} {body} {comment}"
    return line if _SSH_COMMENT.fullmatch(comment) and len(line) <= SSH_KEY_MAX else f"{kind} {body}"


def _is_key_blob(kind: str, body: str) -> bool:
    """Return whether `body` is base64 of exactly the length-prefixed fields of a `kind` key."""
    try:
        blob = base64.b64decode(body, validate=True)
    except ValueError:
        return False
    fields: list[bytes] = []
    at = 0
    while at < len(blob) and len(fields) <= _SSH_TYPES[kind]:
        end = at + 4 + int.from_bytes(blob[at : at + 4])
        fields.append(blob[at + 4 : end])
        at = end
    if at != len(blob) or len(fields) != _SSH_TYPES[kind] or not all(fields):
        return False
    if fields[0] != kind.encode() or base64.b64encode(blob).decode() != body:
        return False
    if "ed25519" in kind:
        return len(fields[1]) == 32
    return "ecdsa" not in kind or fields[1] == re.sub(r".*(nistp[0-9]+).*", r"\1", kind).encode()

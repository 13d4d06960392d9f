"""The SSH public key that orders are given: one well-formed line, never a private key."""

from __future__ import annotations

from clore_mcp.rental.create.ssh_keys import public_key_line
from clore_mcp.settings.environment import Environment


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

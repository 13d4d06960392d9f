"""The command that is run for each event: split into words as a shell would, and run without one."""

from __future__ import annotations

import os
import shlex
from typing import Final

from clore_mcp.settings.environment import PLACEHOLDER, Environment

_NAME: Final = "CLORE_NOTIFY_COMMAND"


def read_notify_command(reader: Environment) -> tuple[str, ...]:
    """Its words, ~ as the home folder; none where it is unset. Never shown: it may hold somebody's token."""
    text = reader.text(_NAME)
    if text is None:
        return ()
    if not text.isprintable():
        raise reader.secret(_NAME, "is not one line of text")
    if "${" in text:
        raise reader.secret(_NAME, PLACEHOLDER)
    try:
        words = _words(text)
    except ValueError as error:
        raise reader.secret(_NAME, f"can't be split into words ({str(error).lower().rstrip('.')})") from None
    if not words or not words[0]:
        raise reader.secret(_NAME, "names no program")
    program = str(reader.home / words[0][2:]) if words[0].startswith(("~/", "~\\")) else words[0]
    import shutil  # here: few have such a command

    if shutil.which(program) is None:  # no reason to stop: what ends orders must start
        reader.notes.append(f"{_NAME} names a program that is not found: nobody is told of events.")
    return (program, *words[1:])


def _words(text: str) -> list[str]:
    if os.name != "nt":
        return shlex.split(text)
    return [  # there a backslash is part of a path, and quotes stay where they are
        word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word
        for word in shlex.split(text, posix=False)
    ]

"""The person at the terminal: whether there is one, who it is, and what they answer."""

from __future__ import annotations

import getpass
import socket
import sys

from clore_mcp.errors import Failure
from clore_mcp.text import clean


def at_terminal() -> bool:
    """Whether someone can read what is shown and type an answer: neither end is a pipe or a file."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def require_terminal(what: str, otherwise: str) -> None:
    """Stop here unless a person sits at both ends."""
    if not at_terminal():
        raise Failure(
            f"{what} wants a person at a terminal, not a pipe; {otherwise}.",
            hint="Run it yourself, in a terminal of your own.",
        )


def who() -> str:
    """The person for the record: "person at ann@laptop, terminal"."""
    return f"person at {_account()}, terminal"


def whoever() -> str:
    """The same for a command that also runs from scripts."""
    return who() if at_terminal() else f"command line of {_account()}"


def answer(question: str) -> str:
    """What the person types after the question; empty at the end of input."""
    _drop_what_was_typed_before()
    print(question, end=" ", flush=True)
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        print()
    return line.strip()


def _account() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # no name for this user id, as in some containers
        user = "someone"
    return clean(f"{user}@{socket.gethostname()}", 80)


def _drop_what_was_typed_before() -> None:
    """Only what is typed after the question is an answer: a pasted block of lines must not say its own yes."""
    if not sys.stdin.isatty():
        return
    if sys.platform == "win32":
        import msvcrt

        while msvcrt.kbhit():
            msvcrt.getwch()
    else:
        import termios

        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)

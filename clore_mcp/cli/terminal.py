"""The terminal: formats text (wrapped lines, tables, times), names the person at it, and reads their answers.

Text that others wrote is cleaned before it gets here, and shown as plain text, never as markup. Output is ASCII if the
console has no more, and without colour through a pipe.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import sys
import textwrap
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final, TextIO

from clore_mcp.errors import Failure
from clore_mcp.money import dollars
from clore_mcp.store import OrderReceipt
from clore_mcp.text import clean

_PIPE_WIDTH: Final = 160
_WIDEST_TEXT: Final = 100


def say(text: str = "", *, indent: int = 0, hang: int = 0, to: TextIO | None = None) -> None:
    """Print text, wrapped at a terminal's width. Through a pipe, each paragraph stays one line."""
    stream = to or sys.stdout
    lead, columns = " " * indent, shutil.get_terminal_size().columns - 1
    wrapper = textwrap.TextWrapper(
        max(20, min(columns, _WIDEST_TEXT)), initial_indent=lead, subsequent_indent=lead + " " * hang,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    for line in text.split("\n"):
        print(wrapper.fill(line) if stream.isatty() else lead + line, file=stream)


def loud(text: str) -> None:
    """Print a warning about something that may cost money, marked and on its own line of stderr."""
    sys.stdout.flush()
    say(f"!! {text}", hang=3, to=sys.stderr)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), wraps: str = "") -> None:
    """Print rows under headers. Columns in `right` are right-aligned. Only the column `wraps` may be wrapped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for place, header in enumerate(headers):
        widest = max(len(text) for text in (header, *(row[place] for row in rows)))
        if header == wraps:
            made.add_column(header, overflow="fold")
        else:
            made.add_column(header, justify="right" if header in right else "left", no_wrap=True, min_width=widest)
    for row in rows:
        made.add_row(*map(Text, row))
    Console(width=width, highlight=False).print(made)


def span(seconds: float) -> str:
    """Return a duration in up to two units: "45 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    minutes = int(seconds // 60)
    if minutes < 1:
        return f"{max(0, int(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def usd(value: float | Decimal | str | None, *, up: bool = True) -> str:
    """Return USD as '$0.42', rounded up by default, or '?' if unknown."""
    return "?" if value is None else dollars(Decimal(str(value)), up=up)


def receipt(paid: OrderReceipt) -> str:
    """Return the cost of an order as a sum."""
    parts = (paid.rent_usd, paid.fee_usd, paid.creation_fee_usd, paid.total_usd)
    rent, fee, creation, total = (usd(part, up=False) for part in parts)
    return f"{paid.hours:.2f} hours: {rent} rent + {fee} fee + {creation} creation fee = {total}, fees estimated"


def to_the_operator(hint: str) -> str:
    """Return a hint written for a model as one for the operator."""
    own = hint.removeprefix("Ask the operator to ").replace("Call again after retry_after_seconds.", "Try again later.")
    return own[:1].upper() + own[1:]


def for_a_person(failure: Failure) -> str:
    """Return a failure's own hint, except one that refers to the doctor, because the doctor shows this hint itself."""
    if "clore-mcp doctor" in failure.hint:
        return "Check the network and any proxy, then CLORE_API_URL if you set it."
    return to_the_operator(failure.hint)


def doubtful(order_ids: Iterable[int], prefix: str) -> str:
    """Return a warning that orders made here may run with no process to end them, because their account is unknown."""
    told = sorted(order_ids)
    which = f"Order {told[0]} was" if len(told) == 1 else f"Orders {', '.join(map(str, told))} were"
    return (
        f"{which} made here under another key and not listed by Clore for this key. clore-mcp can't know whether the"
        f" account is the same, and ends nothing of it. Run `{prefix} stop` with the key that made it, or check"
        " clore.ai."
    )


# The person


def at_terminal() -> bool:
    """Return whether a person can read the output and type an answer, because neither end is a pipe or a file."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def require_terminal(what: str, otherwise: str) -> None:
    """Raise Failure unless a person is at the terminal for both input and output."""
    if not at_terminal():
        raise Failure(
            f"{what} needs a person at a terminal, not a pipe; {otherwise}.",
            hint="Run it yourself, in your own terminal.",
        )


def who() -> str:
    """Return who acts, for the record: "person at ann@laptop, terminal", or "command line of ann@laptop" in a
    script."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # no name for this user id, as in some containers
        user = "someone"
    account = clean(f"{user}@{socket.gethostname()}", 80)
    return f"person at {account}, terminal" if at_terminal() else f"command line of {account}"


def answer(question: str) -> str:
    """Return what the person at the terminal types after the question, or "" at the end of input."""
    _drop_what_was_typed_before()
    print(question, end=" ", flush=True)
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        print()
    return line.strip()


def _drop_what_was_typed_before() -> None:
    """Drop input typed before the question, so that a pasted block of lines can't answer it."""
    if sys.platform == "win32":
        import msvcrt

        while msvcrt.kbhit():
            msvcrt.getwch()
    else:
        import termios

        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)

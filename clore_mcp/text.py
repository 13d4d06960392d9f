"""Makes text that others wrote safe to show: names of CPUs, GPUs and disks, API errors, words of a caller.

A host chooses its own names, and a model or a person reads them. `clean` keeps only visible characters, on one line, up
to a given length. It can't make the words true, so they are still shown as quoted data. `iso` shows a time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_ELLIPSIS: Final = "…"
# Printable by Python's tables, but invisible or able to alter their neighbours.
_UNSEEN: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0\U00016fe4\U0001d159"
    + "".join(map(chr, range(0xFE00, 0xFE10)))  # variation selectors
    + "".join(map(chr, range(0xE0100, 0xE01F0)))  # their supplement
)


def clean(text: str, limit: int) -> str:
    """Return `text` on one line of visible characters, up to `limit` of them. A cut is shown as '…'.

    Control, bidi and zero-width characters, tags, variation selectors, surrogates, and private or unassigned characters
    are removed.
    """
    if limit < 1:
        return ""
    examined = text[: 8 * limit + 64]  # bounds the work; an honest name has little hidden in front of it
    if not (examined.isascii() and examined.isprintable()):
        examined = "".join(map(_shown, examined))
    line = " ".join(examined.split())
    if len(line) > limit or len(text) > 8 * limit + 64:
        return line[: limit - 1].rstrip() + _ELLIPSIS
    return line


def hidden(text: str, allowed: str = "") -> str | None:
    """Return the first character that `clean` would drop or replace and that is not `allowed`, or None."""
    if text.isascii() and text.isprintable():
        return None
    return next((char for char in text if char not in allowed and _shown(char) != char), None)


def _shown(char: str) -> str:
    if char.isspace():
        return " "
    return char if char.isprintable() and char not in _UNSEEN else ""


def iso(unix_seconds: float) -> str:
    """Return a time for a result: ISO 8601, UTC, whole seconds."""
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

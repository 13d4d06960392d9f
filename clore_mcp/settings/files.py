"""Files that a setting names: read whole, bounded, and refused by name where they can't be."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from clore_mcp.errors import SettingsInvalid

_FILE_MAX: Final = 65_536


def read_text(path: Path, shown: str) -> str | None:
    """The text of a file, or None when there is none; any other trouble is refused, naming `shown`."""
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_MAX + 1)
    except FileNotFoundError:
        if path.is_symlink():
            raise SettingsInvalid(f"{shown} is a link to a file that does not exist; correct or remove it.") from None
        return None
    except NotADirectoryError:
        return None
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "not a path"
        raise SettingsInvalid(f"{shown} can't be read ({reason}); a readable file is accepted.") from None
    if len(content) > _FILE_MAX:
        raise SettingsInvalid(f"{shown} is too large; a file of up to {_FILE_MAX} bytes is accepted.")
    try:
        return content.decode("utf-8-sig")  # Windows editors put a byte-order mark first
    except UnicodeDecodeError:
        raise SettingsInvalid(f"{shown} is not UTF-8 text; a UTF-8 text file is accepted.") from None


def exists(path: Path) -> bool:
    """Whether something is there; what can't be looked at counts as there."""
    try:
        return path.exists()
    except OSError:
        return True


def is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def quoted(value: str) -> str:
    """A value for a message: on one line, nothing unprintable, not longer than a glance."""
    return ascii(value if len(value) <= 80 else f"{value[:77]}...")

"""Reads environment variables and the files that they name, and refuses malformed ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from clore_mcp.errors import SettingsInvalid
from clore_mcp.settings.values import ACCEPTED

PLACEHOLDER: Final = "holds a placeholder that nobody filled in"
_FILE_MAX: Final = 65_536
_FAR: Final = 2  # letters by which a name may differ from ours and still count as a misspelling of it
T = TypeVar("T")


class Environment:
    """The variables, the notes about them, and the errors that refuse one."""

    def __init__(self, env: Mapping[str, str], home: Path) -> None:
        self.env = env
        self.home = home
        self.notes: list[str] = []

    def text(self, name: str) -> str | None:
        """Return the variable without surrounding blanks, or None if it is unset or empty."""
        return self.env.get(name, "").strip() or None

    def parsed(self, name: str, parse: Callable[[str], T | None]) -> T | None:
        """Return the variable as read by `parse`, or None if unset. Raises SettingsInvalid if `parse` returns None."""
        text = self.text(name)
        if text is None:
            return None
        value = parse(text)
        if value is None:
            raise SettingsInvalid(f"{name} is {quoted(text)}; accepted: {ACCEPTED[name]}.")
        return value

    def secret(self, name: str, reason: str) -> SettingsInvalid:
        """Return an error that does not show the value."""
        return SettingsInvalid(f"{name} {reason}; accepted: {ACCEPTED[name]}.")

    def path(self, name: str) -> Path | None:
        """Return the variable as an absolute path (~ is the home folder), or None if unset. Raises SettingsInvalid."""
        text = self.text(name)
        if text is None:
            return None
        if not text.isprintable() or "PRIVATE KEY" in text:
            raise self.secret(name, "is not a path")
        if "${" in text:
            raise self.secret(name, PLACEHOLDER)
        path = self.home / text[2:] if text == "~" or text.startswith(("~/", "~\\")) else Path(text)
        if not path.is_absolute():
            path = path.absolute()
            self.notes.append(f"{name} is relative: taken from the folder where the program was started, it is {path}.")
        return path

    def file(self, name: str) -> tuple[Path, str] | None:
        """Return the path that the variable names and that file's text, or None if unset. Raises SettingsInvalid."""
        path = self.path(name)
        if path is None:
            return None
        # A key pasted here by mistake must not be shown, so only a value that looks like a path is.
        text = self.env[name].strip()
        shown = f"{name} ({quoted(text)})" if text.startswith(("/", "~", ".", "\\")) or text[1:2] == ":" else name
        content = read_text(path, shown)
        if content is None:
            raise SettingsInvalid(f"{shown} names no file; accepted: {ACCEPTED[name]}.")
        return path, content

    def refuse_misspelled_names(self) -> None:
        """Raise SettingsInvalid for CLORE names that resemble ours or caps: a typo must not disable a limit."""
        for name in sorted(self.env):
            if name in ACCEPTED or not name.upper().startswith("CLORE") or not self.env[name].strip():
                continue
            nearest = min(ACCEPTED, key=lambda known: _distance(name.upper(), known))
            numbered = re.fullmatch(r"(.+?)_?[0-9]+", name)  # CLORE_API_KEY_2: another program's, not a typo
            near = _distance(name.upper(), nearest) <= _FAR and not (numbered and numbered[1] in ACCEPTED)
            if near or name.upper().startswith("CLORE_MAX"):
                raise SettingsInvalid(f"{quoted(name)} is not a setting; {nearest} is. Rename or unset it.")
            if name.startswith("CLORE_"):
                self.notes.append(f"{quoted(name)} is not a setting and is ignored; the nearest is {nearest}.")


def _distance(one: str, other: str) -> int:
    """Return how many letters must be added, dropped or changed to turn one name into the other."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, against in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (letter != against))
    return row[-1]


def read_text(path: Path, shown: str) -> str | None:
    """Return the text of a file, or None if there is none. Raises SettingsInvalid, naming `shown`, otherwise."""
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
    """Return whether something exists at the path. If that can't be checked, it counts as existing."""
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
    """Return a value for a message: on one line, printable, and cut to 80 characters before it is escaped."""
    return ascii(value if len(value) <= 80 else f"{value[:77]}...")

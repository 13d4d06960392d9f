"""The environment as its operator wrote it: one way to read a variable, or the file it names, and one to refuse it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from clore_mcp.errors import SettingsInvalid
from clore_mcp.settings.values import ACCEPTED

PLACEHOLDER: Final = "holds a placeholder that nobody filled in"
_FILE_MAX: Final = 65_536
_FAR: Final = 2  # letters a name may differ from ours and still count as that name, misspelled
T = TypeVar("T")


class Environment:
    """The variables, what is said about them, and the one way to refuse one."""

    def __init__(self, env: Mapping[str, str], home: Path) -> None:
        self.env = env
        self.home = home
        self.notes: list[str] = []

    def text(self, name: str) -> str | None:
        """The variable without surrounding blanks, or None when it is unset or empty."""
        return self.env.get(name, "").strip() or None

    def parsed(self, name: str, parse: Callable[[str], T | None]) -> T | None:
        """The variable as `parse` reads it, None when it is unset; refused when `parse` answers None."""
        text = self.text(name)
        if text is None:
            return None
        value = parse(text)
        if value is None:
            raise SettingsInvalid(f"{name} is {quoted(text)}; accepted: {ACCEPTED[name]}.")
        return value

    def secret(self, name: str, reason: str) -> SettingsInvalid:
        """A refusal that does not show the value."""
        return SettingsInvalid(f"{name} {reason}; accepted: {ACCEPTED[name]}.")

    def path(self, name: str) -> Path | None:
        """The variable as an absolute path, with ~ for the home folder; None when it is unset."""
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
        """The path that the variable names and the text of the file there; None when it is unset."""
        path = self.path(name)
        if path is None:
            return None
        # A key pasted here by mistake must not be shown: only what looks like a path is.
        text = self.env[name].strip()
        shown = f"{name} ({quoted(text)})" if text.startswith(("/", "~", ".", "\\")) or text[1:2] == ":" else name
        content = read_text(path, shown)
        if content is None:
            raise SettingsInvalid(f"{shown} names no file; accepted: {ACCEPTED[name]}.")
        return path, content

    def refuse_misspelled_names(self) -> None:
        """Refuse CLORE_ names that are nearly ours, or would be caps: a limit must not be lost to a letter."""
        for name in sorted(self.env):
            if name in ACCEPTED or not name.upper().startswith("CLORE") or not self.env[name].strip():
                continue
            nearest = min(ACCEPTED, key=lambda known: _distance(name.upper(), known))
            numbered = re.fullmatch(r"(.+?)_?[0-9]+", name)  # CLORE_API_KEY_2: another program's, no slip of the hand
            near = _distance(name.upper(), nearest) <= _FAR and not (numbered and numbered[1] in ACCEPTED)
            if near or name.upper().startswith("CLORE_MAX"):
                raise SettingsInvalid(f"{quoted(name)} is not a setting; {nearest} is. Rename or unset it.")
            if name.startswith("CLORE_"):
                self.notes.append(f"{quoted(name)} is not a setting and is ignored; the nearest is {nearest}.")


def _distance(one: str, other: str) -> int:
    """How many letters must be added, dropped or changed to make one name the other."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, against in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (letter != against))
    return row[-1]


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

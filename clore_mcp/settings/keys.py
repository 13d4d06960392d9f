"""Where the API key comes from. No message and no note ever shows a key."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

from clore_mcp.errors import SettingsInvalid
from clore_mcp.settings.environment import PLACEHOLDER, Environment
from clore_mcp.settings.files import exists, read_text
from clore_mcp.settings.values import ACCEPTED


def read_api_key(reader: Environment, url: str) -> tuple[str | None, str | None]:
    """The API key and where it comes from. A key in a file is not even read for another host than the real one."""
    given = reader.text("CLORE_API_KEY")
    if given is not None:
        if reader.text("CLORE_API_KEY_FILE"):
            reader.notes.append("CLORE_API_KEY_FILE is not read because CLORE_API_KEY is set.")
        return _checked_key(given, "CLORE_API_KEY"), "CLORE_API_KEY"
    usual = reader.home / ".clore" / "config.json"
    named = reader.text("CLORE_API_KEY_FILE") is not None
    if not re.fullmatch(r"https://api\.clore\.ai(/.*)?", url):
        if named or exists(usual):
            where = "CLORE_API_KEY_FILE" if named else str(usual)
            reader.notes.append(
                f"The key in {where} is not used: a key in a file goes only to https://api.clore.ai; set CLORE_API_KEY."
            )
        return None, None
    if named:
        return _key_file(reader), "CLORE_API_KEY_FILE"
    key = _key_of_clore_ai(usual)
    if key is not None:
        _note_if_readable_by_others(reader, usual)
    return (None, None) if key is None else (key, str(usual))


def _key_file(reader: Environment) -> str | None:
    name = "CLORE_API_KEY_FILE"
    found = reader.file(name)
    if found is None:  # pragma: no cover - asked only when it is set
        return None
    path, content = found
    _note_if_readable_by_others(reader, path)
    if not content.strip():
        raise reader.secret(name, "names an empty file")
    return _checked_key(content.strip(), name)


def _key_of_clore_ai(path: Path) -> str | None:
    """The key that the `clore-ai` package keeps, or None when it keeps none."""
    content = read_text(path, str(path))
    if content is None:
        return None
    wrong = SettingsInvalid(f'{path} is no JSON object with a text under "api_key"; correct it or set CLORE_API_KEY.')
    try:
        kept = json.loads(content)
    except (ValueError, RecursionError):
        raise wrong from None
    key = kept.get("api_key") if isinstance(kept, dict) else 0
    if key is not None and not isinstance(key, str):
        raise wrong
    return _checked_key(key.strip(), str(path)) if key and key.strip() else None


def _checked_key(key: str, where: str) -> str:
    if not re.fullmatch(r"[!-~]{1,512}", key) or "${" in key:
        reason = PLACEHOLDER if "${" in key else "is not an API key"
        raise SettingsInvalid(f"{where} {reason}; accepted: {ACCEPTED['CLORE_API_KEY']}.")
    return key


def _note_if_readable_by_others(reader: Environment, path: Path) -> None:
    if os.name == "posix":  # pragma: no branch - Windows has no such modes
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
            reader.notes.append(f"{path} holds the API key and other users can read it: chmod 600 closes it.")

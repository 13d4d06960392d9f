"""Converts arguments as clients write them into the forms of the tool's schema, before the types validate them.

Clients differ. Some send null for arguments that they leave out, some send numbers as text or text as numbers, some
write a list as text, and some add names of their own. Every tool reads its arguments here, in the same way. Nothing is
rejected here: a value without a clear meaning stays as it is, and the types name the problem.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

# n8n adds the first five, other clients the last two. No tool uses them.
CLIENTS_ADD: Final = frozenset(("toolCallId", "sessionId", "action", "chatInput", "tool", "_meta", "random_string"))
_DIGITS_MAX: Final = 10**40  # no id is that large
_SEPARATORS: Final = re.compile(r"[\s_-]+")
_THOUSANDS: Final = re.compile(r"\s*\d{1,3}(,\d{3})+\s*")  # ambiguous: one number, or a list of two
_BETWEEN: Final = re.compile(r"[,;\n]")

Schema = Mapping[str, Any]


def read(given: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """Return the given arguments in the forms of `schema`, without null or empty ones and without the names that
    clients add. Unknown names stay, because they are errors."""
    known = schema["properties"]
    told = {}
    for name, value in given.items():
        if name in known:
            value = _value(value, known[name])
            if not _is_nothing(value, known[name]):
                told[name] = value
        elif name not in CLIENTS_ADD:
            told[name] = value
    return told


def _is_nothing(value: Any, schema: Schema) -> bool:
    """Return whether clients send this value for an argument that they leave out."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    return schema.get("type") in ("array", "object") and value in ([], {})


def _value(value: Any, schema: Schema) -> Any:
    kind = schema.get("type")
    if kind == "string":
        return _word(value, schema["enum"]) if "enum" in schema else _text(value)
    if kind == "array":
        return _list(value, schema.get("items", {}))
    if kind == "object":
        return _object(value, schema.get("additionalProperties", {}))
    if kind in ("integer", "number"):
        return _number(value, whole=kind == "integer")
    if kind == "boolean" and isinstance(value, str):
        return None if value.strip().lower() == "null" else value.strip()
    return value


def _text(value: Any) -> Any:
    """Return a number as text, and text unchanged."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not math.isfinite(value) or abs(value) >= _DIGITS_MAX:
        return value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _word(value: Any, words: list[str]) -> Any:
    """Return the word of the list that matches, ignoring case, hyphens and underscores."""
    if not isinstance(value, str):
        return value
    bare = _SEPARATORS.sub("", value).lower()
    if bare == "null":
        return None
    return next((word for word in words if _SEPARATORS.sub("", word).lower() == bare), value)


def _number(value: Any, *, whole: bool) -> Any:
    """Return the number in a text, or the id in "#123". Python counts True as a number, but this does not."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    bare = value.strip()
    if bare.lower() == "null":
        return None
    return bare.removeprefix("#") if whole else bare


def _list(value: Any, items: Schema) -> Any:
    if isinstance(value, str):
        value = _listed(value, whole=items.get("type") == "integer")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list):
        return value
    read_items = [_value(item, items) for item in value]
    return [item for item in read_items if not _is_nothing(item, items)]


def _listed(text: str, *, whole: bool) -> Any:
    """Return the list in a text, written as JSON or separated by commas."""
    parsed = _parsed(text)
    if isinstance(parsed, list):
        return parsed
    if text.strip().lower() == "null":
        return None
    if text.lstrip()[:1] in ("{", "[") or (whole and _THOUSANDS.fullmatch(text)):
        return text
    return [part.strip() for part in _BETWEEN.split(text)]


def _object(value: Any, values: Any) -> Any:
    if isinstance(value, str):
        parsed = _parsed(value)
        value = parsed if isinstance(parsed, dict) else None if value.strip().lower() == "null" else value
    if not isinstance(value, dict) or not isinstance(values, Mapping):
        return value
    return {name: _plain(inner, values) for name, inner in value.items()}


def _plain(value: Any, schema: Schema) -> Any:
    """Return a value inside an object, where true and false become text, as in an environment."""
    return str(value).lower() if isinstance(value, bool) else _value(value, schema)


def _parsed(text: str) -> Any:
    """Return the text parsed as JSON with numbers kept as text, or None if it is not JSON."""
    try:
        return json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None

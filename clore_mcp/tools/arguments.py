"""Arguments as clients write them, read into the forms that a tool's own schema names before its types judge them.

Clients differ: some send null for whatever they leave out, some send numbers as text or text as numbers, some write a
list as text, and some add names of their own. Every tool reads all of that here, and alike. Nothing here refuses: what
has no plain reading is left as it is, and the types name it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

# n8n adds the first five, other clients the last two: none of them means anything to a tool.
CLIENTS_ADD: Final = frozenset(("toolCallId", "sessionId", "action", "chatInput", "tool", "_meta", "random_string"))
_DIGITS_MAX: Final = 10**40  # a longer number is no name of anything
_SEPARATORS: Final = re.compile(r"[\s_-]+")
_THOUSANDS: Final = re.compile(r"\s*\d{1,3}(,\d{3})+\s*")  # one number, or a list of two: not for us to say
_BETWEEN: Final = re.compile(r"[,;\n]")

Schema = Mapping[str, Any]


def read(given: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """The arguments that were given, in the forms of `schema`: without those that are null or empty, and without what
    clients add. A name that nobody knows stays, for it is an error."""
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
    """Whether a client that has nothing to say would write this for such an argument."""
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
    """A number as it is written; text as it is, whatever it looks like."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not math.isfinite(value) or abs(value) >= _DIGITS_MAX:
        return value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _word(value: Any, words: list[str]) -> Any:
    """The word of a list that is meant, whatever its case, its hyphens and its underscores."""
    if not isinstance(value, str):
        return value
    bare = _SEPARATORS.sub("", value).lower()
    if bare == "null":
        return None
    return next((word for word in words if _SEPARATORS.sub("", word).lower() == bare), value)


def _number(value: Any, *, whole: bool) -> Any:
    """A number also where it is text, or an id written "#123". True is no number, though Python takes it for one."""
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
    """The list that a text means: as JSON, or with commas between."""
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
    """A value inside an object: also true and false are text there, as an environment writes them."""
    return str(value).lower() if isinstance(value, bool) else _value(value, schema)


def _parsed(text: str) -> Any:
    """What a text says as JSON, numbers as they are written; None where it is not JSON."""
    try:
        return json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None

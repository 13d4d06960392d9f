"""Makes a tool from a plain function: strict arguments, portable schemas, compact answers, errors with a hint.

The SDK drops unknown arguments silently (a misspelled ceiling would have no effect), nests schemas in a way that some
clients reject, and hides the text of every exception but its own. `Tool.from_function` and `fn_metadata.arg_model` are
not quite public, so `tests/tools/test_kit.py` tests the parts that are used here.

Arguments are converted from what clients write into the forms of the tool's schema, before the types validate them.
Some clients send null for arguments that they leave out, some send numbers as text or text as numbers, some write a
list as text, and some add names of their own. `read` does that for every tool. It rejects nothing: a value without a
clear meaning stays as it is, and the types name the problem.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal

from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, GetJsonSchemaHandler, ValidationError, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from clore_mcp.errors import Failure
from clore_mcp.text import clean
from clore_mcp.tools.consent import page_offer

# n8n adds the first five, other clients the last two. No tool uses them.
CLIENTS_ADD: Final = frozenset(("toolCallId", "sessionId", "action", "chatInput", "tool", "_meta", "random_string"))
_DIGITS_MAX: Final = 10**40  # no id is that large
_SEPARATORS: Final = re.compile(r"[\s_-]+")
_THOUSANDS: Final = re.compile(r"\s*\d{1,3}(,\d{3})+\s*")  # ambiguous: one number, or a list of two
_BETWEEN: Final = re.compile(r"[,;\n]")
Schema = Mapping[str, Any]
log = logging.getLogger(__name__)
ANSWER_TITLE = "Approve"  # the form that asks a person: an error in it is the client's, not an argument's
Kind = Literal["reads", "spends", "destroys"]
_REFUSED_SHOWN = 30  # more than any tool has arguments, so that hundreds of invented names don't fill the answer
# Ratios of difflib: max_usd is 0.8 like max_gpus and 0.61 like max_usd_per_hour.
_LIKE = 0.6
_ALMOST = 0.2
# For fields that another tool's schema shows in full (refusals: create_order, receipt: cancel_order, ssh: list_orders)
# and for rows with self-explanatory names.
ROWS_ELSEWHERE = WithJsonSchema({"type": "array", "items": {"type": "object"}})
OBJECT_ELSEWHERE = WithJsonSchema({"type": "object"})


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
    kind = schema["type"]
    if kind == "string" and "enum" not in schema:
        return _text(value)
    if isinstance(value, str) and value.strip().lower() == "null":
        return None
    if kind == "string":
        return _word(value, schema["enum"])
    if kind == "array":
        return _list(value, schema["items"])
    if kind == "object":
        return _object(value, schema["additionalProperties"])
    if kind in ("integer", "number"):
        return _number(value, whole=kind == "integer")
    return value.strip() if isinstance(value, str) else value


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
    return next((word for word in words if _SEPARATORS.sub("", word).lower() == bare), value)


def _number(value: Any, *, whole: bool) -> Any:
    """Return the number in a text, or the id in "#123". Python counts True as a number, but this does not."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    bare = value.strip()
    return bare.removeprefix("#") if whole else bare


def _list(value: Any, items: Schema) -> Any:
    if isinstance(value, str):
        value = _listed(value, whole=items["type"] == "integer")
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
    if text.lstrip()[:1] in ("{", "[") or (whole and _THOUSANDS.fullmatch(text)):
        return text
    return [part.strip() for part in _BETWEEN.split(text)]


def _object(value: Any, values: Schema) -> Any:
    """Return the object, also from a text, with true and false inside it as text, as in an environment."""
    parsed = _parsed(value) if isinstance(value, str) else value
    if not isinstance(parsed, dict):
        return value
    return {
        name: str(inner).lower() if isinstance(inner, bool) else _value(inner, values) for name, inner in parsed.items()
    }


def _parsed(text: str) -> Any:
    """Return the text parsed as JSON with numbers kept as text, or None if it is not JSON."""
    try:
        return json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None


class Answer(BaseModel):
    """A tool's result. Fields that are null or at their default are left out on the wire."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema without defaults. `_lean` drops them anyway, and pydantic takes long to encode each one."""
        model: Any = core_schema
        fields = {
            name: {**field, "schema": field["schema"]["schema"]} if field["schema"]["type"] == "default" else field
            for name, field in model["schema"]["fields"].items()
        }
        return handler({**model, "schema": {**model["schema"], "fields": fields}})

    def wire(self) -> dict[str, Any]:
        """Return the result as it is sent."""
        wire: dict[str, Any] = _whole(self.model_dump(mode="json", exclude_none=True, exclude_defaults=True))
        return wire


class Metadata(FuncMetadata):
    """The SDK's description of a tool's function, with our reading of arguments (`read`). The SDK's own reading
    would parse text that looks like JSON."""

    parameters: dict[str, Any]

    def pre_parse_json(self, data: dict[str, Any]) -> dict[str, Any]:
        """See `read`."""
        return read(data, self.parameters)


class CloreTool(Tool):
    """A tool that returns text and structured content, and whose failures are JSON with a code and a hint."""

    async def run(self, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:
        """See `Tool.run`."""
        try:
            result = await super().run(arguments, context, convert_result=False)
        except ToolError as error:
            return failure_result(self.name, error, self.parameters["properties"])
        if not isinstance(result, Answer):
            return result  # the SDK's request for the person's answer
        wire = result.wire()
        if wire.get("status") == "approval_required":
            offer = page_offer(context, wire["approval_id"])
            if offer is not None:
                return offer
        return CallToolResult(content=[TextContent(type="text", text=compact(wire))], structured_content=wire)


def tool(
    function: Callable[..., Any],
    *,
    title: str,
    kind: Kind,
    idempotent: bool = False,
    terse: Collection[str] = (),
    told_before: Collection[str] = (),
) -> Tool:
    """Make a tool from a function. Its docstring is the description. Its argument model or parameters are the schema.
    `terse` names arguments that are shown without description and bounds, because the tool's description says which
    tool explains them. `told_before` names fields of the result that another tool's result schema already shows."""
    made = CloreTool.from_function(
        function,
        title=title,
        description=" ".join((function.__doc__ or "").split()),
        annotations=ToolAnnotations(
            read_only_hint=kind == "reads",
            destructive_hint=kind == "destroys",
            idempotent_hint=idempotent or kind == "reads",
            open_world_hint=True,
        ),
        structured_output=True,
    )
    metadata, schema = made.fn_metadata, made.parameters
    name, first = next(iter(metadata.arg_model.model_fields.items()), ("", None))
    model = first.annotation if first else None
    if isinstance(model, type) and issubclass(model, BaseModel):
        metadata.arg_model = _flat(name, model, function.__name__)
        schema = {**schema["$defs"][model.__name__], "$defs": schema["$defs"]}
    else:
        metadata.arg_model.model_config |= {"extra": "forbid", "allow_inf_nan": False}
        metadata.arg_model.model_rebuild(force=True)
    made.parameters = portable(schema)
    made.parameters["additionalProperties"] = False
    for argument in terse:
        for keyword in ("description", "minimum", "maximum"):  # the types still check the bounds
            made.parameters["properties"][argument].pop(keyword, None)
    output_schema = _lean(portable(metadata.output_schema or {}))
    for field in told_before:
        output_schema["properties"].pop(field)
    made.fn_metadata = Metadata(
        arg_model=metadata.arg_model,
        output_schema=output_schema,
        output_model=metadata.output_model,
        wrap_output=metadata.wrap_output,
        parameters=made.parameters,
    )
    return made


def _flat(name: str, model: type[BaseModel], title: str) -> type[ArgModelBase]:
    """Return a model whose fields are the tool's own arguments. The function still receives one object."""

    extra = model.model_config.get("extra", "forbid")

    class Flat(model, ArgModelBase, extra=extra, title=title, allow_inf_nan=False):  # type: ignore[valid-type, misc]
        def model_dump_one_level(self) -> dict[str, Any]:
            return {name: self}

    return Flat


def portable(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema in a form that every client accepts: without $ref, titles, null alternatives, null or false
    defaults, and exclusive bounds. Limits that no ordinary call reaches are left to the types and their errors. These
    are the maximum lengths of texts and lists, and lower bounds of 0 and 1."""
    definitions = schema.get("$defs", {})

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return walk(
                {**definitions[node["$ref"].rsplit("/", 1)[1]], **{k: v for k, v in node.items() if k != "$ref"}}
            )
        kept = {key: value for key, value in node.items() if key not in ("title", "$defs", "maxLength", "maxItems")}
        if "properties" in node:  # a field may be called "title"; only keywords are dropped
            kept.pop("description", None)  # the docstring of a class, for readers of the code
            kept["properties"] = {name: walk(value) for name, value in node["properties"].items()}
        if kept.get("default", 0) is None or kept.get("default", 0) is False:
            del kept["default"]
        _include_bounds(kept)
        choices = [choice for choice in kept.get("anyOf", []) if choice != {"type": "null"}]
        if "anyOf" in kept and len(choices) == 1:
            del kept["anyOf"]
            return walk({**choices[0], **kept})
        return {key: value if key in ("properties", "default", "enum") else walk(value) for key, value in kept.items()}

    result: dict[str, Any] = walk(schema)
    return result


def _include_bounds(schema: dict[str, Any]) -> None:
    """Make exclusive bounds inclusive, because some models' APIs reject them. The types still check them."""
    for bound, step in (("minimum", 1), ("maximum", -1)):
        if (limit := schema.pop(f"exclusive{bound.title()}", None)) is not None:
            schema[bound] = limit + step if schema.get("type") == "integer" else limit
    if schema.get("minimum") in (0, 1):
        del schema["minimum"]


def _lean(schema: Any) -> Any:
    """Return a result's schema without defaults and without the lists of fields that are always present."""
    if isinstance(schema, list):
        return [_lean(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _lean(value) for name, value in schema.items() if name not in ("default", "required")}


def failure_result(name: str, error: ToolError, known: Collection[str]) -> CallToolResult:
    """Return a failure as the model reads it: `{"error", "message", "hint", "retry_after_seconds"?}`. `known` holds the
    names of the tool's arguments, to suggest one for a misspelled name."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Failure | ValidationError):
        cause = cause.__cause__
    if isinstance(cause, Failure):
        code, message, hint = cause.code, cause.message, cause.hint
    elif isinstance(cause, ValidationError) and cause.title in (name, f"{name}Arguments"):
        code, message = "invalid_argument", f"{name} was not called: {_problems(cause, known)}."
        hint = "Correct the named arguments. The tool's schema lists them all."
    elif (isinstance(cause, ValidationError) and cause.title == ANSWER_TITLE) or "elicitation" in str(error):
        code, message = "invalid_argument", "The answer to the question could not be read, so nothing was spent."
        hint = "The client's answer was neither yes nor no. Call again."
    else:
        log.error("%s failed", name, exc_info=error)
        code, message = "api_error", f"{name} failed because of a bug in clore-mcp."
        hint = "Check list_orders before you repeat a call that spends. The server's log has the details."
    told: dict[str, Any] = {"error": code, "message": message, "hint": hint}
    if isinstance(cause, Failure) and cause.retry_after_seconds is not None:
        told["retry_after_seconds"] = round(cause.retry_after_seconds, 1)
    return CallToolResult(content=[TextContent(type="text", text=compact(told))], is_error=True)


def _problems(error: ValidationError, known: Collection[str]) -> str:
    """Return every problem of a call at once, so that one corrected call is enough."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    told = []
    for problem in found[:_REFUSED_SHOWN]:
        where = ".".join(clean(str(part), 40) for part in problem["loc"]) or "arguments"
        what = clean(problem["msg"].removeprefix("Value error, "), 160)
        if problem["type"] == "extra_forbidden":
            near = _near(where, known)
            what = "no such argument" + (f" (did you mean {' or '.join(near)}?)" if near else "")
        told.append(f"{where}: {what}")
    more = f" (and {len(found) - _REFUSED_SHOWN} more)" if len(found) > _REFUSED_SHOWN else ""
    return "; ".join(told) + more


def _near(name: str, known: Collection[str]) -> list[str]:
    """Return the known names that a misspelled one may mean: the most like it, those almost as like it, and those that
    say the same with a word before it."""
    from difflib import SequenceMatcher, get_close_matches  # here: only an error needs it

    best = get_close_matches(name, known, n=1, cutoff=_LIKE)
    if not best:
        return []
    ratio = SequenceMatcher(None, best[0], name).ratio()
    near = get_close_matches(name, known, cutoff=max(_LIKE, ratio - _ALMOST))
    return near + [one for one in known if one.endswith(f"_{best[0]}") and one not in near]


def _whole(value: Any) -> Any:
    """Return the value with whole floats as integers, because 16 costs a model fewer tokens than 16.0."""
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def compact(value: Any) -> str:
    """Return the value as JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

"""The prompts: Markdown files that a person can edit, read when the server is built and never at import.

The file `prompts/<name>.md` is the prompt `<name>`. It begins with front matter, in this small subset of YAML:

    ---
    title: Rent the cheapest GPU
    description: One line that tells what it does.
    arguments:
      - name: gpu
        description: One line that tells what to give.
        required: true
    ---

A value is the rest of its line as it stands: no quotes, no escapes, no comments, no value over several lines. The
indentation is exactly as above. `title` and `description` must be there; `arguments` may be left out, and `required`
is `true` or, as when it is left out, `false`.

The body is what the person says to the assistant. `{gpu}` stands for an argument's value, other braces for themselves.
**A line with an argument that was not given is left out**, so an optional argument belongs on a line of its own.
Tools are written in backticks; a prompt is offered only where every tool that it names exists (in read-only mode, say,
those that name `create_order` are not). A file that breaks a rule stops the start with its name and line.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.prompts.base import Message, PromptArgument, UserMessage
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS

from clore_mcp.errors import SettingsInvalid
from clore_mcp.text import clean

log = logging.getLogger(__name__)

ARGUMENT_MAX: Final = 200  # characters of a value; the longest one needed is an image with its digest

_FILE: Final = re.compile(r"[a-z][a-z0-9-]*\.md")
_FENCE: Final = "---"
_LINE: Final = re.compile(r"(?P<indent>|  - |    )(?P<key>[a-z]+):(?: +(?P<value>\S.*?))? *")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_TOOL: Final = re.compile(r"`([a-z]+(?:_[a-z]+)+)`")
_KEYS: Final = {"": ("title", "description", "arguments"), "  - ": ("name",), "    ": ("description", "required")}
_YES_NO: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class PromptFile:
    """One file, read and checked. `tools` maps each tool to the line that names it first."""

    name: str
    path: str
    title: str
    description: str
    arguments: list[PromptArgument]
    body: str
    tools: Mapping[str, int]

    def fill(self, values: Mapping[str, object]) -> str:
        """Return the body with these values, each cleaned and clamped. Raises MCPError for one that is missing or
        unknown."""
        known = {argument.name for argument in self.arguments}
        if unknown := sorted(clean(name, 40) for name in set(values) - known):
            takes = f"takes {', '.join(sorted(known))}" if known else "takes no arguments"
            raise MCPError(INVALID_PARAMS, f"{self.name} has no argument {', '.join(unknown)}; it {takes}.")
        given = {name: clean(str(value), ARGUMENT_MAX) for name, value in values.items() if value is not None}
        missing = [argument.name for argument in self.arguments if argument.required and not given.get(argument.name)]
        if missing:
            raise MCPError(INVALID_PARAMS, f"{self.name} needs {' and '.join(missing)}.")
        lines = [
            _PLACEHOLDER.sub(lambda found: given[found[1]], line)  # in one pass: a value's own braces stay
            for line in self.body.split("\n")
            if all(given.get(name) for name in _PLACEHOLDER.findall(line))
        ]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


class FilePrompt(Prompt):
    """A prompt that a file describes."""

    async def render(self, arguments: dict[str, Any] | None, context: Any) -> list[Message]:
        """See `Prompt.render`. Our error says what is missing."""
        return [UserMessage(str(self.fn(arguments or {})))]


def offered(tools: Collection[str], *, every_tool: bool) -> list[Prompt]:
    """Return the prompts whose tools are all among `tools`. With `every_tool` no other tools exist, so a prompt that
    names another one raises SettingsInvalid."""
    found: list[Prompt] = []
    for file in read_all(folder()):
        absent = [(line, tool) for tool, line in file.tools.items() if tool not in tools]
        if not absent:
            found.append(
                FilePrompt(
                    name=file.name,
                    title=file.title,
                    description=file.description,
                    arguments=file.arguments,
                    fn=file.fill,
                    context_kwarg=None,
                )
            )
        elif every_tool:
            raise _malformed(file.path, absent[0][0], f"there is no tool `{absent[0][1]}`")
    return found


def folder() -> Traversable:
    """Return the folder of the files: inside the installed package, or at the top of a source checkout."""
    shipped = files("clore_mcp") / "_prompts"
    return shipped if shipped.is_dir() else Path(__file__).parents[1] / "prompts"


def read_all(where: Traversable) -> list[PromptFile]:
    """Return every prompt in that folder, by name. Raises SettingsInvalid with file and line."""
    if not where.is_dir():
        log.warning("No prompts: %s is not there.", where)
        return []
    sources = sorted((entry for entry in where.iterdir() if _FILE.fullmatch(entry.name)), key=lambda entry: entry.name)
    return [_read(source) for source in sources]


def parse(text: str, name: str, path: str) -> PromptFile:
    """Return the prompt that `text` describes. Raises SettingsInvalid with `path` and the line."""
    lines = text.splitlines()
    if not lines or lines[0].rstrip() != _FENCE:
        raise _malformed(path, 1, f"the file must begin with a line {_FENCE}")
    end = next((at for at, line in enumerate(lines[1:], 1) if line.rstrip() == _FENCE), None)
    if end is None:
        raise _malformed(path, len(lines), f"the front matter must end with a line {_FENCE}")
    head, arguments = _front_matter(lines[1:end], path)
    for key in ("title", "description"):
        if key not in head:
            raise _malformed(path, 1, f"{key} is missing")
    if not any(line.strip() for line in lines[end + 1 :]):
        raise _malformed(path, end + 1, "nothing follows the front matter")
    body = list(enumerate(lines[end + 1 :], end + 2))
    _check_placeholders(body, arguments, path)
    return PromptFile(
        name=name,
        path=path,
        title=head["title"],
        description=head["description"],
        arguments=arguments,
        body="\n".join(line.rstrip() for _, line in body).strip(),
        tools={tool: number for number, line in reversed(body) for tool in _TOOL.findall(line)},
    )


def _read(source: Traversable) -> PromptFile:
    try:
        text = source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _malformed(str(source), error.object[: error.start].count(b"\n") + 1, "this is not UTF-8 text") from None
    except OSError as error:
        raise SettingsInvalid(f"{source} can't be read: {error.strerror}.") from None
    return parse(text, source.name.removesuffix(".md"), str(source))


def _front_matter(lines: list[str], path: str) -> tuple[dict[str, str], list[PromptArgument]]:
    head: dict[str, str] = {}
    blocks: list[tuple[int, dict[str, str]]] = []
    for number, indent, key, value in _fields(lines, path):
        if indent and "arguments" not in head:
            raise _malformed(path, number, "an argument stands before `arguments:`")
        if indent == "  - ":
            blocks.append((number, {}))
        elif indent and not blocks:
            raise _malformed(path, number, f"{key} belongs to an argument, which begins with '  - name: …'")
        block = blocks[-1][1] if indent else head
        if key in block:
            raise _malformed(path, number, f"{key} is given twice")
        if (value == "") != (key == "arguments"):
            raise _malformed(path, number, f"{key} {'takes its entries on the lines below' if value else 'is empty'}")
        block[key] = value
    arguments: dict[str, PromptArgument] = {}
    for number, block in blocks:
        argument = _argument(block, path, number)
        if argument.name in arguments:
            raise _malformed(path, number, f"the argument {argument.name} is given twice")
        arguments[argument.name] = argument
    return head, list(arguments.values())


def _fields(lines: list[str], path: str) -> Iterator[tuple[int, str, str, str]]:
    """Yield line number, indentation, key and value of each line that is not blank."""
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line)
        if found is None or found["key"] not in _KEYS[found["indent"]]:
            raise _malformed(path, number, "this is not a line of front matter; clore_mcp/prompts.py shows the form")
        yield number, found["indent"], found["key"], found["value"] or ""


def _argument(block: Mapping[str, str], path: str, number: int) -> PromptArgument:
    if not _NAME.fullmatch(block["name"]):
        raise _malformed(path, number, "an argument's name is lower-case letters, digits and _")
    if "description" not in block:
        raise _malformed(path, number, f"the argument {block['name']} has no description")
    required = _YES_NO.get(block.get("required", "false"))
    if required is None:
        raise _malformed(path, number, f"required of the argument {block['name']} is neither true nor false")
    return PromptArgument(name=block["name"], description=block["description"], required=required)


def _check_placeholders(body: list[tuple[int, str]], arguments: list[PromptArgument], path: str) -> None:
    known = {argument.name for argument in arguments}
    used = set()
    for number, line in body:
        for name in _PLACEHOLDER.findall(line):
            if name not in known:
                raise _malformed(path, number, f"{{{name}}} is not an argument of this prompt")
            used.add(name)
    if unused := sorted(known - used):
        raise _malformed(path, 1, f"the argument {unused[0]} is not used in the text")


def _malformed(path: str, number: int, what: str) -> SettingsInvalid:
    return SettingsInvalid(f"{path}:{number}: {what}.")

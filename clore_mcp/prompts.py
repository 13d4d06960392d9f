"""The prompts: Markdown files that a person can edit, read when the server is built and never at import.

The file `prompts/<name>.md` is the prompt `<name>`. It begins with front matter in exactly this form:

    ---
    title: Rent the cheapest GPU
    description: One line that tells what it does.
    arguments:
      - name: gpu
        description: One line that tells what to give.
        required: true
    ---

A value is the rest of its line as it stands: no quotes, no escapes, no comments. `arguments` may be left out, and
`required` is `true` or, as when it is left out, `false`.

The body is what the person says to the assistant. `{gpu}` stands for an argument's value, other braces for themselves.
**A line with an argument that was not given is left out**, so an optional argument belongs on a line of its own.
Tools are written in backticks; a prompt is offered only where every tool that it names exists (in read-only mode, say,
those that name `create_order` are not). A file that breaks a rule stops the start with its name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.prompts.base import Message, PromptArgument, UserMessage
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS
from pydantic import Field

from clore_mcp.errors import SettingsInvalid
from clore_mcp.text import clean

log = logging.getLogger(__name__)

ARGUMENT_MAX: Final = 200  # characters of a value; the longest one needed is an image with its digest

_FILE: Final = re.compile(r"[a-z][a-z0-9-]*\.md")
_ARGUMENT: Final = re.compile(
    r"  - name: ([a-z][a-z0-9_]*)\n    description: (\S.*)\n(?:    required: (true|false)\n)?"
)
_FORM: Final = re.compile(
    r"---\ntitle: (?P<title>\S.*)\ndescription: (?P<description>\S.*)\n"
    rf"(?:arguments:\n(?P<arguments>(?:{_ARGUMENT.pattern})+))?"
    r"---\n(?P<body>[\s\S]*\S[\s\S]*)"
)
_PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_TOOL: Final = re.compile(r"`([a-z]+(?:_[a-z]+)+)`")


class FilePrompt(Prompt):
    """The prompt of one file: its text, and the names of the tools in it."""

    fn: Callable[..., str] = Field(default=str, exclude=True)  # the SDK asks for one, but `render` fills the body
    context_kwarg: str | None = Field(default=None, exclude=True)
    arguments: list[PromptArgument]
    body: str
    tools: frozenset[str]

    async def render(self, arguments: dict[str, Any] | None, context: Any) -> list[Message]:
        """See `Prompt.render`. Our error says what is missing."""
        return [UserMessage(self.fill(arguments or {}))]

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


def offered(tools: Collection[str], *, every_tool: bool) -> list[FilePrompt]:
    """Return the prompts whose tools are all among `tools`. With `every_tool` no other tools exist, so a prompt that
    names another one raises SettingsInvalid."""
    found = read_all(folder())
    for prompt in found:
        if every_tool and (absent := sorted(prompt.tools - set(tools))):
            raise SettingsInvalid(f"The prompt {prompt.name}.md names `{absent[0]}`, and there is no such tool.")
    return [prompt for prompt in found if prompt.tools <= set(tools)]


def folder() -> Traversable:
    """Return the folder of the files: inside the installed package, or at the top of a source checkout."""
    shipped = files("clore_mcp") / "_prompts"
    return shipped if shipped.is_dir() else Path(__file__).parents[1] / "prompts"


def read_all(where: Traversable) -> list[FilePrompt]:
    """Return every prompt in that folder, by name. Raises SettingsInvalid with the name of a file that is malformed or
    can't be read."""
    if not where.is_dir():
        log.warning("No prompts: %s is not there.", where)
        return []
    sources = sorted((entry for entry in where.iterdir() if _FILE.fullmatch(entry.name)), key=lambda entry: entry.name)
    found = []
    for source in sources:
        try:
            text = source.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsInvalid(f"The prompt {source.name} can't be read as UTF-8 text.") from error
        found.append(parse(text, source.name.removesuffix(".md")))
    return found


def parse(text: str, name: str) -> FilePrompt:
    """Return the prompt that `text` describes. Raises SettingsInvalid."""
    found = _FORM.fullmatch("\n".join(line.rstrip() for line in text.splitlines()))
    if found is None:
        raise SettingsInvalid(f"The prompt {name}.md does not have the form that clore_mcp/prompts.py shows.")
    arguments = [
        PromptArgument(name=argument, description=description, required=required == "true")
        for argument, description, required in _ARGUMENT.findall(found["arguments"] or "")
    ]
    names, used = [argument.name for argument in arguments], set(_PLACEHOLDER.findall(found["body"]))
    if sorted(names) != sorted(used):
        raise SettingsInvalid(f"The prompt {name}.md declares the arguments {names} and uses {sorted(used)}.")
    return FilePrompt(
        name=name,
        title=found["title"],
        description=found["description"],
        arguments=arguments,
        body=found["body"].strip(),
        tools=frozenset(_TOOL.findall(found["body"])),
    )

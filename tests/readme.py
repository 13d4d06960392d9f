"""The README as tests read it: its blocks, the servers that they configure, the commands and texts that it names."""

from __future__ import annotations

import ast
import base64
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

ROOT: Final = Path(__file__).parents[1]
README: Final = ROOT / "README.md"
PUBLISHED: Final = ("uvx", "clore-mcp")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text."""

    language: str
    text: str


@dataclass(frozen=True)
class Configured:
    """A server as a client is told to start it; `env` sorted."""

    name: str
    words: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()

    def command(self) -> list[str]:
        """What starts this checkout's server instead of the published one."""
        assert self.words[:2] == PUBLISHED, self.words
        return [sys.executable, "-W", "error", "-m", "clore_mcp", *self.words[2:]]


def text() -> str:
    """All of it."""
    return README.read_text(encoding="utf-8")


def blocks() -> list[Block]:
    """Every fenced block, in order."""
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", text(), re.DOTALL | re.MULTILINE)]


def prose(page: str) -> str:
    """What is read rather than copied: without blocks, comments, tags and where links lead."""
    return re.sub(r"^(```|~~~).*?^\1$|<!--.*?-->|<[^>]*>|^\[[^\]]+\]: \S+$", "", page, flags=re.DOTALL | re.MULTILINE)


def lines_for_terminals() -> list[str]:
    """The lines of the blocks that name no language."""
    return [line for block in blocks() if not block.language for line in block.text.splitlines()]


def configurations() -> list[Configured]:
    """Every server that a block or a link of the README configures."""
    found = [_of_command(line) for line in lines_for_terminals() if " mcp add " in line]
    for block in blocks():
        if block.language == "json":
            told = json.loads(block.text)
            found += _of_map(told.get("mcpServers") or told["servers"])
        elif block.language == "toml":
            found += _of_map(tomllib.loads(block.text)["mcp_servers"])
    return [*found, *(link.server for link in links())]


@dataclass(frozen=True)
class Link:
    """A one-click link: the client's page, the server that it adds, what the client asks for first."""

    page: str
    server: Configured
    inputs: Any


def links() -> list[Link]:
    """The links that add a server."""
    found = []
    for url in re.findall(r"\]\((https://[^)]+[?&]config=[^)]+)\)", text()):
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}
        config = query["config"]
        told = json.loads(config if config.startswith("{") else base64.b64decode(config, validate=True))
        (server,) = _of_map({query["name"]: told})
        found.append(Link(f"{parts.netloc}{parts.path}", server, json.loads(query.get("inputs", "null"))))
    return found


def named_commands(page: str) -> list[list[str]]:
    """The words after each `clore-mcp` that stands in backticks; ids, and figures for `…`, filled in."""
    inline = re.findall(r"`clore-mcp ?([^`]*)`", prose(page))
    return [words.replace("ORDER_ID", "4242").replace("…", "1").split() for words in dict.fromkeys(inline) if words]


def named_texts() -> list[str]:
    """What the program or a client says, by the table of what to do about it."""
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", text().split("## When something is wrong")[1], re.MULTILINE)
    return [told for row in rows for told in re.findall(r"`([^`]+)`", row)]


def texts_of_the_program() -> Iterator[str]:
    """Every text in its code; `…` stands where a value is put in."""
    for path in (ROOT / "clore_mcp").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _of_command(line: str) -> Configured:
    """`claude mcp add NAME -e A=b -- WORDS` or the same of Codex."""
    options, words = line.split(" -- ")
    _, mcp, add, name, *rest = shlex.split(options)
    assert (mcp, add) == ("mcp", "add")
    assert all(flag in ("-e", "--env") for flag in rest[::2]), line
    env = dict(value.split("=", 1) for value in rest[1::2])
    return Configured(name, tuple(shlex.split(words)), tuple(sorted(env.items())))


def _of_map(servers: dict[str, Any]) -> list[Configured]:
    return [
        Configured(name, (told["command"], *told["args"]), tuple(sorted(told.get("env", {}).items())))
        for name, told in servers.items()
    ]

"""Independent clients rent from the real server over stdio: found, priced, asked, declined, rented, listed, returned.

Each is the client that people have, in its own environment with its versions pinned, and its own way of asking. What
they did is in docs/clients.md; after a change that is meant: `CLORE_STORE_DOCS=1 python -m pytest tests/clients`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from clore_mcp.sandbox import Running
from tests.clients.driving import driven
from tests.clients.environments import node_of, place, python_of
from tests.clients.page import hold_row
from tests.clients.story import Person, go_through, protocols
from tests.conftest import environment
from tests.test_docs import ROOT
from tests.tools.test_schemas import STORED

pytestmark = pytest.mark.timeout(300)  # making an environment may take its time
PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Kind:
    """A client: its name for people, its program with arguments, the era it speaks, whether it passes questions on."""

    name: str
    program: str
    era: str
    home: str = "agents"
    can_ask: bool = True


KINDS = (
    Kind("TypeScript SDK v1", "with_sdk_v1.mjs", "2025-11-25", "node"),
    Kind("TypeScript SDK v2", "with_sdk_v2.mjs legacy", "2025-11-25", "node"),
    Kind("TypeScript SDK v2, `auto`", "with_sdk_v2.mjs auto", "2026-07-28", "node"),
    Kind("fastmcp's client", "with_fastmcp auto", "2026-07-28"),
    Kind("fastmcp's client, `legacy`", "with_fastmcp legacy", "2025-11-25"),
    Kind("pydantic-ai", "with_pydantic_ai", "2026-07-28"),
    Kind("openai-agents", "with_openai_agents", "2026-07-28", can_ask=False),
    Kind("LangChain's adapters", "with_langchain", "2025-11-25", "langchain"),
)


def started(program: str, home: Path) -> tuple[list[str], Path]:
    """The words that start a program, and where."""
    if program.endswith(".mjs"):
        return [node_of(home), program], place([PROGRAMS / "lines.mjs", PROGRAMS / program], home)
    return [python_of(home), "-m", f"tests.clients.programs.{program}"], ROOT


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_server_is_found_priced_declined_rented_listed_and_returned(
    kind: Kind, market: Running, tmp_path: Path, home_of: Callable[[str], Path],
    at_terminal: Callable[[str, str], str],
) -> None:  # fmt: skip
    program, *more = kind.program.split()
    words, where = started(program, home_of(kind.home))
    with driven([*words], more, environment(market, tmp_path), tmp_path, where) as client:
        seen = client.ready()
        assert sorted(seen["tools"]) == sorted(path.stem for path in STORED.glob("*.json"))
        person = Person(None if kind.can_ask else at_terminal, client.asked)
        go_through(client.call, person, market, tmp_path)
        client.leave()
    assert protocols(tmp_path) == {kind.era}
    how = "its own handler" if kind.can_ask else "`clore-mcp approve` in a terminal"
    hold_row(kind.name, seen["version"], kind.era, how, "declined, rented, listed, cancelled")

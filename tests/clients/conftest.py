"""What the tests of other people's clients share: their environments, and a person at a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clore_mcp.sandbox import Running, start_in_thread
from tests.clients.environments import installed, ready, usual_folder
from tests.conftest import FAST, environment
from tests.terminal import Terminal


@pytest.fixture
def market() -> Iterator[Running]:
    """A marketplace that takes any pace, lives a minute in a second, and is as large as a story needs."""
    with start_in_thread(replace(FAST, servers=600, ssh_listener=False)) as running:
        yield running


@pytest.fixture
def home_of(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """The environment of that name. CI makes it where it is missing; elsewhere the test is skipped until somebody has
    made it with the one command that the skip says."""

    def home(name: str) -> Path:
        if sys.platform == "win32":
            pytest.skip("the pinned packages are for POSIX systems")
        folder = Path(request.config.getoption("--clients-dir") or usual_folder())
        if "CI" in os.environ:
            return ready(folder, name)
        home = installed(folder, name)
        if home is None:
            pytest.skip(f"install the clients once: python -m tests.clients.environments {folder}")
        return home

    return home


@pytest.fixture
def at_terminal(market: Running, tmp_path: Path) -> Callable[[str, str], str]:
    """A person who runs `clore-mcp approve ID` or `decline ID` in a terminal; what it showed."""

    def decide(verb: str, approval: str) -> str:
        usual = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        command = [sys.executable, "-m", "clore_mcp", verb, approval]
        with Terminal(command, usual | environment(market, tmp_path)) as terminal:
            word = {"approve": "yes", "decline": "no"}[verb]
            terminal.expect(f"Type {word} to {verb}")
            terminal.type(word)
            done = terminal.end()
        assert done.code == 0, done.out
        return done.out

    return decide

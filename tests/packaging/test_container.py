"""The container image: built and started where a builder is, otherwise checked line by line and run by hand."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clore_mcp import __version__
from clore_mcp.settings import ACCEPTED, Watchdog
from release.listing import Lists, listed
from release.versions import ROOT

NAME = "clore-mcp-test"
NO_NETWORK = re.compile("lookup|dial tcp|resolve|timed? ?out|proxyconnect", re.IGNORECASE)
LISTS = Lists(
    [tool["name"] for tool in json.loads((ROOT / "release/mcpb/manifest.json").read_text("utf-8"))["tools"]],
    sorted(path.stem for path in (ROOT / "prompts").glob("*.md")),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction of the Dockerfile, with its continuations."""

    word: str
    rest: str


def stages() -> list[list[Line]]:
    """The instructions of each stage, FROM first."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: list[list[Line]] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            found.append([])
        if word:
            found[-1].append(Line(word, rest))
    return found


def all_of(stage: list[Line], word: str) -> list[str]:
    return [line.rest for line in stage if line.word == word]


def copied(stage: list[Line]) -> Iterator[tuple[str, str]]:
    """What is copied from the tree, and where to."""
    for rest in all_of(stage, "COPY"):
        if not rest.startswith("--from"):
            *sources, target = rest.split()
            yield from ((source, target) for source in sources)


def builder() -> str | None:
    """A program here that builds images, with whatever it needs running."""
    for name in ("docker", "podman"):
        found = shutil.which(name)
        if found and subprocess.run([found, "info"], capture_output=True, timeout=60).returncode == 0:
            return found
    return None


@pytest.fixture
def image() -> Iterator[list[str]]:
    """The command that runs the image, and lets go of it after."""
    program = builder()
    if program is None:
        pytest.skip("no docker or podman whose daemon answers")
    built = subprocess.run([program, "build", "-t", NAME, str(ROOT)], capture_output=True, text=True, timeout=600)
    if built.returncode != 0 and NO_NETWORK.search(built.stderr):
        pytest.skip(f"the base image can't be had here: {built.stderr[-200:]}")
    assert built.returncode == 0, built.stderr[-3000:]
    yield [program, "run", "-i", "--rm"]
    subprocess.run([program, "rmi", "-f", NAME], capture_output=True, timeout=60)


@pytest.mark.anyio
@pytest.mark.timeout(900)  # it pulls Python and all dependencies
async def test_the_image_serves_as_the_user_with_a_state_of_its_own(image: list[str]) -> None:
    assert await listed([*image, NAME], os.environ, within_seconds=120) == LISTS
    look = "id -u; stat -c '%U %a' /state; touch /state/x && echo written; clore-mcp --version"
    shown = subprocess.check_output([*image, "--entrypoint", "sh", NAME, "-c", look], text=True, timeout=120)  # noqa: ASYNC221 - nothing else runs
    assert shown.split("\n")[:4] == ["1000", "clore 700", "written", f"clore-mcp {__version__}"]


def test_what_it_copies_is_there_and_is_all_that_the_builder_is_given() -> None:
    sources = {source for stage in stages() for source, _ in copied(stage)}
    assert all((ROOT / source).exists() for source in sources)
    ignored = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert ignored[0] == "*", "a key in a file of the checkout must not get into an image"
    assert {line[1:] for line in ignored if line.startswith("!")} == sources
    assert "**/__pycache__" in ignored


def test_its_base_is_named_by_its_tag_and_new_enough() -> None:
    for stage in stages():
        base = re.fullmatch(r"python:3\.(\d+)-slim(?: AS build)?", stage[0].rest)
        assert base is not None
        assert int(base[1]) >= 11


def test_it_ends_as_a_user_without_rights_and_with_the_command() -> None:
    last = stages()[-1]
    words = [line.word for line in last]
    assert all_of(last, "USER") == ["clore"]
    assert "RUN" not in words[words.index("USER") :]
    assert any(re.search(r"\buseradd --uid 1000 .*\bclore\b", rest) for rest in all_of(last, "RUN"))
    assert json.loads(all_of(last, "ENTRYPOINT")[0]) == ["clore-mcp"]
    assert not all_of(last, "CMD"), "what a person adds is the whole of the command's words"


def test_its_state_is_a_volume_of_that_user_and_it_starts_no_watchdog() -> None:
    last = stages()[-1]
    env = dict(pair.split("=", 1) for rest in all_of(last, "ENV") for pair in shlex.split(rest))
    assert env == {"CLORE_STATE_DIR": "/state", "CLORE_WATCHDOG": Watchdog.OFF}
    assert env.keys() <= ACCEPTED.keys()
    assert all_of(last, "VOLUME") == ["/state"]
    assert any("install -d -m 700 -o clore -g clore /state" in rest for rest in all_of(last, "RUN"))


def test_its_labels_are_the_projects() -> None:
    labels = dict(pair.split("=", 1) for rest in all_of(stages()[-1], "LABEL") for pair in shlex.split(rest))
    assert labels["org.opencontainers.image.version"] == __version__
    named = json.loads((ROOT / "server.json").read_text(encoding="utf-8"))["name"]
    assert labels["io.modelcontextprotocol.server.name"] == named, "the registry looks for it on the image"


@pytest.mark.anyio
async def test_what_it_runs_makes_of_what_it_copies_a_server_that_answers(tmp_path: Path) -> None:
    """Its own pip commands, in an environment that takes only the dependencies from here."""
    build, last = stages()
    copy_into(tmp_path / "src", build)
    environment = tmp_path / "venv"
    venv.create(environment, symlinks=os.name != "nt")
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    (wheel,) = [command for command in all_of(build, "RUN") if command.startswith("pip wheel ")]
    run(wheel, tmp_path, [], {})
    (install,) = [command for command in all_of(last, "RUN") if command.startswith("pip install ")]
    # That its dependencies can be had, CI's clean environment shows.
    run(install, tmp_path, ["--python", str(scripts / "python")], {"PIP_NO_DEPS": "1"})
    places = [path for path in sys.path if path.endswith("site-packages")]
    env = {"PYTHONPATH": os.pathsep.join(places), "HOME": str(tmp_path), "CLORE_STATE_DIR": str(tmp_path / "state")}
    (entry,) = json.loads(all_of(last, "ENTRYPOINT")[0])
    assert await listed([str(scripts / entry)], env) == LISTS
    where = [str(scripts / "python"), "-c", "import clore_mcp; print(clore_mcp.__file__)"]
    shown = subprocess.check_output(where, text=True, env=env, cwd=tmp_path, timeout=60)  # noqa: ASYNC221 - nothing else runs
    assert Path(shown.strip()).is_relative_to(environment), "the server that answered is the one that was installed"


def copy_into(folder: Path, stage: list[Line]) -> None:
    """As the builder would: a folder's content, a file into a folder."""
    folder.mkdir()
    for source, target in copied(stage):
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, folder / target)


def run(command: str, home: Path, more: list[str], env: dict[str, str]) -> None:
    """One `pip …` of a RUN, with /dist and the working folder below `home`."""
    words = shlex.split(command.replace("/dist", (home / "dist").as_posix()))[1:]
    words = [str(next(Path(word).parent.glob(Path(word).name))) if "*" in word else word for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *more, *words],
        cwd=home / "src", env=os.environ | env, capture_output=True, text=True, encoding="utf-8", timeout=100,
    )  # fmt: skip
    if (
        done.returncode != 0
        and "CI" not in os.environ
        and re.search("[Cc]onnection|No matching distribution", done.stderr)
    ):
        pytest.skip("hatchling can't be had here")
    assert done.returncode == 0, done.stderr[-2000:]

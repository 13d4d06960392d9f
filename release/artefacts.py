"""Wheel and sdist: how to build them, and what must be in them."""

from __future__ import annotations

import configparser
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from release.versions import ROOT, NotReady

_DIST_INFO: Final = frozenset({"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"})
_LONGEST: Final = 300.0  # s


@dataclass(frozen=True, slots=True)
class Built:
    """The built files."""

    wheel: Path
    sdist: Path


def build(folder: Path, root: Path = ROOT) -> Built:
    """Build the sdist, and the wheel from its contents, with the installed hatchling. Raises NotReady."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=_LONGEST)
    if done.returncode != 0:
        raise NotReady(f"python -m build failed: {(done.stdout + done.stderr)[-2000:]}")
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


def in_wheel(wheel: Path) -> dict[str, bytes]:
    """Return its files by path."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def in_sdist(sdist: Path) -> dict[str, bytes]:
    """Return its files by path below its single top folder."""
    with tarfile.open(sdist) as archive:
        found = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        return {name.split("/", 1)[1]: file.read() for name, file in found.items() if file is not None}


def of_package(root: Path) -> dict[str, bytes]:
    """Return the files of a wheel of that tree, without its metadata."""
    found = {path.relative_to(root).as_posix(): path for path in (root / "clore_mcp").rglob("*.py")}
    found |= {"clore_mcp/py.typed": root / "clore_mcp" / "py.typed"}
    for folder in ("static", "templates"):  # of the person's page
        within = root / "clore_mcp" / "page" / folder
        found |= {f"clore_mcp/page/{folder}/{path.name}": path for path in within.iterdir()}
    found |= {f"clore_mcp/_prompts/{path.name}": path for path in (root / "prompts").glob("*.md")}
    return {name: path.read_bytes() for name, path in found.items()}


def faults_of_wheel(files: Mapping[str, bytes], version: str, root: Path = ROOT) -> list[str]:
    """Return what is missing, doesn't belong or differs from the tree. Empty if it is right."""
    info = f"clore_mcp-{version}.dist-info"
    wanted = of_package(root)
    names = {*wanted, *(f"{info}/{name}" for name in _DIST_INFO)}
    found = [f"lacks {name}" for name in sorted(names - files.keys())]
    found += [f"has {name}" for name in sorted(files.keys() - names)]
    found += [f"differs in {name}" for name in sorted(wanted) if files.get(name, wanted[name]) != wanted[name]]
    if _scripts(files.get(f"{info}/entry_points.txt", b"")) != _project(root)["scripts"]:
        found.append("has other commands than pyproject.toml")
    if f"\nVersion: {version}\n".encode() not in files.get(f"{info}/METADATA", b""):
        found.append(f"does not say that it is {version}")
    return found


def faults_of_sdist(files: Mapping[str, bytes], root: Path = ROOT) -> list[str]:
    """Return the same for an sdist, which also has the tests."""
    include = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["sdist"]
    allowed = {*include["include"], "pyproject.toml", "PKG-INFO", ".gitignore"}  # hatchling adds these three
    source = {name.replace("clore_mcp/_prompts/", "prompts/"): data for name, data in of_package(root).items()}
    found = [f"lacks {name}" for name in sorted(allowed) if not any(is_in(name, file) for file in files)]
    found += [f"lacks {name}" for name in sorted(source.keys() - files.keys())]
    found += [f"has {file}" for file in sorted(files) if not any(is_in(name, file) for name in allowed)]
    found += [f"has {file}" for file in sorted(files) if "__pycache__" in file]
    found += [f"differs in {name}" for name in sorted(source) if files.get(name, source[name]) != source[name]]
    return found


def is_in(place: str, file: str) -> bool:
    """Return whether a file is that place or below it."""
    return file == place or file.startswith(f"{place}/")


def _scripts(entry_points: bytes) -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read_string(entry_points.decode())
    return dict(parser["console_scripts"]) if parser.has_section("console_scripts") else {}


def _project(root: Path) -> dict[str, dict[str, str]]:
    project: dict[str, dict[str, str]] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project

"""The MCP bundle (.mcpb): a zip that a desktop client installs with one click. It runs the source with the client's
uv."""

from __future__ import annotations

import json
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from release.versions import ROOT, NotReady

HERE: Final = Path(__file__).parent / "mcpb"
_SOURCES: Final = ("clore_mcp", "prompts")
_FILES: Final = ("LICENSE", "README.md")
# Nothing that tools leave beside the source.
_SUFFIXES: Final = frozenset({".py", ".md", ".typed", ".html", ".css", ".js", ".svg"})
_OLDEST: Final = (1980, 1, 1, 0, 0, 0)  # the earliest zip time, fixed so that the same source gives the same bytes


def contents(root: Path = ROOT) -> dict[str, bytes]:
    """Return every file of the bundle by its path in it. Raises NotReady if one is missing."""
    ours = root / HERE.relative_to(ROOT)
    paths = {path.name: path for path in ours.iterdir() if path.is_file()}
    paths |= {name: root / name for name in _FILES}
    for folder in _SOURCES:
        paths |= {
            path.relative_to(root).as_posix(): path
            for path in (root / folder).rglob("*")
            if path.is_file() and path.suffix in _SUFFIXES
        }
    try:
        found = {name: path.read_bytes() for name, path in paths.items()}
    except OSError as trouble:
        raise NotReady(f"the bundle lacks a file: {trouble}") from trouble
    return found | {"pyproject.toml": _pyproject(root, json.loads(found["manifest.json"])["version"]).encode()}


def build(folder: Path, root: Path = ROOT) -> Path:
    """Write `clore-mcp-VERSION.mcpb` into that folder and return its path. The same source gives the same bytes."""
    files = contents(root)
    told = json.loads(files["manifest.json"])
    folder.mkdir(parents=True, exist_ok=True)
    bundle = folder / f"{told['name']}-{told['version']}.mcpb"
    _zip(bundle, files)
    return bundle


def _pyproject(root: Path, version: str) -> str:
    """Return what the host's uv reads. It holds only the dependencies, because the source runs in place and nothing is
    built."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [
        "[project]",
        f"name = {json.dumps(project['name'])}",
        f"version = {json.dumps(version)}",
        f"requires-python = {json.dumps(project['requires-python'])}",
        f"dependencies = {json.dumps(project['dependencies'], indent=4)}",
        "",
        "[tool.uv]",
        "package = false",
    ]
    return "\n".join(lines) + "\n"


def _zip(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _OLDEST)
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
            archive.writestr(entry, files[name], compresslevel=9)


if __name__ == "__main__":
    print(build(ROOT / "dist"))

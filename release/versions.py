"""The version: every place in the tree that states it, and how to set them all at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
VERSION: Final = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")  # accepted by PyPI, the registry and bundles


class NotReady(Exception):
    """The tree can't be released as it is. The text is for a person and names the next step."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file that states the version `times` times, each time between two texts that occur nowhere else in it."""

    path: str
    before: str
    after: str = '"'
    times: int = 1

    def pattern(self) -> re.Pattern[str]:
        """Return the pattern that finds the version, in its group `said`."""
        return re.compile(rf"(?<={re.escape(self.before)})(?P<said>[^\"\s\]]+)(?={re.escape(self.after)})")


PLACES: Final = (
    Place("clore_mcp/__init__.py", '__version__ = "'),  # pyproject.toml reads it there
    Place("server.json", '"version": "', times=2),
    Place("release/mcpb/manifest.json", '"version": "'),
    Place("Dockerfile", 'org.opencontainers.image.version="'),
)
CHANGELOG: Final = "CHANGELOG.md"
_HEAD: Final = re.compile(r"^## \[(?P<said>[^\]]+)\](?: - (?P<when>.+))?$", re.MULTILINE)


def said(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Yield each file that states a version, and that version. Raises NotReady if a file states it too rarely or too
    often."""
    for place in PLACES:
        found = [match["said"] for match in place.pattern().finditer(_text(root / place.path))]
        if len(found) != place.times:
            raise NotReady(
                f"{place.path} says its version {len(found)} times, not {place.times}: correct release.versions"
            )
        yield from ((place.path, one) for one in found)
    top = _top(_text(root / CHANGELOG))
    if top["said"] != "Unreleased":  # Keep a Changelog's word for the next version, whose number is not known yet
        yield CHANGELOG, top["said"]


def agreed(root: Path = ROOT) -> str:
    """Return the version of the tree. Raises NotReady with the version of each file unless all agree."""
    found = list(said(root))
    if len({version for _, version in found}) != 1:
        raise NotReady(
            "; ".join(f"{path} says {version}" for path, version in found) + ": run python -m release VERSION"
        )
    return found[0][1]


def put(version: str, today: date, root: Path = ROOT) -> None:
    """Write that version everywhere, and the day into the changelog. Raises NotReady before anything is written."""
    if not VERSION.fullmatch(version):
        raise NotReady(f"{version} is no version: three numbers, such as 1.2.3")
    before = next(one for path, one in said(root) if path == PLACES[0].path)
    if _numbers(version) < _numbers(before):
        raise NotReady(f"{version} comes before {before}, which is what the tree is")
    texts = {CHANGELOG: _dated(_text(root / CHANGELOG), version, today)}
    for place in PLACES:
        texts[place.path] = place.pattern().sub(version, _text(root / place.path))
    for path, text in texts.items():
        (root / path).write_text(text, encoding="utf-8", newline="\n")


def _dated(changelog: str, version: str, today: date) -> str:
    top = _top(changelog)
    if top["said"] == version and top["when"] not in (None, "Unreleased"):
        return changelog  # from an earlier try, whose day stays
    if "Unreleased" not in (top["said"], top["when"]):
        raise NotReady(f"{CHANGELOG} has nothing unreleased: write ## [Unreleased] and what changed at its top")
    rest = changelog[top.end() :]
    if not _HEAD.split(rest)[0].strip():
        raise NotReady(f"{CHANGELOG} says nothing of what changed: write it under {top[0]}")
    return f"{changelog[: top.start()]}## [{version}] - {today.isoformat()}{rest}"


def _top(changelog: str) -> re.Match[str]:
    if (found := _HEAD.search(changelog)) is None:
        raise NotReady(f"{CHANGELOG} has no heading ## [VERSION] - DATE")
    return found


def _numbers(version: str) -> tuple[int, ...]:
    if not VERSION.fullmatch(version):
        raise NotReady(f"{PLACES[0].path} says {version}, which is no version: three numbers, such as 1.2.3")
    return tuple(map(int, version.split(".")))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")

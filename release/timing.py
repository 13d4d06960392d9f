"""`python -m release.timing [SOURCE]`: time everything from `git clone` to the end of the demo, by the README's
command.

It runs twice with its own pip cache, which is empty the first time. The table goes into docs/install.md.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.table import store
from release.versions import ROOT, NotReady

DOCUMENT: Final = ROOT / "docs" / "install.md"
_LONGEST: Final = 900.0  # s per step


@dataclass(frozen=True, slots=True)
class Step:
    """One command as a person types it, and its duration."""

    command: str
    seconds: float


def commands(readme: str) -> list[str]:
    """Return the first commands of the README. Raises NotReady if it has none."""
    if (block := re.search(r"^```\w*\n(.+)$", readme, re.MULTILINE)) is None:
        raise NotReady("README.md has no command to try it with")
    return block[1].split(" && ")


def measured(source: str, folder: Path, cache: Path) -> list[Step]:
    """Clone `source` into that folder and run the README's commands there. Raises NotReady if a step fails."""
    checkout = folder / "checkout"
    env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    env["PIP_CACHE_DIR"] = str(cache)
    cloned = _run(["git", "clone", "-q", source, str(checkout)], folder, env, "git clone")
    told = commands((checkout / "README.md").read_text(encoding="utf-8"))
    return [cloned, *(_run(shlex.split(command), checkout, env, command) for command in told)]


def table(empty: Sequence[Step], filled: Sequence[Step]) -> str:
    """Return both runs side by side, with their sums, below a line with the date and the machine."""
    load = f"load {os.getloadavg()[0]:.1f}, " if hasattr(os, "getloadavg") else ""
    rows = [(f"`{one.command}`", one.seconds, two.seconds) for one, two in zip(empty, filled, strict=True)]
    rows.append(("**all of it**", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    return "\n".join(
        [
            f"Measured on {datetime.now(UTC):%Y-%m-%d} by `python -m release.timing`: {load}{os.cpu_count()} cores,"
            f" {platform.system()}, Python {platform.python_version()}; the clone from the same disk.",
            "",
            "| step | pip's cache empty | filled |",
            "| --- | --- | --- |",
            *(f"| {what} | {one:.1f} s | {two:.1f} s |" for what, one, two in rows),
        ]
    )


def _run(command: Sequence[str], where: Path, env: Mapping[str, str], shown: str) -> Step:
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=where, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LONGEST
    )
    if done.returncode != 0:
        raise NotReady(f"{shown} failed: {(done.stdout + done.stderr)[-1000:]}")
    return Step(shown, time.perf_counter() - began)


def main(source: str) -> None:
    """Measure and store the table."""
    with tempfile.TemporaryDirectory(prefix="clore-timing-") as folder:
        runs = []
        for name in ("first", "second"):
            place = Path(folder) / name
            place.mkdir()
            runs.append(measured(source, place, Path(folder) / "cache"))
    told = table(*runs)
    store(DOCUMENT, "timing", told)
    print(told)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ROOT.as_uri())

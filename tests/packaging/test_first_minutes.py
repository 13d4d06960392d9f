"""The time from `git clone` to the end of the demo: measured by what the README says, told in docs/install.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from release.timing import DOCUMENT, Step, commands, measured, table
from release.versions import ROOT, NotReady


def repository(folder: Path, readme: str) -> str:
    folder.mkdir()
    (folder / "README.md").write_text(readme, encoding="utf-8")
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all of it"]):
        subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)
    return folder.as_uri()


def test_the_table_has_the_steps_that_the_readme_says() -> None:
    block = DOCUMENT.read_text(encoding="utf-8").split("<!-- timing -->")[1].split("<!-- /timing -->")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (\d+\.\d) s \| (\d+\.\d) s \|$", block, re.MULTILINE)
    assert [row[0] for row in rows] == ["git clone", *commands((ROOT / "README.md").read_text(encoding="utf-8"))]
    sums = re.search(r"\*\*all of it\*\* \| (\d+\.\d) s \| (\d+\.\d) s", block)
    assert sums is not None
    for column in (1, 2):
        assert float(sums[column]) == pytest.approx(sum(float(row[column]) for row in rows), abs=0.3)
    assert re.search(r"Measured on \d{4}-\d\d-\d\d .*load \d", block)
    assert rows[-1][0].endswith("clore-mcp demo --yes")


def test_the_commands_run_in_the_clone_with_a_cache_of_their_own(tmp_path: Path) -> None:
    tell = "import os,pathlib; pathlib.Path('told').write_text(os.environ['PIP_CACHE_DIR'])"
    source = repository(
        tmp_path / "source", f'Try it:\n\n```\n{sys.executable} -c "{tell}" && git status\nnot this\n```\n'
    )
    place = tmp_path / "place"
    place.mkdir()
    steps = measured(source, place, tmp_path / "cache")
    assert [step.command for step in steps] == ["git clone", f'{sys.executable} -c "{tell}"', "git status"]
    assert all(step.seconds > 0 for step in steps)
    assert (place / "checkout" / "told").read_text() == str(tmp_path / "cache")


def test_a_step_that_fails_is_no_time(tmp_path: Path) -> None:
    source = repository(tmp_path / "source", "```\ngit status && git frobnicate\n```\n")
    with pytest.raises(NotReady, match="git frobnicate failed"):
        measured(source, tmp_path, tmp_path / "cache")
    with pytest.raises(NotReady, match="no command"):
        commands("# nothing to type")


def test_the_sums_are_below() -> None:
    told = table([Step("a", 1.04), Step("b", 2.0)], [Step("a", 0.5), Step("b", 0.26)]).splitlines()
    assert told[-3:] == ["| `a` | 1.0 s | 0.5 s |", "| `b` | 2.0 s | 0.3 s |", "| **all of it** | 3.0 s | 0.8 s |"]

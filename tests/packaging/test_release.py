"""A release, made of a copy of the tree: one version everywhere, artefacts that agree with it, nothing sent out."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from datetime import date
from pathlib import Path

import pytest

from clore_mcp import __version__
from release.__main__ import main
from release.artefacts import faults_of_wheel, in_wheel
from release.versions import CHANGELOG, PLACES, ROOT, NotReady, agreed, put, said

COPIED = (
    "clore_mcp", "prompts", "release", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "server.json",
    "Dockerfile", ".dockerignore", ".gitignore",
)  # fmt: skip
FOR_THE_SDIST = ("tests", "benchmarks", "examples", "docs")  # a release needs that they are there, not what they say
NEXT = f"{int(__version__.split('.')[0]) + 1}.0.0"
TODAY = date(2031, 2, 3)
TOP = re.compile(r"^## .*$", re.MULTILINE)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The part of the tree that a release is made of."""
    root = tmp_path / "tree"
    root.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    for name in FOR_THE_SDIST:
        (root / name).mkdir()
        (root / name / "one.md").write_text("", encoding="utf-8")
    return root


@pytest.fixture
def committed(tree: Path) -> Path:
    """The same in git, with nothing to commit."""
    edit(tree / CHANGELOG, tops(tree)[0], "## [Unreleased]")
    git(tree, "init", "-q")
    commit(tree)
    return tree


def git(tree: Path, *words: str) -> str:
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(tree), *who, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout


def commit(tree: Path) -> None:
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "all of it")


def tops(tree: Path) -> list[str]:
    return TOP.findall((tree / CHANGELOG).read_text(encoding="utf-8"))


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8", newline="\n")


def test_every_place_of_this_tree_says_the_same_version() -> None:
    assert agreed() == __version__
    assert {path for path, _ in said()} >= {place.path for place in PLACES}


def test_no_file_says_the_version_in_a_place_that_a_release_would_forget() -> None:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("no git checkout")
    known = {place.path for place in PLACES} | {CHANGELOG}
    ours = re.compile(rf"(?i)(?:\bversion\W{{1,6}}|clore.mcp[-@:= ]{{1,3}}v?){re.escape(__version__)}\b")
    told = [
        name
        for name in listed.stdout.splitlines()
        if name.endswith((".toml", ".json", ".md", ".py", "Dockerfile"))
        and not name.startswith(("tests/", "examples/"))
        if name not in known and (ROOT / name).is_file() and ours.search((ROOT / name).read_text(encoding="utf-8"))
    ]
    assert told == []


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.path)
def test_a_place_that_differs_is_named(tree: Path, place: object, capsys: pytest.CaptureFixture[str]) -> None:
    path = tree / place.path  # type: ignore[attr-defined]
    edit(path, f'"{__version__}"', '"9.9.9"')
    assert main(["--check"], tree) == 1
    assert f"{path.relative_to(tree).as_posix()} says 9.9.9" in capsys.readouterr().err


def test_a_changelog_that_is_behind_is_named(tree: Path) -> None:
    edit(tree / CHANGELOG, f"## [{__version__}]", "## [0.0.9]")
    with pytest.raises(NotReady, match=r"CHANGELOG\.md says 0\.0\.9"):
        agreed(tree)


def test_a_place_that_went_missing_is_named(tree: Path) -> None:
    edit(tree / "Dockerfile", "org.opencontainers.image.version=", "version=")
    with pytest.raises(NotReady, match="Dockerfile says its version 0 times"):
        agreed(tree)


@pytest.mark.parametrize("top", ["## [0.1.0] - Unreleased", "## [Unreleased]"])
def test_all_places_are_set_at_once_and_the_changelog_gets_the_day(tree: Path, top: str) -> None:
    path = tree / CHANGELOG
    edit(path, tops(tree)[0], top)
    before = path.read_text(encoding="utf-8")
    put(NEXT, TODAY, tree)
    assert agreed(tree) == NEXT
    assert [version for _, version in said(tree)] == [NEXT] * 6
    assert path.read_text(encoding="utf-8") == before.replace(top, f"## [{NEXT}] - 2031-02-03", 1)
    put(NEXT, date(2031, 2, 4), tree)  # after a build that failed
    assert tops(tree)[0] == f"## [{NEXT}] - 2031-02-03"
    assert json.loads((tree / "server.json").read_text(encoding="utf-8"))["packages"][0]["version"] == NEXT


@pytest.mark.parametrize(
    ("version", "changelog", "why"),
    [
        ("0.2", None, "three numbers"),
        ("v0.2.0", None, "three numbers"),
        ("0.2.0rc1", None, "three numbers"),
        ("0.02.0", None, "three numbers"),
        ("0.0.9", None, "comes before"),
        (NEXT, "## [0.1.0] - 2030-01-01\n\n- It works.\n", "nothing unreleased"),
        (NEXT, "## [Unreleased]\n\n## [0.1.0] - 2030-01-01\n\n- It works.\n", "nothing of what changed"),
        (NEXT, "# Changelog\n", "no heading"),
    ],
)
def test_what_is_no_release_is_refused_and_nothing_is_written(
    tree: Path, version: str, changelog: str | None, why: str
) -> None:
    if changelog is not None:
        (tree / CHANGELOG).write_text(changelog, encoding="utf-8")
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    with pytest.raises(NotReady, match=why):
        put(version, TODAY, tree)
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before


def test_a_release_is_built_checked_and_not_published(committed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (committed / "dist").mkdir()
    (committed / "dist" / "clore_mcp-0.0.1.tar.gz").write_bytes(b"of an earlier one")
    assert main([NEXT], committed) == 0
    told = capsys.readouterr().out
    dist = committed / "dist"
    names = {f"clore_mcp-{NEXT}.tar.gz", f"clore_mcp-{NEXT}-py3-none-any.whl", f"clore-mcp-{NEXT}.mcpb"}
    assert {path.name for path in dist.iterdir()} == names
    assert faults_of_wheel(in_wheel(dist / f"clore_mcp-{NEXT}-py3-none-any.whl"), NEXT, committed) == []
    with zipfile.ZipFile(dist / f"clore-mcp-{NEXT}.mcpb") as archive:
        assert json.loads(archive.read("manifest.json"))["version"] == NEXT
        assert f'version = "{NEXT}"'.encode() in archive.read("pyproject.toml")
    for name in names:
        assert f"{hashlib.sha256((dist / name).read_bytes()).hexdigest()}  dist/{name}" in told
    for following in (
        f'git commit -am "Release {NEXT}"',
        f"git tag -a v{NEXT}",
        "upload to PyPI",
        "mcp-publisher publish",
    ):
        assert following in told
    assert git(committed, "tag") == ""
    assert len(git(committed, "log", "--oneline").splitlines()) == 1
    changed = {line[3:] for line in git(committed, "status", "--porcelain").splitlines()}
    assert changed == {place.path for place in PLACES} | {CHANGELOG}


def test_a_tree_with_something_to_commit_is_not_released(committed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (committed / "clore_mcp" / "half_done.py").write_text("", encoding="utf-8")
    assert main([NEXT], committed) == 1
    assert "clore_mcp/half_done.py" in capsys.readouterr().err
    assert agreed(committed) == __version__
    assert not (committed / "dist").exists()


def test_a_tree_that_git_does_not_know_is_not_released(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tree.parent))
    assert main([NEXT], tree) == 1
    assert "git does not know" in capsys.readouterr().err
    assert agreed(tree) == __version__


def test_artefacts_that_are_wrong_are_said_and_nothing_further_is_done(
    committed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(committed / "pyproject.toml", '"prompts" = "clore_mcp/_prompts"', '"LICENSE" = "clore_mcp/LICENSE"')
    commit(committed)
    assert main([NEXT], committed) == 1
    shown = capsys.readouterr()
    assert "the wheel lacks clore_mcp/_prompts/connect.md; " in shown.err
    assert "the wheel has clore_mcp/LICENSE" in shown.err
    assert "PyPI" not in shown.out


@pytest.mark.parametrize("words", [[], [NEXT, "--check"]])
def test_neither_or_both_is_asked_again(words: list[str], tree: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words, tree)
    assert ended.value.code == 2


def test_ci_runs_the_check() -> None:
    done = subprocess.run([sys.executable, "-m", "release", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"all say {__version__}\n")
    script = ROOT / ".ci" / "run"
    if script.is_file():  # an sdist has none
        assert "python -m release --check" in script.read_text(encoding="utf-8")

"""Wheel and sdist, built here: what is in them, and that the one makes the other."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from clore_mcp import __version__
from release.artefacts import Built, build, faults_of_sdist, faults_of_wheel, in_sdist, in_wheel
from release.versions import ROOT, NotReady


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("dist"))


def test_the_wheel_has_the_package_its_prompts_and_the_license_and_nothing_else(built: Built) -> None:
    files = in_wheel(built.wheel)
    assert faults_of_wheel(files, __version__) == []
    tops = {name.split("/")[0] for name in files}
    assert tops == {"clore_mcp", f"clore_mcp-{__version__}.dist-info"}
    assert {"clore_mcp/py.typed", "clore_mcp/_prompts/connect.md"} <= files.keys()


def test_the_wheel_tells_what_it_needs_and_no_more(built: Built) -> None:
    metadata = in_wheel(built.wheel)[f"clore_mcp-{__version__}.dist-info/METADATA"].decode()
    lines = metadata.splitlines()
    told = {line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {"".join(sorted(line)) for line in told if "extra ==" not in line}
    assert needed == {"".join(sorted(line)) for line in project["dependencies"]}, "pip orders bounds as it likes"
    assert "<!-- mcp-name: io.github.clore-mcp/clore-mcp -->" in lines, (
        "the registry looks for it on the package's page"
    )


def test_the_sdist_has_the_source_and_what_tests_it(built: Built) -> None:
    files = in_sdist(built.sdist)
    assert faults_of_sdist(files) == []
    assert {"tests/packaging/test_artefacts.py", "docs/install.md", "Dockerfile", "release/mcpb/manifest.json"} <= set(
        files
    )


def test_the_sdist_makes_the_same_wheel_as_the_tree(built: Built, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (of_the_tree,) = tmp_path.glob("*.whl")
    assert of_the_tree.read_bytes() == built.wheel.read_bytes(), "the sdist's is made of what the sdist has"


def test_what_does_not_belong_or_is_missing_is_found(built: Built) -> None:
    files = in_wheel(built.wheel)
    metadata = f"clore_mcp-{__version__}.dist-info/METADATA"
    del files["clore_mcp/py.typed"]
    files["tests/test_money.py"] = b""
    files["clore_mcp/money.py"] = b"# another"
    files[f"clore_mcp-{__version__}.dist-info/entry_points.txt"] = b"[console_scripts]\nclore = clore_mcp:main\n"
    files[metadata] = files[metadata].replace(f"\nVersion: {__version__}\n".encode(), b"\nVersion: 0.0.1\n")
    assert faults_of_wheel(files, __version__) == [
        "lacks clore_mcp/py.typed",
        "has tests/test_money.py",
        "differs in clore_mcp/money.py",
        "has other commands than pyproject.toml",
        f"does not say that it is {__version__}",
    ]
    source = in_sdist(built.sdist)
    del source["Dockerfile"], source["prompts/connect.md"]
    source |= {".env": b"", "tests/__pycache__/a.pyc": b"", "clore_mcp/errors.py": b"# another"}
    assert faults_of_sdist(source) == [
        "lacks Dockerfile",
        "lacks prompts/connect.md",
        "has .env",
        "has tests/__pycache__/a.pyc",
        "differs in clore_mcp/errors.py",
    ]


def test_a_tree_that_cannot_be_built_is_refused_with_the_builders_words(tmp_path: Path, built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # 3.11.2, as Debian 12 has it, knows none
        archive.extractall(tmp_path)
    (tree,) = tmp_path.iterdir()
    (tree / "README.md").unlink()
    with pytest.raises(NotReady, match="README"):
        build(tmp_path / "dist", tree)

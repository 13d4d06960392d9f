"""`python -m release VERSION`: set one version everywhere, build, check, and print the next steps. It publishes
nothing."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from release import artefacts, bundle
from release.versions import ROOT, NotReady, agreed, put


def main(words: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Make the release, or check that all versions agree. Returns 1 if it is not ready."""
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument("version", nargs="?", metavar="VERSION", help="three numbers, such as 1.2.3")
    parser.add_argument("--check", action="store_true", help="only whether every place says the same version")
    wanted = parser.parse_args(words)
    if wanted.check == (wanted.version is not None):
        parser.error("either VERSION or --check")
    try:
        if wanted.check:
            print(f"all say {agreed(root)}")
        else:
            _make(wanted.version, root)
    except NotReady as reason:
        print(f"release: {reason}", file=sys.stderr)
        return 1
    return 0


def _make(version: str, root: Path) -> None:
    _refuse_changes(root)
    put(version, datetime.now(UTC).date(), root)
    agreed(root)
    dist = root / "dist"
    shutil.rmtree(dist, ignore_errors=True)  # so that an upload of dist/* finds no older files
    built = artefacts.build(dist, root)
    found = [
        f"the wheel {fault}" for fault in artefacts.faults_of_wheel(artefacts.in_wheel(built.wheel), version, root)
    ]
    found += [f"the sdist {fault}" for fault in artefacts.faults_of_sdist(artefacts.in_sdist(built.sdist), root)]
    if found:
        raise NotReady("; ".join(found))
    packed = bundle.build(dist, root)
    for path in (built.sdist, built.wheel, packed):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root).as_posix()}")
    print(_next(version))


def _refuse_changes(root: Path) -> None:
    """Raise NotReady if there are uncommitted changes, because the tag must name what is built."""
    git = ["git", "-C", str(root), "status", "--porcelain"]
    done = subprocess.run(git, capture_output=True, text=True, encoding="utf-8", errors="replace")
    if done.returncode != 0:
        raise NotReady(f"git does not know {root}: {done.stderr.strip()}")
    if done.stdout:
        raise NotReady(f"commit or put away first:\n{done.stdout.rstrip()}")


def _next(version: str) -> str:
    return f"""
Built and checked. To publish it, in this order:

git commit -am "Release {version}"
git tag -a v{version} -m "clore-mcp {version}"
git push --follow-tags
mcp-publisher login github && mcp-publisher publish
docker build -t clore-mcp:{version} .

The tag makes .github/workflows/release.yml upload to PyPI, once a person lets it pass.
The bundle, dist/clore-mcp-{version}.mcpb, goes to the release page. To give up instead: git checkout -- ."""


if __name__ == "__main__":
    sys.exit(main())

"""No order outlives its lease by more than two polls, none ends early, and none is cancelled twice, whatever breaks."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.scenes import SCENES, play
from tests.conftest import processes_that_know
from tests.terminal import PATIENCE


@pytest.mark.skipif(sys.platform == "win32", reason="Windows stops no process, and os.kill(pid, 0) ends one there")
@pytest.mark.timeout(600)
def test_every_order_ends_within_two_polls_of_its_lease_and_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(len(SCENES)) as pool:
        outcomes = list(pool.map(lambda scene: play(scene, tmp_path / scene.__name__), SCENES))
    print(*outcomes, sep="\n")  # noqa: T201 - what pytest shows with a failure
    assert [one for one in outcomes if one.polls > one.excused + 2] == []
    assert [one for one in outcomes if one.after] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows what a process knows")
def test_a_process_that_a_test_leaves_is_found(tmp_path: Path) -> None:
    """What tests/conftest.py holds at the end of all tests could fail."""
    env = {"CLORE_STATE_DIR": str(tmp_path / "state")}
    with subprocess.Popen([sys.executable, "-c", "input()"], env=env, stdin=subprocess.PIPE) as process:
        [found] = processes_that_know(tmp_path)
        assert "input()" in found
        assert processes_that_know(tmp_path.with_name(tmp_path.name[:-1])) == [], "a longer name is another folder's"
        process.communicate(b"\n", PATIENCE)
    assert processes_that_know(tmp_path) == []

"""What tests of the running server share: a simulated marketplace on a real socket, and settings that point at it."""

from __future__ import annotations

import gc
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from clore_mcp.sandbox import SANDBOX_KEY, Options, Running, start_in_thread
from clore_mcp.settings import Settings
from clore_mcp.watchdog_process import LOG_NAME
from tests import preforked

# A property test fails only for what it finds, never for a busy machine's delays. CI tries the same examples each time.
settings.register_profile(
    "any machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
    database=None,
)
settings.load_profile("any machine")

_TESTS = Path(__file__).parent
FAST = Options(rate_limit="off", speed=60.0, servers=300)


# Tests that take minutes and that few changes need. `pytest` without a path skips them. CI and `pytest tests` run them.
_LONG = (
    "tests/test_benchmarks.py",
    "tests/cli/test_cancel.py",
    "tests/cli/test_demo.py",
    "tests/cli/test_ends.py",
    "tests/cli/test_flood.py",
    "tests/cli/test_key_file_network.py",
    "tests/cli/test_listed_again.py",
    "tests/cli/test_network.py",
    "tests/cli/test_odd_rows.py",
    "tests/cli/test_pauses.py",
    "tests/cli/test_stop.py",
    "tests/cli/test_watchdog",
    "tests/clients/",
    "tests/clore/test_floods.py",
    "tests/clore/test_shared_pacer.py",
    "tests/guard/test_clocks.py",
    "tests/guard/test_every_point.py",
    "tests/guard/test_extends_killed.py",
    "tests/guard/test_kills.py",
    "tests/guard/test_lease_ends_held_up.py",
    "tests/guard/test_old_states.py",
    "tests/guard/test_pauses.py",
    "tests/guard/test_raises_elsewhere.py",
    "tests/guard/test_raises_killed.py",
    "tests/guard/test_replacements",
    "tests/guard/test_watch_paths.py",
    "tests/guard/test_watches_killed.py",
    "tests/hostile/",
    "tests/machine/",
    "tests/packaging/",
    "tests/page/test_browser.py",
    "tests/speed/",
    "tests/start/test_cost.py",
    "tests/start/test_pipes.py",
    "tests/story/test_account.py",
    "tests/story/test_client_capabilities.py",
    "tests/story/test_coins.py",
    "tests/story/test_comments.py",
    "tests/story/test_declines.py",
    "tests/story/test_ends.py",
    "tests/story/test_images.py",
    "tests/story/test_many_assistants.py",
    "tests/story/test_replacement.py",
    "tests/story/test_unready.py",
    "tests/story/test_updates.py",
    "tests/story/test_watches.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--clients-dir", help="where other people's clients are installed (default: the user's cache)")
    parser.addoption("--everything", action="store_true", help="what takes minutes too, as CI and a named path do")


def pytest_configure(config: pytest.Config) -> None:
    if "CI" in os.environ or config.args_source is config.ArgsSource.ARGS:
        config.option.everything = True  # xdist passes the options on to its processes


def pytest_sessionstart(session: pytest.Session) -> None:
    """On a fresh clone, compile the tests once before several processes run them. Each would need 8 s of CPU for it."""
    config = session.config
    if not config.option.numprocesses or hasattr(config, "workerinput") or sys.dont_write_bytecode:
        return
    if not any(_TESTS.rglob(f"test_*.{sys.implementation.cache_tag}-pytest-{pytest.__version__}.pyc")):
        named = config.args if config.args_source is config.ArgsSource.ARGS else []
        everything = ["--everything"] if config.option.everything else []
        command = [sys.executable, "-m", "pytest", "--collect-only", "-n", "0", *everything, *named]
        subprocess.run(command, capture_output=True, cwd=config.invocation_params.dir)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the long tests unless all are wanted, without importing their files."""
    name = collection_path.relative_to(_TESTS.parent).as_posix() + ("/" if collection_path.is_dir() else "")
    return True if name.startswith(_LONG) and not config.option.everything else None


# The longest come first. Those that mostly wait alternate with those that mostly compute, so that no core is idle.
_WAITING = (
    "tests/machine/test_machine.py",
    "tests/cli/test_ends.py",
    "tests/machine/",
    "tests/guard/test_kills.py",
    "tests/clients/",
)
_COMPUTING = (
    "tests/guard/test_every_point.py",
    "tests/test_benchmarks.py",
    "tests/story/",
    "tests/cli/",
    "tests/packaging/",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort the tests so that no parallel process ends with a long test of its own, and no core waits for another."""

    def of(prefix: str) -> list[pytest.Item]:
        found = [item for item in items if item.nodeid.startswith(prefix)]
        items[:] = [item for item in items if not item.nodeid.startswith(prefix)]
        return found

    waiting, computing = ([item for prefix in kind for item in of(prefix)] for kind in (_WAITING, _COMPUTING))
    pairs = itertools.zip_longest(waiting, computing)
    items[:0] = [item for pair in pairs for item in pair if item is not None]


def pytest_collection_finish() -> None:
    """Freeze everything imported so far, so that the garbage collector doesn't visit it again in every test."""
    gc.collect()
    gc.freeze()


def processes_that_know(folder: Path) -> list[str]:
    """Return the command lines of other processes with that folder in their environment, together with the test's own
    folder. All processes that a test starts have it, and all that those start. Only Linux shows them."""
    found, name = [], re.compile(re.escape(os.fsencode(folder)) + rb"[/:\0][^\0]*")
    for process in Path("/proc").glob("[0-9]*") if sys.platform == "linux" else ():
        try:
            if process.name != str(os.getpid()) and (where := name.search((process / "environ").read_bytes())):
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ") + where[0]
                found.append(line.decode(errors="replace"))
        except OSError:
            continue  # another user's, or already gone
    return found


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Require that every process started by a test has ended by itself within a minute after all tests."""
    yield
    give_up_at = time.monotonic() + 60
    while left := processes_that_know(tmp_path_factory.getbasetemp()):
        assert time.monotonic() < give_up_at, left
        time.sleep(0.1)
    assert preforked.end() == []


@pytest.fixture(autouse=True)
def no_watchdog_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Delete the state after the test, which ends the watchdogs of its servers. They outlive the servers otherwise."""
    folder: Path | None = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    for log in list(folder.rglob(LOG_NAME)) if folder is not None else ():
        delete_state(log.parent)


def delete_state(folder: Path) -> None:
    """Remove a state folder to which processes still write. What they write meanwhile is removed by the next try."""
    until = time.monotonic() + 30
    while folder.exists():
        assert time.monotonic() < until, f"somebody keeps making {folder} anew"
        shutil.rmtree(folder, ignore_errors=True)


def watchdogs_started(state: Path) -> list[int]:
    """Return the process ids of the watchdogs that servers have started for the state in that folder."""
    log = state / LOG_NAME
    return [int(found) for found in re.findall(r"as process (\d+)", log.read_text("utf-8"))] if log.exists() else []


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def market() -> Iterator[Running]:
    """Yield a marketplace that accepts any pace and lives a minute in a second."""
    with start_in_thread(FAST) as running:
        yield running


def environment(running: Running, folder: Path, **more: str) -> dict[str, str]:
    """Return a server process's environment for using that marketplace and leaving the machine alone."""
    return {
        "CLORE_API_URL": running.url,
        "CLORE_API_KEY": SANDBOX_KEY,
        "CLORE_REQUEST_GAP_SECONDS": "0.01",
        "CLORE_STATE_DIR": str(folder / "state"),
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "PYTHONUTF8": "1",
        **more,
    }


def settings_for(env: Mapping[str, str], folder: Path) -> Settings:
    """Return the settings that a process with that environment would read."""
    ours = {name: value for name, value in env.items() if name.startswith("CLORE_")}
    return Settings.from_env(ours, home=folder, config_dir=folder / "config", state_dir_default=folder / "state")

"""What every benchmark receives, and the arithmetic that they share."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

from benchmarks.peers import Peers
from clore_mcp.sandbox import SANDBOX_KEY

PROGRAMS: Final = Path(__file__).parent / "programs"
SERVER: Final = (sys.executable, "-m", "clore_mcp")
# The folders that hold a user's own files, on Linux and macOS, then on Windows.
_HOMES: Final = (
    "HOME",
    "XDG_CONFIG_HOME",
    "USERPROFILE",
    "APPDATA",
    "LOCALAPPDATA",
    "WIN_PD_OVERRIDE_APPDATA",
    "WIN_PD_OVERRIDE_LOCAL_APPDATA",
)
_numbers = count(1)

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Bench:
    """One run. `quick`: check in about a minute that everything still works."""

    quick: bool
    peers: Peers
    folder: Path

    def fresh(self, name: str) -> Path:
        """Return a new folder for one part of the run."""
        path = self.folder / f"{name}-{next(_numbers)}"
        path.mkdir()
        return path


def environment(folder: Path, api_url: str = "", **more: str) -> dict[str, str]:
    """Return the environment of one of our processes: that marketplace, that state, nothing of the user's."""
    kept = ("PATH", "SYSTEMROOT", "PYTHONPATH")
    ours = dict.fromkeys(_HOMES, str(folder)) | {"CLORE_STATE_DIR": str(folder / "state")}
    if api_url:
        ours |= {"CLORE_API_URL": api_url, "CLORE_API_KEY": SANDBOX_KEY}
    return {name: os.environ[name] for name in kept if name in os.environ} | ours | {"PYTHONUTF8": "1"} | more


def program(name: str, python: Path | str = sys.executable) -> list[str]:
    """Return the command line of one of the programs."""
    return [str(python), str(PROGRAMS / f"{name}.py")]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of values measured side by side, so that a slow moment affects both of a pair."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def milliseconds(seconds: Sequence[float]) -> str:
    """Return the median as text."""
    value = statistics.median(seconds) * 1e3
    return f"{value:.0f} ms" if value >= 20 else f"{value:.2f} ms"


def megabytes(sizes: Sequence[float]) -> str:
    """Return the median of sizes in bytes as text."""
    return f"{statistics.median(sizes) / 1e6:.0f} MB"


def jain(shares: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 if all have the same, 1/n if one has everything."""
    total = sum(shares)
    return total**2 / (len(shares) * sum(one**2 for one in shares)) if total else 0.0


def resident_bytes(pid: int) -> int | None:
    """Return the memory that a process holds now in bytes, or None on Windows, which has no `ps`."""
    if sys.platform == "win32":
        return None
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], check=True, capture_output=True, text=True)
    return int(shown.stdout) * 1024


def processor_seconds(pid: int) -> float | None:
    """Return the processor time that a process has used, to a hundredth of a second, or None without /proc."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return None
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def less(now: Number | None, before: Number | None) -> Number | None:
    """Return the difference, or None if either value is unknown."""
    return None if now is None or before is None else now - before


@contextmanager
def started(command: Sequence[str], env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a child process with its pipes, its stderr discarded. It is killed at the end."""
    child = subprocess.Popen(
        command, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()
